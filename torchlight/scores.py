"""Score files of a test run, in two forms of one stem; ``torchlight.fusion`` reads them.

``<stem>.pkl`` is as published: a pickled dict, sample name -> float32 vector. ``<stem>.npz`` holds
no pickle: ``names``, ``scores``, ``labels``, ``config_hash`` and the weights' ``card``.
"""

import pickle
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from .card import Card
from .errors import UserError, printable
from .files import atomic_write

_SHOWN, _LONGEST = 3, 40  # names in a message, and characters of each


def write_scores(
    stem: str | Path,
    names: Sequence[str],
    scores: np.ndarray,
    labels: np.ndarray | None,
    config_hash: str = "",
    card: Card | None = None,
) -> dict[str, Path]:
    """Write ``<stem>.pkl`` and ``<stem>.npz``, each atomically, in the order given.

    Args:
        stem: path without suffix, such as ``work_dir/epoch1_test_score``.
        names: n distinct sample names.
        scores: (n, c), stored as float32.
        labels: (n,) integers in [0, c), or None where nobody knows them.
        config_hash: hash of the configuration that made the scores, where one did.
        card: of the weights that made them.

    Returns:
        The two paths, by ``"pkl"`` and ``"npz"``.

    Raises:
        UserError: as ``check_scores``.
    """
    paths = {kind: Path(f"{stem}.{kind}") for kind in ("pkl", "npz")}
    scores = np.ascontiguousarray(scores, dtype=np.float32)
    check_scores(names, scores, labels, paths["npz"])
    arrays = {"names": np.array(names, dtype=np.str_), "scores": scores}
    if labels is not None:
        arrays["labels"] = np.asarray(labels, dtype=np.int64)
    if card is not None:
        arrays["card"] = np.array(card.model_dump_json())
    with atomic_write(paths["pkl"]) as temporary, temporary.open("wb") as file:
        pickle.dump(dict(zip(names, scores, strict=True)), file, protocol=4)
    with atomic_write(paths["npz"]) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, config_hash=np.array(config_hash), **arrays)
    return paths


def check_scores(
    names: Sequence[str], scores: np.ndarray, labels: np.ndarray | None, path: Path
) -> None:
    """Refuse n names, scores (n, c) and labels (n,) that make no table.

    Raises:
        UserError: names ``path`` and what is wrong: shapes, a name twice, NaN, labels out of range.
    """
    if scores.ndim != 2 or 0 in scores.shape:
        raise UserError(f"{path}: scores have shape {scores.shape}, expected (samples, classes)")
    if len(names) != len(scores):
        raise UserError(f"{path}: {len(names)} sample names for {len(scores)} rows of scores")
    if len(set(names)) != len(names):
        repeated = [name for name, times in Counter(names).items() if times > 1]
        raise UserError(f"{path}: sample names occur twice: {some(repeated)}")
    broken = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(broken):
        raise UserError(
            f"{path}: scores are NaN or infinite for {some(names[i] for i in broken.tolist())}"
        )
    if labels is None:
        return
    if labels.shape != (len(names),):
        raise UserError(f"{path}: labels have shape {labels.shape}, expected ({len(names)},)")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise UserError(
            f"{path}: labels run from {labels.min()} to {labels.max()}, "
            f"but the scores are of {scores.shape[1]} classes"
        )


def some(names: Iterable[str]) -> str:
    """The first few names and how many more there are, for a one-line message."""
    listed = sorted(names)
    rest = len(listed) - _SHOWN
    shown = ", ".join(printable(name[:_LONGEST]) for name in listed[:_SHOWN])
    return shown + (f" and {rest} more" if rest > 0 else "")
