"""The three steps from raw NTU RGB+D recordings to the store, each restartable.

    read_step      raw .skeleton files         -> raw_data/       (bodies as tracked)
    denoise_step   raw_data/                   -> denoised_data/  (at most two actors)
    transform_step denoised_data/              -> NTU60.h5, with ``npz`` also NTU60_CS.npz, ...

Between the steps lie folders of pieces (``data.preparation.chunks``). Killed at any moment, a step
started again gives what an undisturbed run would have given.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.errors import DataError, printable
from data.npz import NpzWriter, read_array
from data.preparation.align import find_origin, move_to_origin, present
from data.preparation.bodies import Body, collect_bodies, denoise
from data.preparation.chunks import (
    INDEX,
    PIECE,
    Piece,
    Remark,
    Result,
    begin,
    finish,
    guarded,
    hash_of,
    make_pieces,
    read_index,
    remark_of,
)
from data.preparation.recording import JOINTS, Recording, SampleFault, read_recording
from data.preparation.sources import SUFFIX, Source, find_sources
from data.splits import DATA_SETS, DataSet, parse_name, split_rows
from data.store import Store, write_store
from torchlight.files import atomic_write, remove_leftovers
from torchlight.untrusted import read_bounded

SKIPPED = "skipped.csv"
_PIECE_NAME = re.compile(r"part-\d{5,}\.npz", re.ASCII)
_AGAIN = "delete its folder and run the step that made it again"
_LARGEST_SKIP_LIST = 2**22  # bytes; all samples there are take 2.4 million


@dataclass
class Summary:
    """What a step did.

    Attributes:
        accepted: samples in the result.
        remarks: of this step and those before it.
        files: what was written.
    """

    accepted: int
    remarks: list[Remark]
    files: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class _Entry:
    """A piece as the index of its folder lists it."""

    file: str
    key: str
    samples: int


# ---- step one ----


def read_step(
    dataset: DataSet,
    source: Path,
    output: Path,
    *,
    workers: int = 1,
    limit: int | None = None,
    skip_list: Path | None = None,
    strict: bool = False,
    piece_size: int = PIECE,
) -> Summary:
    """Read the raw recordings of a data set.

    Args:
        dataset: NTU60 or NTU120.
        source: the folder under which the recordings lie, at any depth.
        output: folder for the pieces, ``frames.csv`` and ``skipped.csv``.
        workers: processes. limit: only the first this many, in name order.
        skip_list: text file that names samples to leave out.
        strict: stop at the first faulty sample.
        piece_size: samples a piece.

    Raises:
        SampleFault: a sample is faulty and ``strict`` is set.
        DataError: as ``find_sources``, or no recording is left to read.
    """
    sources, remarks = find_sources(dataset, source)
    unwanted = _read_skip_list(skip_list) if skip_list else set()
    wanted = [s for s in sources if s.name not in unwanted]
    listed = [s.name for s in sources if s.name in unwanted]
    remarks += [Remark("read", name, None, "on the skip list", "left out") for name in listed]
    summary = Summary(0, remarks)
    if not wanted:
        raise DataError(f"{source}: all {len(sources)} recordings are on the skip list {skip_list}")
    wanted = wanted[:limit]
    pieces = [
        Piece(output / f"part-{number:05d}.npz", hash_of("read", part), part)
        for number, part in enumerate(_chunks(wanted, piece_size))
    ]
    _run(dataset, pieces, output, _read_piece_of, workers, strict, summary, len(wanted))
    with atomic_write(output / "frames.csv") as temporary, open(temporary, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["sample", "frames", "frames without bodies"])
        for piece in pieces:
            table.writerows(_frame_rows(piece.path))
    return _complete(dataset, pieces, output, summary)


def _read_skip_list(path: Path) -> set[str]:
    """Sample names in a text file, one a line; other lines (its heading) do not matter.

    Raises:
        DataError: the file cannot be read or names no sample.
    """
    try:
        words = read_bounded(path, _LARGEST_SKIP_LIST).decode("utf-8", "replace").split()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    names = set()
    for word in words:
        try:
            names.add(parse_name(word.removesuffix(SUFFIX)).name)
        except DataError:
            continue
    if not names:
        raise DataError(f"{path}: names no sample (a name a line, SsssCcccPpppRrrrAaaa)")
    return names


def _read_piece_of(sources: Sequence[Source]) -> Result:
    """Read the raw files of one piece."""
    remarks: list[Remark] = []
    names: list[str] = []
    recordings: list[Recording] = []
    bodies: list[list[Body]] = []
    for source in sources:
        path = Path(source.path)
        recording = guarded("read", remarks, read_recording, path)
        if recording is None:
            continue
        if recording.surplus_line is not None:
            reason = "more content than the frame count says; the stated frames are used"
            line = recording.surplus_line
            remarks.append(Remark("read", path.name, line, reason, "note"))
        names.append(source.name)
        recordings.append(recording)
        bodies.append(collect_bodies(recording))
    flat = [body for group in bodies for body in group]
    arrays = {
        "names": np.array(names, dtype="S20"),
        "num_frames": np.array([r.num_frames for r in recordings], dtype=np.int64),
        "dropped_offsets": _offsets(len(recording.dropped) for recording in recordings),
        "dropped": np.array([n for r in recordings for n in r.dropped], dtype=np.int64),
        "body_offsets": _offsets(len(group) for group in bodies),
        "body_ids": _pack_text([body.id for body in flat]),
        "body_first": np.array([body.first for body in flat], dtype=np.int64),
        "body_frames": np.array([len(body.joints) for body in flat], dtype=np.int64),
        "body_motion": np.array([body.motion for body in flat], dtype=np.float32),
        "joints": _joined([body.joints for body in flat], np.float32, (JOINTS, 3)),
    }
    return arrays, remarks


def _frame_rows(path: Path) -> Iterator[list[Any]]:
    """Rows of ``frames.csv``."""
    piece = _read_raw(path)
    offsets = piece["dropped_offsets"].tolist()
    for i, name in enumerate(piece["names"]):
        dropped = piece["dropped"][offsets[i] : offsets[i + 1]].tolist()
        yield [name.decode(), int(piece["num_frames"][i]), " ".join(map(str, dropped))]


# ---- step two ----


def denoise_step(
    dataset: DataSet,
    source: Path,
    output: Path,
    *,
    workers: int = 1,
    limit: int | None = None,
    strict: bool = False,
) -> Summary:
    """Reduce the bodies of every sample to at most two actors.

    Args:
        source: what ``read_step`` wrote.
        output: folder for the pieces, ``bodies.csv`` (what became of every body) and
            ``skipped.csv``.
        dataset, workers, limit, strict: as in ``read_step``.

    Raises:
        SampleFault: a sample is faulty and ``strict`` is set.
        DataError: the step before is not complete.
    """
    entries, remarks = _read_step_index(dataset, source, "get_raw_skes_data.py")
    pieces, left = [], limit
    for entry in entries:
        take = entry.samples if left is None else min(left, entry.samples)
        left = None if left is None else left - take
        if take:
            key = hash_of("denoise", entry.key, take)
            pieces.append(Piece(output / entry.file, key, (source / entry.file, take)))
    summary = Summary(0, remarks)
    total = sum(piece.work[1] for piece in pieces)
    _run(dataset, pieces, output, _denoise_piece, workers, strict, summary, total)
    with atomic_write(output / "bodies.csv") as temporary, open(temporary, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["sample", "body", *_BODY_COLUMNS])
        for piece in pieces:
            table.writerows(_body_rows(piece.path))
    return _complete(dataset, pieces, output, summary)


_BODY_COLUMNS = ("first", "last", "motion", "final_motion", "removed_by", "actor")
_BODY_KINDS = {c: np.float32 if "motion" in c else np.int64 for c in _BODY_COLUMNS}


def _denoise_piece(work: tuple[Path, int]) -> Result:
    """Choose the actors of the first so many samples of a raw piece."""
    path, take = work
    names, frames, widths, actors, joints = [], [], [], [], []
    bodies: list[list[Body]] = []
    remarks: list[Remark] = []
    for name, num_frames, group in _raw_samples(path, take):
        chosen = guarded("denoise", remarks, _actors_of, group, num_frames, name)
        if chosen is None:
            continue
        names.append(name)
        frames.append(len(chosen))
        widths.append(chosen.shape[1])
        # A second actor who is nowhere need not be stored.
        actors.append(2 if present(chosen)[:, 1:].any() else 1)
        joints.append(chosen.ravel())
        bodies.append(group)
    flat = [body for group in bodies for body in group]
    arrays = {
        "names": np.array(names, dtype="S20"),
        "frames": np.array(frames, dtype=np.int64),
        "widths": np.array(widths, dtype=np.int64),
        "actors": np.array(actors, dtype=np.int64),
        "joints": _joined(joints, np.float32),
        "body_offsets": _offsets(len(group) for group in bodies),
        "body_ids": _pack_text([body.id for body in flat]),
    }
    for column, kind in _BODY_KINDS.items():
        arrays[f"body_{column}"] = np.array([getattr(body, column) for body in flat], dtype=kind)
    return arrays, remarks


def _actors_of(bodies: list[Body], num_frames: int, name: str) -> np.ndarray:
    """The actors of a sample, of which the next step will find the origin."""
    joints = denoise(bodies, num_frames, name).joints
    find_origin(joints, name)
    return joints


def _raw_samples(path: Path, take: int) -> Iterator[tuple[str, int, list[Body]]]:
    """Name, valid frames and bodies of the first samples of a raw piece."""
    piece = _read_raw(path)
    if take > len(piece["names"]):
        raise DataError(f"{path}: has fewer samples than {INDEX} says; {_AGAIN}")
    ids = _unpack_text(piece["body_ids"])
    ends = np.cumsum(piece["body_frames"])
    for i in range(take):
        group = [
            Body(
                ids[b],
                piece["joints"][ends[b] - piece["body_frames"][b] : ends[b]],
                int(piece["body_first"][b]),
                piece["body_motion"][b],
            )
            for b in range(piece["body_offsets"][i], piece["body_offsets"][i + 1])
        ]
        yield piece["names"][i].decode(), int(piece["num_frames"][i]), group


def _body_rows(path: Path) -> Iterator[list[Any]]:
    """Rows of ``bodies.csv``."""
    piece = _read_denoised(path)
    offsets, ids = _read_bodies(path, piece, _BODY_KINDS)
    names = np.repeat(piece["names"], np.diff(offsets))
    for b, name in enumerate(names):
        yield [name.decode(), ids[b], *(piece[f"body_{column}"][b] for column in _BODY_COLUMNS)]


# ---- step three ----


def transform_step(
    dataset: DataSet,
    source: Path,
    output: Path,
    *,
    limit: int | None = None,
    npz: bool = False,
) -> Summary:
    """Move every sample to its origin and write the store, and the published files if asked.

    Args:
        source: what ``denoise_step`` wrote.
        output: folder for ``NTU60.h5`` (``NTU120.h5``), ``skipped.csv``, and with ``npz`` one
            ``.npz`` for each published benchmark.
        dataset, limit: as in ``read_step``.

    Raises:
        DataError: the step before is not complete, or left no sample.
    """
    entries, remarks = _read_step_index(dataset, source, "get_raw_denoised_data.py")
    summary = Summary(0, remarks)
    paths = [source / entry.file for entry in entries]
    tables = [_read_denoised(path) for path in paths]
    facts = {
        name: np.concatenate([table[name] for table in tables])[:limit]
        for name in (tables[0] if tables else ())
    }
    if not facts or not len(facts["names"]):
        raise DataError(f"{source / INDEX}: no sample is left to write")
    output.mkdir(parents=True, exist_ok=True)
    remove_leftovers(output)
    if not (facts["names"][:-1] < facts["names"][1:]).all():
        raise DataError(f"{source / INDEX}: its pieces are not in the order of their samples")
    samples = [parse_name(name.decode()) for name in facts["names"]]
    store = output / f"{dataset.stem}.h5"
    # Kept: NTU120 shows a lone actor twice, NTU60 once; "lone" by width, so that a second actor
    # who is nowhere stays empty in both.
    copied = (facts["widths"] == JOINTS * 3) & dataset.copies_single_actor
    sequences = tqdm(
        _moved_samples(paths, len(samples)),
        "transform",
        len(samples),
        unit=" samples",
        disable=None,
    )
    write_store(store, dataset, samples, facts["frames"], facts["actors"], copied, sequences)
    summary.accepted = len(samples)
    summary.files = [store, *(write_published(store, output) if npz else [])]
    _write_skipped(output / SKIPPED, summary.remarks)
    return summary


def _moved_samples(paths: Sequence[Path], count: int) -> Iterator[np.ndarray]:
    """The first ``count`` samples with their origin moved, float32 (frames, actors, 25, 3)."""
    for path in paths:
        piece = _read_denoised(path)
        piece["joints"] = _read_table(path, "joints", np.float32, int(_numbers_of(piece).sum()))
        ends = np.cumsum(_numbers_of(piece))
        for i, name in enumerate(piece["names"][:count]):
            frames, width = int(piece["frames"][i]), int(piece["widths"][i])
            joints = piece["joints"][ends[i] - frames * width : ends[i]].reshape(frames, width)
            try:
                moved = move_to_origin(joints, name.decode())
            except SampleFault as fault:
                raise DataError(f"{path}: {fault}; {_AGAIN}") from fault
            yield moved.reshape(frames, -1, JOINTS, 3)[:, : piece["actors"][i]]
        count -= min(count, len(ends))


def write_published(store: Path, output: Path) -> list[Path]:
    """Write the published ``.npz`` of every benchmark that has one, streaming; returns the files.

    Arrays ``x_train``, ``x_test`` float32 (N, T, 150), T frames of the longest sample, and
    ``y_train``, ``y_test`` one-hot float64 (N, classes).

    Raises:
        DataError: the store is damaged. OSError: a file cannot be written.
    """
    opened = Store(store)
    dataset = DATA_SETS[opened.dataset]
    samples = [parse_name(name) for name in opened.names]
    files = []
    for benchmark in dataset.benchmarks.values():
        if benchmark.published is None:
            continue
        rows = split_rows(benchmark, samples)
        path = output / f"{dataset.stem}_{benchmark.published}.npz"
        with atomic_write(path) as temporary, NpzWriter(temporary) as writer:
            for split in ("train", "test"):
                _write_split(writer, opened, split, rows.get(split, np.empty(0, np.int64)))
        files.append(path)
    return files


def _write_split(writer: NpzWriter, store: Store, split: str, rows: np.ndarray) -> None:
    """Write x and y of one split."""
    frames, width = store.max_frames, 2 * JOINTS * 3
    blocks = (store.padded(row).reshape(1, frames, width) for row in rows.tolist())
    progress = tqdm(blocks, f"npz {split}", len(rows), unit=" samples", disable=None)
    writer.write_rows(f"x_{split}", (len(rows), frames, width), np.dtype("<f4"), progress)
    labels = np.zeros((len(rows), store.num_class))
    labels[np.arange(len(rows)), store.labels[rows]] = 1
    writer.write(f"y_{split}", labels)


# ---- what the steps share ----


def _run(
    dataset: DataSet,
    pieces: Sequence[Piece],
    output: Path,
    compute: Any,
    workers: int,
    strict: bool,
    summary: Summary,
    total: int,
) -> None:
    """Make the pieces; collects remarks in ``summary``, or stops at the first if ``strict``."""
    begin(output, pieces)
    if strict:
        _stop_at_first(summary.remarks)
    with tqdm(total=total, desc=output.name, unit=" samples", disable=None) as progress:
        for piece, remarks in zip(pieces, make_pieces(pieces, compute, workers), strict=True):
            if strict:
                _stop_at_first(remarks)
            summary.remarks.extend(remarks)
            done = piece.work[1] if isinstance(piece.work, tuple) else len(piece.work)
            progress.update(done)


def _stop_at_first(remarks: Iterable[Remark]) -> None:
    for remark in remarks:
        if remark.verdict == "skipped":
            raise SampleFault(remark.sample, remark.line, remark.reason)


def _complete(dataset: DataSet, pieces: Sequence[Piece], output: Path, summary: Summary) -> Summary:
    """Write ``skipped.csv``, then the index that declares the folder complete."""
    _write_skipped(output / SKIPPED, summary.remarks)
    counts = [len(read_array(piece.path, "names")) for piece in pieces]
    entries = [
        {"file": piece.path.name, "key": piece.key, "samples": count}
        for piece, count in zip(pieces, counts, strict=True)
    ]
    remarks = [vars(remark) for remark in summary.remarks]
    finish(output, {"dataset": dataset.name, "pieces": entries, "remarks": remarks})
    summary.accepted = sum(counts)
    summary.files = [output]
    return summary


def _write_skipped(path: Path, remarks: Sequence[Remark]) -> None:
    with atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["step", "sample", "line", "reason"])
        for remark in remarks:
            if remark.verdict != "note":
                table.writerow([remark.step, remark.sample, remark.line, remark.reason])


def _read_step_index(
    dataset: DataSet, folder: Path, script: str
) -> tuple[list[_Entry], list[Remark]]:
    """Pieces and remarks in the index of the step before.

    Raises:
        DataError: the step is not complete, of another data set, or its index damaged.
    """
    advice = f"run in {dataset.folder}: python {script}"
    index = read_index(folder, advice)
    try:
        found = index["dataset"]
        pieces = [_entry_of(entry) for entry in index["pieces"]]
        remarks = [remark_of(entry) for entry in index["remarks"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / INDEX}: damaged; {advice}") from error
    if found != dataset.name:
        raise DataError(f"{folder / INDEX}: holds {printable(found)}, not {dataset.name}; {advice}")
    for piece in pieces:
        if not (folder / piece.file).is_file():
            raise DataError(f"{folder / INDEX}: lists {piece.file}, which is not there; {advice}")
    return pieces, remarks


def _entry_of(found: Any) -> _Entry:
    """A piece as the index lists it; its name leads nowhere else.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    entry = _Entry(found["file"], found["key"], found["samples"])
    texts = isinstance(entry.file, str) and isinstance(entry.key, str)
    if not texts or not _PIECE_NAME.fullmatch(entry.file):
        raise ValueError("no name of a piece")
    if type(entry.samples) is not int or entry.samples < 0:
        raise ValueError("no number of samples")
    return entry


