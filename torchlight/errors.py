"""How a command can fail: by a mistake the user can mend, or by a run that went wrong."""


class UserError(Exception):
    """One line: what is wrong, in which file (line, key), what to do.

    Root scripts print it without a traceback and exit with status 2.
    """


def printable(found: object) -> str:
    """What a file holds, or what a library says of it, fit for a message: short, on one line."""
    text = " ".join(str(found).split()) or type(found).__name__
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:200])
    return shown + ("..." if len(text) > 200 else "")


class RunFailed(Exception):
    """A run that cannot go on (a loss of NaN, say), on every rank: one line, exit status 1."""


class PeersMissing(RunFailed):
    """A run whose processes did not find each other: each tells what it saw."""


class Stopped(Exception):
    """A run that was asked to stop, and has saved its state: exit with ``status``."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
