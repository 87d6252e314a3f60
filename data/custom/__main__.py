"""Own skeletons to a file that trains: ``python -m data.custom --from DIR --layout NAME --out X``.

Writes X.npz (the clips), X.yaml (to train: ``python main_multigpu.py --config X.yaml``), X.png
(samples to look at) and X.txt (what was found, and what is odd about it). docs/own-data.md has the
forms that are read.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from tqdm import tqdm

from data.custom.arrays import Clip, Found, channels_of, cleaned, ranked
from data.custom.checks import Checks, summary
from data.custom.configuration import configuration, write_configuration
from data.custom.labels import Facts, Labels, classes, natural
from data.custom.layouts import find_layout
from data.custom.readers import find_clips
from data.custom.splits import KINDS, pair, split_clips
from data.errors import DataError
from data.own import CHANNELS, OwnClips, Tables, write_own
from data.skeletons import Skeleton
from torchlight.files import atomic_write, path_argument, print_any_text
from torchlight.terminal import Parser, run
from torchlight.untrusted import Unsound

_ENDINGS = (".npz", ".h5", ".hdf5", ".yaml")
_BLOCK = 2**24  # bytes copied together
_ON_PAGE = 12  # clips
_FAULTS = 20  # that are listed


@dataclass
class Read:
    """What reading the clips left. Their joints are in a temporary file, one after the other."""

    spool: IO[bytes]
    checks: Checks
    channels: str = ""
    names: list[str] = field(default_factory=list)
    facts: list[Facts] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)  # frames, persons
    faults: list[str] = field(default_factory=list)
    orders: set[str] = field(default_factory=set)  # of axes that were guessed
    limited: int = 0  # clips with more persons than are kept


def main(argv: Sequence[str] | None = None) -> int:
    """Convert; return the exit status."""
    print_any_text()
    given = _parser().parse_args(argv)
    if given.out.suffix.lower() in _ENDINGS:
        given.out = given.out.with_suffix("")
    return run(lambda: _convert(given), DataError, Unsound)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m data.custom", description=__doc__)
    add = parser.add_argument
    add("--from", dest="source", type=path_argument, required=True, help="folder, or file")
    add("--layout", required=True, help="the joints: ntu, kinect20, coco17, ..., or edges.yaml")
    add("--out", type=path_argument, required=True, help="what to write, without ending")
    add("--labels", type=path_argument, help="CSV: name, label; also subject, camera, split")
    add("--names", help="regular expression: (?P<subject>..), (?P<label>..), ... in clips' names")
    add("--class-names", type=path_argument, help="file of them, one a line, in their order")
    add("--split", choices=KINDS, help="how; by default as the source has it, or by subject")
    add("--test", nargs="+", default=[], help="subjects or cameras that test, or a file of names")
    add("--test-ratio", type=float, default=0.2, help="of what is drawn for testing (0.2)")
    add("--seed", type=int, default=0, help="of what is drawn (0)")
    add("--benchmark", help="of several that the source has, the one that the YAML names")
    add("--persons", type=int, default=2, help="kept of a clip at most (2)")
    add("--axes", help="of arrays, where it is not told by their shape: TVC, CTV, MTVC, CTVM, ...")
    add("--channels", choices=CHANNELS, help="of a joint, where it is not told: s is a score")
    add("--skip-broken", action="store_true", help="leave out clips that cannot be read")
    return parser


def _convert(given: argparse.Namespace) -> None:
    """Read, split, look, write."""
    if not 0 < given.test_ratio < 1 or given.persons < 1 or given.seed < 0:
        raise DataError("--test-ratio is between 0 and 1, --persons 1 or more, --seed 0 or more")
    if given.axes and not set("TVC") <= set(given.axes) <= set("TMVC"):
        raise DataError(f"--axes {given.axes}: letters T, V, C and M for persons, each once")
    skeleton, told = find_layout(given.layout)
    found = find_clips(given.source, skeleton, given.axes)
    labels = Labels(found.names, given.labels, given.names)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=given.out.parent) as spool:
        read = Read(spool, Checks(skeleton))
        readers = tqdm(found.readers, "reading", len(found.names), disable=None)
        for name, reader in zip(found.names, readers, strict=True):
            try:
                _take(read, name, labels, _limited(reader(), given), skeleton, given.persons)
            except DataError as error:
                read.faults.append(str(error))
        _judge_faults(read.faults, len(found.names), given.skip_broken)
        tables, subjects, how = _tables(read, found, skeleton, given)
        chosen = pair(tables.splits, given.benchmark)
        store = Path(f"{given.out}.npz")
        write_own(store, tables, _blocks(spool))
    lines = [*told, *_told(read, found, tables, subjects, how, chosen)]
    _write_page(store, Path(f"{given.out}.png"))
    with atomic_write(f"{given.out}.txt") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines += write_configuration(Path(f"{given.out}.yaml"), configuration(store, tables, chosen))
    print("\n".join(lines))
    print(f"wrote {given.out}.npz, .yaml, .png, .txt; train: python main_multigpu.py --config "
          f"{given.out}.yaml")  # fmt: skip


def _limited(clip: Clip, given: argparse.Namespace) -> Clip:
    """The clip with the channels that were asked for."""
    if given.channels == "xy":
        clip.joints = clip.joints[..., :2]
    elif given.channels is not None:
        clip.scored = given.channels == "xys"
    return clip


def _take(
    read: Read, name: str, labels: Labels, clip: Clip, skeleton: Skeleton, persons: int
) -> None:
    """Look at a clip, and keep its joints."""
    facts = labels.of(name, clip.label)
    clip.joints = cleaned(clip.joints)
    channels = channels_of(clip, skeleton)
    read.channels = read.channels or channels
    if channels != read.channels:
        raise DataError(
            f"{name}: its joints are {channels}, of the clips before it {read.channels}; "
            "say which by --channels"
        )
    everybody = ranked(clip.joints, clip.joints.shape[1])
    joints = np.ascontiguousarray(everybody[:, :persons])
    if not joints.shape[1]:
        raise DataError(f"{name}: nobody in any frame")
    read.limited += everybody.shape[1] > persons
    read.checks.add(name, joints, len(channels.removesuffix("s")))
    read.orders |= {clip.order} if clip.order else set()
    read.spool.write(joints.tobytes())
    read.names.append(name)
    read.facts.append(facts)
    read.shapes.append(joints.shape[:2])


def _judge_faults(faults: list[str], count: int, skip: bool) -> None:
    if faults and (not skip or len(faults) == count):
        more = f" (and {len(faults) - 1} more of {count} clips)" if len(faults) > 1 else ""
        advice = "" if len(faults) == count else "; --skip-broken leaves such clips out"
        raise DataError(f"{faults[0]}{more}{advice}")


def _tables(
    read: Read, found: Found, skeleton: Skeleton, given: argparse.Namespace
) -> tuple[Tables, list[str | None], str]:
    """All but the joints; who is in each clip; and how they are split, in words."""
    facts = read.facts
    labels = [f.label for f in facts if f.label is not None]
    numbers, names = classes(labels, given.class_names, numbered=found.numbered)
    drawn = {"ratio": given.test_ratio, "seed": given.seed}
    splits, how = split_clips(
        given.split, read.names, facts, numbers, found.splits, given.test, **drawn
    )
    subjects = [f.subject for f in facts]
    known = sorted({s for s in subjects if s is not None}, key=natural)
    number_of = {s: int(s) if s.isdecimal() else i for i, s in enumerate(known)}
    shapes = np.array(read.shapes, dtype=np.int64)
    tables = Tables(
        skeleton=skeleton,
        channels=read.channels,
        offsets=np.concatenate([[0], np.cumsum(shapes.prod(axis=1))]),
        persons=shapes[:, 1],
        names=read.names,
        labels=numbers,
        subjects=np.array([-1 if s is None else number_of[s] for s in subjects], dtype=np.int64),
        class_names=names,
        splits=splits,
    )
    return tables, subjects, how


def _blocks(spool: IO[bytes]) -> Iterator[np.ndarray]:
    spool.seek(0)
    while block := spool.read(_BLOCK):
        yield np.frombuffer(block, "<f4")


def _told(
    read: Read,
    found: Found,
    tables: Tables,
    subjects: Sequence[str | None],
    how: str,
    chosen: tuple[str, str],
) -> list[str]:
    """What was found, and what is odd about it."""
    skeleton = tables.skeleton
    lines = [
        summary(tables, subjects),
        f"{skeleton.name}: {skeleton.num_point} joints, {CHANNELS[tables.channels]}; up to "
        f"{tables.most_persons} persons",
        f"split {how}: " + ", ".join(f"{s} {len(rows)}" for s, rows in tables.splits.items()),
    ]
    if read.orders:
        orders = ", ".join(sorted(read.orders))
        lines.append(f"axes of arrays taken as {orders} (--axes changes it)")
    if read.limited:
        lines.append(f"{read.limited} clips have more persons than are kept (--persons)")
    lines += [f"other files, not read: {count} {kind}" for kind, count in found.others.items()]
    lines += [f"left out: {fault}" for fault in read.faults[:_FAULTS]]
    if len(read.faults) > _FAULTS:
        lines.append(f"... {len(read.faults)} clips are left out in all")
    listed = {name for names in found.splits.values() for name in names}
    absent = len(listed - set(tables.names))
    unused = len(tables.names) - len(set(np.concatenate(list(tables.splits.values())).tolist()))
    lines += [f"its splits list {absent} clips that are not here"] if absent else []
    lines += [f"{unused} clips are in no split"] if unused else []
    odd = read.checks.report(tables, subjects, chosen)
    return [*lines, *(f"odd: {line}" for line in odd)]


def _write_page(store: Path, path: Path) -> None:
    """A strip of a clip of each class, or of several of few classes."""
    from data.show.drawing import save_page  # another wing
    from data.show.poses import poses

    own = OwnClips(store)
    tables = own.tables
    by_class = [np.flatnonzero(tables.labels == label) for label in np.unique(tables.labels)]
    turns = [rows[i] for i in range(_ON_PAGE) for rows in by_class if i < len(rows)]
    shown = sorted(turns[:_ON_PAGE], key=lambda row: (tables.labels[row], row))
    skeleton, axes = tables.skeleton, tables.axes
    clips = [poses(own.sequence(i), skeleton, axes=axes, title=tables.title(i)) for i in shown]
    save_page(path, clips)


if __name__ == "__main__":
    sys.exit(main())
