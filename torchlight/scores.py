"""Score files: sample names, their class scores and labels, written and read without trust.

A test run leaves two files of one stem: ``<stem>.pkl`` as published (a pickled dict, sample name
-> float32 vector) and ``<stem>.npz`` (``names``, ``scores``, ``labels``, ``config_hash`` and the
weights' ``card``), which holds no pickle and is preferred when both are there.

Those of other tools are read too: a pickled dict with numbers for names, a list of vectors, of
(name, vector) pairs or of records, an array (samples, classes), and ``.npy``. Samples without
names are called ``test_0``, ``test_1``, ..., as those of published data sets are.
"""

import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from torchlight.card import Card
from torchlight.errors import UserError, printable
from torchlight.files import atomic_write
from torchlight.unpickle import LARGEST_NUMBER, Array, Refused, unpickle
from torchlight.untrusted import check_regular, open_npz, read_bounded, read_npy, read_npz_array

STEM = "epoch1_test_score"
SUFFIXES = (".npz", ".pkl")
NUMBERED = "test_{}"
NAMES_SHOWN = 3
_LARGEST_FILE = 2**28  # bytes; 50,919 samples of 120 classes take 30 million
_LONGEST_NAME = 255  # characters, as of a file
_SCORE_KEYS = ("pred_score", "pred_scores", "score", "scores")
_LABEL_KEYS = ("gt_label", "gt_labels", "label")
_NAME_KEYS = ("sample_name", "name", "file_name", "frame_dir", "filename")
NO_CARD = Card()


@dataclass(frozen=True)
class ScoreTable:
    """Scores of n samples over c classes.

    Attributes:
        names: n distinct sample names.
        scores: (n, c) float32, finite; larger is likelier.
        labels: (n,) int64 in [0, c), or None where the file holds none.
        config_hash: hash of the configuration that made the scores, or None.
        path: the file they were read from.
        numbered: the file has no names, so that these are ``test_0``, ``test_1``, ...
        card: of the weights that made the scores; empty where the file has none.
    """

    names: list[str]
    scores: np.ndarray
    labels: np.ndarray | None
    config_hash: str | None
    path: Path
    numbered: bool = False
    card: Card = NO_CARD

    @property
    def num_class(self) -> int:
        """c, the number of classes."""
        return self.scores.shape[1]


