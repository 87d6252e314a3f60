"""One writer in a folder, where the drive keeps locks and where it refuses to."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from torchlight.resilience import locks
from torchlight.resilience.locks import FolderLock, Locked

REFUSALS = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO, 524]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(locks, "_PATIENCE_S", 0.2)


@pytest.fixture
def refusing(monkeypatch):
    """Make every ``flock`` fail."""

    def refuse(number=errno.ENOLCK):
        def flock(descriptor, operation):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)

    return refuse


def left_by(folder, **changes):
    """The file of a lock as a process on this machine leaves it that is killed."""
    script = (
        "import os, pathlib, sys; from torchlight.resilience import locks; "
        "lock = locks.FolderLock(pathlib.Path(sys.argv[1]))._acquire_file(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, str(folder)], check=False)
    file = folder / ".lock.soft"
    words = dict(zip(("pid", "host", "start"), file.read_text().splitlines(), strict=True))
    file.write_text("".join(f"{word}\n" for word in {**words, **changes}.values()))
    return file


def test_a_drive_that_keeps_locks_needs_no_note(tmp_path):
    lock, other = FolderLock(tmp_path), FolderLock(tmp_path)
    lock.acquire()
    assert lock.note is None
    with pytest.raises(Locked, match="another run"):
        other.acquire()
    lock.release()
    other.acquire()
    assert not (tmp_path / ".lock.soft").exists()


@pytest.mark.parametrize("number", REFUSALS)
def test_a_file_stands_in_for_a_refused_lock(tmp_path, refusing, number):
    refusing(number)
    lock, other = FolderLock(tmp_path), FolderLock(tmp_path)
    lock.acquire()
    assert os.strerror(number) in lock.note
    with pytest.raises(Locked, match=f"process {os.getpid()} of .* delete {tmp_path}/.lock.soft"):
        other.acquire()
    other.release()  # of one that is not in: it takes nothing from the other
    assert (tmp_path / ".lock.soft").exists()
    lock.release()
    other.acquire()


def test_a_killed_process_keeps_nobody_out(tmp_path, refusing):
    refusing()
    left_by(tmp_path)
    FolderLock(tmp_path).acquire()


def test_a_process_of_the_same_id_is_not_taken_for_the_killed_one(tmp_path, refusing):
    refusing()
    left_by(tmp_path, pid=str(os.getpid()))
    FolderLock(tmp_path).acquire()


@pytest.mark.parametrize("content", [None, ""])
def test_what_cannot_be_judged_from_here_is_told_with_what_to_delete(tmp_path, refusing, content):
    refusing()
    file = left_by(tmp_path, host="node7")
    if content is not None:
        file.write_text(content)
    with pytest.raises(Locked, match=f"delete {file}") as caught:
        FolderLock(tmp_path).acquire()
    assert ("node7" in str(caught.value)) == (content is None)
    file.unlink()
    FolderLock(tmp_path).acquire()


def test_a_lock_of_somebody_else_is_no_refused_lock(tmp_path, monkeypatch):
    def denied(lock):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(locks.FileLock, "_acquire", denied)
    with pytest.raises(PermissionError):
        FolderLock(tmp_path).acquire()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_no_refused_lock(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        FolderLock(tmp_path / "file").acquire()
