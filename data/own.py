"""Own skeletons: one ``.npz`` a data set, of any joints, in 2-D or 3-D, real frames only.

Arrays (n samples in name order, R rows)::

    joints                float32 (R, V, C). Rows of a sample follow each other, frame by frame and,
                          in a frame, person by person; a joint that is missing is zero
    offsets               int64 (n + 1,)  sample i has rows offsets[i] to offsets[i + 1]
    persons               int64 (n,)      persons of each
    names                 text (n,)
    labels, subjects      int64 (n,)      counted from 0; subject -1 where it is not known
    class_names           text (classes,)
    split_NAME            int64           sample numbers of a split
    facts                 text, JSON: format, channels ("xy", "xys" with a score, "xyz"), layout

``joints`` is read through a memory map.
"""

import itertools
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data.errors import DataError, printable
from data.npz import array_names, open_array, write_npz
from data.skeletons import Skeleton, bone_parents
from torchlight.files import atomic_write

FORMAT = "own skeletons 1"
CHANNELS = {"xy": "2-D", "xys": "2-D with a score", "xyz": "3-D"}
_NUMBERS = ("offsets", "persons", "labels", "subjects")


@dataclass(frozen=True)
class Tables:
    """All of a data set but its joints; see the arrays above."""

    skeleton: Skeleton
    channels: str
    offsets: np.ndarray
    persons: np.ndarray
    names: list[str]
    labels: np.ndarray
    subjects: np.ndarray
    class_names: list[str]
    splits: Mapping[str, np.ndarray]

    @property
    def axes(self) -> int:
        """How many of the channels are coordinates."""
        return len(self.channels.removesuffix("s"))

    def title(self, number: int) -> str:
        """A sample's name and class."""
        return f"{self.names[number]}: {self.class_names[self.labels[number]]}"

    @property
    def frames(self) -> np.ndarray:
        """Frames of each sample, int64 (n,)."""
        return np.diff(self.offsets) // self.persons

    @property
    def most_persons(self) -> int:
        """Persons of the sample that has most."""
        return int(self.persons.max())

    def missing(self) -> str | None:
        """What contradicts itself, or None."""
        n, rows = len(self.names), np.diff(self.offsets)
        tables = (self.persons, self.labels, self.subjects)
        if not n or any(table.shape != (n,) for table in (rows, *tables)):
            return "its tables have different lengths"
        if self.offsets[0] or (rows < 1).any() or (self.persons < 1).any():
            return "offsets and persons"
        if (rows % self.persons).any() or len(set(self.names)) < n:
            return "offsets and persons, or two samples of one name"
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            return "labels and class_names"
        for name, chosen in self.splits.items():
            if len(chosen) and (chosen.min() < 0 or chosen.max() >= n):
                return f"split_{name}"
        return None


def write_own(path: str | os.PathLike[str], tables: Tables, blocks: Iterable[np.ndarray]) -> None:
    """Write a data set; the file appears when it is complete.

    Args:
        blocks: the rows of ``joints`` in order, in pieces of any size.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    facts = {"format": FORMAT, "channels": tables.channels, "layout": asdict(tables.skeleton)}
    arrays = {
        "facts": np.array(json.dumps(facts)),
        **{name: np.asarray(getattr(tables, name), dtype="<i8") for name in _NUMBERS},
        **{name: np.array(getattr(tables, name)) for name in ("names", "class_names")},
        **{f"split_{name}": np.asarray(rows, "<i8") for name, rows in tables.splits.items()},
    }
    shape = (int(tables.offsets[-1]), tables.skeleton.num_point, len(tables.channels))
    small = [(name, array.shape, array.dtype.str, [array]) for name, array in arrays.items()]
    with atomic_write(path) as temporary:
        write_npz(temporary, [("joints", shape, "<f4", blocks), *small])


class OwnClips:
    """An open data set. Cheap to pickle: what travels is the path.

    Attributes:
        path: of the file. tables: all but the joints.

    Raises:
        DataError: the file is missing, is something else, or damaged; the message names it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(
                f"{path}: no such file; python -m data.custom --from FOLDER --out {path} makes it"
            )
        self.tables = _read_tables(self.path)
        self._rows = open_array(path, "joints")
        points, channels = self.tables.skeleton.num_point, len(self.tables.channels)
        shape = (int(self.tables.offsets[-1]), points, channels)
        if self._rows.shape != shape or self._rows.dtype != np.dtype("<f4"):
            raise DataError(f"{path}: damaged: joints is no float32 {shape}; make it again")

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return type(self), (self.path,)

    def sequence(self, number: int) -> np.ndarray:
        """A sample as stored: a read-only view, float32 (T, M, V, C)."""
        start, end = self.tables.offsets[number : number + 2].tolist()
        rows = self._rows[start:end]
        return rows.reshape(-1, int(self.tables.persons[number]), *rows.shape[1:])

    def split(self, name: str) -> np.ndarray:
        """Sample numbers of a split.

        Raises:
            DataError: there is none of this name, or it is empty.
        """
        splits = self.tables.splits
        if name not in splits or not len(splits[name]):
            raise DataError(f"{self.path}: no split {name!r}; it has {', '.join(sorted(splits))}")
        return splits[name]


def is_own(path: Path) -> bool:
    """Whether an ``.npz`` is one of these."""
    return path.suffix == ".npz" and path.is_file() and "facts" in array_names(path)


def _read_tables(path: Path) -> Tables:
    try:
        facts = json.loads(str(open_array(path, "facts")))
        if facts["format"] != FORMAT or facts["channels"] not in CHANNELS:
            raise DataError(f"{path}: {printable(facts['format'])}, expected {FORMAT!r}")
        numbers = {name: np.array(open_array(path, name)) for name in _NUMBERS}
        if any(table.dtype != np.int64 or table.ndim != 1 for table in numbers.values()):
            raise DataError(f"{path}: damaged: {', '.join(numbers)} are no whole numbers")
        texts = {name: open_array(path, name).ravel() for name in ("names", "class_names")}
        splits = {
            name.removeprefix("split_"): open_array(path, name).ravel().astype(np.int64)
            for name in array_names(path)
            if name.startswith("split_")
        }
        tables = Tables(
            skeleton=skeleton_of(facts["layout"]),
            channels=facts["channels"],
            splits=splits,
            names=[str(name) for name in texts["names"]],
            class_names=[str(name) for name in texts["class_names"]],
            **numbers,
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: damaged, or none of own skeletons ({printable(error)})"
        ) from error
    wrong = tables.missing()
    if wrong:
        raise DataError(f"{path}: damaged: {wrong}; make it again with python -m data.custom")
    return tables


def skeleton_of(layout: Mapping) -> Skeleton:
    """The skeleton that a mapping of its attributes describes.

    Raises:
        KeyError, TypeError, ValueError: it describes none.
    """
    bones = tuple((int(child), int(parent)) for child, parent in layout["bones"])
    points, center = int(layout["num_point"]), int(layout["center"])
    if not all(0 <= joint < points for joint in (center, *itertools.chain(*bones))):
        raise ValueError("a bone of no joint")
    names = tuple(str(name) for name in layout["joint_names"])
    skeleton = Skeleton(str(layout["name"]), points, bones, center, names)
    bone_parents(skeleton)
    return skeleton
