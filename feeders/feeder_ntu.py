"""NTU RGB+D sequences as tensors (C, T, V, M): three coordinates, 64 frames, 25 joints, 2 persons.

The same samples come out whether ``data_path`` is our store or a published ``.npz``. The random
numbers of training depend on (seed, epoch, index) alone.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.skeletons import NTU, bone_parents
from feeders.base import BatchFeeder, at_least_one
from feeders.randomness import sample_uniforms
from feeders.sequences import PERSONS, Sequences, open_sequences
from feeders.streams import bones, motion, stream_name
from feeders.transforms import (
    MOVE_NUMBERS,
    centre_crop,
    count_valid,
    place,
    random_crop,
    random_move,
    resize,
    rotate,
    rotations,
)

DEBUG_SAMPLES = 100

# Which of a sample's random numbers is for what. Their order is part of what a seed means.
_TIME, _TURN, _MOVE = slice(0, 2), slice(2, 5), slice(5, 5 + MOVE_NUMBERS)
_NUMBERS = 5 + MOVE_NUMBERS


class Feeder(BatchFeeder):
    """One split of NTU RGB+D 60 or 120.

    A sample passes, in this order: choice of frames, ``random_move``, ``normalization``,
    ``random_rot``, ``bone``, ``vel``.

    Args:
        data_path: a store (``NTU60.h5``, ``NTU120.h5``) or a published ``.npz``.
        split: "train" or "test"; of the one-shot benchmark also "exemplar".
        benchmark: "xsub", "xview", "xset" or "oneshot"; needed for a store, which holds several.
        p_interval: share of the frames that is kept: one number for a crop in the middle, two for
            a random crop with a share between them.
        window_size: frames T of the result; -1 for the longest sequence's.
        random_choose: keep the frame rate and choose ``window_size`` successive frames at random,
            instead of cropping and resizing; ``p_interval`` is then of no account.
        random_shift: keep the frame rate likewise, and put sequences shorter than the window at a
            random place in it, zeros before and after.
        random_move: turn, scale and shift the bodies in the image plane, changing over time.
        random_rot: turn each sample about the three axes by up to 0.3 radians.
        normalization: subtract the mean and divide by the standard deviation of each coordinate
            of each joint over the training split (padding included, as published).
        debug: only the first 100 samples.
        use_mmap: read samples through a memory map, which all processes share; False reads the
            whole file into the memory of each process.
        bone: each joint relative to its partner. vel: differences between successive frames.
        repeat: how often each sample is seen in an epoch.
        seed: of all random numbers.

    Attributes:
        sample_names: from the store; of an ``.npz``, which has none, "train_0", "train_1", ...
        labels: int64 (n,). subjects: int64 (n,), -1 where not known (``.npz``).

    Raises:
        DataError: an argument has an impossible value; the file is missing (the message says how
            to make it), damaged, or of another kind.
    """

    def __init__(
        self,
        *,
        data_path: str | os.PathLike[str],
        split: str = "train",
        benchmark: str | None = None,
        p_interval: float | Sequence[float] = (1.0,),
        window_size: int = 64,
        random_choose: bool = False,
        random_shift: bool = False,
        random_move: bool = False,
        random_rot: bool = False,
        normalization: bool = False,
        debug: bool = False,
        use_mmap: bool = True,
        bone: bool = False,
        vel: bool = False,
        repeat: int = 1,
        seed: int = 0,
    ) -> None:
        self._shares = _checked_shares(p_interval)
        if window_size != -1:
            at_least_one("window_size", window_size)
        path = Path(data_path)
        self._source = open_sequences(path, benchmark, split, in_memory=not use_mmap)
        self.window_size = self._source.max_frames if window_size == -1 else window_size
        self._keep_rate = random_choose or random_shift or window_size == -1
        self._choose, self._shift = random_choose, random_shift
        self._move, self._rot = random_move, random_rot
        self._bone, self._vel = bone, vel
        self._random = random_rot or random_move or random_choose or random_shift
        self._random = self._random or len(self._shares) == 2
        self._statistics: tuple[np.ndarray, np.ndarray] | None = None
        if normalization:
            training = (
                self._source
                if split == "train"
                else open_sequences(path, benchmark, "train", in_memory=False)
            )
            self._statistics = training_statistics(training)
        count = DEBUG_SAMPLES if debug else None
        super().__init__(
            sample_names=self._source.names[:count],
            labels=self._source.labels[:count],
            subjects=self._source.subjects[:count],
            repeat=repeat,
            seed=seed,
        )
        self.describe("streams", [stream_name(bone, vel)], bone=bone, vel=vel)
        self.describe("skeleton", "ntu")
        self.describe("window", self.window_size, window_size=window_size)
        steps = ["standardise"] if normalization else []
        self.describe("preprocessing", steps, normalization=normalization)
        if benchmark is not None:  # samples for testing on one are for training on another
            self.describe("benchmark", benchmark, benchmark=benchmark)

    def _sequences(self, indices: np.ndarray, rows: np.ndarray) -> np.ndarray:
        u = np.zeros((len(rows), _NUMBERS))
        if self._random:
            u = sample_uniforms(self.seed, self.epoch, indices.tolist(), _NUMBERS)
        x = np.zeros((len(rows), 3, self.window_size, NTU.num_point, PERSONS), dtype=np.float32)
        for out, row, numbers in zip(x, rows.tolist(), u[:, _TIME], strict=True):
            self._fill(out, row, numbers)
        if self._move:
            x = random_move(x, u[:, _MOVE])
        if self._statistics is not None:
            mean, std = self._statistics
            x = (x - mean) / std
        if self._rot:
            x = rotate(x, rotations(u[:, _TURN]))
        if self._bone:
            x = bones(x, bone_parents(NTU))
        return motion(x) if self._vel else x

    def _fill(self, out: np.ndarray, row: int, u: np.ndarray) -> None:
        """Write the chosen frames of a sample into ``out`` (3, T, V, M), which is zero."""
        sequence, copied = self._source.sequence(row)
        valid = count_valid(sequence)
        if valid == 0:  # nobody in any frame: all zero, rather than an error in mid-epoch
            return
        chosen = self._choose_frames(sequence[:valid], u).transpose(3, 0, 2, 1)
        out[..., : chosen.shape[-1]] = chosen
        if copied:
            out[..., 1] = out[..., 0]

    def _choose_frames(self, sequence: np.ndarray, u: np.ndarray) -> np.ndarray:
        """From valid frames (T, A, V, C) to ``window_size`` ones."""
        if self._keep_rate:
            numbers = u[1:] if self._choose or self._shift else np.zeros(1)
            return place(sequence, self.window_size, numbers, choose=self._choose)
        if len(self._shares) == 1:
            start, length = centre_crop(len(sequence), self._shares[0])
        else:
            start, length = random_crop(len(sequence), (self._shares[0], self._shares[1]), u)
        return resize(sequence[start : start + length], self.window_size)


def training_statistics(source: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation of each coordinate of each joint.

    Over samples, frames (padding up to the longest sample included) and persons, as published;
    one pass, a sample at a time, in float64. A coordinate that never changes gets deviation 1.

    Returns:
        Two arrays float32 (3, 1, 25, 1).
    """
    total = np.zeros((NTU.num_point, 3))
    squares = np.zeros((NTU.num_point, 3))
    for row in range(len(source.names)):
        sequence, copied = source.sequence(row)
        values = sequence.astype(np.float64).reshape(-1, NTU.num_point, 3)
        total += values.sum(axis=0) * (1 + copied)
        squares += np.square(values).sum(axis=0) * (1 + copied)
    count = len(source.names) * source.max_frames * PERSONS
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    std[std == 0] = 1
    shaped = [table.T.reshape(3, 1, NTU.num_point, 1).astype(np.float32) for table in (mean, std)]
    return shaped[0], shaped[1]


def _checked_shares(p_interval: float | Sequence[float]) -> tuple[float, ...]:
    """``p_interval`` as one or two numbers in (0, 1], rising.

    Raises:
        DataError: it is something else.
    """
    given = p_interval if isinstance(p_interval, Sequence) else [p_interval]
    numbers = not any(isinstance(p, bool) or not isinstance(p, (int, float)) for p in given)
    if not numbers or len(given) not in (1, 2) or not 0 < given[0] <= given[-1] <= 1:
        raise DataError(f"p_interval: {p_interval!r} is not one or two rising numbers in (0, 1]")
    return tuple(float(p) for p in given)
