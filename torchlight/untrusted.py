"""Files of strangers: what is asked of them before they are read.

A path may lead to a pipe that never speaks or a device that never ends, a small archive may unfold
to gigabytes, and a directory of an archive may be all there is to it.
"""

import errno
import os
import stat
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO

_LARGEST_DIRECTORY = 1 << 20  # bytes; an entry takes some 100, and archives here have few
_END, _END_BYTES = b"PK\x05\x06", 22  # of a zip's directory (APPNOTE.TXT, 4.3.14 to 4.3.16)
_END64, _END64_BYTES = b"PK\x06\x06", 56
_LOCATOR, _LOCATOR_BYTES = b"PK\x06\x07", 20
_LONGEST_COMMENT = 0xFFFF


def check_regular(path: str | os.PathLike[str]) -> int:
    """The size of a regular file, in bytes.

    Raises:
        OSError: there is none, or something else is there; its ``strerror`` says so.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return status.st_size


def read_bounded(path: str | os.PathLike[str], limit: int) -> bytes:
    """All of a regular file of at most ``limit`` bytes.

    Raises:
        OSError: as ``check_regular``, or the file is larger; its ``strerror`` says so.
    """
    size = check_regular(path)
    if size > limit:
        raise OSError(errno.EFBIG, f"{size} bytes, too large; the limit is {limit}", str(path))
    with open(path, "rb") as file:
        return file.read(size)  # asks for as much memory as it is given


def open_archive(path: str | os.PathLike[str], methods: Collection[int]) -> zipfile.ZipFile:
    """A zip archive whose members are packed by one of ``methods`` (``zipfile.ZIP_STORED``, ...).

    Raises:
        OSError: as ``check_regular``.
        zipfile.BadZipFile: no archive, a huge directory, a name twice, another packing.
    """
    check_regular(path)
    with open(path, "rb") as file:
        check_directory(file)
    archive = zipfile.ZipFile(Path(path))
    try:
        check_members(archive, methods)
    except zipfile.BadZipFile:
        archive.close()
        raise
    return archive


def check_members(archive: zipfile.ZipFile, methods: Collection[int]) -> None:
    """Refuse names that occur twice, and what is not packed by one of ``methods``.

    Raises:
        zipfile.BadZipFile: names the member.
    """
    seen: set[str] = set()
    for info in archive.infolist():
        if info.filename in seen:
            raise zipfile.BadZipFile(f"{info.filename!r} occurs twice")
        if info.compress_type not in methods or info.flag_bits & 1:
            raise zipfile.BadZipFile(f"{info.filename!r} is compressed in a way not expected here")
        seen.add(info.filename)


def check_directory(file: IO[bytes]) -> None:
    """Refuse a zip archive whose directory alone would fill the memory.

    Raises:
        zipfile.BadZipFile: it does, or there is none.
    """
    size = _directory_size(file)
    if size > _LARGEST_DIRECTORY:
        raise zipfile.BadZipFile(f"a directory of {size} bytes")


def _directory_size(file: IO[bytes]) -> int:
    """The largest size in bytes that the end of a zip may be read to state for its directory."""
    length = file.seek(0, os.SEEK_END)
    start = max(length - _END_BYTES - _LONGEST_COMMENT - _LOCATOR_BYTES - _END64_BYTES, 0)
    file.seek(start)
    tail = file.read()
    end = tail.rfind(_END)
    if end < 0 or len(tail) - end < _END_BYTES:
        raise zipfile.BadZipFile("no zip archive, or cut off")
    sizes = [int.from_bytes(tail[end + 12 : end + 16], "little")]
    locator = tail[max(end - _LOCATOR_BYTES, 0) : end]
    if locator.startswith(_LOCATOR):
        before = end - _LOCATOR_BYTES - _END64_BYTES
        records = [tail[max(before, 0) : end - _LOCATOR_BYTES]]
        file.seek(min(int.from_bytes(locator[8:16], "little"), length))
        records.append(file.read(_END64_BYTES))
        found = [record for record in records if record.startswith(_END64)]
        # With 64-bit records the 32-bit size is but a mark.
        sizes = [int.from_bytes(record[40:48], "little") for record in found] or sizes
    return max(sizes)
