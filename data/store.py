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

Attributes: format, version, dataset, skeleton, num_class, max_frames (longest sample), checksum
(of all tables but the joints; version 1 had none).

``joints`` is read through a memory map at its place in the file: opening costs nothing, a sample
costs its own bytes, and all processes share the pages. No lock is asked for: a store is written
under a name of its own and never changed, and many cluster drives refuse locks.
"""

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from data.errors import DataError, printable
from data.skeletons import NTU
from data.splits import DataSet, SampleName, split_rows
from torchlight.files import atomic_write

FORMAT = "skeleton store"
VERSION = 2
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
        start = 0
        for end, sequence in zip(offsets[1:].tolist(), sequences, strict=True):
            if sequence.shape[0] * sequence.shape[1] != end - start:
                raise ValueError(f"row {start}: not the announced number of frames and actors")
            joints[start:end] = sequence.reshape(-1, NTU.num_point, 3)
            start = end
        tables: dict[str, np.ndarray] = {
            "offsets": offsets,
            "actors": actors.astype(np.uint8),
            "copied": copied.astype(np.uint8),
            "names": np.array([sample.name.encode() for sample in samples], dtype="S20"),
        }
        for fact in _FACTS:
            values = [getattr(sample, fact.removesuffix("s")) for sample in samples]
            tables[fact] = np.array(values, dtype=np.int64)
        for name, benchmark in dataset.benchmarks.items():
            for split, rows in split_rows(benchmark, samples).items():
                tables[f"splits/{name}/{split}"] = rows
        for name, table in tables.items():
            file[name] = table
        file.attrs.update(format=FORMAT, version=VERSION, dataset=dataset.name, skeleton=NTU.name)
        file.attrs.update(num_class=dataset.num_class, max_frames=int(frames.max()))
        file.attrs["checksum"] = checksum(
            tables, dataset.name, dataset.num_class, int(frames.max())
        )


def checksum(tables: Mapping[str, np.ndarray], *attributes: str | int) -> int:
    """What a store's tables, dataset, num_class and max_frames add up to (CRC-32)."""
    total = zlib.crc32(repr(attributes).encode())
    for name in sorted(tables):
        total = zlib.crc32(
            np.ascontiguousarray(tables[name]).data, zlib.crc32(name.encode(), total)
        )
    return total


class Store:
    """An open store. Cheap to pickle: what travels is the path.

    Attributes:
        path: of the file. dataset: its name.
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

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with _opened(self.path) as file:
            tables = _read_tables(file)
            self.dataset = str(file.attrs["dataset"])
            self.num_class, self.max_frames = (
                int(file.attrs[name]) for name in ("num_class", "max_frames")
            )
            found = checksum(tables, self.dataset, self.num_class, self.max_frames)
            if file.attrs["version"] > 1 and file.attrs["checksum"] != found:
                raise DataError(f"{path}: damaged: its tables are not as written; make it again")
            self._offsets, self._names = tables["offsets"], tables["names"]
            self.actors = tables["actors"].astype(np.int64)
            self.copied = tables["copied"].astype(bool)
            for fact in _FACTS:
                setattr(self, fact, tables[fact])
            self._splits: dict[str, dict[str, np.ndarray]] = {}
            for name in sorted(name for name in tables if name.startswith("splits/")):
                _, benchmark, split = name.split("/")
                self._splits.setdefault(benchmark, {})[split] = tables[name]
            self._joints = _map_joints(self.path, file["joints"], int(self._offsets[-1]))
        self.frames = np.diff(self._offsets) // self.actors

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
            raise DataError(f"{self.path}: benchmark {benchmark!r} is not one of {known}")
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
        self._joints = np.array(self._joints)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """The HDF5 file; whatever is wrong with it comes out as a DataError."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with h5py.File(path, "r", locking=False) as file:
            if str(file.attrs["format"]) != FORMAT:
                raise DataError(f"{path}: an HDF5 file, but no skeleton store")
            found = file.attrs["version"]
            if found not in range(1, VERSION + 1):
                raise DataError(
                    f"{path}: store version {printable(found)}, expected {VERSION}; make it again"
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


def _read_tables(file: h5py.File) -> dict[str, np.ndarray]:
    """All tables but the joints, by name; links are not followed."""
    tables: dict[str, np.ndarray] = {}
    size = os.path.getsize(file.filename)

    def read(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and name != "joints":
            # Packed ones can unfold to gigabytes, and external ones lead to other files.
            packed = item.chunks or item.is_virtual or item.external
            if packed or item.dtype.kind not in "iuS" or item.ndim != 1 or item.nbytes > size:
                raise DataError(f"{file.filename}: damaged: {printable(name)} is no plain table")
            tables[name] = item[:]

    file.visititems(read)
    return tables


def _map_joints(path: Path, joints: h5py.Dataset, rows: int) -> np.ndarray:
    """The joints through a memory map, float32 (rows, 25, 3)."""
    offset = joints.id.get_offset()  # None if the data are in chunks, or were never written
    shape = (rows, NTU.num_point, 3)
    if offset is None or joints.dtype != np.dtype("<f4") or joints.shape != shape:
        raise DataError(
            f"{path}: damaged: joints is {joints.dtype} {joints.shape}, expected contiguous "
            f"float32 {shape}"
        )
    return np.memmap(path, "<f4", "r", offset, shape).view(np.ndarray)
