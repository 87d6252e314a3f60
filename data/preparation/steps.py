"""The three steps from raw NTU RGB+D recordings to the store, each restartable.

    read_step      raw .skeleton files         -> raw_data/       (bodies as tracked)
    denoise_step   raw_data/                   -> denoised_data/  (at most two actors)
    transform_step denoised_data/              -> NTU60.h5, with ``npz`` also NTU60_CS.npz, ...

Between the steps lie folders of chunks (``data.preparation.chunks``). Killed at any moment, a step
started again gives what an undisturbed run would have given.
"""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.errors import DataError
from data.npz import write_npz
from data.preparation.align import find_origin, move_to_origin, present
from data.preparation.bodies import Body, collect_bodies, denoise
from data.preparation.chunks import (
    CHUNK,
    INDEX,
    Chunk,
    Facts,
    Remark,
    begin,
    finish,
    hash_of,
    make_chunks,
    read_chunk,
    read_index,
)
from data.preparation.recording import JOINTS, SampleFault, read_recording
from data.preparation.sources import Source, find_sources
from data.splits import DATA_SETS, DataSet, parse_name, split_rows
from data.store import Store, write_store
from torchlight.files import atomic_write, remove_leftovers
from torchlight.untrusted import read_bounded

SKIPPED = "skipped.csv"
_CHUNK_BYTES = 2**28  # of raw text; long recordings make smaller chunks
_LARGEST_SKIP_LIST = 2**22  # bytes; all samples there are take 2.4 million
_FRAMES_CSV = ("sample", "frames", "frames without bodies")
_BODIES_CSV = ("sample", "body", "first", "last", "motion", "final_motion", "removed_by", "actor")

Result = tuple[Facts, list[np.ndarray]]


@dataclass
class Summary:
    """What a step did: samples in the result, remarks of it and those before it, files written."""

    accepted: int
    remarks: list[Remark]
    files: list[Path] = field(default_factory=list)


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
    chunk_size: int = CHUNK,
) -> Summary:
    """Read the raw recordings of a data set.

    Args:
        source: the folder under which the recordings lie, at any depth.
        output: folder for the chunks, ``frames.csv`` and ``skipped.csv``.
        workers: processes. limit: only the first this many, in name order.
        skip_list: text file that names samples to leave out.
        strict: stop at the first faulty sample.
        chunk_size: samples a chunk.

    Raises:
        SampleFault: a sample is faulty and ``strict`` is set.
        DataError: as ``find_sources``, or no recording is left to read.
    """
    sources, remarks = find_sources(dataset, source)
    unwanted = _read_skip_list(skip_list) if skip_list else set()
    wanted = [s for s in sources if s.name not in unwanted]
    listed = [s.name for s in sources if s.name in unwanted]
    remarks += [Remark("read", name, None, "on the skip list", "left out") for name in listed]
    if not wanted:
        raise DataError(f"{source}: all {len(sources)} recordings are on the skip list {skip_list}")
    chunks = [
        Chunk(output / f"part-{number:05d}", hash_of("read", part), part)
        for number, part in enumerate(_divide(wanted[:limit], chunk_size))
    ]
    table = output / "frames.csv", _FRAMES_CSV
    return _run(dataset, chunks, output, _read_chunk_of, table, remarks, workers, strict)


def _read_skip_list(path: Path) -> set[str]:
    """The sample names in a text file, whatever else it says.

    Raises:
        DataError: the file cannot be read or names no sample.
    """
    try:
        text = read_bounded(path, _LARGEST_SKIP_LIST).decode("utf-8", "replace")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    names = set(re.findall(r"\bS\d{3}C\d{3}P\d{3}R\d{3}A\d{3}\b", text, re.ASCII))
    if not names:
        raise DataError(f"{path}: names no sample (a name a line, SsssCcccPpppRrrrAaaa)")
    return names


def _divide(sources: Sequence[Source], size: int) -> Iterator[list[Source]]:
    """Consecutive sources, at most ``size`` of them and of bounded text, but one at least."""
    part: list[Source] = []
    left = _CHUNK_BYTES
    for source in sources:
        left -= source.size
        if part and (len(part) == size or left < 0):
            yield part
            part, left = [], _CHUNK_BYTES - source.size
        part.append(source)
    yield part


