"""Facts, preprocessing and storage of skeleton data (no torch)."""
