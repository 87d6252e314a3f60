"""Sequences of different lengths, end to end in one array, coordinates first."""

from collections.abc import Sequence

import numpy as np


class Clips:
    """Ragged sequences laid out so that frames of many of them are gathered at once.

    Args:
        sequences: arrays (T_i, V, 3), T_i >= 1.
        dtype: of the array kept.

    Attributes:
        lengths: T_i, int64 (n,).
        num_point: joints V.
    """

    def __init__(self, sequences: Sequence[np.ndarray], dtype: np.dtype) -> None:
        self.lengths = np.array([len(frames) for frames in sequences], dtype=np.int64)
        self.num_point = sequences[0].shape[1]
        self._starts = np.cumsum(self.lengths) - self.lengths
        frames = np.concatenate(sequences).astype(dtype)
        self._axes = np.ascontiguousarray(frames.transpose(2, 0, 1))

    def points(self, row: int) -> np.ndarray:
        """Return all joints of all frames of one sequence as columns, a view (3, T * V)."""
        start = self._starts[row]
        return self._axes[:, start : start + self.lengths[row]].reshape(3, -1)

    def gather(self, rows: np.ndarray, frames: np.ndarray, out: np.ndarray) -> None:
        """Put frames ``frames`` (N, T) of sequences ``rows`` (N,) into ``out`` (N, 3, T, V).

        A frame number counts from its sequence's first frame; it is not checked.
        """
        positions = frames + self._starts[rows, None]
        for axis, coordinates in enumerate(self._axes):
            out[:, axis] = coordinates[positions]


def turns(tilt: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """Return R_x(tilt) @ R_y(yaw), (N, 3, 3): first about the vertical, then forward or back."""
    cos_a, sin_a, cos_b, sin_b = np.cos(tilt), np.sin(tilt), np.cos(yaw), np.sin(yaw)
    matrices = np.empty((len(tilt), 3, 3))
    matrices[:, 0] = np.stack([cos_b, np.zeros_like(cos_b), sin_b], axis=1)
    matrices[:, 1] = np.stack([sin_a * sin_b, cos_a, -sin_a * cos_b], axis=1)
    matrices[:, 2] = np.stack([-cos_a * sin_b, sin_a, cos_a * cos_b], axis=1)
    return matrices
