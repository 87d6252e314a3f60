"""Charts of a run's page by matplotlib, as SVG within HTML that takes its colours from CSS."""

import html
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from torchlight.errors import printable
from torchlight.reports.past import Evaluated, wilson

BLUE, ORANGE, GREY, LINE = "#2b6cb0", "#d9622b", "#6b6b6b", "#b0b0b0"
_BY_CSS = {
    **dict.fromkeys(("#000000", "#222222"), "currentColor"),
    **dict.fromkeys(("#555555", GREY), "var(--muted)"),
    **{LINE: "var(--line)", BLUE: "var(--blue)", ORANGE: "var(--orange)"},
}
"""What a colour of matplotlib's is in the page, where light and dark differ."""
_SHORTER = (
    (r"<style\b.*?</style>|<!--.*?-->", ""),
    (r'(?<=[ \n])id="[\w.]+_\d+"', ""),  # which nothing refers to
    (r" font-family: [^;\"]*;?", ""),
    (r"font: ([\d.]+px)[^;\"]*", r"font-size: \1"),
    (r'(\.\d\d)\d+(?=[ "\n,)])', r"\1"),  # hundredths of a point are enough
    (r"[ \n]+(?=[/>])|(?<=>)\s+(?=<)", ""),
)
"""What is left out of matplotlib's text."""
CLASSES = ("#3b82c4", "#e07b1a", "#3f9a54", "#d1495b", "#8e6bbf", "#8c6d4f", "#d16ba5", "#7f8c2b",
            "#2aa1a8", "#7d7d7d")  # fmt: skip
"""Of points by class; seen on white and on black."""
FEW = 20  # classes; beyond, numbers in cells cannot be read
NAMES_IN_PLACE = 12  # beyond this many classes points are labelled by numbers
_BLUES = LinearSegmentedColormap.from_list("blues", [(0.23, 0.51, 0.77, 0), (0.23, 0.51, 0.77, 1)])


def svg(figure: Figure, told: str, *, scrolls: bool = False, dpi: int = 150) -> str:
    """The figure as an HTML element that fills its box.

    Args:
        told: what is to be seen, for those who do not see it.
        dpi: of what is drawn in dots.
        scrolls: it keeps its size, and its box scrolls, where there is too little room.
    """
    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": told}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that its font has not
        figure.savefig(stream, format="svg", transparent=True, dpi=dpi, metadata=nothing)
    text = stream.getvalue()[stream.getvalue().index("<svg") :]
    for pattern, instead in _SHORTER:
        text = re.sub(pattern, instead, text, flags=re.DOTALL)
    for found, css in _BY_CSS.items():
        text = text.replace(found, css)
    body, viewbox = text[text.index(">") + 1 :], re.search(r'viewBox="([\d. ]+)"', text)
    assert viewbox is not None
    width = round(float(viewbox[1].split()[2]))
    least = f"min-width:{width}pt; " if scrolls else ""
    box = ' class="scroll" tabindex="0"' if scrolls else ' class="chart"'
    label = html.escape(told, quote=True)
    return (
        f'<div{box}><svg role="img" aria-label="{label}" viewBox="{viewbox[1]}" '
        f'style="{least}max-width:{1.35 * width:.0f}pt">'
        f"<title>{html.escape(told)}</title>{body}</div>"
    )


