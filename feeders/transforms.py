"""Choosing frames and moving bodies: NumPy functions that take their random numbers as arguments.

Sequences are (T, A, V, C) (frames, actors, joints, coordinates); batches (N, C, T, V, M).
Random numbers u are uniform in [0, 1).
"""

from functools import lru_cache

import numpy as np

MIN_CROP = 64  # frames a random crop keeps at least, as published
MAX_ANGLE = 0.3  # radians about each axis
_MOVE_ANGLES = np.deg2rad([-10.0, -5.0, 0.0, 5.0, 10.0])
_MOVE_SCALES = np.array([0.9, 1.0, 1.1])
_MOVE_SHIFTS = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])
MOVE_NUMBERS = 8  # random numbers ``random_move`` takes


def count_valid(sequence: np.ndarray) -> int:
    """The number of frames (not the last one) whose coordinates do not add up to zero.

    As published: a gap shortens what is used at the end, and coordinates that cancel count as
    missing. The order of the float32 additions is coordinates, actors, joints.
    """
    per_joint = sequence[..., 0] + sequence[..., 1] + sequence[..., 2]
    per_frame = per_joint[:, 0] if per_joint.shape[1] == 1 else per_joint[:, 0] + per_joint[:, 1]
    return int(np.count_nonzero(np.ascontiguousarray(per_frame).sum(axis=1)))


def centre_crop(valid: int, share: float) -> tuple[int, int]:
    """Start and length of the middle ``share`` of ``valid`` frames."""
    start = int((1 - share) * valid / 2)
    return start, valid - 2 * start


def random_crop(valid: int, shares: tuple[float, float], u: np.ndarray) -> tuple[int, int]:
    """Start and length of a crop with a random share of the frames; ``u`` is (2,).

    The share is uniform between the two, the length at least ``MIN_CROP`` where there are as
    many frames, the start uniform on what fits.
    """
    share = shares[0] + (shares[1] - shares[0]) * u[0]
    length = min(max(int(valid * share), MIN_CROP), valid)
    return int(u[1] * (valid - length + 1)), length


def resize(sequence: np.ndarray, window: int) -> np.ndarray:
    """Stretch or squeeze (T, ...) to ``window`` frames, linearly.

    Half-pixel centres, clamped at both ends, no anti-aliasing: frame i of the result lies at
    (i + 1/2) T / window - 1/2.
    """
    before, after, weight_before, weight_after = _resize_table(len(sequence), window)
    flat = sequence.reshape(len(sequence), -1)
    resized = flat[before] * weight_before + flat[after] * weight_after
    return resized.reshape(window, *sequence.shape[1:])


@lru_cache(maxsize=1024)
def _resize_table(length: int, window: int) -> tuple[np.ndarray, ...]:
    """The two frames each frame of the result lies between, and their weights (window, 1)."""
    position = np.maximum((np.arange(window) + 0.5) * (length / window) - 0.5, 0)
    before = np.minimum(position.astype(np.int64), length - 1)
    after = np.minimum(before + 1, length - 1)
    weight = (position - before).astype(np.float32)[:, None]
    return before, after, 1 - weight, weight


def place(sequence: np.ndarray, window: int, u: np.ndarray, *, choose: bool) -> np.ndarray:
    """Keep the frame rate: put (T, ...) somewhere in ``window`` frames, zero elsewhere.

    A shorter sequence goes to a random place. Of a longer one a random stretch is taken if
    ``choose``, else the middle. ``u`` is (1,).
    """
    length = len(sequence)
    if length >= window:
        start = int(u[0] * (length - window + 1)) if choose else (length - window) // 2
        return sequence[start : start + window]
    placed = np.zeros((window, *sequence.shape[1:]), dtype=sequence.dtype)
    start = int(u[0] * (window - length + 1))
    placed[start : start + length] = sequence
    return placed


def rotations(u: np.ndarray) -> np.ndarray:
    """R_z(c) R_y(b) R_x(a) with angles uniform in [-0.3, 0.3]; u (N, 3) to float32 (N, 3, 3)."""
    angles = (2 * u - 1) * MAX_ANGLE
    (ca, cb, cc), (sa, sb, sc) = np.cos(angles).T, np.sin(angles).T
    turns = np.empty((len(u), 3, 3), dtype=np.float32)
    turns[:, 0] = np.stack([cb * cc, sa * sb * cc - ca * sc, ca * sb * cc + sa * sc], axis=1)
    turns[:, 1] = np.stack([cb * sc, sa * sb * sc + ca * cc, ca * sb * sc - sa * cc], axis=1)
    turns[:, 2] = np.stack([-sb, sa * cb, ca * cb], axis=1)
    return turns


def rotate(x: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Turn each sample of x (N, 3, T, V, M) by its matrix (N, 3, 3)."""
    return np.matmul(turns, x.reshape(len(x), 3, -1)).reshape(x.shape)


def random_move(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Turn, scale and shift x (N, 3, T, V, M) in the image plane, changing linearly with time.

    Angle, scale and shift at the first and last frame are drawn from the published lists; zero
    (absent) actors are moved like the others. ``u`` is (N, ``MOVE_NUMBERS``).
    """
    frames = x.shape[2]
    angle = _ramp(_MOVE_ANGLES, u[:, 0:2], frames)
    scale = _ramp(_MOVE_SCALES, u[:, 2:4], frames)
    cos, sin = (
        (scale * np.cos(angle)).astype(np.float32),
        (scale * np.sin(angle)).astype(np.float32),
    )
    shift_x, shift_y = (_ramp(_MOVE_SHIFTS, u[:, i : i + 2], frames) for i in (4, 6))
    moved = x.copy()
    moved[:, 0] = cos * x[:, 0] - sin * x[:, 1] + shift_x.astype(np.float32)
    moved[:, 1] = sin * x[:, 0] + cos * x[:, 1] + shift_y.astype(np.float32)
    return moved


def _ramp(candidates: np.ndarray, u: np.ndarray, frames: int) -> np.ndarray:
    """From one drawn candidate to another, (N, frames, 1, 1); u is (N, 2)."""
    ends = candidates[(u * len(candidates)).astype(np.int64)]
    time = np.linspace(0, 1, frames)
    return (ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * time)[:, :, None, None]