# ---- pieces, read without trust ----


def _read_raw(path: Path) -> dict[str, np.ndarray]:
    """The tables of a raw piece, which agree with each other.

    Raises:
        DataError: the file is missing or damaged.
    """
    piece = {"names": _read_names(path)}
    count = len(piece["names"])
    piece["num_frames"] = _read_table(path, "num_frames", np.int64, count)
    piece["dropped_offsets"] = _read_offsets(path, "dropped_offsets", count)
    dropped = int(piece["dropped_offsets"][-1])
    piece["dropped"] = _read_table(path, "dropped", np.int64, dropped)
    kinds = {"first": np.int64, "frames": np.int64, "motion": np.float32}
    offsets, _ = _read_bodies(path, piece, kinds)
    first, frames, bodies = piece["body_first"], piece["body_frames"], np.diff(offsets)
    _require(path, (bodies > 0).all() and (frames > 0).all() and (first >= 0).all())
    _require(path, (frames <= 2**31).all())
    # Numbers near the ends of int64 would pass the comparisons below by going round.
    _require(path, ((piece["num_frames"] > 0) & (piece["num_frames"] < 2**31)).all())
    piece["joints"] = _read_table(path, "joints", np.float32, int(frames.sum()), (JOINTS, 3))
    own = np.repeat(piece["num_frames"], bodies)
    seen = np.add.reduceat(frames, offsets[:-1]) if count else frames
    # Each valid frame has a body; the only one of a sample is in all of them.
    _require(path, (first <= own - frames).all() and (piece["num_frames"] <= seen).all())
    _require(path, np.isfinite(piece["joints"]).all())
    return piece


