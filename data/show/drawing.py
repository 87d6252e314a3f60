"""Strips, animations and links between joints by matplotlib, without a display."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

from data.show.poses import VIEWS, Poses
from data.skeletons import Skeleton
from torchlight.files import atomic_write

SIDES = {"left": "#d9622b", "right": "#2b6cb0", "": "#6b6b6b"}
PERSONS = ("#2b6cb0", "#d9622b", "#2f855a", "#805ad5", "#b7791f", "#c53030")
_CELL = 1.5  # inches of a pose; twice that with numbers
_GAP, _TITLE = 0.25, 0.2  # between rows and above a row, in cells
_MOST_FRAMES = 150  # of an animation


def save_strip(path: Path, clip: Poses, *, frames: int = 8, numbers: bool = False) -> None:
    """A row of ``frames`` poses for each view."""
    _save(path, strip(clip, frames=frames, numbers=numbers))


def strip(clip: Poses, *, frames: int = 8, numbers: bool = False) -> Figure:
    """What ``save_strip`` saves."""
    chosen = _spread(clip, frames)
    rows = [("" if row else clip.title, clip, view, chosen) for row, view in enumerate(clip.views)]
    return _rows(rows, numbers)


def save_page(path: Path, clips: Sequence[Poses], *, frames: int = 8) -> None:
    """A row of poses, from the front, for each of some clips of one skeleton."""
    _save(path, _rows([(c.title, c, "front", _spread(c, frames)) for c in clips], False))


def save_animation(path: Path, clip: Poses, *, rate: float = 30.0, numbers: bool = False) -> None:
    """A GIF, the views side by side; of a long clip every second frame, or third, ..."""
    step = math.ceil(len(clip.points) / _MOST_FRAMES)
    images = list(_images(clip, range(0, len(clip.points), step), numbers))
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        pause = max(round(1000 * step / rate), 20)  # milliseconds
        images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=pause, loop=0)


def _images(clip: Poses, frames: Sequence[int], numbers: bool) -> Iterator[Image.Image]:
    for frame in frames:
        figure, axes = _canvas(len(clip.views), 1 + _GAP + _TITLE, 3.0)
        axes.text(0.03, -0.03, clip.title, va="top", fontsize=8, weight="bold")
        cells = [
            (clip, frame, view, column, f"{view}, {frame}")
            for column, view in enumerate(clip.views)
        ]
        _draw(axes, [(*cell, -_TITLE) for cell in cells], numbers)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        yield Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(64)


Row = tuple[str, Poses, str, np.ndarray]
Cell = tuple[Poses, int, str, int, str, float]  # clip, frame, view, column, caption, upper end


def _rows(rows: Sequence[Row], numbers: bool) -> Figure:
    """Rows of poses: a title, a clip, a view, and which frames."""
    height = sum(1 + _GAP + (_TITLE if title else 0) for title, *_ in rows) + 0.2
    columns = max(4, *(len(frames) for *_, frames in rows))
    figure, axes = _canvas(columns, height, _CELL * (2 if numbers else 1))
    cells: list[Cell] = []
    top = 0.0
    for title, clip, view, frames in rows:
        if title:
            axes.text(0.05, top - 0.06, title, va="top", fontsize=9, weight="bold")
            top -= _TITLE
        for column, frame in enumerate(frames.tolist()):
            caption = str(frame) if column else f"{view}, frame {frame}"
            cells.append((clip, frame, view, column, caption, top))
        top -= 1 + _GAP
    _draw(axes, cells, numbers)
    for place, (word, colour) in enumerate(reversed(legend(rows[0][1]))):
        axes.text(
            columns - 0.1 - 0.4 * place, 0.06 - height, word, color=colour, fontsize=8, ha="right"
        )
    return figure


def _canvas(columns: float, height: float, cell: float) -> tuple[Figure, Axes]:
    """A figure whose unit is a cell, from its upper left corner."""
    figure = Figure(figsize=(columns * cell, height * cell), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, columns), ylim=(-height, 0))
    axes.set_axis_off()
    return figure, axes


def _draw(axes: Axes, cells: Sequence[Cell], numbers: bool) -> None:
    """Bodies in their cells; all lines at once, as matplotlib is slow in single ones."""
    lines, colours, dots = [], [], []
    for clip, frame, view, column, caption, top in cells:
        middle = np.array([column + 0.5, top - _GAP / 2 - 0.55])
        axes.text(
            middle[0], top - 0.05, caption, fontsize=7, color="#555555", ha="center", va="top"
        )
        persons = zip(clip.points[frame][..., VIEWS[view]], clip.seen[frame], strict=True)
        for person, (points, seen) in enumerate(persons):
            places = np.clip(points, -0.75, 0.75) * 0.92 + middle
            for bone in clip.skeleton.bones:
                if seen[list(bone)].all():
                    lines.append(places[list(bone)])
                    colours.append(colour_of(clip, bone, person))
            dots.append(places[seen])
            for joint in np.flatnonzero(seen) if numbers else ():
                x, y = places[joint] + 0.008
                axes.text(x, y, str(joint), fontsize=4.5)
    fine = cells[0][0].skeleton.num_point > 60
    width = 0.7 if fine else 1.7
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=width, capstyle="round"))
    x, y = np.concatenate(dots).T
    axes.scatter(x, y, s=0.6 if fine else 4, color="#222222", zorder=3, linewidths=0)


def colour_of(clip: Poses, bone: tuple[int, int], person: int) -> str:
    """By person where there are several, else by side."""
    if clip.points.shape[1] > 1:
        return PERSONS[person % len(PERSONS)]
    names = clip.skeleton.joint_names
    return SIDES.get(names[bone[0]].split()[0] if names else "", SIDES[""])


def legend(clip: Poses) -> list[tuple[str, str]]:
    """What the colours stand for."""
    persons = clip.points.shape[1]
    if persons > 1:
        return [(f"person {i + 1}", colour) for i, colour in enumerate(PERSONS[:persons])]
    sides = any(name.startswith("left ") for name in clip.skeleton.joint_names)
    return [(side, SIDES[side]) for side in ("left", "right")] if sides else []


def save_links(path: Path, weights: np.ndarray, skeleton: Skeleton, links: int, title: str) -> None:
    """Weights between joints (S, V, V): a matrix each, and the strongest links on the body."""
    figure = Figure(figsize=(1.5 + 3.2 * len(weights), 7), layout="constrained")
    figure.suptitle(title)
    cells = figure.subplots(2, len(weights), squeeze=False)
    largest = float(np.abs(weights).max()) or 1.0
    for column, matrix in enumerate(weights):
        shown = cells[0, column].imshow(matrix, cmap="RdBu_r", vmin=-largest, vmax=largest)
        name = f"subset {column + 1}" if len(weights) > 1 else ""
        cells[0, column].set(title=name, xlabel="from joint", ylabel="" if column else "to joint")
        _draw_links(cells[1, column], matrix, skeleton, links, largest)
    figure.colorbar(shown, ax=list(cells[0]), shrink=0.8)
    _save(path, figure)


def _draw_links(
    axes: Axes, matrix: np.ndarray, skeleton: Skeleton, links: int, most: float
) -> None:
    places = _places(skeleton)
    bones = [places[list(bone)] for bone in skeleton.bones]
    axes.add_collection(LineCollection(bones, colors="#c8c8c8", linewidths=3, capstyle="round"))
    axes.scatter(places[:, 0], places[:, 1], s=9, color="#333333", zorder=3)
    between = np.abs(matrix) * (1 - np.eye(len(matrix)))
    strongest = np.argsort(-between, axis=None, kind="stable")[:links]
    for to, source in zip(*np.unravel_index(strongest, matrix.shape), strict=True):
        style = {
            "arrowstyle": "-|>",
            "color": "#b2182b" if matrix[to, source] > 0 else "#2166ac",
            "linewidth": 0.6 + 2 * between[to, source] / most,
            "connectionstyle": "arc3,rad=0.18",
        }
        if between[to, source]:
            axes.annotate("", places[to], places[source], arrowprops=style)
    axes.set_title(f"{links} strongest links", fontsize=9)
    axes.set_aspect("equal")
    axes.margins(0.12)
    axes.set_axis_off()


def _places(skeleton: Skeleton) -> np.ndarray:
    """A place (V, 2) for every joint: a body where names tell it, or a tree about its centre."""
    known = [_place(name) for name in skeleton.joint_names]
    if known and None not in known:
        return np.array(known)
    places = np.zeros((skeleton.num_point, 2))

    def spread(joint: int, low: float, high: float, depth: int) -> None:
        angle = (low + high) / 2
        places[joint] = depth * math.sin(angle), depth * math.cos(angle)
        children = [child for child, parent in skeleton.bones if parent == joint]
        edges = np.linspace(low, high, len(children) + 1)
        for i, child in enumerate(children):
            spread(child, edges[i], edges[i + 1], depth + 1)

    spread(skeleton.center, 0.0, 2 * math.pi, 0)
    return places


_PARTS = {  # of a body, seen from the front; those of a side are mirrored
    **{"head": (0, 1.7), "nose": (0, 1.68), "neck": (0, 1.5), "spine top": (0, 1.42)},
    **{"shoulder center": (0, 1.45), "spine middle": (0, 1.2), "spine": (0, 1.2)},
    **{"spine base": (0, 0.95), "hip center": (0, 0.95), "hip": (0.12, 0.92), "mid hip": (0, 0.95)},
    **{"eye": (0.05, 1.74), "eye inner": (0.03, 1.74), "eye outer": (0.07, 1.74)},
    **{"ear": (0.11, 1.7), "mouth": (0.04, 1.61), "shoulder": (0.22, 1.42), "elbow": (0.36, 1.15)},
    **{"wrist": (0.48, 0.92), "hand": (0.53, 0.84), "hand tip": (0.58, 0.76), "thumb": (0.45, 0.8)},
    **{"pinky": (0.58, 0.8), "index": (0.54, 0.76), "knee": (0.15, 0.5), "ankle": (0.16, 0.1)},
    **{"foot": (0.22, 0.02), "heel": (0.14, 0.03), "foot index": (0.24, 0), "big toe": (0.22, 0)},
    "small toe": (0.28, 0.01),
}


def _place(name: str) -> tuple[float, float] | None:
    side, _, part = name.partition(" ")
    if side in ("left", "right"):
        x, y = _PARTS.get(part, (math.nan, 0))
        return None if math.isnan(x) else (x if side == "left" else -x, y)
    return (0.0, 0.95) if name == "hip" else _PARTS.get(name)  # halpe's is the middle of both


def _spread(clip: Poses, wanted: int) -> np.ndarray:
    return np.unique(np.linspace(0, len(clip.points) - 1, wanted).round().astype(np.int64))


def _save(path: Path, figure: Figure) -> None:
    FigureCanvasAgg(figure)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, facecolor="white")
