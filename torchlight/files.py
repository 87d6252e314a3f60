"""Files that are either whole or absent."""

import argparse
import contextlib
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})")


def expanded(text: str) -> str:
    """A path as people write it: ``~`` at its beginning and ``$NAME``, ``${NAME}`` replaced.

    Raises:
        ValueError: a variable that is not set (and no file of that very name), an unknown user, or
            a control character, as ``"D:\\new"`` in double quotes has one.
    """
    names = [plain or braced for plain, braced in _VARIABLE.findall(text)]
    unset = [name for name in names if not os.environ.get(name)]
    if any(ord(letter) < 32 for letter in text):
        raise ValueError(
            f"{text!r} has a control character in it; write / for \\, or use single quotes"
        )
    if unset and not os.path.lexists(text):
        raise ValueError(f"{text!r}: the environment variable {unset[0]} is not set")
    if unset:
        return text
    path = os.path.expanduser(_VARIABLE.sub(lambda m: os.environ[m[1] or m[2]], text))
    if path.startswith("~") and not os.path.lexists(path):
        raise ValueError(f"{text!r}: there is no user {path[1:].split(os.sep)[0]!r} here")
    return path


def path_argument(text: str) -> Path:
    """The type of a flag that is a path; see ``expanded``."""
    try:
        return Path(expanded(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success fsync it and rename it to ``path``.

    A reader sees the old file or the new one, never half of it, and a failure leaves no
    temporary file behind. The name starts with a dot and holds the process id, so that two
    processes never write the same one.

    Raises:
        OSError: the folder cannot be written or the disk is full; ``path`` is then unchanged.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut, where the drive allows it.

    Network and FUSE drives refuse it with EINVAL, EIO, ENOTSUP, EACCES, ...: the file itself is
    safe by then, so no error of this is worth the loss of a run.
    """
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_leftovers(folder: Path, names: Iterable[str] = ("*",)) -> None:
    """Remove what ``atomic_write`` left of files called ``names`` where a process was killed.

    Only for one that writes them alone (it holds a lock): another's would go as well.

    Args:
        names: patterns, as of ``glob``; by default all files of the folder.
    """
    for name in names:
        for path in folder.glob(f".{name}.*.tmp"):
            path.unlink(missing_ok=True)


def reason(error: OSError) -> str:
    """What the system says, without number and path: "No space left on device"."""
    return error.strerror or str(error)


def print_any_text() -> None:
    """Let standard output escape what its encoding lacks, where it would raise an error instead.

    An ASCII terminal then shows "L\\xe4ufe", and no line is lost.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
