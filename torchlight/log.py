"""What a run tells: the terminal, ``log.txt`` and TensorBoard, from rank 0 alone."""

import contextlib
import io
import logging
import os
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from .files import reason

NAME = "torchlight"
Point = tuple[str, str, float, int]
"""Part, curve, value, step."""

_EVENTS = "events.out.tfevents"


def start_logging(is_main: bool, file: Path | None) -> logging.Logger:
    """The engine's logger: to standard output, and appended to ``file``; silent off rank 0."""
    logger = logging.getLogger(NAME)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = False
    logger.setLevel(logging.INFO if is_main else logging.CRITICAL)
    if not is_main:
        logger.addHandler(logging.NullHandler())
        return logger
    terminal = _Terminal(sys.stdout)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(terminal)
    if file is not None:
        written = _LogFile(file, encoding="utf-8", errors="backslashreplace", delay=True)
        written.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(written)
    return logger


class _Terminal(logging.StreamHandler):
    """A terminal that has been closed does not end the run."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: there is nobody to say it to."""


class _LogFile(logging.FileHandler):
    """Lines that a full disk does not take are kept and written with later ones."""

    _warned = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Say once, on standard error, why lines are missing."""
        error = sys.exc_info()[1]
        if not self._warned:
            why = reason(error) if isinstance(error, OSError) else str(error)
            print(f"warning: {self.baseFilename} not written ({why})", file=sys.stderr, flush=True)
        self._warned = True

    def close(self) -> None:
        """Let go of the file; what it still does not take is lost."""
        with contextlib.suppress(OSError):
            super().close()


class Curves:
    """TensorBoard curves of train and val below ``folder``; does nothing off rank 0.

    Points are kept in memory until ``flush`` appends them, whole or not at all, so that a full
    disk delays but never doubles or breaks them. ``first_step`` is where a run resumes: points at
    it and later, left by a run that was cut off after its last saved state, are dropped by
    TensorBoard; ``first_points`` are those of the saved state at that very step.
    """

    def __init__(
        self, folder: Path, is_main: bool, first_step: int = 0, first_points: Iterable[Point] = ()
    ) -> None:
        self._files = {
            part: EventFile(folder / part, first_step)
            for part in (("train", "val") if is_main else ())
        }
        self._latest: list[Point] = []
        for part, name, value, step in first_points:
            self.add(part, {name: value}, step)

    def add(self, part: str, values: Mapping[str, float], step: int) -> None:
        """Add a point at ``step`` to each named curve of ``part`` (train or val)."""
        if part in self._files:
            self._files[part].add(values, step)
            self._latest += [(part, name, value, step) for name, value in values.items()]

    def latest(self, step: int) -> list[Point]:
        """The points at ``step``, the newest there are, for a state saved at it."""
        self._latest = [point for point in self._latest if point[-1] == step]
        return self._latest

    def flush(self) -> None:
        """Append what was added since; a TensorBoard that is watching sees it.

        Raises:
            OSError: the disk is full or read-only; the points are kept for the next time.
        """
        for file in self._files.values():
            file.flush()


class EventFile:
    """One TensorBoard file, named so that it sorts after those that are there already."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self._folder = folder
        self._path: Path | None = None
        self._waiting = io.BytesIO()
        self._record(Event(file_version="brain.Event:2", step=first_step))
        self._record(Event(session_log=SessionLog(status=SessionLog.START), step=first_step))
        self._empty = True

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to each named curve."""
        entries = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._record(Event(summary=Summary(value=entries), step=step))
        self._empty = False

    def flush(self) -> None:
        """Append what waits, or nothing at all (OSError)."""
        if self._empty:
            return
        if self._path is None:
            self._path = self._new_path()
        with open(self._path, "ab", buffering=0) as file:
            length = file.seek(0, io.SEEK_END)
            try:
                _write_all(file, memoryview(self._waiting.getvalue()))
            except OSError:
                file.truncate(length)
                raise
        self._waiting, self._empty = io.BytesIO(), True

    def _record(self, event: Event) -> None:
        event.wall_time = time.time()
        RecordWriter(self._waiting).write(event.SerializeToString())

    def _new_path(self) -> Path:
        """TensorBoard reads a folder's files in the order of their names, which begin with seconds.

        A run resumed within the same second, or after the clock went back, still comes last.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        words = [path.name.split(".")[3] for path in self._folder.glob(f"{_EVENTS}.*")]
        second = max([int(time.time()), *(int(word) + 1 for word in words if word.isdigit())])
        return self._folder / f"{_EVENTS}.{second:010d}.{socket.gethostname()}.{os.getpid()}"


def _write_all(file: io.FileIO, content: memoryview) -> None:
    """Write all of ``content``; a nearly full disk takes a part first and fails then."""
    while content:
        content = content[file.write(content) :]
