"""What a run's page shows of skeletons and operators."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from model.spectrum import spectrum
from torchlight.card import Card, read_card
from torchlight.checkpoint import fit_keys, load_weights
from torchlight.reports import charts
from torchlight.reports.page import escape, worst
from torchlight.reports.past import Evaluated, PastRun

_PAIRS = 4  # confusions whose clips are drawn
_FRAMES = 5

# -- clips ----------------------------------------------------------------------------------------


def clips(found: Evaluated, dataset: Any) -> str:
    """The worst confusions: a clip that was taken for another class, beside a right one of that."""
    source: Any = getattr(dataset, "source", None)
    if not hasattr(source, "skeleton"):
        return ""
    rows = {name: row for row, name in enumerate(source.names)}
    missed = {name for name, *_ in found.wrong}
    pairs = []
    for true, taken, _ in worst(found, _PAIRS):
        words = (found.classes[true], found.classes[taken])
        wrong = [name for name, *told in found.wrong if tuple(told) == words and name in rows]
        right = [name for name in _of_class(dataset, taken) if name in rows and name not in missed]
        if wrong and right:
            subject = source.subjects[rows[wrong[0]]]
            same = [name for name in right if source.subjects[rows[name]] == subject]
            shown = (
                (wrong[0], f"{words[0]}, taken for {words[1]}"),
                ((same or right)[0], words[1]),
            )
            drawn = "".join(_figure(source, rows[name], name, told) for name, told in shown)
            pairs.append(f'<div class="row">{drawn}</div>')
    told = "<p>Left a clip that was taken for another class, right a clip of that class.</p>"
    return told + "".join(pairs) if pairs else ""


def _of_class(dataset: Any, label: int) -> list[str]:
    labels = np.asarray(dataset.labels)
    return [dataset.sample_names[row] for row in np.flatnonzero(labels == label)]


def _figure(source: Any, row: int, name: str, told: str) -> str:
    from data.show.drawing import strip  # a wing that may be out
    from data.show.poses import poses

    joints = np.asarray(source.clip(row)).transpose(1, 3, 2, 0)  # (T, M, V, C)
    there = (joints != 0).any(axis=(2, 3))
    joints = joints[there.any(axis=1)][:, there.any(axis=0)]
    axes = len(getattr(source, "channels", "xyz").removesuffix("s"))
    figure = strip(poses(joints, source.skeleton, axes=axes), frames=_FRAMES)
    drawn = charts.svg(figure, f"Clip {name}: {told}")
    caption = f"<b>{escape(told)}</b><span>{escape(name)}</span>"
    return f"<figure><figcaption>{caption}</figcaption>{drawn}</figure>"


# -- operators ------------------------------------------------------------------------------------


def operators(run: PastRun, found: Evaluated, patience_s: float) -> str:
    """Eigenvalues of each class's operator, before and after their normalisation.

    Args:
        patience_s: for eigenvalues; classes beyond are left out, which is said.
    """
    by_name = _operators_of(run)
    if not by_name:
        return ""
    started, count = time.monotonic(), len(next(iter(by_name.values())))
    values: dict[str, list[np.ndarray]] = {name: [] for name in by_name}
    for label in range(count):
        for name, K in by_name.items():
            values[name].append(spectrum(K[label]).numpy())
        if time.monotonic() - started > patience_s:
            break
    drawn = len(next(iter(values.values())))
    names = [found.classes[i] if i < len(found.classes) else str(i) for i in range(drawn)]
    radii = {name: np.array([np.abs(v).max() for v in of]) for name, of in values.items()}
    middle = ", ".join(f"{name} {np.median(r):.3f}" for name, r in radii.items())
    cut = f" These are the first {drawn} of {count} classes; --phase report takes time for all."
    cut = cut if drawn < count else ""
    told = (
        f"<p>Eigenvalues of the operator of each class in the complex plane, with the unit circle: "
        f"inside it what a class predicts dies away, outside it grows. Median spectral radius: "
        f"{escape(middle)}.{cut}</p>"
    )
    radius = charts.by_class(
        [charts.shown(n) for n in names], "spectral radius", radii, "Spectral radius of each class"
    )
    planes = _planes(names, {name: np.stack(of) for name, of in values.items()})
    radius = f"<h3>Spectral radii</h3>{radius}"
    if len(names) > charts.FEW:
        radius = f"<details><summary>Spectral radii</summary>{radius}</details>"
    return f"{told}{planes}{radius}"


def _operators_of(run: PastRun) -> Mapping[str, torch.Tensor]:
    """K of the run's weights, and of those that were normalised after it, by what they are."""
    tested = run.config.get("weights") if run.config.get("phase") == "test" else None
    own = Path(tested) if tested else run.folder / "best.pt"
    made = sorted(run.folder.glob("normali[sz]ed*.pt"), key=lambda path: path.stat().st_mtime)
    found: dict[str, torch.Tensor] = {}
    for path in [own, *made[-1:]]:
        if path.is_file():
            K = fit_keys(load_weights(path), {"K"}, str(path)).get("K")
            if K is not None and K.ndim == 3:
                found[_name_of(read_card(path)[0], after=path in made)] = K
    return found


def _name_of(card: Card, *, after: bool) -> str:
    return "normalised" if after or "K" in card.normalised else "as trained"


def _planes(names: Sequence[str], values: Mapping[str, np.ndarray]) -> str:
    """A small complex plane for each class."""
    reach = max(1.1, *(float(np.abs(v).max()) for v in values.values()))
    few = len(names) <= charts.FEW
    columns, cell = min(5 if few else 10, len(names)), 1.5 if few else 1.1
    places = np.array([(i % columns, -(i // columns)) for i in range(len(names))]) * 2.5 * reach
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(cell * columns, cell * rows + 0.4), layout="constrained")
    axes = figure.add_subplot(aspect="equal")
    for (name, of), colour in zip(values.items(), charts.CLASSES, strict=False):
        xy = np.stack([of.real, of.imag], axis=-1) + places[:, None]
        x, y = xy.reshape(-1, 2).T
        axes.scatter(x, y, s=3 if few else 1.5, lw=0, color=colour, label=name, rasterized=True)
    circle = np.exp(2j * np.pi * np.linspace(0, 1, 61))
    axes.plot(
        circle.real[:, None] + places[:, 0],
        circle.imag[:, None] + places[:, 1],
        color=charts.GREY,
        lw=0.7,
    )
    for name, (column, row) in zip(names, places, strict=True):
        text = charts.shown(name, 22 if few else 16)
        axes.text(
            column, row + 1.1 * reach, text, fontsize=6.5 if few else 5.5, ha="center", va="bottom"
        )
    axes.set_axis_off()
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8, markerscale=3)
    told = f"Eigenvalues of {len(names)} operators, {' and '.join(values)}"
    return charts.svg(figure, told, scrolls=True, dpi=150 if few else 120)