def _read_chunk_of(sources: Sequence[Source]) -> Result:
    """Read raw files: their bodies, and all joints of these one after the other."""
    facts: Facts = {"samples": [], "rows": [], "remarks": [], "bodies": []}
    joints: list[np.ndarray] = []
    for source in sources:
        path = Path(source.path)
        try:
            recording = read_recording(path)
        except SampleFault as fault:
            facts["remarks"].append(_said("read", fault))
            continue
        if recording.surplus_line is not None:
            reason = "more content than the frame count says; the stated frames are used"
            note = Remark("read", path.name, recording.surplus_line, reason, "note")
            facts["remarks"].append(vars(note))
        bodies = collect_bodies(recording)
        dropped = " ".join(map(str, recording.dropped))
        facts["samples"].append(source.name)
        facts["rows"].append([source.name, recording.num_frames, dropped])
        group = [[body.id, len(body.joints), body.first, float(body.motion)] for body in bodies]
        facts["bodies"].append([recording.num_frames, group])
        joints += [body.joints for body in bodies]
    return facts, joints


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
        output: folder for the chunks, ``bodies.csv`` (what became of every body) and
            ``skipped.csv``.
        workers, limit, strict: as in ``read_step``.

    Raises:
        SampleFault: a sample is faulty and ``strict`` is set.
        DataError: the step before is not complete.
    """
    entries, remarks = _read_step_index(dataset, source, "get_raw_skes_data.py")
    chunks, left = [], sum(len(entry["samples"]) for entry in entries) if limit is None else limit
    for entry in entries:
        take = min(left, len(entry["samples"]))
        left -= take
        if take:
            key = hash_of("denoise", entry["key"], take)
            chunks.append(Chunk(output / entry["file"], key, (source / entry["file"], take)))
    table = output / "bodies.csv", _BODIES_CSV
    return _run(dataset, chunks, output, _denoise_chunk, table, remarks, workers, strict)


def _denoise_chunk(work: tuple[Path, int]) -> Result:
    """Choose the actors of the first so many samples of a raw chunk."""
    facts: Facts = {"samples": [], "rows": [], "remarks": []}
    joints: list[np.ndarray] = []
    for name, num_frames, bodies in _raw_samples(*work):
        try:
            chosen = denoise(bodies, num_frames, name)
            find_origin(chosen, name)  # as the next step will
        except SampleFault as fault:
            facts["remarks"].append(_said("denoise", fault))
            continue
        # A second actor who is nowhere need not be stored.
        actors = 2 if present(chosen)[:, 1:].any() else 1
        facts["samples"].append([name, *chosen.shape, actors])
        joints.append(chosen)
        for body in bodies:
            motions = str(body.motion), str(body.final_motion)  # the shortest text of a float32
            place = name, body.id, body.first, body.last
            facts["rows"].append([*place, *motions, body.removed_by, body.actor])
    return facts, joints


def _raw_samples(path: Path, take: int) -> Iterator[tuple[str, int, list[Body]]]:
    """Name, valid frames and bodies of the first samples of a raw chunk."""
    facts, numbers = read_chunk(path)
    joints = numbers.reshape(-1, JOINTS, 3)
    start = 0
    for name, (num_frames, group) in zip(facts["samples"][:take], facts["bodies"], strict=False):
        bodies = []
        for body, length, first, motion in group:
            bodies.append(Body(body, joints[start : start + length], first, np.float32(motion)))
            start += length
        yield name, num_frames, bodies


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
        limit: as in ``read_step``.

    Raises:
        DataError: the step before is not complete, or left no sample.
    """
    entries, remarks = _read_step_index(dataset, source, "get_raw_denoised_data.py")
    listed = list(chain.from_iterable(entry["samples"] for entry in entries))[:limit]
    if not listed:
        raise DataError(f"{source / INDEX}: no sample is left to write")
    names, frames, widths, actors = zip(*listed, strict=True)
    output.mkdir(parents=True, exist_ok=True)
    remove_leftovers(output)
    store = output / f"{dataset.stem}.h5"
    # Kept: NTU120 shows a lone actor twice, NTU60 once; "lone" by width, so that a second actor
    # who is nowhere stays empty in both.
    copied = (np.array(widths) == JOINTS * 3) & dataset.copies_single_actor
    moved = _moved_samples(source, entries, len(listed))
    sequences = tqdm(moved, "transform", len(listed), unit=" samples", disable=None)
    samples = [parse_name(name) for name in names]
    write_store(store, dataset, samples, np.array(frames), np.array(actors), copied, sequences)
    files = [store, *(write_published(store, output) if npz else [])]
    _write_skipped(output, remarks)
    return Summary(len(samples), remarks, files)


