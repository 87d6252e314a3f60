"""Datasets: from stored skeletons to (C, T, V, M) float32 samples."""