def _read_denoised(path: Path) -> dict[str, np.ndarray]:
    """The tables of a denoised piece, one row a sample, which agree with each other.

    Raises:
        DataError: the file is missing or damaged.
    """
    piece = {"names": _read_names(path)}
    for name in ("frames", "widths", "actors"):
        piece[name] = _read_table(path, name, np.int64, len(piece["names"]))
    places = piece["widths"] // (JOINTS * 3)
    _require(path, np.isin(piece["widths"], (JOINTS * 3, 2 * JOINTS * 3)).all())
    _require(path, ((piece["actors"] >= 1) & (piece["actors"] <= places)).all())
    # Long before the product of two of these numbers overflows, there is no file that large.
    _require(path, ((piece["frames"] > 0) & (piece["frames"] < 2**31)).all())
    return piece


def _numbers_of(piece: dict[str, np.ndarray]) -> np.ndarray:
    """How many coordinates each sample of a denoised piece has, int64 (n,)."""
    return piece["frames"] * piece["widths"]


def _read_bodies(
    path: Path, piece: dict[str, np.ndarray], kinds: Mapping[str, type]
) -> tuple[np.ndarray, list[str]]:
    """Add the tables of the bodies to a piece; returns their offsets and ids."""
    offsets = _read_offsets(path, "body_offsets", len(piece["names"]))
    packed = read_array(path, "body_ids")
    _require(path, packed.dtype == np.uint8 and packed.ndim == 1)
    ids = _unpack_text(packed)
    _require(path, len(ids) == offsets[-1] or (ids == [""] and offsets[-1] == 0))
    piece |= {"body_offsets": offsets, "body_ids": packed}
    for column, kind in kinds.items():
        piece[f"body_{column}"] = _read_table(path, f"body_{column}", kind, int(offsets[-1]))
    return offsets, ids


