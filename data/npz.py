"""``.npz`` files too large for memory: written piece by piece, read through a memory map.

An ``.npz`` is a zip of ``.npy`` files. Written by ``numpy.savez`` its members are stored
uncompressed, so an array's numbers lie in one piece inside the file and can be mapped.
"""

import math
import mmap
import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from data.errors import DataError
from torchlight.untrusted import Unsound, array_header, npz_member, open_npz, read_npz_array

_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed time stamp, so that equal content gives equal files
_LOCAL_HEADER = 30  # bytes of a zip member's header before its name (APPNOTE.TXT, 4.3.7)


class NpzWriter:
    """Write arrays into an ``.npz`` one after the other, each as a stream of rows.

    The file is readable by ``numpy.load`` and depends on the arrays alone: equal arrays, equal
    bytes. Use as a context manager.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True)

    def __enter__(self) -> "NpzWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._zip.close()

    def write(self, name: str, array: np.ndarray) -> None:
        """Write a whole array."""
        self.write_rows(name, array.shape, array.dtype, [array])

    def write_rows(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype, blocks: Iterable[np.ndarray]
    ) -> None:
        """Write an array of ``shape`` from blocks that hold its rows in order.

        Raises:
            ValueError: the blocks have more or fewer bytes than the shape says.
        """
        dtype = np.dtype(dtype)
        header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        left = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        member = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
        with self._zip.open(member, "w", force_zip64=True) as file:
            npy.write_array_header_2_0(file, header)
            for block in blocks:
                data = np.ascontiguousarray(block, dtype=dtype)
                left -= data.nbytes
                file.write(data.data if data.size else b"")
        if left:
            raise ValueError(f"{name}: rows for {left} bytes too few or too many")


@dataclass(frozen=True)
class ArrayPlace:
    """Where in a file the numbers of a C-contiguous array lie.

    Attributes:
        path: the file. offset: bytes before the first number.
        shape, dtype: of the array.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class MappedRows:
    """Rows of an array in a file, through a memory map: no byte is read before it is needed.

    Every process that maps the file shares the same pages. Pages looked at count as this
    process's resident memory, so the map lets go of them each time ``RELEASE`` bytes have been
    handed out; they stay in the system's cache, for everybody.

    Copies made by ``fork`` and by ``pickle`` (which carries the place, not the numbers) work.

    Raises:
        DataError: the file cannot be opened or is shorter than the array.
    """

    RELEASE = 64 * 2**20

    def __init__(self, place: ArrayPlace) -> None:
        self.place = place
        try:
            with open(place.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < place.offset + place.nbytes:
                    raise DataError(
                        f"{place.path}: cut off: {size} bytes, but its data end at byte "
                        f"{place.offset + place.nbytes}; make or fetch it again"
                    )
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise DataError(f"{place.path}: cannot be read ({error.strerror})") from error
        count = int(np.prod(place.shape, dtype=np.int64))
        flat = np.frombuffer(self._map, place.dtype, count, place.offset)
        self._rows = flat.reshape(place.shape)
        self._handed_out = 0

    def __len__(self) -> int:
        return self.place.shape[0]

    def __getitem__(self, rows: int | slice) -> np.ndarray:
        """A read-only view of rows; copy what is to be kept for long."""
        view = self._rows[rows]
        self._handed_out += view.nbytes
        if self._handed_out > self.RELEASE:
            self.release()
        return view

    def __reduce__(self) -> tuple[type, tuple[ArrayPlace]]:
        return type(self), (self.place,)

    def release(self) -> None:
        """Let go of all pages; a view that is looked at again gets them back."""
        self._handed_out = 0
        if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            self._map.madvise(mmap.MADV_DONTNEED)


def find_array(path: str | os.PathLike[str], name: str) -> ArrayPlace | None:
    """Find where array ``name`` of an ``.npz`` lies; None if it is compressed.

    Raises:
        DataError: the file is no ``.npz``, is damaged, or lacks the array.
    """
    with _opened(path) as archive:
        info = npz_member(path, archive, name)
        with archive.open(info) as member:
            shape, dtype, order = array_header(path, name, member)
            header_bytes = member.tell()
    if info.compress_type != zipfile.ZIP_STORED:
        return None
    if order == "F":
        raise DataError(f"{path}: {name} is in Fortran order; save it as plain C")
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        local = file.read(_LOCAL_HEADER)
    # The local header repeats name and extra field, of lengths of its own.
    skipped = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    offset = info.header_offset + _LOCAL_HEADER + skipped + header_bytes
    place = ArrayPlace(Path(path), offset, shape, dtype)
    if info.file_size != header_bytes + place.nbytes:
        raise DataError(f"{path}: {name} announces shape {shape}, but has {info.file_size} bytes")
    return place


def read_array(path: str | os.PathLike[str], name: str) -> np.ndarray:
    """Read an array of an ``.npz`` into memory, compressed or not.

    Raises:
        DataError: as ``find_array``; or the array is larger than 256 MB, which a small damaged or
            malicious file can claim as well.
    """
    with _opened(path) as archive:
        return read_npz_array(path, archive, name)


def array_names(path: str | os.PathLike[str]) -> list[str]:
    """Names of the arrays of an ``.npz``.

    Raises:
        DataError: the file is no ``.npz`` or is damaged.
    """
    with _opened(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """The archive; whatever is wrong with it comes out as a DataError."""
    try:
        with open_npz(path) as archive:
            yield archive
    except Unsound as error:
        raise DataError(str(error)) from error
