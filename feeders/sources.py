"""Where NTU clips come from: our store or a published ``.npz``, both read through a memory map."""

import copy
from pathlib import Path
from typing import Any, Self

import numpy as np

from data.actions import NTU_ACTIONS
from data.errors import DataError
from data.labels import STORE_SUFFIXES, published_labels
from data.npz import open_array
from data.skeletons import NTU
from data.splits import DATA_SETS, NTU60
from data.store import Store

PERSONS = 2
_WIDTHS = [persons * NTU.num_point * 3 for persons in (1, PERSONS)]
_WHOLE = [(3, NTU.num_point, persons) for persons in (1, PERSONS)]
UNKNOWN_SUBJECT = -1


class NtuSource:
    """The clips of one split; cheap to pickle. See ``feeders.dataset.Source``.

    Attributes:
        max_frames: frames of the longest sample of the data set.
        num_class: classes of the data set, whether it has samples of them or not.
        lone_twice: whether the data set shows a lone person twice.
    """

    skeleton = NTU
    names: list[str]
    labels: np.ndarray
    subjects: np.ndarray
    max_frames: int
    num_class: int | None = None
    class_names: list[str] | None = None
    lone_twice: bool = False

    def first(self, count: int) -> Self:
        """The first ``count`` samples alone."""
        fewer = copy.copy(self)
        for name in ("names", "labels", "subjects"):
            setattr(fewer, name, getattr(self, name)[:count])
        return fewer

    def clip(self, row: int) -> np.ndarray:
        """Joints float32 (3, T, 25, M), M = 1 or 2."""
        raise NotImplementedError


class StoreSource(NtuSource):
    """A split of a benchmark in a store."""

    def __init__(self, path: Path, benchmark: str, split: str, *, in_memory: bool) -> None:
        self._store = Store(path)
        if in_memory:
            self._store.load()
        self._rows = self._store.split(benchmark, split)
        if not len(self._rows):
            raise DataError(f"{path}: no sample in the {split} split of {benchmark}")
        self.names = self._store.names_of(self._rows)
        self.labels = self._store.labels[self._rows]
        self.subjects = self._store.subjects[self._rows]
        self.max_frames = self._store.max_frames
        self.num_class = self._store.num_class
        self.class_names = _class_names(self._store.labels, self.num_class)
        self.lone_twice = DATA_SETS[self._store.dataset].copies_single_actor

    def clip(self, row: int) -> np.ndarray:
        """See NtuSource. A lone actor that is to be shown twice is a view, M = 2."""
        number = int(self._rows[row])
        x = self._store.sequence(number).transpose(3, 0, 2, 1)
        return np.broadcast_to(x, (*x.shape[:3], PERSONS)) if self._store.copied[number] else x


class NpzSource(NtuSource):
    """A split of a published ``.npz``: x_SPLIT (N, T, 150) and y_SPLIT one-hot (N, classes).

    x_SPLIT may also be (N, T, 75), of one person, or (N, 3, T, 25, M), as 2s-AGCN's data are.
    """

    def __init__(self, path: Path, split: str, *, in_memory: bool) -> None:
        self._read = path, split, in_memory
        self._x = _published_clips(*self._read)
        count, self.max_frames = len(self._x), self._x.shape[1 if self._x.ndim == 3 else 2]
        self.labels = published_labels(path, split, count)
        width = open_array(path, f"y_{split}").shape[1:]
        if width > (1,):  # one-hot
            (self.num_class,) = width
            self.lone_twice = self.num_class == len(NTU_ACTIONS)
            if self.num_class in (60, len(NTU_ACTIONS)):
                self.class_names = _class_names(self.labels, self.num_class)
        self.names = [f"{split}_{row}" for row in range(count)]  # as published
        self.subjects = np.full(count, UNKNOWN_SUBJECT)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_x"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._x = _published_clips(*self._read)

    def clip(self, row: int) -> np.ndarray:
        """See NtuSource."""
        x = self._x[row]
        if x.ndim == 2:
            x = x.reshape(len(x), -1, NTU.num_point, 3).transpose(3, 0, 2, 1)
        return np.asarray(x, dtype=np.float32)


def open_ntu(path: Path, benchmark: str | None, split: str, *, in_memory: bool) -> NtuSource:
    """Open a store (``.h5``) or a published ``.npz``.

    Raises:
        DataError: the file is missing (the message says how to make it), damaged, of another
            kind, or has no such benchmark or split.
    """
    if not path.is_file():
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise DataError(f"{path}: no such file{where}; {_how_to_make(path)}")
    if path.suffix == ".npz":
        if benchmark is not None:
            raise DataError(f"benchmark: {path} is a published .npz of one benchmark; leave it out")
        if split not in ("train", "test"):
            raise DataError(f"split: {split!r} is not one of 'train', 'test' ({path})")
        return NpzSource(path, split, in_memory=in_memory)
    if path.suffix not in STORE_SUFFIXES:
        raise DataError(
            f"{path}: neither a store (.h5) nor an .npz; arrays of others go into an .npz as "
            "x_train, y_train, x_test, y_test"
        )
    if benchmark is None:
        known = ", ".join(Store(path).benchmarks)
        raise DataError(f"benchmark: missing; {path} has {known}")
    return StoreSource(path, benchmark, split, in_memory=in_memory)


def _class_names(labels: np.ndarray, num_class: int) -> list[str] | None:
    """The actions' names where all of them are there: a part, or made-up data, go by numbers."""
    whole = len(np.unique(labels)) == num_class
    return list(NTU_ACTIONS[:num_class]) if whole else None


def _how_to_make(path: Path) -> str:
    """The commands that make a missing file, guessed from its name."""
    named = [d for d in DATA_SETS.values() if d.stem in path.name or d.folder in path.as_posix()]
    dataset = max(named, key=lambda d: len(d.stem), default=NTU60)
    last = "python seq_transformation.py" + (" --npz" if path.suffix == ".npz" else "")
    return (
        f"make it: cd {dataset.folder} && python get_raw_skes_data.py ; "
        f"python get_raw_denoised_data.py ; {last}"
    )


def _published_clips(path: Path, split: str, in_memory: bool) -> np.ndarray:
    """x_SPLIT; refused if it has not the published shape and kind."""
    x = open_array(path, f"x_{split}")
    flat = x.ndim == 3 and x.shape[2] in _WIDTHS
    whole = x.ndim == 5 and (x.shape[1], *x.shape[3:]) in _WHOLE
    if not (flat or whole) or x.dtype.kind != "f" or 0 in x.shape[1:]:
        raise DataError(
            f"{path}: x_{split} is {x.dtype} {x.shape}, expected floats (samples, frames, "
            f"{max(_WIDTHS)}), (samples, frames, {min(_WIDTHS)}) of one person, or (samples, 3, "
            f"frames, {NTU.num_point}, persons) of one or two"
        )
    if not len(x):
        raise DataError(f"{path}: x_{split} has no sample")
    return np.array(x) if in_memory else x