def _moved_samples(source: Path, entries: list[Facts], count: int) -> Iterator[np.ndarray]:
    """The first ``count`` samples with their origin moved, float32 (frames, actors, 25, 3)."""
    for entry in entries:
        _, numbers = read_chunk(source / entry["file"])
        start = 0
        for name, frames, width, actors in entry["samples"][:count]:
            joints = numbers[start : start + frames * width].reshape(frames, width)
            start += frames * width
            yield move_to_origin(joints, name).reshape(frames, -1, JOINTS, 3)[:, :actors]
        count -= min(count, len(entry["samples"]))
        if not count:
            return


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
        with atomic_write(path) as temporary:
            splits = {split: rows.get(split, np.empty(0, np.int64)) for split in ("train", "test")}
            write_npz(temporary, chain(*(_arrays(opened, *item) for item in splits.items())))
        files.append(path)
    return files


def _arrays(store: Store, split: str, rows: np.ndarray) -> Iterator[tuple]:
    """x and y of one split, as ``write_npz`` takes them."""
    shape = (len(rows), store.max_frames, 2 * JOINTS * 3)
    blocks = (store.padded(row).reshape(1, *shape[1:]) for row in rows.tolist())
    progress = tqdm(blocks, f"npz {split}", len(rows), unit=" samples", disable=None)
    yield f"x_{split}", shape, "<f4", progress
    labels = np.zeros((len(rows), store.num_class))
    labels[np.arange(len(rows)), store.labels[rows]] = 1
    yield f"y_{split}", labels.shape, "<f8", [labels]


# ---- what the steps share ----


def _run(
    dataset: DataSet,
    chunks: Sequence[Chunk],
    output: Path,
    compute: Callable[[Any], Result],
    table: tuple[Path, Sequence[str]],
    remarks: list[Remark],
    workers: int,
    strict: bool,
) -> Summary:
    """Make the chunks, the step's table, ``skipped.csv``, and last the index."""
    begin(output, chunks)
    entries: list[Facts] = []
    path, heading = table
    with atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(heading)
        _stop_at_first(remarks, strict)
        made = make_chunks(chunks, compute, workers)
        progress = tqdm(made, output.name, len(chunks), unit=" chunks", disable=None)
        for chunk, facts in zip(chunks, progress, strict=True):
            new = [Remark(**said) for said in facts["remarks"]]
            _stop_at_first(new, strict)
            remarks += new
            rows.writerows(facts["rows"])
            entries.append({"file": chunk.path.name, "key": chunk.key, "samples": facts["samples"]})
    _write_skipped(output, remarks)
    said = [vars(remark) for remark in remarks]
    finish(output, {"dataset": dataset.name, "chunks": entries, "remarks": said})
    return Summary(sum(len(entry["samples"]) for entry in entries), remarks, [output])


def _said(step: str, fault: SampleFault) -> dict[str, Any]:
    return vars(Remark(step, fault.source, fault.line, fault.reason))


def _stop_at_first(remarks: Sequence[Remark], strict: bool) -> None:
    for remark in remarks:
        if strict and remark.verdict == "skipped":
            raise SampleFault(remark.sample, remark.line, remark.reason)


def _write_skipped(folder: Path, remarks: Sequence[Remark]) -> None:
    with atomic_write(folder / SKIPPED) as temporary, open(temporary, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["step", "sample", "line", "reason"])
        told = [remark for remark in remarks if remark.verdict != "note"]
        table.writerows([r.step, r.sample, r.line, r.reason] for r in told)


def _read_step_index(
    dataset: DataSet, folder: Path, script: str
) -> tuple[list[Facts], list[Remark]]:
    """Chunks and remarks in the index of the step before.

    Raises:
        DataError: the step is not complete, of another data set, or its index damaged.
    """
    advice = f"run in {dataset.folder}: python {script}"
    index = read_index(folder, advice)
    if index["dataset"] != dataset.name:
        found = index["dataset"]
        raise DataError(f"{folder / INDEX}: holds {found}, not {dataset.name}; {advice}")
    return index["chunks"], [Remark(**said) for said in index["remarks"]]
