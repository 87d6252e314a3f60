"""Own skeletons (``python -m data.custom`` makes the file): any joints, 2-D or 3-D.

x is (C, window, V, M): 2 or 3 coordinates, or 2 and a score.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from data.errors import DataError
from data.own import OwnClips
from data.skeletons import Skeleton
from feeders.arguments import at_least_one, refuse_unheard
from feeders.dataset import SkeletonDataset, Transform
from feeders.transforms import BodyScale, CropResize, Persons, RandomRotate, checked_ratios


class OwnSource:
    """One split; see ``feeders.dataset.Source``."""

    def __init__(self, path: str | os.PathLike[str], split: str) -> None:
        self._clips = OwnClips(path)
        tables = self._clips.tables
        self._rows = self._clips.split(split)
        self.skeleton: Skeleton = tables.skeleton
        self.channels, self.axes = tables.channels, tables.axes
        self.persons = tables.most_persons
        self.names = [tables.names[row] for row in self._rows]
        self.labels, self.subjects = tables.labels[self._rows], tables.subjects[self._rows]
        self.class_names = tables.class_names
        self.num_class = len(tables.class_names)

    def clip(self, row: int) -> np.ndarray:
        """Joints float32 (C, T, V, M)."""
        return self._clips.sequence(int(self._rows[row])).transpose(3, 0, 2, 1)


class Feeder(SkeletonDataset):
    """One split of own skeletons.

    Args:
        data_path: the ``.npz`` that ``python -m data.custom`` wrote.
        split: its name there: "train", "test", or another that the file has.
        window_size: frames T of the result.
        p_interval: ratio of the frames that is kept: one number for a crop in the middle, two for
            a random crop with a ratio between them.
        persons: M; None for those of the sample that has most.
        random_rot: of 3-D data: turn each sample about the three axes by up to 17 degrees.
        scale: see ``BodyScale``; False leaves coordinates as they are in the file.
        streams: one or several, fused.
        transforms: more of them, after these; with ``only_transforms`` instead of these.
        repeat: how often each sample is seen in an epoch.
        seed: of all random numbers.

    Raises:
        DataError: an argument has an impossible value; the file is missing, or damaged.
    """

    def __init__(
        self,
        *,
        data_path: str | os.PathLike[str],
        split: str = "train",
        window_size: int = 64,
        p_interval: float | Sequence[float] = (1.0,),
        persons: int | None = None,
        random_rot: bool = False,
        scale: bool = True,
        streams: str | Sequence[str] = ("joint",),
        transforms: Sequence[Any] = (),
        only_transforms: bool = False,
        repeat: int = 1,
        seed: int = 0,
    ) -> None:
        source = OwnSource(data_path, split)
        ratios = checked_ratios("p_interval", p_interval)
        window = at_least_one("window_size", window_size)
        if random_rot and source.channels != "xyz":
            raise DataError(f"random_rot: {data_path} is 2-D; leave it out")
        count = source.persons if persons is None else at_least_one("persons", persons)
        steps: list[Transform] = [
            CropResize(ratios=ratios, window=window, shortest=min(window, 16)),
            Persons(count=count),
        ]
        if scale:
            steps.insert(0, BodyScale(axes=source.axes))
        if random_rot:
            steps.append(RandomRotate(degrees=[17] * 3))
        decided_by: dict[str, dict[str, Any]] = {
            "window": {"window_size": window_size},
            "preprocessing": {"scale": scale},
        }
        if only_transforms:
            refuse_unheard(
                Feeder,
                transforms,
                window_size=window_size,
                p_interval=ratios,
                persons=persons,
                random_rot=random_rot,
                scale=scale,
            )
            steps, decided_by = [], {}
        super().__init__(
            source,
            transforms=[*steps, *transforms],
            streams=streams,
            repeat=repeat,
            seed=seed,
            decided_by=decided_by,
        )
