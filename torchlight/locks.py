"""One writer at a time in a folder, on drives that keep locks and on those that refuse to."""

import contextlib
import os
import socket
import time
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import printable
from .files import reason
from .untrusted import read_bounded

_PATIENCE_S = 3
"""So long may the process before be dying while its launcher already starts this one."""
_POLL_S = 0.1
_LONGEST_FILE = 1000  # bytes


class Locked(Exception):
    """Another process writes there: says which one where that is known, and what to do."""


class FolderLock:
    """Held from ``acquire`` to ``release``, or to the end of this process.

    Lustre without ``-o flock``, NFS without its lock service and many FUSE drives refuse ``flock``.
    A file that names its writer then stands in for the lock. One that a killed process has left is
    taken over where that process is known to be gone, which only its own machine can tell.

    Attributes:
        note: what to say of a lock that is only such a file, and of its limits; else None.
    """

    def __init__(self, folder: Path) -> None:
        self.note: str | None = None
        self._lock = FileLock(folder / ".lock", timeout=_PATIENCE_S, fallback_to_soft=False)
        self._file = folder / ".lock.soft"
        self._own = ""

    def acquire(self) -> None:
        """Wait a moment for the lock.

        Raises:
            Locked: another process holds it.
            OSError: the folder cannot be written.
        """
        try:
            self._lock.acquire()
        except Timeout:
            raise Locked("another run is writing there; wait for it") from None
        except PermissionError:  # of a lock that is somebody else's: no refusal of the drive's
            raise
        except OSError as error:
            self._make_file()
            self.note = (
                f"{self._file.parent} is on a drive without locks ({reason(error)}); {self._file} "
                f"keeps other runs out instead, and has to be deleted if this one is killed and "
                f"resumed on another machine"
            )

    def release(self) -> None:
        """Let another process in; nothing happens where this one is not in."""
        with contextlib.suppress(OSError):
            if self._own and _read(self._file) == self._own:
                self._file.unlink()
        self._own = ""
        self._lock.release()

    def _make_file(self) -> None:
        machine = _machine()
        start = _start(os.getpid()) if machine else ""
        own = "\n".join([str(os.getpid()), socket.gethostname(), machine, start])
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                with open(self._file, "x", encoding="utf-8", errors="replace") as file:
                    self._own = own
                    file.write(own)
                return
            except FileExistsError:
                self._wait_for(_read(self._file), deadline)
            except OSError:
                if self._own:  # made, but not written
                    self._own = ""
                    self._file.unlink(missing_ok=True)
                raise

    def _wait_for(self, holder: str, deadline: float) -> None:
        """Wait a moment for ``holder`` to go, or remove what it left."""
        pid, host, machine, start = ((holder or "?").split("\n") + ["?"] * 4)[:4]
        if machine and machine == _machine() and _is_gone(pid, start):
            self._file.unlink(missing_ok=True)
        elif time.monotonic() > deadline:
            raise Locked(
                f"another run is writing there (process {printable(pid)} of {printable(host)}); "
                f"wait for it, or, if it no longer runs, delete {self._file}"
            )
        else:
            time.sleep(_POLL_S)


def _read(file: Path) -> str:
    """The holder's words; empty where there are none (yet, or any more)."""
    try:
        return read_bounded(file, _LONGEST_FILE).decode("utf-8", "replace")
    except OSError:
        return ""


def _machine() -> str:
    """What processes that see each other by their ids have in common; empty where nobody knows."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _is_gone(pid: str, start: str) -> bool:
    """Whether a process of this machine has ended, be its id taken by another one since."""
    try:
        os.kill(int(pid), 0)
        return _start(int(pid)) != start
    except PermissionError:  # somebody else's
        return False
    except (OSError, ValueError, OverflowError):
        return True


def _start(pid: int) -> str:
    """When a process was started; empty for one that only waits for its parent to notice it."""
    status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return "" if status[0] in "ZX" else status[19]  # fields 3 and 22 of proc(5)
