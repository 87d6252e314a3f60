"""How a command can fail: by a mistake the user can mend, or by a run that went wrong."""

import sysconfig
import traceback

from .terminal import printable as printable


class UserError(Exception):
    """One line: what is wrong, in which file (line, key), what to do.

    Root scripts print it without a traceback and exit with status 2. Whatever reads what a user
    gave may raise it; docstrings name other errors.
    """


def told(error: BaseException) -> str:
    """What a class that is not ours raised, on one line: kind, message, and where in its code."""
    message = error.msg if isinstance(error, SyntaxError) else error
    told = f"{type(error).__name__}: {printable(message)}" if str(error) else type(error).__name__
    return told + _place(error)


def _place(error: BaseException) -> str:
    """`` (FILE, line N)``: the innermost line outside of Python's own and installed packages."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}, line {error.lineno})"
    python = (sysconfig.get_paths()["stdlib"], "<")
    frames = traceback.extract_tb(error.__traceback__)
    called = [frame for frame in frames if not frame.filename.startswith(python)]
    own = [frame for frame in called if "site-packages" not in frame.filename] or called
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


class RunFailed(Exception):
    """A run that cannot go on (a loss of NaN, say), on every rank: one line, exit status 1."""


class PeersMissing(RunFailed):
    """A run whose processes did not find each other: each tells what it saw."""


class Stopped(Exception):
    """A run that was asked to stop, and has saved its state: exit with ``status``."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
