"""Sequences of different lengths, end to end in one array, coordinates first."""

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from scipy.spatial import ConvexHull, QhullError


class Clips:
    """Ragged sequences laid out so that frames of many of them are gathered at once.

    Args:
        sequences: arrays (T_i, V, 3), T_i >= 1.
        dtype: of the array kept.

    Attributes:
        lengths: T_i, int64 (n,).
    """

    def __init__(self, sequences: Sequence[np.ndarray], dtype: np.dtype) -> None:
        self.lengths = np.array([len(frames) for frames in sequences], dtype=np.int64)
        self._starts = np.cumsum(self.lengths) - self.lengths
        frames = np.concatenate(sequences).astype(dtype)
        self._axes = np.ascontiguousarray(frames.transpose(2, 0, 1))

    def gather(self, rows: np.ndarray, frames: np.ndarray, out: np.ndarray) -> None:
        """Put frames ``frames`` (N, T) of sequences ``rows`` (N,) into ``out`` (N, 3, T, V).

        A frame number counts from its sequence's first frame; it is not checked.
        """
        positions = frames + self._starts[rows, None]
        for axis, coordinates in enumerate(self._axes):
            out[:, axis] = coordinates.take(positions, axis=0)


def turns(tilt: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """Return R_x(tilt) @ R_y(yaw), (N, 3, 3): first about the vertical, then forward or back."""
    cos_a, sin_a, cos_b, sin_b = np.cos(tilt), np.sin(tilt), np.cos(yaw), np.sin(yaw)
    matrices = np.zeros((len(tilt), 3, 3))
    matrices[:, 0, 0], matrices[:, 0, 2] = cos_b, sin_b
    matrices[:, 1, 0], matrices[:, 1, 1], matrices[:, 1, 2] = sin_a * sin_b, cos_a, -sin_a * cos_b
    matrices[:, 2, 0], matrices[:, 2, 1], matrices[:, 2, 2] = -cos_a * sin_b, sin_a, cos_a * cos_b
    return matrices


def corners(sequences: Sequence[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """Return corners of the convex hull of each sequence (T_i, V, 3), (n, 3, K).

    Any linear map takes the extremes of all points to those of the hull's corners, of which there
    are a fifteenth as many (NW-UCLA). K is the largest number of them; where there are fewer, one
    is repeated.
    """
    hulls = [_hull(frames.reshape(-1, 3).astype(dtype)).T for frames in sequences]
    most = max(hull.shape[1] for hull in hulls)
    pads = [((0, 0), (0, most - hull.shape[1])) for hull in hulls]
    return np.stack([np.pad(hull, pad, "edge") for hull, pad in zip(hulls, pads, strict=True)])


def _hull(points: np.ndarray) -> np.ndarray:
    """Return the corners of the convex hull of points (P, 3), (K, 3), or all points if in doubt."""
    varying = points[:, np.ptp(points, axis=0) > 0]
    if varying.shape[1] > 1:
        with suppress(QhullError):  # flat, along no axis; or fewer points than a hull has corners
            return points[ConvexHull(varying).vertices]
    return points
