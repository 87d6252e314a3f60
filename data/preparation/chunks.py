"""Work in chunks that survive an interruption: one file a chunk, each whole or absent.

A step's samples are divided into chunks of ``CHUNK`` in name order. A worker process computes a
chunk and writes it itself, under a temporary name that becomes the final one when the file is
complete, so that little travels between processes and memory does not grow with the data set.
Each chunk carries a key, a hash of what it was made from; started again, a step keeps the chunks
whose key still fits and makes the others. Last comes the index, which says that the folder is
complete; it is removed before the first chunk is touched.

A chunk is a line with the checksum of all that follows, a line of JSON, and float32 numbers. The
index is one without numbers. A file whose checksum fits is ours and is trusted.
"""

import hashlib
import json
import multiprocessing
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import DataError
from torchlight.files import atomic_write, remove_leftovers
from torchlight.untrusted import read_bounded

CHUNK = 256  # samples; some 8 MB of joints
INDEX = "index"
_LARGEST = 2**30  # bytes of a chunk; the index of a million samples takes 50 MB
_FORMAT = 3  # raise when the content of chunks changes


@dataclass(frozen=True)
class Remark:
    """A line about one sample, or file, or all of them.

    Attributes:
        step: which step says so. sample: file or sample name. line: 1-based, or None.
        reason: what is wrong.
        verdict: "skipped", and the user may not know of it; "left out" as he wished or would
            expect; or "note": nothing is left out, though something is odd.
    """

    step: str
    sample: str
    line: int | None
    reason: str
    verdict: str = "skipped"


@dataclass(frozen=True)
class Chunk:
    """The file to make, a hash of all it is made from, and what it is made from."""

    path: Path
    key: str
    work: Any


Facts = dict[str, Any]
"""What a chunk says in JSON: "key", "remarks", and what the step says of its samples."""


def hash_of(*parts: object) -> str:
    """A key that changes when any part does."""
    return hashlib.sha256(repr((_FORMAT, parts)).encode()).hexdigest()


def write_chunk(path: Path, facts: Facts, numbers: Sequence[np.ndarray]) -> None:
    """Write a chunk; ``numbers`` are float32 of any shapes."""
    content = b"".join([json.dumps(facts).encode(), b"\n", *(part.tobytes() for part in numbers)])
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"%08x\n" % zlib.crc32(content) + content)


def read_chunk(path: Path) -> tuple[Facts, np.ndarray]:
    """What ``write_chunk`` wrote; the numbers flat, one after the other.

    Raises:
        DataError: the file cannot be read, or is not as it was written.
    """
    try:
        found = read_bounded(path, _LARGEST)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if found[:9] != b"%08x\n" % zlib.crc32(memoryview(found)[9:]):
        raise DataError(f"{path}: damaged; delete its folder and run the step that made it again")
    end = found.index(b"\n", 9)
    return json.loads(found[9:end]), np.frombuffer(found[end + 1 :], np.float32)


def make_chunks(
    chunks: Sequence[Chunk], compute: Callable[[Any], tuple[Facts, list[np.ndarray]]], workers: int
) -> Iterator[Facts]:
    """Make each chunk that is not there yet; yields the facts of each, in order.

    Args:
        compute: from a chunk's work to facts ("remarks" among them, as dicts) and numbers; a
            function of a module.
        workers: processes; with 1 everything happens in this one.

    Raises:
        DataError: a worker died. OSError: a chunk cannot be written.
    """
    if workers <= 1 or len(chunks) <= 1:
        _keep_freed_memory()
        yield from (_make_chunk(chunk, compute) for chunk in chunks)
        return
    pool = ProcessPoolExecutor(min(workers, len(chunks)), initializer=_start_worker)
    try:
        yield from pool.map(_make_chunk, chunks, [compute] * len(chunks))
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died, possibly for lack of memory; run the step again, "
            "with fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _make_chunk(chunk: Chunk, compute: Callable[[Any], tuple[Facts, list[np.ndarray]]]) -> Facts:
    """Make one chunk, unless it is there with the same key."""
    if chunk.path.exists():
        with suppress(DataError):  # damaged by something else than us: it is made anew
            facts, _ = read_chunk(chunk.path)
            if facts["key"] == chunk.key:
                return facts
    facts, numbers = compute(chunk.work)
    facts["key"] = chunk.key
    write_chunk(chunk.path, facts, numbers)
    return facts


def begin(folder: Path, chunks: Sequence[Chunk]) -> None:
    """Make the folder incomplete: no index, no temporary files, no chunks of other runs.

    Raises:
        OSError: the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    remove_leftovers(folder)
    for path in {*folder.glob("part-*")} - {chunk.path for chunk in chunks}:
        path.unlink()


def finish(folder: Path, facts: Facts) -> None:
    """Declare the folder complete."""
    remove_leftovers(folder)  # a worker of a killed run may have lived a moment longer
    write_chunk(folder / INDEX, facts, [])


def read_index(folder: Path, advice: str) -> Facts:
    """What ``finish`` wrote.

    Raises:
        DataError: the folder is not complete, in which case ``advice`` is what to do; or damaged.
    """
    if not (folder / INDEX).exists():
        raise DataError(f"{folder}: missing or not complete (no {INDEX}); {advice}")
    return read_chunk(folder / INDEX)[0]


def _start_worker() -> None:
    _keep_freed_memory()
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _keep_freed_memory() -> None:
    """Let malloc keep freed memory for the next file.

    glibc hands memory back to the system as soon as more than twice the largest block ever freed
    lies idle, and each file's temporaries are then paged in anew: half of the reading time. So
    free one large block first. Harmless elsewhere.
    """
    np.empty(2**24, np.uint8)


def _die_with_parent() -> None:
    """End this worker when the main process is gone, be it by SIGKILL."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
