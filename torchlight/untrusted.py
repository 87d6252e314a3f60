"""Untrusted files: what is asked of them before they are read.

A path may lead to a pipe that never speaks or a device that never ends, and a small archive may
unfold to gigabytes.
"""

import errno
import math
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO, Literal

import numpy as np
from numpy.lib import format as npy

from .errors import UserError, printable

_LARGEST_DIRECTORY = 1 << 20  # bytes; an entry takes some 100, and archives here have few
_DIRECTORY_SIZE = 5  # where zipfile has it
_UNPACK_LIMIT = 2**28  # bytes of a compressed array that may be unpacked into memory
_KINDS = "biufcSU"
_LONGEST_HEADER = 10_000  # bytes, numpy's own limit; evaluating more might not end


class Unsound(UserError):
    """A file of arrays that is not what it should be: one line that names it."""


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        OSError: there is none, or something else is there; its ``strerror`` says so.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # open itself refuses a folder
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(path, "rb")


def size_of(file: BinaryIO) -> int:
    """The size of an open file in bytes; where it is read next stays as it is."""
    here, size = file.tell(), file.seek(0, os.SEEK_END)
    file.seek(here)
    return size


def read_bounded(path: str | os.PathLike[str], limit: int) -> bytes:
    """All of a regular file of at most ``limit`` bytes.

    Raises:
        OSError: as ``open_regular``, or the file is larger; its ``strerror`` says so.
    """
    with open_regular(path) as file:
        size = size_of(file)
        if size > limit:
            raise OSError(errno.EFBIG, f"{size} bytes, too large; the limit is {limit}", str(path))
        return file.read(size)  # asks for as much memory as it is given


def open_archive(file: BinaryIO, *, packed: bool = False) -> zipfile.ZipFile:
    """A zip archive of not too many members, stored, or deflated where ``packed`` allows it.

    Raises:
        zipfile.BadZipFile: it is another one, or damaged.
    """
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if end and end[_DIRECTORY_SIZE] > _LARGEST_DIRECTORY:
        raise zipfile.BadZipFile(f"a directory of {end[_DIRECTORY_SIZE]} bytes")
    archive = zipfile.ZipFile(file)
    for info in archive.infolist():
        stored = info.compress_type == zipfile.ZIP_STORED and info.file_size == info.compress_size
        if not stored and not (packed and info.compress_type == zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"{info.filename!r} is compressed in a way not expected here")
    return archive


@contextmanager
def open_npz(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """The archive that an ``.npz`` is, stored or deflated.

    Raises:
        Unsound: whatever is wrong with it, also while it is open.
    """
    with one_line(path, "no .npz file"), open_regular(path) as file:
        yield open_archive(file, packed=True)


def read_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an ``.npy`` of numbers or text.

    Raises:
        Unsound: it is none, or is damaged.
    """
    with one_line(path, "no .npy file"), open_regular(path) as file:
        return _read_array(path, "its array", file, size_of(file))


@contextmanager
def one_line(path: str | os.PathLike[str], otherwise: str) -> Iterator[None]:
    """Turn all that goes wrong into an Unsound that names the file; a UserError passes."""
    try:
        yield
    except UserError:
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
    with archive.open(info) as member:
        packed = info.compress_type != zipfile.ZIP_STORED
        if packed and info.file_size > _UNPACK_LIMIT:
            raise Unsound(
                f"{path}: {name} is compressed and {info.file_size} bytes large; save it again "
                "uncompressed, with numpy.savez, so that it can be mapped"
            )
        if not packed and info.file_size > os.path.getsize(path):
            raise Unsound(f"{path}: {name} is longer than the file")
        return _read_array(path, name, member, info.file_size)


def _read_array(
    path: str | os.PathLike[str], name: str, stream: IO[bytes], length: int
) -> np.ndarray:
    """The array in an ``.npy`` stream of ``length`` bytes, its sizes checked before it is read."""
    shape, dtype, order = array_header(path, name, stream)
    size = math.prod(shape) * dtype.itemsize
    if size != length - stream.tell():
        raise Unsound(f"{path}: {name} announces {dtype} {shape}, of another size")
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
