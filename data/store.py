"""The store: one HDF5 file a data set, real frames and real actors only.

Layout (n samples in name order, R rows)::

    joints       float32 (R, 25, 3)  contiguous. Rows of a sample follow each other, frame by
                                     frame and, where there are two, actor by actor; metres
    offsets      int64 (n + 1,)      sample i has rows offsets[i] to offsets[i + 1]
    actors       uint8 (n,)          actors stored, 1 or 2
    copied       uint8 (n,)          1 where the published arrays show the one actor twice
    names        S20 (n,)            SsssCcccPpppRrrrAaaa
    labels       int64 (n,)          classes, counted from 0
    subjects, cameras, setups, replications   int64 (n,), counted from 1
    splits/BENCHMARK/SPLIT           int64: sample numbers, in the order of the published rows

Attributes: format, version, dataset, skeleton, num_class, max_frames (longest sample).

``joints`` is read through a memory map at its place in the file: opening costs nothing, a sample
costs its own bytes, and all processes share the pages. No lock is asked for: a store is written
under a name of its own and never changed, and many cluster drives refuse locks.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from data.errors import DataError, printable
from data.npz import ArrayPlace, MappedRows
from data.skeletons import NTU
from data.splits import DATA_SETS, DataSet, SampleName, split_rows
from torchlight.files import atomic_write

FORMAT = "skeleton store"
VERSION = 1
_ATTRIBUTES = {"dataset": str, "skeleton": str, "num_class": int, "max_frames": int}
_LONGEST_ATTRIBUTE = 64  # bytes
_MOST_SPLITS = 16  # benchmarks, and splits of each; NTU RGB+D 120 has three of up to three
_AGAIN = "make it again"
_FACTS = ("labels", "subjects", "cameras", "setups", "replications")


def write_store(
    path: str | os.PathLike[str],
    dataset: DataSet,
    samples: Sequence[SampleName],
    frames: np.ndarray,
    actors: np.ndarray,
    copied: np.ndarray,
    sequences: Iterable[np.ndarray],
) -> None:
    """Write a store, sample by sample; the file appears when it is complete.

    Args:
        path: of the store.
        dataset: whose benchmarks it gets.
        samples: n of them, in name order.
        frames: frames of each, int (n,).
        actors: actors of each, 1 or 2, int (n,).
        copied: whether the lone actor is to be shown twice, bool (n,).
        sequences: float32 (frames, actors, 25, 3) of each in turn.

    Raises:
        OSError: the folder cannot be written or the disk is full.
        ValueError: the sequences do not have the announced shapes.
    """
    offsets = np.concatenate([[0], np.cumsum(frames * actors)]).astype(np.int64)
    with atomic_write(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
        shape = (int(offsets[-1]), NTU.num_point, 3)
        joints = file.create_dataset("joints", shape, "<f4")
        for start, block in _blocks(offsets, sequences):
            joints[start : start + len(block)] = block
        file["offsets"] = offsets
        file["actors"] = actors.astype(np.uint8)
        file["copied"] = copied.astype(np.uint8)
        file["names"] = np.array([sample.name.encode() for sample in samples], dtype="S20")
        for fact in _FACTS:
            values = [getattr(sample, fact.removesuffix("s")) for sample in samples]
            file[fact] = np.array(values, dtype=np.int64)
        for name, benchmark in dataset.benchmarks.items():
            for split, rows in split_rows(benchmark, samples).items():
                file[f"splits/{name}/{split}"] = rows
        file.attrs.update(format=FORMAT, version=VERSION, dataset=dataset.name, skeleton=NTU.name)
        file.attrs.update(num_class=dataset.num_class, max_frames=int(frames.max()))


def _blocks(
    offsets: np.ndarray, sequences: Iterable[np.ndarray], size: int = 2**16
) -> Iterator[tuple[int, np.ndarray]]:
    """Gather sequences to blocks of at least ``size`` rows; yields (first row, rows)."""
    gathered: list[np.ndarray] = []
    start = position = 0
    for number, sequence in enumerate(sequences):
        if position + sequence.shape[0] * sequence.shape[1] != offsets[number + 1]:
            raise ValueError(f"sample {number}: not the announced number of frames and actors")
        gathered.append(sequence.reshape(-1, NTU.num_point, 3))
        position = int(offsets[number + 1])
        if position - start >= size:
            yield start, np.concatenate(gathered)
            gathered, start = [], position
    if gathered:
        yield start, np.concatenate(gathered)
    if position != offsets[-1]:
        raise ValueError("fewer samples than announced")


class Store:
    """An open store. Cheap to pickle: what travels is the path.

    Attributes:
        path: of the file. dataset, skeleton: their names.
        num_class: number of classes. max_frames: frames of the longest sample.
        names: list of n. labels, subjects, cameras, setups, replications: int64 (n,).
        frames, actors: int64 (n,). copied: bool (n,).

    Raises:
        DataError: the file is missing, no store, damaged or cut off; the message names it.
    """

    labels: np.ndarray
    subjects: np.ndarray
    cameras: np.ndarray
    setups: np.ndarray
    replications: np.ndarray
    dataset: str
    skeleton: str
    num_class: int
    max_frames: int

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with _opened(self.path) as file:
            for name, kind in _ATTRIBUTES.items():
                setattr(self, name, kind(_attribute(file, name)))
            self._offsets = _numbers(file, "offsets", np.int64)
            count = len(self._offsets) - 1
            self.actors = _numbers(file, "actors", np.uint8, count).astype(np.int64)
            self.copied = _numbers(file, "copied", np.uint8, count).astype(bool)
            self._names = _numbers(file, "names", np.dtype("S20"), count)
            for fact in _FACTS:
                setattr(self, fact, _numbers(file, fact, np.int64, count))
            self._splits = _read_splits(file, count)
            place = _place_of_joints(self.path, file)
        self._check(place)
        self.frames = np.diff(self._offsets) // self.actors
        self._joints = MappedRows(place)

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return type(self), (self.path,)

    def __len__(self) -> int:
        return len(self._names)

    @cached_property
    def names(self) -> list[str]:
        """All names; made when first asked for, as a million of them take 0.2 s and 70 MB."""
        return self.names_of(slice(None))

    def names_of(self, rows: np.ndarray | slice) -> list[str]:
        """The names of some samples."""
        return self._names[rows].astype("U20").tolist()

    @property
    def benchmarks(self) -> list[str]:
        """Names of the benchmarks."""
        return sorted(self._splits)

    def split(self, benchmark: str, split: str) -> np.ndarray:
        """Sample numbers of a split, int64, in the order of the published rows.

        Raises:
            DataError: there is no such benchmark or split, or it is empty.
        """
        if benchmark not in self._splits:
            known = ", ".join(self.benchmarks)
            raise DataError(f"{self.path}: no benchmark {benchmark!r}; it has {known}")
        splits = self._splits[benchmark]
        if split not in splits:
            known = ", ".join(sorted(splits)) or "none"
            raise DataError(f"{self.path}: no {split!r} samples in {benchmark}; it has {known}")
        return splits[split]

    def sequence(self, number: int) -> np.ndarray:
        """A sample as stored: a read-only view, float32 (frames, actors, 25, 3)."""
        rows = self._joints[int(self._offsets[number]) : int(self._offsets[number + 1])]
        return rows.reshape(-1, int(self.actors[number]), NTU.num_point, 3)

    def padded(self, number: int) -> np.ndarray:
        """A sample as published: float32 (max_frames, 2, 25, 3), zero where nobody is."""
        sequence = self.sequence(number)
        whole = np.zeros((self.max_frames, 2, NTU.num_point, 3), dtype=np.float32)
        whole[: len(sequence), : sequence.shape[1]] = sequence
        if self.copied[number]:
            whole[:, 1] = whole[:, 0]
        return whole

    def load(self) -> None:
        """Read all samples into this process's memory, for disks where mapping is slow."""
        self._joints = np.array(self._joints[:])  # type: ignore[assignment]

    def _check(self, place: ArrayPlace) -> None:
        """Refuse numbers that contradict each other."""
        rows = np.diff(self._offsets)
        sound = (
            len(self) > 0
            and bool((self._names.view(np.uint8) < 128).all())
            and bool((self._names[:-1] < self._names[1:]).all())
            and self.dataset in DATA_SETS
            and self.skeleton == NTU.name
            and self.num_class == DATA_SETS[self.dataset].num_class
            and self._offsets[0] == 0
            and self._offsets[-1] == place.shape[0]
            and bool((rows > 0).all())
            and bool(np.isin(self.actors, (1, 2)).all())
            and bool((rows % self.actors == 0).all())
            and int((rows // self.actors).max()) == self.max_frames
            and int(self.labels.min()) >= 0
            and int(self.labels.max()) < self.num_class
        )
        for splits in self._splits.values():
            for chosen in splits.values():
                sound = sound and bool(((chosen >= 0) & (chosen < len(self))).all())
        if not sound:
            raise DataError(f"{self.path}: damaged: its tables contradict each other; {_AGAIN}")


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """The HDF5 file; whatever is wrong with it comes out as a DataError."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with h5py.File(path, "r", locking=False) as file:
            if _attribute(file, "format") != FORMAT:
                raise DataError(f"{path}: an HDF5 file, but no skeleton store")
            found = _attribute(file, "version")
            if found != VERSION:
                raise DataError(
                    f"{path}: store version {printable(found)}, expected {VERSION}; {_AGAIN}"
                )
            yield file
    except DataError:
        raise
    except Exception as error:  # h5py raises a dozen kinds on damaged files
        if isinstance(error, OSError) and error.errno:  # the system's word, not HDF5's
            locked = "; set HDF5_USE_FILE_LOCKING=FALSE" if "lock file" in str(error) else ""
            said = os.strerror(error.errno)
            raise DataError(f"{path}: cannot be read ({said}){locked}") from error
        raise DataError(f"{path}: damaged, or no skeleton store ({printable(error)})") from error


def _attribute(file: h5py.File, name: str) -> Any:
    """One text or number; its size is looked at before it is read.

    Raises:
        DataError: it is something else. KeyError: there is none.
    """
    found = file.attrs.get_id(name)
    if found.shape != () or found.get_storage_size() > _LONGEST_ATTRIBUTE:
        raise DataError(f"{file.filename}: damaged: its attribute {name} is no text or number")
    return file.attrs[name]


def _read_splits(file: h5py.File, count: int) -> dict[str, dict[str, np.ndarray]]:
    """Sample numbers by benchmark and split; no split has more than the ``count`` samples."""
    groups = file["splits"]
    if len(groups) > _MOST_SPLITS or any(len(group) > _MOST_SPLITS for group in groups.values()):
        raise DataError(f"{file.filename}: damaged: more splits than any data set has")
    splits: dict[str, dict[str, np.ndarray]] = {}
    for benchmark, group in groups.items():
        if not isinstance(groups.get(benchmark, getlink=True), h5py.HardLink):
            raise DataError(f"{file.filename}: damaged: a split that lies in another file")
        splits[benchmark] = {split: _numbers(group, split, np.int64) for split in group}
        if any(len(rows) > count for rows in splits[benchmark].values()):
            raise DataError(f"{file.filename}: damaged: a split of more samples than there are")
    return splits


def _own_table(group: h5py.Group, name: str) -> h5py.Dataset:
    """A table whose numbers lie in this file, in one piece, as ``write_store`` leaves them.

    Packed tables can unfold to gigabytes; a link may lead to another file, or to a pipe.
    """
    link = group.get(name, getlink=True)
    table = group[name] if isinstance(link, h5py.HardLink) else None
    if not isinstance(table, h5py.Dataset) or table.chunks or table.is_virtual or table.external:
        raise DataError(f"{group.file.filename}: damaged: {printable(name)} is no contiguous table")
    return table


def _numbers(
    group: h5py.Group, name: str, dtype: np.dtype | type, count: int | None = None
) -> np.ndarray:
    """A whole one-dimensional table; KeyError or DataError if it is not what it should be.

    The size is checked against the file's before anything is allocated: a damaged file may claim
    any shape.
    """
    table = _own_table(group, name)
    size_fits = table.ndim == 1 and table.nbytes <= os.path.getsize(group.file.filename)
    if table.dtype != dtype or not size_fits or (count is not None and len(table) != count):
        raise DataError(
            f"{group.file.filename}: damaged: {table.name} is {table.dtype} {table.shape}"
        )
    return table[:]


def _place_of_joints(path: Path, file: h5py.File) -> ArrayPlace:
    joints = _own_table(file, "joints")
    offset = joints.id.get_offset()  # None if the data are in chunks, or were never written
    right_shape = joints.ndim == 3 and joints.shape[1:] == (NTU.num_point, 3)
    if offset is None or joints.dtype != np.dtype("<f4") or not right_shape:
        raise DataError(
            f"{path}: joints is {joints.dtype} {joints.shape}, expected contiguous float32 "
            f"(rows, {NTU.num_point}, 3)"
        )
    return ArrayPlace(path, offset, joints.shape, joints.dtype)
