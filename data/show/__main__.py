"""Pictures of skeletons: ``python -m data.show CLIP [--out x.png|x.gif|x.html]``.

CLIP is a ``.skeleton`` file, an NW-UCLA JSON, a store or own skeletons with --sample NAME, or any
file that ``python -m data.custom`` reads, with its --layout. With --links CLIP is an array (V, V)
or (S, V, V) of weights between joints, such as a learnt topology.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from data import ucla
from data.actions import NTU_ACTIONS
from data.errors import DataError
from data.labels import STORE_SUFFIXES
from data.own import OwnClips, is_own
from data.show.drawing import save_animation, save_links, save_strip
from data.show.page import save_html
from data.show.poses import Poses, poses
from data.skeletons import NTU, SKELETONS, UCLA, Skeleton
from data.splits import parse_name
from data.store import Store
from torchlight.files import path_argument, print_any_text
from torchlight.terminal import Parser, run
from torchlight.untrusted import Unsound, read_npy

_ENDINGS = (".png", ".gif", ".html")


def main(argv: Sequence[str] | None = None) -> int:
    """Write one picture; return the exit status."""
    parser = Parser(prog="python -m data.show", description=__doc__)
    add = parser.add_argument
    add("clip", type=path_argument, help="the file")
    add("--sample", help="of a file of many: the clip's name")
    add("--layout", help="the joints: ntu, ucla, coco17, ..., or edges.yaml")
    add("--out", type=path_argument, help=".png, .gif or .html (CLIP.png)")
    add("--title", help="text above it, such as the label")
    add("--frames", type=int, default=8, help="poses of a strip (8)")
    add("--rate", type=float, default=30.0, help="frames a second (30)")
    add("--numbers", action="store_true", help="write the joints' numbers")
    add("--links", type=int, metavar="N", help="CLIP is weights: draw the N largest")
    print_any_text()
    given = parser.parse_args(argv)
    return run(lambda: print(f"wrote {_show(given)}"), DataError, Unsound)


def _show(given: argparse.Namespace) -> Path:
    if given.frames < 1 or given.rate <= 0 or (given.links is not None and given.links < 1):
        raise DataError("--frames, --rate and --links: give numbers larger than 0")
    out = given.out or Path(f"{(given.sample or given.clip.stem).replace('/', '_')}.png")
    if out.suffix.lower() not in _ENDINGS:
        raise DataError(f"--out {out}: give it one of the endings {', '.join(_ENDINGS)}")
    if not given.clip.is_file():
        raise DataError(f"{given.clip}: no such file")
    if given.links is not None:
        if out.suffix.lower() != ".png":
            raise DataError(f"--out {out}: links are drawn as .png")
        weights, skeleton = _weights(given.clip, given.layout)
        save_links(out, weights, skeleton, given.links, given.title or given.clip.stem)
        return out
    clip = _clip(given)
    if out.suffix.lower() == ".png":
        save_strip(out, clip, frames=given.frames, numbers=given.numbers)
    elif out.suffix.lower() == ".gif":
        save_animation(out, clip, rate=given.rate, numbers=given.numbers)
    else:
        save_html(out, clip, rate=given.rate)
    return out


def _clip(given: argparse.Namespace) -> Poses:
    """The clip, whatever file it is in."""
    path = given.clip
    if path.suffix.lower() in STORE_SUFFIXES:
        store = Store(path)
        row = _row(path, store.names, given.sample)
        title = given.title or _titled(store.names[row], None)
        return poses(store.sequence(row), NTU, axes=3, title=title)
    if is_own(path):
        own = OwnClips(path)
        tables = own.tables
        row = _row(path, tables.names, given.sample)
        title = given.title or tables.title(row)
        return poses(own.sequence(row), tables.skeleton, axes=tables.axes, title=title)
    return _read(path, given)


def _read(path: Path, given: argparse.Namespace) -> Poses:
    """A clip in a file that ``data.custom`` reads."""
    from data.custom.arrays import channels_of, cleaned, ranked  # a wing that may be absent
    from data.custom.layouts import find_layout
    from data.custom.readers import find_clips

    guess = {".skeleton": NTU, ".json": UCLA}.get(path.suffix.lower())
    skeleton = find_layout(given.layout)[0] if given.layout else guess
    if skeleton is None:
        raise DataError(f"{path}: say which joints it has, by --layout")
    found = find_clips(path, skeleton)
    several = len(found.names) > 1
    row = _row(path, found.names, given.sample) if several or given.sample else 0
    clip = list(found.readers)[row]()
    axes = len(channels_of(clip, skeleton).removesuffix("s"))
    joints = ranked(cleaned(clip.joints), len(clip.joints))
    title = given.title or _titled(found.names[row], clip.label)
    return poses(joints, skeleton, axes=axes, title=title)


def _titled(name: str, label: str | int | None) -> str:
    """A clip's name, and what it shows."""
    if isinstance(label, str):
        return f"{name}: {label}"
    with suppress(DataError):
        return f"{name}: {NTU_ACTIONS[parse_name(name).label]}"
    with suppress(DataError):
        return f"{name}: {ucla.CLASS_NAMES[ucla.parse_name(name).label]}"
    return name if label is None else f"{name}: {label}"


def _row(path: Path, names: Sequence[str], wanted: str | None) -> int:
    shown = ", ".join(names[:3])
    if wanted is None:
        raise DataError(f"{path}: holds {len(names)} clips; name one by --sample: {shown}, ...")
    if wanted not in names:
        raise DataError(f"{path}: no clip {wanted!r} in it; the first are {shown}")
    return names.index(wanted)


def _weights(path: Path, layout: str | None) -> tuple[np.ndarray, Skeleton]:
    array = np.asarray(read_npy(path))
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[1] != array.shape[2] or array.dtype.kind != "f":
        raise DataError(f"{path}: {array.dtype} {array.shape}, expected weights (S, V, V)")
    if not np.isfinite(array).all():
        raise DataError(f"{path}: has a number that is not finite")
    if layout is not None:
        from data.custom.layouts import find_layout

        skeleton = find_layout(layout)[0]
    else:
        fitting = [s for s in SKELETONS.values() if s.num_point == array.shape[1]]
        if not fitting:
            raise DataError(f"{path}: of {array.shape[1]} joints; say which, by --layout")
        skeleton = fitting[0]
    if skeleton.num_point != array.shape[1]:
        raise DataError(f"{path}: of {array.shape[1]} joints, {skeleton.name} has another number")
    return array, skeleton


if __name__ == "__main__":
    sys.exit(main())
