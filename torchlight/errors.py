"""How a command can fail: by a mistake the user can mend, or by a run that went wrong."""

import sysconfig
import traceback
from pathlib import Path


class UserError(Exception):
    """One line: what is wrong, in which file (line, key), what to do.

    Root scripts print it without a traceback and exit with status 2.
    """


def printable(found: object) -> str:
    """What a file holds, or what a library says of it, fit for a message: short, on one line."""
    text = " ".join(str(found).split()) or type(found).__name__
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:200])
    return shown + ("..." if len(text) > 200 else "")


def told(error: BaseException) -> str:
    """What a class that is not ours raised, on one line: kind, message, and where in its code."""
    message = error.msg if isinstance(error, SyntaxError) else error
    told = f"{type(error).__name__}: {printable(message)}" if str(error) else type(error).__name__
    return told + _place(error)


def _place(error: BaseException) -> str:
    """`` (FILE, line N)``: where in the code that this package called ``error`` arose.

    The innermost line outside of Python's own and installed packages, where there is one.
    """
    if isinstance(error, SyntaxError):
        return f" ({error.filename}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    here = Path(__file__).parent
    ours = [i for i, frame in enumerate(frames) if Path(frame.filename).parent == here]
    called = frames[ours[-1] + 1 :] if ours else frames
    python = sysconfig.get_paths()["stdlib"]
    own = [f for f in called if not f.filename.startswith((python, "<"))]
    own = [f for f in own if "site-packages" not in f.filename] or own
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
