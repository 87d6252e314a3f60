"""Signals as requests that the training loop handles between two steps."""

import logging
import os
import signal
import sys
import threading
from enum import IntEnum
from types import FrameType

from .log import NAME


def can_be_handled() -> bool:
    """Whether this thread may handle signals; Python lets the main one alone."""
    return threading.current_thread() is threading.main_thread()


class Request(IntEnum):
    """What is asked of a run; of several ranks' requests the largest counts."""

    NONE = 0
    SAVE = 1
    TERMINATE = 2
    INTERRUPT = 3

    @property
    def leaves(self) -> bool:
        """Whether the run ends."""
        return self >= Request.TERMINATE

    @property
    def status(self) -> int:
        """Exit status of a run that leaves: 130 after an interrupt from the keyboard, else 0."""
        return 130 if self is Request.INTERRUPT else 0


class Signals:
    """Collects SIGTERM and SIGINT (save and leave) and SIGUSR1 (save and continue).

    A second SIGINT leaves immediately. Use as a context manager; off the main thread it collects
    nothing, and says so.
    """

    def __init__(self) -> None:
        self.pending = Request.NONE
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Signals":
        if not can_be_handled():
            logging.getLogger(NAME).info(
                "note: not in the main thread, so SIGTERM, SIGINT and SIGUSR1 save no state; one "
                "is saved after each epoch and every --save-minutes"
            )
            return self
        wanted = {
            "SIGTERM": Request.TERMINATE,
            "SIGINT": Request.INTERRUPT,
            "SIGUSR1": Request.SAVE,
        }
        for name, request in wanted.items():
            number = getattr(signal, name, None)  # Windows has no SIGUSR1
            if number is not None:
                self._before[number] = signal.signal(number, self._handler(request))
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def take(self) -> Request:
        """The pending request; a request to save is thereby done with."""
        pending = self.pending
        if pending is Request.SAVE:
            self.pending = Request.NONE
        return pending

    def _handler(self, request: Request):  # type: ignore[no-untyped-def]  # signal's own type
        def handle(number: int, frame: FrameType | None) -> None:
            self.pending = max(self.pending, request)
            if request is Request.INTERRUPT:
                signal.signal(number, _leave_at_once)

        return handle


def _leave_at_once(number: int, frame: FrameType | None) -> None:
    """Without cleaning up, which could take as long as what is being left."""
    print("interrupted twice: left immediately", file=sys.stderr, flush=True)
    os._exit(Request.INTERRUPT.status)
