"""Untrusted files: what is asked of them before they are read.

A path may lead to a pipe that never speaks or a device that never ends, a small archive may unfold
to gigabytes, and a directory of an archive may be all there is to it.
"""

import errno
import math
import os
import stat
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.lib import format as npy

from .errors import UserError, printable

_LARGEST_DIRECTORY = 1 << 20  # bytes; an entry takes some 100, and archives here have few
_END, _END_BYTES = b"PK\x05\x06", 22  # of a zip's directory (APPNOTE.TXT, 4.3.14 to 4.3.16)
_END64, _END64_BYTES = b"PK\x06\x06", 56
_LOCATOR, _LOCATOR_BYTES = b"PK\x06\x07", 20
_LONGEST_COMMENT = 0xFFFF
_UNPACK_LIMIT = 2**28  # bytes of a compressed array that may be unpacked into memory
_KINDS = "biufcSU"
_LONGEST_HEADER = 10_000  # bytes, numpy's own limit; evaluating more might not end


class Unsound(UserError):
    """A file of arrays that is not what it should be: one line that names it."""


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


@contextmanager
def open_npz(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """The archive that an ``.npz`` is, stored or deflated.

    Raises:
        Unsound: whatever is wrong with it, also while it is open.
    """
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    with _one_line(path, "no .npz file"), open_archive(path, methods) as archive:
        yield archive


def read_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an ``.npy`` of numbers or text.

    Raises:
        Unsound: it is none, or is damaged.
    """
    with _one_line(path, "no .npy file"):
        length = check_regular(path)
        with open(path, "rb") as file:
            return _read_array(path, "its array", file, length, length)


@contextmanager
def _one_line(path: str | os.PathLike[str], otherwise: str) -> Iterator[None]:
    """Turn all that goes wrong into an Unsound that names the file."""
    try:
        yield
    except Unsound:
        raise
    except OSError as error:
        raise Unsound(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds on damaged files
        raise Unsound(f"{path}: damaged, or {otherwise} ({printable(error)})") from error


def npz_member(
    path: str | os.PathLike[str], archive: zipfile.ZipFile, name: str
) -> zipfile.ZipInfo:
    """The member that holds array ``name``.

    Raises:
        Unsound: there is none.
    """
    try:
        return archive.getinfo(f"{name}.npy")
    except KeyError:
        found = ", ".join(n.removesuffix(".npy") for n in archive.namelist()[:8]) or "nothing"
        raise Unsound(f"{path}: no array {name}; it has {printable(found)}") from None


def read_npz_array(path: str | os.PathLike[str], archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read array ``name`` into memory, compressed or not.

    Raises:
        Unsound: it is not there, holds objects, or is compressed and larger than 256 MB, which
            a small damaged or malicious file can claim as well.
    """
    info = npz_member(path, archive, name)
    packed = info.compress_type != zipfile.ZIP_STORED
    with archive.open(info) as member:
        limit = _UNPACK_LIMIT if packed else check_regular(path)
        return _read_array(path, name, member, info.file_size, limit)


def _read_array(
    path: str | os.PathLike[str], name: str, stream: IO[bytes], length: int, limit: int
) -> np.ndarray:
    """The array in an ``.npy`` stream of ``length`` bytes, its sizes checked before it is read."""
    shape, dtype, order = array_header(path, name, stream)
    size = math.prod(shape) * dtype.itemsize
    if size > limit and limit == _UNPACK_LIMIT:
        raise Unsound(
            f"{path}: {name} is compressed and {size} bytes large; save it again "
            "uncompressed, with numpy.savez, so that it can be mapped"
        )
    if size != length - stream.tell():
        raise Unsound(f"{path}: {name} announces {dtype} {shape}, of another size")
    if size > limit:
        raise Unsound(f"{path}: {name} is longer than the file")
    data = np.empty(size, np.uint8)
    if stream.readinto(data) != size or stream.read(1):  # type: ignore[attr-defined]
        raise Unsound(f"{path}: {name} has not the bytes for its shape {shape}")
    return np.frombuffer(data, dtype, math.prod(shape)).reshape(shape, order=order)


def array_header(
    path: str | os.PathLike[str], name: str, stream: IO[bytes]
) -> tuple[tuple[int, ...], np.dtype, Literal["C", "F"]]:
    """Shape, dtype and order of an ``.npy`` stream, which is then at the first number.

    Raises:
        Unsound: it is no array of numbers or text.
    """
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran_order, dtype = read(stream, max_header_size=_LONGEST_HEADER)
    if dtype.hasobject:
        raise Unsound(f"{path}: {name} holds objects; save it as plain numbers or text")
    if dtype.kind not in _KINDS or not dtype.itemsize or min(shape, default=0) < 0:
        raise Unsound(f"{path}: {name} is {str(dtype)[:40]} {shape}, no array of numbers or text")
    return shape, dtype, "F" if fortran_order and len(shape) > 1 else "C"
