"""Work in pieces that survive an interruption: one file a piece, each whole or absent.

A step's samples are divided into pieces of ``PIECE`` in name order. A worker process computes a
piece and writes it itself, under a temporary name that becomes the final one when the file is
complete, so that little travels between processes and memory does not grow with the data set.
Each piece carries a key, a hash of what it was made from; started again, a step keeps the pieces
whose key still fits and makes the others. Last comes ``index.json``, which says that the folder is
complete; it is removed before the first piece is touched.
"""

import hashlib
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import DataError
from data.npz import read_array, write_npz
from data.preparation.recording import SampleFault
from torchlight.files import atomic_write, remove_leftovers
from torchlight.untrusted import read_bounded

PIECE = 256  # samples; some 8 MB of joints
INDEX = "index.json"
_LARGEST_INDEX = 2**26  # bytes; a piece takes 130, a remark some 200
_FORMAT = 2  # raise when the content of pieces changes


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
class Piece:
    """A part of a step's work.

    Attributes:
        path: of the file to make. key: hash of all it is made from. work: what it is made from.
    """

    path: Path
    key: str
    work: Any


def remark_of(found: Any) -> Remark:
    """A remark as it lies in a JSON file.

    Raises:
        ValueError: it is none.
    """
    kinds = {"step": str, "sample": str, "line": int | None, "reason": str, "verdict": str}
    if not isinstance(found, dict) or set(found) != set(kinds):
        raise ValueError("no remark")
    if not all(isinstance(found[name], kind) for name, kind in kinds.items()):
        raise ValueError("no remark")
    return Remark(**found)


Result = tuple[Mapping[str, np.ndarray], list[Remark]]


def hash_of(*parts: object) -> str:
    """A key that changes when any part does."""
    return hashlib.sha256(repr((_FORMAT, parts)).encode()).hexdigest()


def make_pieces(
    pieces: Sequence[Piece], compute: Callable[[Any], Result], workers: int
) -> Iterator[list[Remark]]:
    """Make each piece that is not there yet; yields the remarks of each, in order.

    Args:
        pieces: all in one existing folder.
        compute: from a piece's work to arrays and remarks; a function of a module.
        workers: processes; with 1 everything happens in this one.

    Raises:
        DataError: a worker died.
        OSError: a piece cannot be written.
    """
    if workers <= 1 or len(pieces) <= 1:
        yield from (_make_piece(piece, compute) for piece in pieces)
        return
    pool = ProcessPoolExecutor(min(workers, len(pieces)), initializer=_start_worker)
    try:
        yield from pool.map(_make_piece, pieces, [compute] * len(pieces))
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died, possibly for lack of memory; run the step again, "
            "with fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def begin(folder: Path, pieces: Sequence[Piece]) -> None:
    """Make the folder incomplete: no index, no temporary files, no pieces of other runs.

    Raises:
        DataError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        remove_leftovers(folder)
        wanted = {piece.path for piece in pieces}
        for path in folder.glob("part-*.npz"):
            if path not in wanted:
                path.unlink()
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror})") from error


def finish(folder: Path, content: Mapping[str, Any]) -> None:
    """Declare the folder complete."""
    remove_leftovers(folder)  # a worker of a killed run may have lived a moment longer
    with atomic_write(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def read_index(folder: Path, advice: str) -> dict[str, Any]:
    """What ``finish`` wrote.

    Raises:
        DataError: the folder is not complete, in which case ``advice`` is what to do; or damaged.
    """
    try:
        index = json.loads(read_bounded(folder / INDEX, _LARGEST_INDEX))
    except FileNotFoundError as error:
        raise DataError(f"{folder}: missing or not complete (no {INDEX}); {advice}") from error
    except OSError as error:
        raise DataError(f"{folder / INDEX}: cannot be read ({error.strerror}); {advice}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{folder / INDEX}: damaged, not valid JSON; {advice}") from error
    if not isinstance(index, dict):
        raise DataError(f"{folder / INDEX}: damaged; {advice}")
    return index


def _make_piece(piece: Piece, compute: Callable[[Any], Result]) -> list[Remark]:
    """Make one piece, unless it is there with the same key."""
    known = _remarks_of(piece)
    if known is not None:
        return known
    arrays, remarks = compute(piece.work)
    meta = json.dumps({"key": piece.key, "remarks": [vars(remark) for remark in remarks]})
    with atomic_write(piece.path) as temporary:
        write_npz(temporary, {"meta": np.frombuffer(meta.encode(), np.uint8), **arrays})
    return remarks


def _remarks_of(piece: Piece) -> list[Remark] | None:
    """The remarks of a piece that was made before from the same work; None if there is none."""
    if not piece.path.exists():
        return None
    try:
        meta = json.loads(read_array(piece.path, "meta").tobytes())
        if meta["key"] != piece.key:
            return None
        return [remark_of(found) for found in meta["remarks"]]
    except (DataError, ValueError, LookupError, TypeError, RecursionError):
        return None  # damaged by something else than us: make it anew


def _start_worker() -> None:
    """Prepare a worker process."""
    tune_allocator()
    threading.Thread(target=_die_with_parent, daemon=True).start()


def tune_allocator() -> None:
    """Let malloc keep freed memory for the next file.

    glibc hands memory back to the system as soon as more than twice the largest block ever freed
    lies idle, and each file's temporaries are then paged in anew: 40 % of the reading time. So
    free one large block first. Harmless elsewhere.
    """
    np.empty(2**24, np.uint8)


def _die_with_parent() -> None:
    """End this worker when the main process is gone, be it by SIGKILL."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def guarded(step: str, remarks: list[Remark], make: Callable[..., Any], *args: Any) -> Any:
    """``make(*args)``, or None and one more remark if the sample turns out to be faulty."""
    try:
        return make(*args)
    except SampleFault as fault:
        remarks.append(Remark(step, fault.source, fault.line, fault.reason))
        return None
