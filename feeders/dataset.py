"""The one dataset: clips of a source, a list of transforms, one or several streams.

    source (names, labels, clips)  ->  transforms  ->  streams  ->  x (C, T, V, M) float32

A sample is a function of (seed, epoch, index) alone, whichever process or worker makes it.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from data.errors import DataError
from data.labels import class_numbers
from data.skeletons import Skeleton, bone_parents
from feeders.arguments import at_least_one
from feeders.randomness import KeyedGenerator
from feeders.streams import STREAMS, Stream, Streams, fused, stream_table

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class Source(Protocol):
    """Where clips come from: one split of one data set.

    Attributes:
        skeleton: the body.
        names: n distinct names. labels, subjects: int64 (n,); subject -1 where it is not known.
        class_names: one a class, or None.
    """

    @property
    def skeleton(self) -> Skeleton: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def labels(self) -> np.ndarray: ...
    @property
    def subjects(self) -> np.ndarray: ...
    @property
    def class_names(self) -> Sequence[str] | None: ...

    def clip(self, row: int) -> np.ndarray:
        """Joints (C, T, V, M) of sample ``row``, float32 or float64; not to be written to."""


class SkeletonDataset:
    """One split as tensors.

    Sample ``i`` of ``len(dataset)`` is clip ``i % n``, so that every repetition has random numbers
    of its own.

    Args:
        source: of the clips.
        transforms: applied in this order; the last must leave all clips the same shape.
        streams: "joint", "pose", "bone", "joint_motion", "bone_motion", or several of them or of
            one's own (see ``STREAMS``), which are concatenated as input channels.
        repeat: how often each clip is seen in an epoch.
        seed: of all random numbers.
        dtype: of x: "float32", or "float64" for comparisons.
        decided_by: for keys of the description, the arguments of one's own that decide them.
        from_raw: what makes the source's clips of raw ones, for ``preprocessing``.

    Attributes:
        skeleton, sample_names, labels, subjects, class_names, num_class: the source's; the last
            two are for a source to leave out.
        description: what training, testing and weights must agree in, in plain words.
        described_by: for each key of it, the arguments that decide it.

    Raises:
        DataError: an argument has an impossible value, or a label is no whole number from 0.
    """

    def __init__(
        self,
        source: Source,
        *,
        transforms: Sequence[Transform] = (),
        streams: Streams | Mapping[str, Stream] = "joint",
        repeat: int = 1,
        seed: int = 0,
        dtype: str = "float32",
        decided_by: Mapping[str, dict[str, Any]] = MappingProxyType({}),
        from_raw: Sequence[Transform] = (),
    ) -> None:
        self.source, self.transforms = source, list(transforms)
        self.from_raw = list(from_raw)
        self.skeleton = source.skeleton
        self.stream_table = stream_table(streams)
        self.streams = tuple(self.stream_table)
        self.sample_names, self._count = source.names, len(source.names)
        self.labels = class_numbers("labels", source.labels, source.names)
        self.subjects = np.asarray(source.subjects, dtype=np.int64)
        self.num_class = getattr(source, "num_class", None)
        if source.class_names is not None:
            self.class_names = source.class_names
        self.repeat = at_least_one("repeat", repeat)
        self.seed, self.epoch, self.dtype = seed, 0, dtype
        self._parents = bone_parents(source.skeleton)
        self._shape: tuple[int, ...] | None = None  # of a clip, once one is known
        self._random = KeyedGenerator()
        windows = [t.window for t in self.transforms if hasattr(t, "window")]
        prepared = [word for t in self.transforms for word in getattr(t, "preprocessing", ())]
        self.description: dict[str, Any] = {
            "skeleton": source.skeleton.name,
            "streams": list(self.streams),
            **({"window": windows[-1]} if windows else {}),
            "preprocessing": list(dict.fromkeys(prepared)),
        }
        self.described_by: dict[str, dict[str, Any]] = {key: {} for key in self.description}
        self.described_by |= {"streams": {"streams": list(self.streams)}, **decided_by}

    def describe(self, key: str, value: Any, **arguments: Any) -> None:
        """Add to the description, with the arguments that decide it."""
        self.description[key], self.described_by[key] = value, arguments

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How inputs are made of clips, as plain values, for whoever makes them without the source.

        Transforms and streams are as a configuration has them: a name and arguments, which must be
        attributes of the same names.
        """
        joints = self.source.clip(0)
        return {
            "skeleton": asdict(self.skeleton),
            "channels": getattr(self.source, "channels", "xyz"[: len(joints)]),
            "kept_as": joints.dtype.name,
            "axes": "CTVM" if joints.flags.c_contiguous else "TMVC",  # which decide sums' last bits
            "transforms": [spelled_out(t) for t in (*self.from_raw, *self.transforms)],
            "streams": [
                name if name in STREAMS else spelled_out(stream)
                for name, stream in self.stream_table.items()
            ],
            "repeat": self.repeat,
            "seed": self.seed,
            "dtype": self.dtype,
        }

    def set_epoch(self, epoch: int) -> None:
        """Choose the random numbers of ``epoch``."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._count * self.repeat

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, int]:
        """Return (x (C, T, V, M), label, index).

        Raises:
            IndexError: ``index`` is not in [0, len(dataset)).
        """
        x, labels, _ = self.get_batch([index])
        return x[0], int(labels[0]), index

    def get_batch(
        self, indices: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (x (N, C, T, V, M), labels int64 (N,), indices int64 (N,)), N >= 1.

        Row for row the same bits as ``dataset[i]``.

        Raises:
            IndexError: an index is not in [0, len(dataset)).
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if ((wanted < 0) | (wanted >= len(self))).any():
            raise IndexError(f"index outside [0, {len(self)})")
        clips = [self._transformed(index) for index in wanted.tolist()]
        joints = np.empty((len(clips), *clips[0].shape), dtype=clips[0].dtype)
        for place, clip in zip(joints, clips, strict=True):
            place[...] = clip
        x = fused(joints, self.stream_table, self._parents)
        return x.astype(self.dtype, copy=False), self.labels[wanted % self._count], wanted

    def _transformed(self, index: int) -> np.ndarray:
        x = self.source.clip(index % self._count)
        rng = self._random.at(self.seed, self.epoch, index)
        for transform in self.transforms:
            x = transform(x, rng)
        self._shape = self._shape or x.shape
        if x.shape != self._shape:
            raise DataError(
                f"transforms: sample {self.sample_names[index % self._count]} comes out as "
                f"{x.shape}, others as {self._shape}; bring all to one length (EvenFrames, "
                "CropResize, ...) and number of persons (Persons)"
            )
        return x


def spelled_out(part: Any) -> dict[str, Any]:
    """The name of an object's class and the arguments that it was built of.

    Those that are no attributes are named in ``unknown``.
    """
    cls = type(part)
    arguments = list(inspect.signature(cls).parameters)
    known = {name: getattr(part, name) for name in arguments if hasattr(part, name)}
    lists = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in known.items()}
    unknown = [name for name in arguments if name not in known]
    named = {"name": f"{cls.__module__}.{cls.__qualname__}", **lists}
    return {**named, "unknown": unknown} if unknown else named


class Clips(Protocol):
    """A list, or what gives clips like one."""

    def __getitem__(self, row: int, /) -> np.ndarray: ...


class ArraySource:
    """Clips (C, T, V, M) that are in memory, or are given by row."""

    def __init__(
        self,
        skeleton: Skeleton,
        names: Sequence[str],
        labels: Sequence[int] | np.ndarray,
        subjects: Sequence[int] | np.ndarray,
        clips: Clips,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.skeleton, self.names, self.clips = skeleton, list(names), clips
        self.labels, self.subjects = np.asarray(labels), np.asarray(subjects, dtype=np.int64)
        self.class_names = None if class_names is None else list(class_names)

    def clip(self, row: int) -> np.ndarray:
        """Joints (C, T, V, M) of sample ``row``."""
        return self.clips[row]
