"""Signals as requests that a run handles between two steps."""

import logging
import os
import signal
import sys
import threading
from enum import IntEnum
from types import FrameType
from typing import Any

from torchlight.log import NAME

AGAIN = "the same command, without --overwrite, resumes"


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


_REQUESTS = {"SIGTERM": Request.TERMINATE, "SIGINT": Request.INTERRUPT, "SIGUSR1": Request.SAVE}


class Signals:
    """Collects SIGTERM and SIGINT (save and leave) and SIGUSR1 (save and continue).

    A second SIGINT leaves immediately. Off the main thread it collects nothing, and says so.
    """

    def __init__(self) -> None:
        self.pending = Request.NONE
        self._before: dict[int, Any] = {}

    def start(self) -> None:
        """Take the signals over."""
        if threading.current_thread() is not threading.main_thread():
            logging.getLogger(NAME).info(
                "note: not in the main thread, so SIGTERM, SIGINT and SIGUSR1 save no state; one "
                "is saved after each epoch and every --save-minutes"
            )
            return
        for name, request in _REQUESTS.items():
            number = getattr(signal, name, None)  # Windows has no SIGUSR1
            if number is not None:
                self._before[number] = signal.signal(number, self._handler(request))

    def stop(self) -> None:
        """Give the signals back."""
        while self._before:
            signal.signal(*self._before.popitem())

    def take(self) -> Request:
        """The pending request; a request to save is thereby done with."""
        pending = self.pending
        if pending is Request.SAVE:
            self.pending = Request.NONE
        return pending

    def _handler(self, request: Request) -> Any:
        def handle(number: int, frame: FrameType | None) -> None:
            self.pending = max(self.pending, request)
            if request is Request.INTERRUPT:
                signal.signal(number, _leave_at_once)

        return handle


def _leave_at_once(number: int, frame: FrameType | None) -> None:
    """Without cleaning up, which could take as long as what is being left."""
    print("interrupted twice: left immediately", file=sys.stderr, flush=True)
    os._exit(Request.INTERRUPT.status)
