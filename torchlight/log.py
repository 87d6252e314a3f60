"""What a run says: on the terminal and in ``log.txt``, from rank 0 alone."""

import contextlib
import logging
import sys
from pathlib import Path

from .files import reason
from .terminal import GREEN, painted

NAME = "torchlight"
NEW_BEST = "(best so far)"
"""How the line of an epoch says it."""


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
    """A terminal that has been closed does not end the run; on an open one a new best is green."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with a colour where there are any."""
        return super().format(record).replace(NEW_BEST, painted(NEW_BEST, GREEN, self.stream))

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


def warn(text: str) -> None:
    """Log a warning."""
    logging.getLogger(NAME).info(f"warning: {text}")
