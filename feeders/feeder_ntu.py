"""NTU RGB+D by the published feeder's arguments: a source and a list of transforms.

x is (3, 64, 25, 2): three coordinates, 64 frames, 25 joints, 2 persons. The same samples come out
whether ``data_path`` is our store or a published ``.npz``.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.skeletons import NTU
from feeders.arguments import at_least_one, refuse_unheard
from feeders.dataset import SkeletonDataset, Transform
from feeders.sources import PERSONS, NtuSource, open_ntu
from feeders.streams import published_streams
from feeders.transforms import (
    CropResize,
    KeepRate,
    LoneTwice,
    Persons,
    RandomMove,
    RandomRotate,
    Standardise,
    ToOrigin,
    ValidFrames,
    checked_ratios,
)

DEBUG_SAMPLES = 100
MAX_ANGLE = float(np.rad2deg(0.3))


class Feeder(SkeletonDataset):
    """One split of NTU RGB+D 60 or 120.

    Args:
        data_path: a store (``NTU60.h5``, ``NTU120.h5``) or a published ``.npz``.
        split: "train" or "test"; of the one-shot benchmark also "exemplar".
        benchmark: "xsub", "xview", "xset" or "oneshot"; needed for a store, which holds several.
        p_interval: ratio of the frames that is kept: one number for a crop in the middle, two for
            a random crop with a ratio between them.
        window_size: frames T of the result; -1 for the longest sequence's.
        random_choose: keep the frame rate and choose ``window_size`` successive frames at random,
            instead of cropping and resizing; ``p_interval`` is then of no account.
        random_shift: keep the frame rate likewise, and put sequences shorter than the window at a
            random place in it, zeros before and after.
        random_move: rotate, scale and shift the bodies in the image plane, changing over time.
        random_rot: rotate each sample about the three axes by up to 0.3 radians.
        normalization: subtract the mean and divide by the standard deviation of each coordinate
            of each joint over the training split (padding included, as published).
        debug: only the first 100 samples.
        use_mmap: read samples through a memory map, which all processes share; False reads the
            whole file into the memory of each process.
        streams: one or several, fused; or the published spelling, bone: each joint relative to its
            partner, vel: differences between successive frames.
        transforms: more of them, after these.
        only_transforms: ``transforms`` alone: a clip is (3, T, 25, M), T the frames it has, M 1 or
            2 (or as a ``.npz`` has them, zeros after its end).
        repeat: how often each sample is seen in an epoch.
        seed: of all random numbers.
        source: clips from elsewhere than ``data_path``; for code.

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
        streams: str | Sequence[str] | None = None,
        bone: bool = False,
        vel: bool = False,
        transforms: Sequence[Any] = (),
        only_transforms: bool = False,
        repeat: int = 1,
        seed: int = 0,
        source: NtuSource | None = None,
    ) -> None:
        path = Path(data_path)
        ratios = checked_ratios("p_interval", p_interval)
        source = source or open_ntu(path, benchmark, split, in_memory=not use_mmap)
        window = (
            at_least_one("window_size", window_size) if window_size != -1 else source.max_frames
        )
        own: list[Transform] = []
        decided_by: dict[str, dict[str, Any]] = {"window": {}, "preprocessing": {}}
        if only_transforms:
            refuse_unheard(
                Feeder,
                transforms,
                p_interval=ratios,
                window_size=window_size,
                random_choose=random_choose,
                random_shift=random_shift,
                random_move=random_move,
                random_rot=random_rot,
                normalization=normalization,
            )
        else:
            decided_by["window"] = {"window_size": window_size}
            decided_by["preprocessing"] = {"normalization": normalization}
            fit: Transform = CropResize(ratios=ratios, window=window)
            if random_choose or random_shift or window_size == -1:
                fit = KeepRate(window=window, choose=random_choose, shift=random_shift)
            own = [ValidFrames(), fit, Persons(count=PERSONS)]
            own += [RandomMove()] if random_move else []
            own += [_standardise(source, path, benchmark, split)] if normalization else []
            own += [RandomRotate(degrees=[MAX_ANGLE] * 3)] if random_rot else []
        if streams is None:
            decided_by["streams"] = {"bone": bone, "vel": vel}
        super().__init__(
            source.first(DEBUG_SAMPLES) if debug else source,
            transforms=[*own, *transforms],
            streams=published_streams(streams, bone=bone, vel=vel),
            repeat=repeat,
            seed=seed,
            decided_by=decided_by,
            from_raw=[ToOrigin(), *([LoneTwice()] if source.lone_twice else [])],
        )
        if benchmark is not None:  # samples for testing on one are for training on another
            self.describe("benchmark", benchmark, benchmark=benchmark)


def _standardise(source: NtuSource, path: Path, benchmark: str | None, split: str) -> Standardise:
    """By the training split, whichever split ``source`` is."""
    if split != "train":
        source = open_ntu(path, benchmark, "train", in_memory=False)
    mean, std = training_statistics(source)
    return Standardise(mean=mean, std=std)


def training_statistics(source: NtuSource) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation of each coordinate of each joint.

    Over samples, frames (padding up to the longest sample included) and persons, as published;
    one pass, a sample at a time, in float64. A coordinate that never changes gets deviation 1.

    Returns:
        Two arrays float32 (3, 1, 25, 1).
    """
    shape = (3, 1, NTU.num_point, 1)
    total, squares = np.zeros(shape), np.zeros(shape)
    for row in range(len(source.names)):
        x = source.clip(row).astype(np.float64)
        total += x.sum(axis=(1, 3), keepdims=True)
        squares += np.square(x).sum(axis=(1, 3), keepdims=True)
    count = len(source.names) * source.max_frames * PERSONS
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    std[std == 0] = 1
    return mean.astype(np.float32), std.astype(np.float32)
