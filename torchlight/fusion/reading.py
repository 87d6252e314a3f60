"""Score files read without trust: our two forms, the published one, and those of other tools.

Of ``<stem>.pkl`` and ``<stem>.npz`` side by side the ``.npz`` is read. Other tools leave a pickled
dict with numbers for names, a list of vectors, of (name, vector) pairs or of records, an array
(samples, classes), or an ``.npy``. Samples without names are called ``test_0``, ``test_1``, ..., as
those of published data sets are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from torchlight.card import Card
from torchlight.errors import UserError, printable
from torchlight.fusion.unpickle import LARGEST_NUMBER, Array, unpickle
from torchlight.scores import check_scores
from torchlight.untrusted import one_line, open_npz, read_bounded, read_npy, read_npz_array

STEM = "epoch1_test_score"
SUFFIXES = (".npz", ".pkl")
NUMBERED = "test_{}"
NO_CARD = Card()
_LARGEST_FILE = 2**28  # bytes; 50,919 samples of 120 classes take 30 million
_KINDS = {"names": "U", "scores": "f", "labels": "iu", "card": "U"}
_SCORE_KEYS = ("pred_score", "pred_scores", "score", "scores")
_LABEL_KEYS = ("gt_label", "gt_labels", "label")
_NAME_KEYS = ("sample_name", "name", "file_name", "frame_dir", "filename")


@dataclass(frozen=True)
class ScoreTable:
    """Scores of n samples over c classes.

    Attributes:
        path: the file they were read from.
        names: n distinct sample names.
        scores: (n, c) float32, finite; larger is likelier.
        labels: (n,) int64 in [0, c), or None where the file holds none.
        numbered: the file has no names, so that these are ``test_0``, ``test_1``, ...
        card: of the weights that made the scores; empty where the file has none.
    """

    path: Path
    names: list[str]
    scores: np.ndarray
    labels: np.ndarray | None
    numbered: bool
    card: Card = NO_CARD

    def __post_init__(self) -> None:
        check_scores(self.names, self.scores, self.labels, self.path)


def read_scores(path: str | Path) -> ScoreTable:
    """Read a score table from a work dir, a score file, or a path without its suffix.

    Raises:
        UserError: the file is missing, truncated, of another shape or not admitted.
    """
    found = _find(Path(path))
    content = _content(found)
    return content if isinstance(content, ScoreTable) else _table(content, found)


def read_labels(
    path: str | Path, in_names: Callable[[Sequence[str]], np.ndarray | None]
) -> tuple[dict[str, int], bool]:
    """Labels by name in a score file, or in what other tools keep them in; whether the names are
    but numbers.

    That is a pickle of (names, labels), a list of records with ``label``, or whole numbers alone,
    pickled or in an ``.npy``.

    Args:
        in_names: labels (n,) that names state, or None. They come first: others may count from 1.

    Raises:
        UserError: there are none, or the file cannot be read.
    """
    found = _find(Path(path))
    content = _content(found)
    labels: list[int | None]
    if isinstance(content, ScoreTable):
        names, numbered = content.names, content.numbered
        labels = [] if content.labels is None else content.labels.tolist()
    else:
        names, values, numbered = _entries(content, found)
        labels = [_label(value) for value in values]
    stated = in_names(names)
    labels = labels if stated is None else stated.tolist()
    known = [label for label in labels if label is not None]
    if len(known) < len(names):
        raise UserError(f"{found}: no labels there, or not one whole number for each sample")
    return dict(zip(names, known, strict=True)), numbered


def score_stem(path: str | Path) -> Path:
    """The path without suffix that ``path`` stands for; a folder is that of a test run."""
    given = Path(path)
    if given.is_dir():
        return given / STEM
    return given.with_suffix("") if given.suffix in SUFFIXES else given


def _find(path: Path) -> Path:
    """The score file that ``path`` stands for."""
    stem = score_stem(path)
    for candidate in (*(stem.with_name(stem.name + suffix) for suffix in SUFFIXES), path):
        if candidate.is_file():
            return candidate
    raise UserError(
        f"{path}: no score file {stem.name}.npz or {stem.name}.pkl there; "
        "make one by a test run with --save-score True"
    )


def _content(path: Path) -> Any:
    """What an ``.npy`` or a pickle holds, the table of an ``.npz``; whatever the file is called."""
    with one_line(path, "no score file"):
        data = read_bounded(path, _LARGEST_FILE)
        if data.startswith(b"PK"):
            return _read_npz(path)
        return read_npy(path) if data.startswith(b"\x93NUMPY") else unpickle(data)


def _read_npz(path: Path) -> ScoreTable:
    with open_npz(path) as archive:
        present = {"scores", *(name.removesuffix(".npy") for name in archive.namelist())}
        found = {key: read_npz_array(path, archive, key) for key in _KINDS if key in present}
    for key, array in found.items():
        if array.dtype.kind not in _KINDS[key] or (key == "names" and array.ndim != 1):
            kind = f"{printable(array.dtype)} {array.shape}"
            raise UserError(f"{path}: {key!r} is {kind}, not as in a score file")
    scores, labels = found["scores"].astype(np.float32), found.get("labels")
    numbers = [NUMBERED.format(i) for i in range(len(np.atleast_1d(scores)))]
    try:
        card = Card.model_validate_json(str(found.get("card", "{}")))
    except ValidationError:
        raise UserError(f"{path}: 'card' is no card of weights") from None
    return ScoreTable(
        path,
        found["names"].tolist() if "names" in found else numbers,
        scores,
        None if labels is None else labels.astype(np.int64),
        "names" not in found,
        card,
    )


def _table(content: Any, path: Path) -> ScoreTable:
    """A table of what a pickle or an ``.npy`` holds.

    A name that a pickled dict was given twice shows only once: the format cannot tell.
    """
    names, values, numbered = _entries(content, path)
    vectors, left = [], path.stat().st_size
    for name, value in zip(names, values, strict=True):
        vector = _field(value, _SCORE_KEYS)
        if isinstance(vector, list | tuple) and all(isinstance(number, float) for number in vector):
            vector = np.array(vector, np.float32)
        if not isinstance(vector, np.ndarray) or vector.dtype.kind != "f" or not vector.ndim:
            raise UserError(f"{path}: entry {name[:40]!a} is not a name with float scores")
        left -= vector.nbytes
        if left < 0:
            raise UserError(f"{path}: its arrays repeat one another; a score file has one a sample")
        vectors.append(vector)
    shapes = {vector.shape for vector in vectors}
    if len(shapes) > 1 or vectors[0].ndim != 1:
        raise UserError(f"{path}: score vectors of differing or wrong shapes {sorted(shapes)[:3]}")
    labels = None
    if isinstance(values[0], dict) and any(key in values[0] for key in _LABEL_KEYS):
        found = [_label(value) for value in values]
        if None in found:
            bad = names[found.index(None)]
            raise UserError(f"{path}: the label of entry {bad[:40]!a} is not one whole number")
        labels = np.array(found, dtype=np.int64)
    return ScoreTable(path, names, np.stack(vectors).astype(np.float32), labels, numbered)


def _entries(content: Any, path: Path) -> tuple[list[str], list[Any], bool]:
    """Names and values of the samples, and whether the names are but their numbers."""
    names, values = None, _plain(content)
    if isinstance(values, dict):
        names, values = list(values), list(values.values())
    elif isinstance(values, list | tuple):
        if len(values) == 2 and _are_names(values[0]):
            names, values = map(_plain, values)
        elif all(isinstance(v, list | tuple) and len(v) == 2 and _are_names(v[:1]) for v in values):
            names, values = [v[0] for v in values], [v[1] for v in values]
        elif all(isinstance(v, dict) for v in values):
            key = next((k for k in _NAME_KEYS if all(k in v for v in values)), None)
            names = [v[key] for v in values] if key else None
    listed = isinstance(values, list | tuple) or (isinstance(values, np.ndarray) and values.ndim)
    if not listed or not len(values):
        raise UserError(f"{path}: expected names with scores or a list of scores, at least one")
    names = list(range(len(values)) if names is None else names)
    numbers = [type(name) is int and 0 <= name < LARGEST_NUMBER for name in names]
    names = [NUMBERED.format(n) if bare else n for n, bare in zip(names, numbers, strict=True)]
    if len(names) != len(values) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: expected a name, or none, for each of its samples")
    return names, list(values), all(numbers)


def _plain(found: Any) -> Any:
    return found.value if isinstance(found, Array) else found


def _are_names(found: Any) -> bool:
    listed = _plain(found)
    if isinstance(listed, np.ndarray):
        return listed.ndim == 1 and listed.dtype.kind == "U"
    return isinstance(listed, list | tuple) and {type(name) for name in listed} == {str}


def _field(record: Any, keys: Sequence[str]) -> Any:
    """The first of ``keys`` that a record has, without a further ``item`` around it."""
    if isinstance(record, dict):
        record = next((record[key] for key in keys if key in record), None)
    return _plain(record.get("item") if isinstance(record, dict) else record)


def _label(record: Any) -> int | None:
    """The one whole number that a record has for its label."""
    found = _field(record, _LABEL_KEYS)
    if isinstance(found, list | tuple) and len(found) == 1:
        found = _plain(found[0])
    if isinstance(found, np.ndarray | np.generic) and found.dtype.kind in "iu" and found.size == 1:
        found = found.item()
    return found if type(found) is int and abs(found) < LARGEST_NUMBER else None
