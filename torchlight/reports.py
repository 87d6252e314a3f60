"""What an evaluation says: top-k and per-class accuracy, confusions, the samples it got wrong.

Legend: n samples, c classes; scores (n, c), larger is likelier; labels (n,) integers in [0, c).
A tie goes to the lower class index everywhere, as in ``numpy.argmax``.
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from torchlight.errors import UserError
from torchlight.files import atomic_write

CELLS_WITH_NUMBERS = 20  # beyond this many classes the numbers in a figure cannot be read


def topk_accuracy(
    scores: np.ndarray, labels: np.ndarray, ks: Iterable[int] = (1, 5)
) -> dict[int, float]:
    """Fraction of samples whose label is among the k largest scores, for each k.

    The rank of the label is the number of classes with a larger score plus those with an equal
    score and a lower index; a k above c counts every sample.

    Raises:
        ValueError: there is no sample, or a k is below 1.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    wanted = list(ks)
    if len(labels) == 0 or min(wanted) < 1:
        raise ValueError(f"top-k accuracy needs samples and k >= 1, got {len(labels)}, k={wanted}")
    own = scores[np.arange(len(labels)), labels][:, None]
    before = np.arange(scores.shape[1])[None] < labels[:, None]
    rank = ((scores > own) | ((scores == own) & before)).sum(axis=1)
    return {k: float((rank < k).mean()) for k in wanted}


def confusion(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(c, c) int64: entry [i, j] counts the samples of class i predicted as class j."""
    classes = np.shape(scores)[1]
    cells = np.asarray(labels) * classes + np.argmax(scores, axis=1)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def class_accuracy(matrix: np.ndarray) -> np.ndarray:
    """(c,) float64: share of each class's samples predicted right, NaN where it has none."""
    total = matrix.sum(axis=1)
    return np.divide(np.diag(matrix), total, out=np.full(len(matrix), np.nan), where=total > 0)


def write_report(
    folder: str | Path,
    stem: str,
    scores: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    class_names: Sequence[str] | None = None,
) -> dict[str, Path]:
    """Write the four files of one evaluation, each atomically.

    ``<stem>_each_class_acc.csv`` (index, class, samples, correct, accuracy),
    ``<stem>_confusion.csv`` (rows true, columns predicted), ``<stem>_confusion.png`` and
    ``<stem>_wrong.txt`` (sample name, true class, predicted class; tab-separated).

    Args:
        folder: made if it does not exist.
        scores: (n, c).
        labels: (n,).
        names: n sample names.
        class_names: c names; the class indices where not given.

    Returns:
        The paths, by ``each_class_acc``, ``confusion``, ``confusion_figure`` and ``wrong``.

    Raises:
        OSError: a file cannot be written.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    matrix = confusion(scores, labels)
    classes = [str(name) for name in class_names or range(len(matrix))]
    paths = {
        "each_class_acc": target / f"{stem}_each_class_acc.csv",
        "confusion": target / f"{stem}_confusion.csv",
        "confusion_figure": target / f"{stem}_confusion.png",
        "wrong": target / f"{stem}_wrong.txt",
    }
    _write_csv(paths["each_class_acc"], _class_rows(matrix, classes))
    _write_csv(
        paths["confusion"],
        [["true / predicted", *classes]]
        + [[name, *row] for name, row in zip(classes, matrix.tolist(), strict=True)],
    )
    _draw_confusion(paths["confusion_figure"], matrix, classes)
    _write_wrong(paths["wrong"], np.argmax(scores, axis=1), labels, names, classes)
    return paths


def write_distances(
    folder: str | Path,
    stem: str,
    distances: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    class_names: Sequence[str],
) -> dict[str, Path]:
    """Write a matching's distances (n, c) and its predictions, the nearest class of each sample.

    ``<stem>_distances.csv`` (sample, true, one column a class) and ``<stem>_predictions.csv``
    (sample, true, predicted, distance), both atomically.

    Returns:
        The paths, by ``distances`` and ``predictions``.

    Raises:
        OSError: a file cannot be written.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    kinds = ("distances", "predictions")
    paths = {kind: target / f"{stem}_{kind}.csv" for kind in kinds}
    true = [class_names[label] for label in labels.tolist()]
    nearest = distances.argmin(axis=1).tolist()
    samples = list(zip(names, true, distances.tolist(), nearest, strict=True))
    _write_csv(
        paths["distances"],
        [["sample", "true", *class_names], *([name, own, *row] for name, own, row, _ in samples)],
    )
    _write_csv(
        paths["predictions"],
        [
            ["sample", "true", "predicted", "distance"],
            *([name, own, class_names[best], row[best]] for name, own, row, best in samples),
        ],
    )
    return paths


def check_settings(path: Path, settings: Mapping[str, object]) -> str:
    """What results will be of, as text to ``path``; those of other settings are not overwritten.

    Raises:
        UserError: names the settings that differ from those in ``path``.
    """
    text = json.dumps(settings, indent=2, sort_keys=True)
    there = path.read_text(encoding="utf-8", errors="replace") if path.exists() else text
    changed = set(there.splitlines()) ^ set(text.splitlines())
    if changed:
        keys = sorted({line.split('"')[1] for line in changed if '"' in line})
        raise UserError(
            f"{path}: results of other settings are there ({', '.join(keys)}); say "
            f"--work-dir OTHER, or remove this file to replace them"
        )
    return text


def write_methods(
    folder: str | Path,
    stem: str,
    methods: Mapping[str, np.ndarray],
    chosen: str,
    labels: np.ndarray,
    names: Sequence[str],
    class_names: Sequence[str],
) -> str:
    """Write reports and distances of the ``chosen`` of several methods, and a table of them all.

    ``<stem>_matchings.csv`` has top-1, then the accuracy of each class (empty where it has no
    sample); for the other files see ``write_report`` and ``write_distances``.

    Args:
        methods: of each method, its scores (n, c), distances with their sign changed.

    Returns:
        The table as text.

    Raises:
        OSError: a file cannot be written.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    table: list[list[float]] = []
    for scores in methods.values():
        top = topk_accuracy(scores, labels, (1,))[1]
        table.append([top, *class_accuracy(confusion(scores, labels)).tolist()])
    write_report(folder, stem, methods[chosen], labels, names, class_names)
    write_distances(folder, stem, -methods[chosen], labels, names, class_names)
    rows: list[list[object]] = [["method", "top-1", *class_names]]
    for method, values in zip(methods, table, strict=True):
        rows.append([method, *("" if np.isnan(value) else f"{value:.6f}" for value in values)])
    _write_csv(Path(folder) / f"{stem}_matchings.csv", rows)
    width = max(6, *(len(name) for name in class_names)) + 2
    lines = [f"{'class':>{width}} {'samples':>9}" + "".join(f"{m:>10}" for m in methods)]
    columns = zip(("top-1", *class_names), (counts.sum(), *counts), *table, strict=True)
    for name, count, *values in columns:
        shown = ("" if np.isnan(value) else f"{value:.2%}" for value in values)
        lines.append(f"{name:>{width}} {count:>9}" + "".join(f"{text:>10}" for text in shown))
    return "\n".join(lines)


def _class_rows(matrix: np.ndarray, classes: list[str]) -> list[list[object]]:
    """The per-class table with its heading; the accuracy of a class without samples is empty."""
    rows: list[list[object]] = [["index", "class", "samples", "correct", "accuracy"]]
    for index, accuracy in enumerate(class_accuracy(matrix)):
        shown = "" if np.isnan(accuracy) else f"{accuracy:.6f}"
        rows.append([index, classes[index], matrix[index].sum(), matrix[index, index], shown])
    return rows


def _write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows, atomically."""
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file).writerows(rows)


