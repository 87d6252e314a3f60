"""NW-UCLA by the published feeder's arguments: a source and a list of transforms.

x is (3, 52, 20, 1): three coordinates, 52 frames, 20 joints, one person. Testing is deterministic.
Training rotates each sequence and draws its frames at random. Both bring it to the unit box.
"""

import fnmatch
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data import ucla
from data.errors import DataError
from data.skeletons import UCLA
from feeders.arguments import at_least_one, one_of, refuse_unheard
from feeders.dataset import ArraySource, SkeletonDataset, Source, Transform
from feeders.streams import PUBLISHED
from feeders.transforms import Centre, EvenFrames, RandomFrames, RandomRotate, UnitBox

WINDOW = 52
DEBUG_SAMPLES = 100
_log = logging.getLogger(__name__)


class Feeder(SkeletonDataset):
    """One split of NW-UCLA.

    Samples are in order of their names.

    Args:
        data_path: the stream, "joint", "bone", "motion" or "bone motion" (this benchmark's
            published configurations name it so).
        streams: one or several, fused, instead of ``data_path``.
        label_path: the split as published configurations give it, a text with "train" or "val"
            in it.
        split: "train" (views 1 and 2; the default) or "test" (view 3; "val" means the same).
        views: cameras of the split to keep, to choose a recipe on another camera than it is trained
            on without the test split: ``views=[1]`` against ``split=train views=[2]``.
        relabel: classes in place of those that file names say, by pattern of the names, such as
            ``{a05_s04_*_v02: stand up}``; a later pattern wins.
        root: folder of the JSON files.
        cache_dir: where the parsed files are kept; None is the user's cache folder.
        repeat: how often each sequence is seen in an epoch.
        window_size: number of frames; -1 means 52.
        augment: random rotation and frames; None means in the training split only.
        transforms: more of them, after these; with ``only_transforms`` instead of these.
        debug: only the first 100 samples.
        random_choose, use_mmap: accepted as published. Augmentation always draws its frames at
            random, and the data are always shared through the cache.
        random_shift, random_move, normalization: refused if True; the published feeder has no
            such thing for this benchmark, and silence would mislead.
        seed: of all random numbers.
        dtype: "float32", or "float64" for comparisons.
        source: clips from elsewhere than ``root``; for code.

    Raises:
        DataError: an argument has an impossible value, or the data are missing or malformed.
    """

    def __init__(
        self,
        *,
        data_path: str | None = None,
        streams: str | Sequence[str] | None = None,
        label_path: str | None = None,
        split: str | None = None,
        views: Sequence[int] | None = None,
        relabel: Mapping[str, str] | None = None,
        root: str | os.PathLike[str] = ucla.DEFAULT_ROOT,
        cache_dir: str | os.PathLike[str] | None = None,
        repeat: int = 1,
        window_size: int = -1,
        augment: bool | None = None,
        transforms: Sequence[Any] = (),
        only_transforms: bool = False,
        debug: bool = False,
        random_choose: bool = False,
        random_shift: bool = False,
        random_move: bool = False,
        normalization: bool = False,
        use_mmap: bool = True,
        seed: int = 0,
        dtype: str = "float32",
        source: Source | None = None,
    ) -> None:
        published = {"random_shift": random_shift, "random_move": random_move}
        for name, value in {**published, "normalization": normalization}.items():
            if value:
                raise DataError(
                    f"{name}: has no effect on NW-UCLA; leave it out or set it to False"
                )
        split = resolve_split(split, label_path)
        window = WINDOW if window_size == -1 else at_least_one("window_size", window_size)
        one_of("dtype", dtype, ("float32", "float64"))
        if streams is not None and data_path is not None:
            raise DataError(
                "streams: leave out data_path (data_path: null), which says it otherwise"
            )
        decided_by: dict[str, dict[str, Any]] = {"window": {"window_size": window_size}}
        if data_path is not None:
            decided_by["streams"] = {"data_path": data_path}
        if streams is None:
            streams = one_of("data_path", data_path or "joint", PUBLISHED)
        training = split == "train" if augment is None else augment
        own = _published(window, training)
        if only_transforms:
            asked = -1 if window == WINDOW else window_size
            refuse_unheard(Feeder, transforms, augment=augment or None, window_size=asked)
            own, decided_by["window"] = [], {}
        kept_as = dtype if training else "float64"  # of the parsed files, as the golden numbers
        super().__init__(
            source or _source(root, cache_dir, split, views, relabel, debug, kept_as),
            transforms=[*own, *transforms],
            streams=streams,
            repeat=repeat,
            seed=seed,
            dtype=dtype,
            decided_by=decided_by,
        )


def _published(window: int, training: bool) -> list[Transform]:
    """The published list. In training the box undoes the scale, and centring, left out here."""
    if not training:
        return [Centre(joint=1), UnitBox(), EvenFrames(window=window)]
    rotate = RandomRotate(degrees=[60, 60, 0], order="xyz", scale=[0.5, 1.5])
    return [rotate, UnitBox(), RandomFrames(window=window)]


def _source(
    root: str | os.PathLike[str],
    cache_dir: str | os.PathLike[str] | None,
    split: str,
    views: Sequence[int] | None,
    relabel: Mapping[str, str] | None,
    debug: bool,
    dtype: str,
) -> ArraySource:
    """The split's sequences, of these views or of all."""
    known = ucla.VIEWS[split]
    if views is not None and not (views and set(views) <= set(known)):
        raise DataError(f"views: {list(views)} are not views of the {split} split, {list(known)}")
    views = known if views is None else views
    data = ucla.load(root, cache_dir)
    labels = _labels(data.names, relabel, root)
    frames = np.split(data.joints, np.cumsum(data.lengths)[:-1])
    chosen = [i for i, name in enumerate(data.names) if ucla.parse_name(name).view in views]
    chosen = chosen[: DEBUG_SAMPLES if debug else None]
    if not chosen:
        told = " and ".join(map(str, views))
        raise DataError(f"{root}: no sequence of the {split} split (view {told})")
    names = [data.names[i] for i in chosen]
    return ArraySource(
        UCLA,
        names,
        [labels[i] for i in chosen],
        [ucla.parse_name(name).subject for name in names],
        [np.ascontiguousarray(frames[i].transpose(2, 0, 1)[..., None], dtype) for i in chosen],
        ucla.CLASS_NAMES,
    )


def _labels(
    names: Sequence[str], relabel: Mapping[str, str] | None, root: str | os.PathLike[str]
) -> list[int]:
    """Labels by the names, those replaced that ``relabel`` has other classes for."""
    labels = {name: ucla.parse_name(name).label for name in names}
    for pattern, wanted in (relabel or {}).items():
        label = ucla.CLASS_NAMES.index(one_of(f"relabel: {pattern}", wanted, ucla.CLASS_NAMES))
        found = fnmatch.filter(names, pattern)
        if not found:
            _log.warning(f"warning: relabel: {root} has no sequence {pattern}")
        labels |= dict.fromkeys(found, label)
    return list(labels.values())


def resolve_split(split: str | None, label_path: str | None) -> str:
    """Return "train" or "test" from either argument; where both are given they must agree."""
    named = None if split is None else one_of("split", split, ("train", "test", "val"))
    if label_path is not None:
        found = [word for word in ("val", "test", "train") if word in label_path]
        if not found:
            raise DataError(f"label_path: {label_path!r} says neither train nor val")
        if named is not None and (named == "train") != (found[0] == "train"):
            raise DataError(f"split {named!r} and label_path {label_path!r} disagree")
        named = found[0]
    return "test" if named in ("test", "val") else "train"
