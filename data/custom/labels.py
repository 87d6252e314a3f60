"""What a clip shows, who and from where: by a table, the clip's file, its name, or its folders."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from data.custom.tables import read_rows
from data.errors import DataError, printable

_COLUMNS = {
    "name": ("name", "file", "filename", "clip", "sample", "video", "path", "frame_dir"),
    "label": ("label", "class", "action", "class_name", "category"),
    "subject": ("subject", "person", "performer", "actor", "participant", "user"),
    "camera": ("camera", "view", "cam"),
    "split": ("split", "set", "subset", "fold", "partition"),
}
NAMES = (
    r"S\d{3}C(?P<camera>\d{3})P(?P<subject>\d{3})R\d{3}A(?P<label>\d{3})",  # NTU RGB+D
    r"a(?P<label>\d\d)_s(?P<subject>\d\d)_e\d\d_v(?P<camera>\d\d)",  # NW-UCLA
)
SPLITS = {"training": "train", "testing": "test", "valid": "val", "validation": "val", "dev": "val"}
SPLITS |= {name: name for name in SPLITS.values()}


@dataclass
class Facts:
    """What is known of a clip; text, or a class's number as its file has it."""

    label: str | int | None = None
    subject: str | None = None
    camera: str | None = None
    split: str | None = None


class Labels:
    """Facts of clips by their names.

    Args:
        names: of all clips. table: a CSV with a column of names. pattern: a regular expression with
            groups named label, subject, camera, split.

    Raises:
        DataError: the table or the pattern cannot be used.
    """

    def __init__(self, names: Sequence[str], table: Path | None, pattern: str | None) -> None:
        self._table = {} if table is None else _read(table)
        self.table = table
        try:
            self._patterns = [re.compile(text) for text in ([pattern] if pattern else NAMES)]
        except re.error as error:
            raise DataError(f"--names {pattern!r}: {error}") from error
        groups = {group for made in self._patterns for group in made.groupindex}
        if not groups & set(_COLUMNS) - {"name"}:
            raise DataError(f"--names {pattern!r}: no group such as (?P<subject>...)")
        tops = {PurePosixPath(name).parts[0].lower() for name in names}
        self._given = pattern is not None
        self._split_folders = "train" in {SPLITS.get(top) for top in tops} and tops <= set(SPLITS)
        self._class_folders = len({self._of_folders(name).label for name in names} - {None}) > 1

    def of(self, name: str, label: str | int | None) -> Facts:
        """The facts of a clip whose file gives ``label``.

        Raises:
            DataError: nothing gives a label.
        """
        facts = self._of_folders(name)
        for pattern in self._patterns:
            match = pattern.search(name)
            for what, found in (match.groupdict() if match else {}).items():
                by_folder = what == "label" and self._class_folders and not self._given
                if found is not None and what in _COLUMNS and not by_folder:
                    setattr(facts, what, found.lstrip("0") or "0" if found.isdecimal() else found)
        facts.label = facts.label if label is None else label
        if self._table:
            for what, found in self._row(name).items():
                setattr(facts, what, found)
        if facts.split:
            facts.split = SPLITS.get(facts.split.lower(), facts.split)
        if facts.label is None:
            raise DataError(
                f"{name}: no label; put clips into a folder a class, or give --labels TABLE.csv "
                "with columns name and label"
            )
        return facts

    def _of_folders(self, name: str) -> Facts:
        parts = PurePosixPath(name).parts
        split = SPLITS[parts[0].lower()] if self._split_folders else None
        inside = parts[1:] if split else parts
        return Facts(label=inside[0] if len(inside) > 1 else None, split=split)

    def _row(self, name: str) -> dict[str, str]:
        path = PurePosixPath(name)
        for known in (name, path.name, path.parent.as_posix()):
            if known in self._table:
                return self._table[known]
        raise DataError(f"{self.table}: no line for the clip {name}")


def _read(table: Path) -> dict[str, dict[str, str]]:
    rows = read_rows(table)
    header = [cell.lower() for cell in rows[0]]
    columns = {
        what: next((header.index(name) for name in names if name in header), None)
        for what, names in _COLUMNS.items()
    }
    if columns["name"] is None and len(header) == 2:  # lines "name label"
        columns |= {"name": 0, "label": 1}
    elif columns["name"] is None:
        raise DataError(f"{table}: no column name in its header, {printable(', '.join(header))}")
    else:
        rows = rows[1:]
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        cells = {what: row[i] for what, i in columns.items() if i is not None and row[i]}
        path = PurePosixPath(cells.pop("name", "").replace("\\", "/"))
        name = (path.with_suffix("") if path.suffix.lower() in _ENDINGS else path).as_posix()
        if name in found:
            raise DataError(f"{table}: two lines for the clip {printable(name)}")
        found[name] = cells
    return found


_ENDINGS = (".csv", ".tsv", ".json", ".npy", ".npz", ".skeleton", ".avi", ".mp4", ".mov")


def natural(text: str) -> list:
    """A key that sorts "a2" before "a10"."""
    parts = re.split(r"(\d+)", text)
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in parts]


def classes(
    labels: Sequence[str | int], names: Path | None, *, numbered: bool
) -> tuple[np.ndarray, list[str]]:
    """Class numbers (n,) and names of the classes.

    Args:
        names: a file of them, one a line, in the order of their numbers.
        numbered: labels are numbers that count from 0, and stay as they are.

    Raises:
        DataError: a label is no class.
    """
    lines = []
    if names is not None:
        lines = [" ".join(row) for row in read_rows(names)]
    if numbered or (lines and all(str(label).isdecimal() for label in labels)):
        wrong = [label for label in labels if not str(label).isdecimal()]
        if wrong:
            raise DataError(f"label {printable(wrong[0])} is no number from 0")
        numbers = np.array([int(label) for label in labels], dtype=np.int64)
        lines = lines or [str(number) for number in range(int(numbers.max()) + 1)]
        if numbers.max() >= len(lines):
            raise DataError(f"{names}: {len(lines)} classes, but a clip has label {numbers.max()}")
        return numbers, lines
    found = lines or sorted({str(label) for label in labels}, key=natural)
    number_of = {name: number for number, name in enumerate(found)}
    for label in labels:
        if str(label) not in number_of:
            raise DataError(f"{names}: {printable(label)} is none of its classes")
    return np.array([number_of[str(label)] for label in labels], dtype=np.int64), found