def _write_wrong(
    path: Path, predicted: np.ndarray, labels: np.ndarray, names: Sequence[str], classes: list[str]
) -> None:
    """One line a wrong sample, in the order of the samples."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("sample\ttrue\tpredicted\n")
        for i in np.flatnonzero(predicted != np.asarray(labels)).tolist():
            file.write(f"{names[i]}\t{classes[labels[i]]}\t{classes[predicted[i]]}\n")


def _draw_confusion(path: Path, matrix: np.ndarray, classes: list[str]) -> None:
    """Draw the matrix, each row as shares of its class; the figure grows with the classes."""
    # Imported here: it takes most of a second, and training does not need it before this point.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    size = len(matrix)
    side = min(max(0.17 * size + 3.0, 6.0), 40.0)
    figure = Figure(figsize=(side + 1.0, side), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # The square root makes a confusion of a few per cent visible beside a full diagonal.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0.0, vmax=1.0))
    figure.colorbar(image, ax=axes, label="share of the class", shrink=0.6, aspect=40)
    font = 9 if size <= CELLS_WITH_NUMBERS else 7
    axes.set_xticks(range(size), classes, rotation=90, fontsize=font)
    axes.set_yticks(range(size), classes, fontsize=font)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    right, total = int(np.trace(matrix)), int(matrix.sum())
    axes.set_title(f"{right} of {total} right ({right / max(total, 1):.2%})")
    if size <= CELLS_WITH_NUMBERS:
        for (row, column), count in np.ndenumerate(matrix):
            colour = "white" if shares[row, column] > 0.3 else "black"
            if count:
                axes.text(column, row, str(count), ha="center", va="center", color=colour)
    with atomic_write(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))
