"""CTR-GCN backbone, pooling heads and Koopman numerics (no files)."""
