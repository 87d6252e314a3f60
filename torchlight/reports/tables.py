"""What an evaluation says, as files: per-class accuracy, confusions, the samples it got wrong.

Legend: n samples, c classes; scores (n, c), larger is likelier; labels (n,) integers in [0, c).
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from torchlight.files import atomic_write
from torchlight.metrics import class_accuracy, confusion, topk_accuracy

CELLS_WITH_NUMBERS = 20  # beyond this many classes the numbers in a figure cannot be read


def write_report(
    folder: str | Path,
    stem: str,
    scores: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    class_names: Sequence[str] | None = None,
) -> list[Path]:
    """Write the four files of one evaluation, each atomically; return their paths.

    ``<stem>_each_class_acc.csv`` (index, class, samples, correct, accuracy),
    ``<stem>_confusion.csv`` (rows true, columns predicted), ``<stem>_confusion.png`` and
    ``<stem>_wrong.txt`` (sample name, true class, predicted class; tab-separated).

    Args:
        names: of the n samples.
        class_names: c names; the class indices where not given.

    Raises:
        OSError: a file cannot be written.
    """
    matrix = confusion(scores, labels)
    classes = [str(name) for name in class_names or range(len(matrix))]
    kinds = ("each_class_acc.csv", "confusion.csv", "confusion.png", "wrong.txt")
    table, cells, picture, wrong = paths = [Path(folder) / f"{stem}_{kind}" for kind in kinds]
    _write_csv(table, _class_rows(matrix, classes))
    rows = [[name, *row] for name, row in zip(classes, matrix.tolist(), strict=True)]
    _write_csv(cells, [["true / predicted", *classes], *rows])
    with atomic_write(picture) as temporary:
        confusion_picture(matrix, classes).print_png(str(temporary))
    predicted = np.argmax(scores, axis=1)
    lines = [
        f"{names[i]}\t{classes[labels[i]]}\t{classes[predicted[i]]}\n"
        for i in np.flatnonzero(predicted != labels).tolist()
    ]
    with atomic_write(wrong) as temporary:
        temporary.write_text("".join(["sample\ttrue\tpredicted\n", *lines]), encoding="utf-8")
    return paths


def write_distances(
    folder: str | Path,
    stem: str,
    distances: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    class_names: Sequence[str],
) -> None:
    """Write a matching's distances (n, c) and its predictions, the nearest class of each sample.

    ``<stem>_distances.csv`` (sample, true, one column a class) and ``<stem>_predictions.csv``
    (sample, true, predicted, distance), both atomically.

    Raises:
        OSError: a file cannot be written.
    """
    true = [class_names[label] for label in labels.tolist()]
    nearest = distances.argmin(axis=1).tolist()
    samples = list(zip(names, true, distances.tolist(), nearest, strict=True))
    _write_csv(
        Path(folder) / f"{stem}_distances.csv",
        [["sample", "true", *class_names], *([name, own, *row] for name, own, row, _ in samples)],
    )
    _write_csv(
        Path(folder) / f"{stem}_predictions.csv",
        [
            ["sample", "true", "predicted", "distance"],
            *([name, own, class_names[best], row[best]] for name, own, row, best in samples),
        ],
    )


def write_methods(
    heading: str,
    folder: str | Path,
    stem: str,
    methods: Mapping[str, np.ndarray],
    chosen: str,
    labels: np.ndarray,
    names: Sequence[str],
    class_names: Sequence[str],
) -> str:
    """Write reports and distances of the ``chosen`` of several methods, and a table of them all,
    which is returned below ``heading``.

    ``<stem>_matchings.csv`` has top-1, then the accuracy of each class (empty where it has no
    sample); for the other files see ``write_report`` and ``write_distances``.

    Args:
        methods: of each method, its scores (n, c), distances with their sign changed.

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
    lines.append(
        f"wrote {Path(folder) / stem}_*: all of {chosen} but the comparison, {stem}_matchings.csv"
    )
    return "\n".join([heading, *lines])


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


def confusion_picture(matrix: np.ndarray, classes: Sequence[str]) -> Any:
    """Draw the matrix, each row as fractions of its class; return matplotlib's canvas."""
    # Imported here: it takes most of a second, and training does not need it before this point.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    size = len(matrix)
    side = min(max(0.17 * size + 3.0, 6.0), 40.0)
    figure = Figure(figsize=(side + 1.0, side), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # The square root makes a confusion of a few per cent visible beside a full diagonal.
    image = axes.imshow(fractions, cmap="Blues", norm=PowerNorm(0.5, vmin=0.0, vmax=1.0))
    figure.colorbar(image, ax=axes, label="fraction of the class", shrink=0.6, aspect=40)
    font = 9 if size <= CELLS_WITH_NUMBERS else 7
    axes.set_xticks(range(size), classes, rotation=90, fontsize=font)
    axes.set_yticks(range(size), classes, fontsize=font)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    right, total = int(np.trace(matrix)), int(matrix.sum())
    axes.set_title(f"{right} of {total} right ({right / max(total, 1):.2%})")
    if size <= CELLS_WITH_NUMBERS:
        for (row, column), count in np.ndenumerate(matrix):
            colour = "white" if fractions[row, column] > 0.3 else "black"
            if count:
                axes.text(column, row, str(count), ha="center", va="center", color=colour)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas
