"""``.npz`` files too large for memory: written piece by piece, read through a memory map.

An ``.npz`` is a zip of ``.npy`` files. Written by ``numpy.savez`` its members are stored
uncompressed, so an array's numbers lie in one piece inside the file and can be mapped.
"""

import math
import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from data.errors import DataError
from torchlight.untrusted import Unsound, array_header, npz_member, open_npz, read_npz_array

_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed time stamp, so that equal content gives equal files
_LOCAL_HEADER = 30  # bytes of a zip member's header before its name (APPNOTE.TXT, 4.3.7)


def write_npz(
    path: str | os.PathLike[str],
    arrays: Iterable[tuple[str, tuple[int, ...], str, Iterable[np.ndarray]]],
) -> None:
    """Write arrays one after the other: name, shape, dtype, and blocks that hold its rows in order.

    The file is readable by ``numpy.load`` and depends on the arrays alone: equal arrays, equal
    bytes.

    Raises:
        ValueError: blocks have more or fewer bytes than the shape says.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, shape, dtype, blocks in arrays:
            header = {"descr": dtype, "fortran_order": False, "shape": shape}
            left = math.prod(shape) * np.dtype(dtype).itemsize
            with archive.open(
                zipfile.ZipInfo(f"{name}.npy", _EPOCH), "w", force_zip64=True
            ) as file:
                npy.write_array_header_2_0(file, header)
                for block in blocks:
                    data = np.ascontiguousarray(block, dtype=dtype)
                    left -= data.nbytes
                    file.write(data.data if data.size else b"")
            if left:
                raise ValueError(f"{name}: rows for {left} bytes too few or too many")


def open_array(path: str | os.PathLike[str], name: str) -> np.ndarray:
    """An array of an ``.npz``: through a read-only memory map, or read if it is compressed.

    Raises:
        DataError: the file is no ``.npz``, is damaged, or lacks the array; or the array is
            compressed and larger than 256 MB, which a small damaged file can claim as well.
    """
    with _opened(path) as archive:
        info = npz_member(path, archive, name)
        with archive.open(info) as member:
            shape, dtype, order = array_header(path, name, member)
            header_bytes = member.tell()
        if info.compress_type != zipfile.ZIP_STORED or 0 in shape or not shape:
            return read_npz_array(path, archive, name)
        if info.file_size != header_bytes + math.prod(shape) * dtype.itemsize:
            raise DataError(f"{path}: {name} announces {dtype} {shape}, of another size")
        with open(path, "rb") as file:
            file.seek(info.header_offset)
            local = file.read(_LOCAL_HEADER)
        # The local header repeats name and extra field, of lengths of its own.
        skipped = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
        offset = info.header_offset + _LOCAL_HEADER + skipped + header_bytes
        return np.memmap(Path(path), dtype, "r", offset, shape, order).view(np.ndarray)


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
