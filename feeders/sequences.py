"""Where the NTU feeder gets its sequences: our store or a published ``.npz``, both mapped."""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.labels import STORE_SUFFIXES, published_labels
from data.npz import MappedRows, find_array, read_array
from data.skeletons import NTU
from data.splits import DATA_SETS, NTU60
from data.store import Store

PERSONS = 2
_WIDTHS = [persons * NTU.num_point * 3 for persons in (1, PERSONS)]
_WHOLE = [(3, NTU.num_point, persons) for persons in (1, PERSONS)]
UNKNOWN_SUBJECT = -1


class Sequences(ABC):
    """The samples of one split, cheap to pickle.

    Attributes:
        names: list of n. labels, subjects: int64 (n,); subject -1 where it is not known.
        max_frames: frames of the longest sample of the data set.
    """

    names: list[str]
    labels: np.ndarray
    subjects: np.ndarray
    max_frames: int

    @abstractmethod
    def sequence(self, row: int) -> tuple[np.ndarray, bool]:
        """Joints float32 (T, A, 25, 3), A = 1 or 2, and whether the one actor counts twice."""


class StoredSequences(Sequences):
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

    def sequence(self, row: int) -> tuple[np.ndarray, bool]:
        """See Sequences."""
        number = int(self._rows[row])
        return self._store.sequence(number), bool(self._store.copied[number])


class PublishedSequences(Sequences):
    """A split of a published ``.npz``: x_SPLIT (N, T, 150) and y_SPLIT one-hot (N, classes).

    x_SPLIT may also be (N, T, 75), of one person, or (N, 3, T, 25, M), as 2s-AGCN's data are.
    """

    def __init__(self, path: Path, split: str, *, in_memory: bool) -> None:
        place = find_array(path, f"x_{split}")
        if place is not None:
            _check(path, split, place.shape, place.dtype)
            mapped = MappedRows(place)
            self._x: MappedRows | np.ndarray = np.array(mapped[:]) if in_memory else mapped
            shape = place.shape
        else:  # compressed, which cannot be mapped
            self._x = array = read_array(path, f"x_{split}")
            _check(path, split, array.shape, array.dtype)
            shape = array.shape
        count, self.max_frames = shape[0], shape[1 if len(shape) == 3 else 2]
        if not count:
            raise DataError(f"{path}: x_{split} has no sample")
        self.labels = published_labels(path, split, count)
        self.names = [f"{split}_{row}" for row in range(count)]  # as published
        self.subjects = np.full(count, UNKNOWN_SUBJECT)

    def sequence(self, row: int) -> tuple[np.ndarray, bool]:
        """See Sequences."""
        x = self._x[row]
        frames = x.transpose(1, 3, 2, 0) if x.ndim == 4 else x.reshape(len(x), -1, NTU.num_point, 3)
        return np.asarray(frames, dtype=np.float32), False


def open_sequences(path: Path, benchmark: str | None, split: str, *, in_memory: bool) -> Sequences:
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
        return PublishedSequences(path, split, in_memory=in_memory)
    if path.suffix not in STORE_SUFFIXES:
        raise DataError(
            f"{path}: neither a store (.h5) nor an .npz; arrays of others go into an .npz as "
            "x_train, y_train, x_test, y_test"
        )
    if benchmark is None:
        known = ", ".join(Store(path).benchmarks)
        raise DataError(f"benchmark: missing; {path} has {known}")
    return StoredSequences(path, benchmark, split, in_memory=in_memory)


def _how_to_make(path: Path) -> str:
    """The commands that make a missing file, guessed from its name."""
    named = [d for d in DATA_SETS.values() if d.stem in path.name or d.folder in path.as_posix()]
    dataset = max(named, key=lambda d: len(d.stem), default=NTU60)
    last = "python seq_transformation.py" + (" --npz" if path.suffix == ".npz" else "")
    return (
        f"make it: cd {dataset.folder} && python get_raw_skes_data.py ; "
        f"python get_raw_denoised_data.py ; {last}"
    )


def _check(path: Path, split: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Refuse what has not the published shape and kind."""
    flat = len(shape) == 3 and shape[2] in _WIDTHS
    whole = len(shape) == 5 and (*shape[1:2], *shape[3:]) in _WHOLE
    if not (flat or whole) or dtype.kind != "f" or 0 in shape[1:]:
        raise DataError(
            f"{path}: x_{split} is {dtype} {shape}, expected floats (samples, frames, "
            f"{max(_WIDTHS)}), (samples, frames, {min(_WIDTHS)}) of one person, or (samples, 3, "
            f"frames, {NTU.num_point}, persons) of one or two"
        )
