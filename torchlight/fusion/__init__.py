"""Score files read and fused: the wing behind ``ensemble.py``."""