def curve(epochs: Mapping[int, Mapping[str, float]], what: str, title: str) -> str:
    """One measure by epoch: of training, and of what was evaluated; "" where there is none."""
    figure, axes = _axes(4.3, 2.7, title)
    axes.grid(color=LINE, lw=0.5)
    names = [what] if what == "learning_rate" else [f"{s}/{what}" for s in ("train", "val", "test")]
    scale = 100 if what == "accuracy" else 1
    for name, colour in zip(names, (BLUE, ORANGE, ORANGE), strict=False):
        points = [(epoch, scale * line[name]) for epoch, line in epochs.items() if name in line]
        if points:
            marker = "o" if colour == ORANGE or len(points) == 1 else ""
            label = {"train": "training", "val": "held out"}.get(name.partition("/")[0], "test")
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, ms=3, label=label)
    if not axes.lines:
        return ""
    if len(axes.lines) > 1:
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel("epoch", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return svg(figure, f"{title} by epoch, {len(epochs)} epochs")


def confusions(found: Evaluated) -> str:
    """The matrix, each row as fractions of its class."""
    classes, matrix = [shown(name) for name in found.classes], found.matrix
    side = (0.17 if len(classes) <= FEW else 0.12) * len(classes) + 2.2
    figure, axes = _axes(side + 0.3, side)
    fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(0.85 * np.sqrt(fractions), cmap=_BLUES, vmin=0, vmax=1, interpolation="none")
    font = 8 if len(classes) <= FEW else 6
    axes.set_xticks(
        range(len(classes)), classes, fontsize=font, rotation=90, rotation_mode="anchor",
        ha="right", va="center",
    )  # fmt: skip
    axes.set_yticks(range(len(classes)), classes, fontsize=font)
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("true", fontsize=9)
    if len(classes) <= FEW:
        for row, column in np.argwhere(matrix):
            count = str(matrix[row, column])
            axes.text(column, row, count, fontsize=7, ha="center", va="center_baseline")
    right, total = found.counts
    told = f"Confusions of {len(classes)} classes: {right} of {total} right"
    return svg(figure, told, scrolls=True)


def bars(found: Evaluated) -> str:
    """The accuracy of each class that has samples, the lowest first, with its interval."""
    right, totals = np.diag(found.matrix), found.matrix.sum(axis=1)
    order = np.argsort(right / np.maximum(totals, 1), kind="stable")
    order = order[totals[order] > 0]
    values = right[order] / totals[order]
    ends = np.array([wilson(int(right[i]), int(totals[i])) for i in order])
    names = [f"{shown(found.classes[i])} ({right[i]}/{totals[i]})" for i in order]
    told = "Accuracy of each class, with its 95 % interval"
    spread = 100 * np.abs(ends - values[:, None]).T
    return by_class(names, "accuracy, per cent", {"": 100 * values}, told, spread)


def by_class(
    names: Sequence[str],
    unit: str,
    series: Mapping[str, np.ndarray],
    told: str,
    spread: np.ndarray | None = None,
) -> str:
    """One number (c,) for each class, or two, the first class at the top.

    Args:
        spread: below and above it, (2, c).
    """
    figure, axes = _axes(4.8, 0.16 * len(names) + 0.9)
    for (label, values), colour in zip(series.items(), (BLUE, ORANGE), strict=False):
        places = range(len(names))
        axes.errorbar(values, places, xerr=spread, fmt="o", ms=4, lw=1, color=colour, label=label)
    axes.set_yticks(range(len(names)), names, fontsize=7.5)
    axes.set_ylim(len(names) - 0.3, -0.7)
    axes.set_xlabel(unit, fontsize=9)
    if len(series) > 1:
        figure.legend(loc="outside upper right", ncols=len(series), frameon=False, fontsize=8)
    return svg(figure, told)


def points(
    xy: np.ndarray, labels: np.ndarray, wrong: np.ndarray, classes: Sequence[str], told: str
) -> str:
    """Samples (n, 2) in the colours of their classes, crosses where they are taken for others."""
    figure, axes = _axes(6.4, 5)
    colours = np.array(CLASSES)[labels % len(CLASSES)]
    for rows, style in ((~wrong, {"s": 10, "lw": 0}), (wrong, {"s": 26, "lw": 1.4, "marker": "x"})):
        axes.scatter(xy[rows, 0], xy[rows, 1], c=colours[rows], **style)
    for label in np.unique(labels):
        x, y = np.median(xy[labels == label], axis=0)
        text = shown(classes[label]) if len(classes) <= NAMES_IN_PLACE else str(label)
        axes.text(x, y, text, fontsize=8, ha="center", va="center", weight="bold")
    axes.set_axis_off()
    return svg(figure, told)


def shown(name: str, longest: int = 28) -> str:
    """A class's name beside an axis."""
    text = printable(name)
    cut = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return cut.replace("$", r"\$")


def _axes(width: float, height: float, title: str = "") -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return figure, axes
