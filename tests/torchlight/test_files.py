"""Files on drives that refuse what others grant, and output that an encoding lacks."""

import errno
import io
import os
import stat
import sys

import pytest

from torchlight.files import atomic_write, print_any_text


@pytest.mark.parametrize(
    "number", [errno.EINVAL, errno.EIO, errno.EOPNOTSUPP, errno.EACCES, errno.EBADF]
)
@pytest.mark.parametrize("refused", ["fsync", "open"])
def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path, monkeypatch, number, refused):
    granted = getattr(os, refused)

    def refuse(what, *args, **more):
        status = os.stat(what)
        if stat.S_ISDIR(status.st_mode):
            raise OSError(number, os.strerror(number))
        return granted(what, *args, **more)

    monkeypatch.setattr(os, refused, refuse)
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_that_cannot_be_synced_is_a_failure(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", refuse)
    with (
        pytest.raises(OSError, match="Input/output"),
        atomic_write(tmp_path / "a.txt") as temporary,
    ):
        temporary.write_text("whole")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", b"L\\xe4ufe \\u6570 \\udcff"),
        ("utf-8", "Läufe 数 \\udcff".encode()),
    ],
)
def test_output_escapes_what_its_encoding_lacks(monkeypatch, encoding, shown):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
    print_any_text()
    print("Läufe 数 \udcff", end="", flush=True)
    assert raw.getvalue() == shown


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_output_that_is_no_terminal_stays_as_it_is(monkeypatch, stream):
    monkeypatch.setattr(sys, "stdout", stream)
    print_any_text()
