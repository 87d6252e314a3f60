"""Score tables of the same samples fused into one.

Legend: S streams, n samples, c classes; scores (S, n, c) float32; weights (S,).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.model_selection import KFold, StratifiedKFold

from torchlight.errors import UserError
from torchlight.fusion.reading import SUFFIXES, ScoreTable, score_stem
from torchlight.metrics import class_accuracy, confusion, topk_accuracy
from torchlight.scores import some, write_scores

CLASSES_SHOWN = 3
RIDGE = 1e-3
"""Keeps the searched weights finite where they separate the classes perfectly; in units of the
cross-entropy, for streams scaled to unit spread."""


def align(tables: Sequence[ScoreTable]) -> np.ndarray:
    """Scores (S, n, c) of all tables in the sample order of the first.

    Raises:
        UserError: a table lacks a sample, has one more, or another number of classes.
    """
    first = tables[0]
    scores = []
    for table in tables:
        classes, expected = table.scores.shape[1], first.scores.shape[1]
        missing = set(first.names) - set(table.names)
        extra = set(table.names) - set(first.names)
        if classes != expected:
            raise UserError(
                f"{table.path}: scores of {classes} classes, but {first.path} has {expected}; "
                f"not the same benchmark"
            )
        faults = [f"lacks {len(missing)} samples: {some(missing)}"] if missing else []
        faults += [f"has {len(extra)} others: {some(extra)}"] if extra else []
        if faults and table.numbered != first.numbered:
            bare = table if table.numbered else first
            faults.append(f"those of {bare.path} have no names")
        if faults:
            raise UserError(f"{table.path}: not the samples of {first.path}; {'; '.join(faults)}")
        row = {name: i for i, name in enumerate(table.names)}
        scores.append(table.scores[[row[name] for name in first.names]])
    return np.stack(scores)


def agreed_labels(tables: Sequence[ScoreTable]) -> np.ndarray | None:
    """Labels (n,) that the tables bring along, in the order of the first; None if none has any.

    Raises:
        UserError: two tables disagree about a sample.
    """
    names = tables[0].names
    found, source = None, ""
    for table in tables:
        if table.labels is None:
            continue
        known = dict(zip(table.names, table.labels.tolist(), strict=True))
        labels = pick_labels(known, names, str(table.path))
        if found is not None and (labels != found).any():
            bad = [names[i] for i in np.flatnonzero(labels != found)]
            raise UserError(f"{table.path}: labels differ from {source} for {some(bad)}")
        found, source = labels, source or str(table.path)
    return found


def pick_labels(labels: Mapping[str, int], names: Sequence[str], source: str) -> np.ndarray:
    """Labels (n,) int64 of ``names``, in their order.

    Raises:
        UserError: a name has no label.
    """
    unknown = [name for name in names if name not in labels]
    if unknown:
        raise UserError(f"{source}: no label for {len(unknown)} samples: {some(unknown)}")
    return np.array([labels[name] for name in names], dtype=np.int64)


def duplicates(tables: Sequence[ScoreTable], titles: Sequence[str]) -> list[str]:
    """A warning for each two streams that are one: an ensemble gains nothing from the second."""
    lines = []
    for (title, one), (other_title, other) in combinations(zip(titles, tables, strict=True), 2):
        a, b = one.card, other.card
        if np.array_equal(one.scores, other.scores) and one.names == other.names:
            why = "have the same scores"
        elif a.sha256 and a.sha256 == b.sha256:
            why = "are scores of the same weights"
        elif a.data and (a.model, a.model_args, a.data) == (b.model, b.model_args, b.data):
            why = "are the same stream of the same model (trained twice)"
        else:
            continue
        lines.append(f"warning: {title} and {other_title} {why}\n")
    return lines


def fuse(scores: np.ndarray, weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """Weighted sum over the streams, (n, c) float32, added up in their order in float32.

    Raises:
        UserError: another number of weights than streams, a weight that is not finite, all zero.
    """
    alpha = np.asarray(weights, dtype=np.float32)
    if len(alpha) != len(scores):
        raise UserError(f"{len(alpha)} weights for {len(scores)} streams; give one a stream")
    if not np.isfinite(alpha).all() or not alpha.any():
        raise UserError(f"weights {alpha.tolist()}: they must be finite and not all zero")
    total = np.zeros(scores.shape[1:], dtype=np.float32)
    for stream, weight in zip(scores, alpha, strict=True):
        total += weight * stream
    return total


@dataclass(frozen=True)
class Fit:
    """Weights (S,) of sum 1, not negative; accuracy and cross-entropy on the samples fitted to,
    with these and with equal weights, each at its best scale."""

    weights: np.ndarray
    fitted: float
    equal: float
    losses: tuple[float, float]


@dataclass(frozen=True)
class Search(Fit):
    """A fit to all samples. ``held_out`` is the accuracy of weights fitted without the sample they
    are asked about, each sample being left out once, in one of ``folds`` parts."""

    held_out: float
    folds: int

    def __str__(self) -> str:
        return (
            f"search: {self.held_out:.2%} held out ({self.folds} folds); report this one\n"
            f"        {self.fitted:.2%} on the samples that the weights below were fitted to, "
            f"cross-entropy {self.losses[0]:.4f}\n"
            f"        {self.equal:.2%} with equal weights, cross-entropy {self.losses[1]:.4f}\n"
            f"        (fitted: the least cross-entropy of the fused scores; equal weights are kept "
            f"where those are more accurate)"
        )


def search_weights(scores: np.ndarray, labels: np.ndarray, folds: int = 5, seed: int = 0) -> Search:
    """Find the weights that make the fused scores the best log-probabilities of the labels.

    The cross-entropy of a weighted sum of scores is convex in the weights, so that its minimum
    is unique and needs no grid. Where it is less accurate than equal weights, on the samples that
    it was fitted to, those are kept; also within each fold. Folds are stratified by class where
    each class fills them.

    Args:
        scores: (S, n, c).
        labels: (n,).
        folds: at least 2, at most n.
        seed: of the cut into folds, the only thing drawn at random.

    Raises:
        UserError: an impossible number of folds.
    """
    if not 2 <= folds <= len(labels):
        raise UserError(f"--folds {folds}: must be 2 to {len(labels)}, the number of samples")
    counts = np.bincount(labels)
    splitter = StratifiedKFold if counts[counts > 0].min() >= folds else KFold
    hits = 0
    for rest, held in splitter(folds, shuffle=True, random_state=seed).split(labels, labels):
        weights = _choose_weights(scores[:, rest], labels[rest]).weights
        hits += int((fuse(scores[:, held], weights).argmax(axis=1) == labels[held]).sum())
    best = _choose_weights(scores, labels)
    return Search(**vars(best), held_out=hits / len(labels), folds=folds)


def _choose_weights(scores: np.ndarray, labels: np.ndarray) -> Fit:
    """The weights of least cross-entropy, unless equal ones are better in one of the two."""
    even = np.full(len(scores), 1 / len(scores))
    weights, loss = _fit_weights(scores, labels)
    fused = fuse(scores, even)
    own, equal = (topk_accuracy(s, labels, (1,))[1] for s in (fuse(scores, weights), fused))
    equal_loss = _fit_weights(fused[None], labels)[1]
    if own < equal or loss > equal_loss:
        return Fit(even, equal, equal, (equal_loss, equal_loss))
    return Fit(weights, own, equal, (loss, equal_loss))


def _fit_weights(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights (S,) of sum 1 that minimise the cross-entropy of the fused scores, and that."""
    streams = scores.astype(np.float64)
    streams -= streams.mean(axis=2, keepdims=True)  # a shift of a row does not change softmax
    spread = np.maximum(streams.std(axis=(1, 2)), np.finfo(np.float32).tiny)
    streams /= spread[:, None, None]
    rows = np.arange(len(labels))
    own = streams[:, rows, labels]

    def objective(weights: np.ndarray, ridge: float = RIDGE) -> tuple[float, np.ndarray]:
        log_p = log_softmax(np.tensordot(weights, streams, axes=1), axis=1)
        slope = np.einsum("nc,snc->s", np.exp(log_p), streams) - own.sum(axis=1)
        loss = -log_p[rows, labels].mean() + ridge * (weights @ weights)
        return loss, slope / len(labels) + 2 * ridge * weights

    bounds = [(0.0, None)] * len(streams)
    start = np.ones(len(streams))
    found = minimize(objective, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    weights, total = found / spread, (found / spread).sum()
    even = np.full(len(weights), 1 / len(weights))
    return weights / total if total > 0 else even, float(objective(found, 0.0)[0])


def summary(
    titles: Sequence[str],
    scores: np.ndarray,
    weights: Sequence[float],
    fused: np.ndarray,
    labels: np.ndarray,
) -> str:
    """Accuracies of every stream and of the ensemble, the gain, the best and worst classes.

    The last two lines are those that published tools print.
    """
    tops = [topk_accuracy(stream, labels) for stream in scores]
    lines = [f"{'weight':>8} {'top-1':>8} {'top-5':>8}  stream"]
    for title, weight, top in zip(titles, weights, tops, strict=True):
        lines.append(f"{weight:8.4f} {top[1]:8.2%} {top[5]:8.2%}  {title}")
    all_ = topk_accuracy(fused, labels)
    lines.append(f"{'':8} {all_[1]:8.2%} {all_[5]:8.2%}  ensemble, {len(labels)} samples")
    gain = all_[1] - max(top[1] for top in tops)
    lines.append(f"gain over the best stream: {100 * gain:+.2f} points")
    accuracy = class_accuracy(confusion(fused, labels))
    order = [c for c in np.argsort(accuracy, kind="stable").tolist() if not np.isnan(accuracy[c])]
    for word, classes in (("best", order[::-1]), ("worst", order)):
        shown = [f"{c} ({accuracy[c]:.1%})" for c in classes[:CLASSES_SHOWN]]
        lines.append(f"{word} classes: {', '.join(shown)}")
    return "\n".join([*lines, *(f"Top{k} Acc: {100 * all_[k]:.4f}%" for k in (1, 5))])


def write_fused(
    out: str | Path, names: Sequence[str], fused: np.ndarray, labels: np.ndarray, overwrite: bool
) -> dict[str, Path]:
    """Write fused scores (n, c) for further ensembling; return the paths.

    Raises:
        UserError: a file is there already and ``overwrite`` is not said.
    """
    stem = score_stem(out)
    for path in (stem.with_name(stem.name + suffix) for suffix in SUFFIXES):
        if path.exists() and not overwrite:
            raise UserError(f"{path}: is there already; say --overwrite, or another --out")
    stem.parent.mkdir(parents=True, exist_ok=True)
    return write_scores(stem, names, fused, labels)