def _read_names(path: Path) -> np.ndarray:
    names = read_array(path, "names")
    _require(path, names.dtype == np.dtype("S20") and names.ndim == 1)
    for name in names:
        try:
            parse_name(name.decode("ascii"))
        except ValueError as error:  # a DataError too
            raise DataError(f"{path}: damaged: {printable(name)} is no sample; {_AGAIN}") from error
    return names


def _read_offsets(path: Path, name: str, count: int) -> np.ndarray:
    """Running totals, from 0: int64 (count + 1,)."""
    offsets = _read_table(path, name, np.int64, count + 1)
    _require(path, offsets[0] == 0 and (np.diff(offsets) >= 0).all() and offsets[-1] < 2**40)
    return offsets


def _read_table(
    path: Path, name: str, kind: type, count: int, tail: tuple[int, ...] = ()
) -> np.ndarray:
    """One array of a piece, of ``kind`` (count, *tail)."""
    table = read_array(path, name)
    if table.dtype != kind or table.shape != (count, *tail):
        raise DataError(
            f"{path}: damaged: {name} is {printable(table.dtype)} {table.shape}, not "
            f"{np.dtype(kind)} {(count, *tail)}; {_AGAIN}"
        )
    return table


def _require(path: Path, sound: Any) -> None:
    if not sound:
        raise DataError(f"{path}: damaged: its tables contradict each other; {_AGAIN}")


def _chunks(items: Sequence[Source], size: int) -> Iterator[Sequence[Source]]:
    return (items[i : i + size] for i in range(0, len(items), size))


def _offsets(lengths: Iterable[int]) -> np.ndarray:
    """Running totals, from 0: int64 (n + 1,)."""
    return np.cumsum([0, *lengths], dtype=np.int64)


def _joined(arrays: Sequence[np.ndarray], dtype: type, tail: tuple[int, ...] = ()) -> np.ndarray:
    """Concatenate along the first axis; nothing gives an empty array."""
    return np.concatenate(arrays) if len(arrays) else np.empty((0, *tail), dtype)


def _pack_text(words: Sequence[str]) -> np.ndarray:
    """Words without blanks as one uint8 array."""
    return np.frombuffer("\n".join(words).encode("latin-1"), np.uint8)


def _unpack_text(packed: np.ndarray) -> list[str]:
    return packed.tobytes().decode("latin-1").split("\n")
