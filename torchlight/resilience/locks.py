"""One writer at a time in a folder, on drives that keep locks and on those that refuse to."""

from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from torchlight.errors import UserError, printable
from torchlight.files import reason
from torchlight.untrusted import read_bounded

_PATIENCE_S = 3
"""So long may the process before be dying while its launcher already starts this one."""
_LONGEST_FILE = 10_000  # bytes


class Locked(UserError):
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
        self._folder = folder
        self._lock: BaseFileLock | None = None

    def acquire(self) -> None:
        """Wait a moment for the lock.

        Raises:
            Locked: another process holds it.
            OSError: the folder cannot be written.
        """
        lock: BaseFileLock = FileLock(self._folder / ".lock", fallback_to_soft=False)
        try:
            lock.acquire(_PATIENCE_S)
        except Timeout:
            raise Locked(
                f"{self._folder}: another run is writing there; wait for it, or say "
                f"--work-dir OTHER"
            ) from None
        except PermissionError:  # of a lock that is somebody else's: no refusal of the drive's
            raise
        except OSError as error:
            lock = self._acquire_file()
            self.note = (
                f"{self._folder} is on a drive without locks ({reason(error)}); {lock.lock_file} "
                f"keeps other runs out instead, and has to be deleted if this one is killed and "
                f"resumed on another machine"
            )
        self._lock = lock

    def _acquire_file(self) -> SoftFileLock:
        file = self._folder / ".lock.soft"
        lock = SoftFileLock(file)
        try:
            lock.acquire(_PATIENCE_S)
        except Timeout:
            words = read_bounded(file, _LONGEST_FILE).decode("utf-8", "replace").split("\n")
            told = f" (process {printable(words[0])} of {printable(words[1])})" if words[2:] else ""
            raise Locked(
                f"{self._folder}: another run is writing there{told}; wait for it, or, if it no "
                f"longer runs, delete {file}; or say --work-dir OTHER"
            ) from None
        return lock

    def release(self) -> None:
        """Let another process in; nothing happens where this one is not in."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