def some(names: Iterable[str]) -> str:
    """The first few names and how many more there are, for a one-line message."""
    listed = sorted(names)
    rest = len(listed) - NAMES_SHOWN
    return ", ".join(listed[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def write_scores(
    stem: str | Path,
    names: Sequence[str],
    scores: np.ndarray,
    labels: np.ndarray | None,
    config_hash: str,
    card: Card | None = None,
) -> dict[str, Path]:
    """Write ``<stem>.pkl`` and ``<stem>.npz``, each atomically, in the order given.

    Args:
        stem: path without suffix, such as ``work_dir/epoch1_test_score``.
        names: n distinct sample names.
        scores: (n, c), stored as float32.
        labels: (n,) integers in [0, c), or None where nobody knows them.
        config_hash: hash of the configuration that made the scores.
        card: of the weights that made them.

    Returns:
        The two paths, by ``"pkl"`` and ``"npz"``.

    Raises:
        UserError: the table is not one (shapes, duplicate names, NaN, labels out of range).
    """
    paths = {suffix[1:]: Path(f"{stem}{suffix}") for suffix in SUFFIXES}
    values = np.ascontiguousarray(scores, dtype=np.float32)
    table = _checked(list(names), values, labels, config_hash, paths["npz"])
    arrays = {"names": np.array(table.names, dtype=np.str_), "scores": table.scores}
    if table.labels is not None:
        arrays["labels"] = table.labels
    if card is not None:
        arrays["card"] = np.array(card.model_dump_json())
    with atomic_write(paths["pkl"]) as temporary, temporary.open("wb") as file:
        pickle.dump(dict(zip(table.names, table.scores, strict=True)), file, protocol=4)
    with atomic_write(paths["npz"]) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, config_hash=np.array(config_hash), **arrays)
    return paths


def read_scores(path: str | Path) -> ScoreTable:
    """Read a score table from a work dir, a score file, or a path without its suffix.

    A directory stands for its ``epoch1_test_score``; where an ``.npz`` lies beside a ``.pkl`` of
    the same stem, the ``.npz`` is read.

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
    pickled or in an ``.npy``. Samples without names are ``test_0``, ``test_1``, ...

    Args:
        in_names: labels (n,) that names state, or None. They come first: others may count from 1.

    Raises:
        UserError: there are none, or the file cannot be read.
    """
    found = _find(Path(path))
    content = _content(found)
    if isinstance(content, ScoreTable):
        names, numbered = content.names, content.numbered
        labels = [] if content.labels is None else content.labels.tolist()
    else:
        names, values, numbered = _entries(content, found)
        labels = [_label(value) for value in values]
    stated = in_names(names)
    labels = labels if stated is None else stated.tolist()
    if not labels or None in labels:
        raise UserError(f"{found}: no labels there, or not one whole number for each sample")
    return dict(zip(names, labels, strict=True)), numbered


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


def _checked(
    names: list[str],
    scores: np.ndarray,
    labels: np.ndarray | None,
    config_hash: str | None,
    path: Path,
    numbered: bool = False,
) -> ScoreTable:
    """A table whose parts agree, or a UserError with the file's name."""
    if scores.ndim != 2 or 0 in scores.shape:
        raise UserError(f"{path}: scores have shape {scores.shape}, expected (samples, classes)")
    if len(names) != len(scores):
        raise UserError(f"{path}: {len(names)} sample names for {len(scores)} rows of scores")
    if len(set(names)) != len(names):
        repeated = [name for name, times in Counter(names).items() if times > 1]
        raise UserError(f"{path}: sample names occur twice: {some(repeated)}")
    odd = next((n for n in names if not n.isprintable() or not 0 < len(n) <= _LONGEST_NAME), None)
    if odd is not None:
        raise UserError(f"{path}: {odd[:40]!a} is no name of a sample")
    broken = ~np.isfinite(scores).all(axis=1)
    if broken.any():
        bad = [names[i] for i in np.flatnonzero(broken)]
        raise UserError(f"{path}: scores are NaN or infinite for {some(bad)}")
    if labels is not None:
        labels = np.ascontiguousarray(labels, dtype=np.int64)
        if labels.shape != (len(names),):
            raise UserError(f"{path}: labels have shape {labels.shape}, expected ({len(names)},)")
        if labels.min() < 0 or labels.max() >= scores.shape[1]:
            raise UserError(
                f"{path}: labels run from {labels.min()} to {labels.max()}, "
                f"but the scores are of {scores.shape[1]} classes"
            )
    return ScoreTable(names, scores, labels, config_hash, path, numbered)


def _content(path: Path) -> Any:
    """What an ``.npy`` or a pickle holds, the whole table of an ``.npz``; whatever its name is."""
    try:
        data = read_bounded(path, _LARGEST_FILE)
        if data.startswith(b"PK"):
            return _read_npz(path)
        return read_npy(path) if data.startswith(b"\x93NUMPY") else unpickle(data)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Refused as refused:
        raise UserError(
            f"{path}: refused, it asks for {printable(refused)}; a score file holds names and "
            f"arrays only"
        ) from None
    except Exception as error:  # of a dozen kinds
        raise UserError(f"{path}: damaged or not a score file: {printable(error)}") from None


def _read_npz(path: Path) -> ScoreTable:
    """Read the safe form."""
    kinds = {"names": "U", "scores": "f", "labels": "iu", "config_hash": "U", "card": "U"}
    with open_npz(path) as archive:
        present = {"scores", *(name.removesuffix(".npy") for name in archive.namelist())}
        arrays = {key: read_npz_array(path, archive, key) for key in kinds if key in present}
    for key, array in arrays.items():
        if array.dtype.kind not in kinds[key]:
            raise UserError(
                f"{path}: {key!r} is of type {printable(array.dtype)}, not as in a score file"
            )
    scores = arrays["scores"].astype(np.float32, copy=False)
    numbers = np.array([NUMBERED.format(i) for i in range(len(np.atleast_1d(scores)))])
    names = arrays.get("names", numbers)
    if names.ndim != 1:
        raise UserError(f"{path}: 'names' has shape {names.shape}, expected (samples,)")
    config_hash = str(arrays["config_hash"]) if "config_hash" in arrays else None
    labels, numbered = arrays.get("labels"), "names" not in arrays
    table = _checked(names.tolist(), scores, labels, config_hash, path, numbered)
    try:
        return replace(table, card=Card.model_validate_json(str(arrays.get("card", "{}"))))
    except ValidationError:
        raise UserError(f"{path}: 'card' is no card of weights") from None


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


def _table(content: Any, path: Path) -> ScoreTable:
    """A table of what a pickle or an ``.npy`` holds.

    A name that a pickled dict was given twice shows only once: the format cannot tell.
    """
    names, values, numbered = _entries(content, path)
    vectors, left = [], check_regular(path)
    for name, value in zip(names, values, strict=True):
        vector = _field(value, _SCORE_KEYS)
        if isinstance(vector, list | tuple):
            left -= np.dtype(np.float32).itemsize * len(vector)
            if left >= 0 and all(isinstance(number, float) for number in vector):
                vector = np.array(vector, np.float32)
        elif isinstance(vector, np.ndarray):
            left -= vector.nbytes
        if left < 0:
            raise UserError(f"{path}: its arrays repeat one another; a score file has one a sample")
        if not isinstance(vector, np.ndarray) or vector.dtype.kind != "f" or not vector.ndim:
            raise UserError(f"{path}: entry {name[:40]!a} is not a name with float scores")
        vectors.append(vector)
    shapes = {vector.shape for vector in vectors}
    if len(shapes) > 1 or vectors[0].ndim != 1:
        raise UserError(f"{path}: score vectors of differing or wrong shapes {sorted(shapes)[:3]}")
    records = isinstance(values[0], dict) and any(key in values[0] for key in _LABEL_KEYS)
    labels = [_label(value) for value in values] if records else None
    if labels is not None and None in labels:
        bad = names[labels.index(None)]
        raise UserError(f"{path}: the label of entry {bad[:40]!a} is not one whole number")
    scores = np.stack(vectors).astype(np.float32)
    own = None if labels is None else np.array(labels, dtype=np.int64)
    return _checked(names, scores, own, None, path, numbered)
