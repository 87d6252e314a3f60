"""Pickles of untrusted files: text, numbers, lists, dicts, arrays and tensors; nothing is run.

The standard library's unpickler finds stand-ins of ours alone, which take data and return data. It
is the one written in Python: the one in C allocates whatever size a file declares.
"""

import io
import math
import pickle
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

MOST_STEPS = 8_000_000  # some 8 seconds; 50,919 samples take a million
LARGEST_NUMBER = 2**31  # of a key: larger ones can be chosen to collide
_CODE = re.compile(r"b1|[iu][1248]|f[248]|U\d+")
_STORAGES = {"Float": "<f4", "Double": "<f8", "Half": "<f2", "Long": "<i8", "Int": "<i4"}
_STORAGE = re.compile(rb"ctorch\n(\w+)Storage\n.{,400}\]q\x00X.{4}\d+q\x01a\.(.{8})", re.DOTALL)
"""In a file of one storage, as torch.save writes it: its type, its key, how many numbers follow."""


class Refused(ValueError):
    """The pickle asks for something that plain data do not need."""

    def __str__(self) -> str:
        return f"refused, it asks for {self.args[0]}; a score file holds names and arrays only"


def unpickle(data: bytes) -> Any:
    """The plain data in a pickle; arrays and tensors in it are ``Array``.

    Raises:
        Refused: it asks for what plain data do not need.
        Exception: it is damaged, in one of many ways.
    """
    return _Unpickler(data).load()


class _DataType:
    """A pickled ``numpy.dtype``: a code such as ``f4``; its byte order comes later."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise Refused(f"an array of type {code[:40] if isinstance(code, str) else '?'!r}")
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = {"<": "<", ">": ">", "|": "|"}[state[1]]


class Array:
    """A pickled array before and after its contents arrive."""

    def __init__(self, *_: object) -> None:
        self.value: np.ndarray = np.empty(0, np.bool_)

    def __setstate__(self, state: Any) -> None:
        _, shape, data_type, fortran, buffer = state
        self.value = _from_buffer(buffer, data_type, shape, "F" if fortran else "C").value


def _array(value: np.ndarray) -> Array:
    made = Array()
    made.value = value
    return made


def _from_buffer(buffer: object, data_type: object, shape: Any, order: Any = "C") -> Array:
    """A view of bytes that the pickle itself contains: nothing is allocated."""
    if not isinstance(buffer, bytes | bytearray) or not isinstance(data_type, _DataType):
        raise Refused("an array of objects")
    flat = np.frombuffer(buffer, np.dtype(data_type.order + data_type.code))
    return _array(flat.reshape(shape, order=order))


def _storage(data: bytes) -> np.ndarray:
    """A view of a pickled tensor's numbers, which are the end of a small ``torch.save`` file."""
    head = _STORAGE.search(data, 0, 1000)
    code = _STORAGES.get(head[1].decode()) if head else None
    if head is None or code is None:
        raise Refused("a tensor of no plain numbers")
    flat = np.frombuffer(data, code, offset=head.end())
    if len(flat) != int.from_bytes(head[2], "little"):
        raise ValueError("a tensor cut off")
    return flat


def _tensor(flat: np.ndarray, offset: int, size: tuple, stride: tuple, *_: object) -> Array:
    """A tensor whose numbers lie in one piece."""
    wanted = [math.prod(size[i + 1 :]) for i in range(len(size))]
    if offset < 0 or any(
        n > 1 and given != own for n, given, own in zip(size, stride, wanted, strict=True)
    ):
        raise Refused("a tensor that is not contiguous")
    return _array(flat[offset : offset + math.prod(size)].reshape(size))


_STAND_INS: dict[str, Callable[..., object]] = {
    "numpy.dtype": _DataType,
    "numpy.ndarray": Array,
    "numpy.core.multiarray._reconstruct": Array,
    "numpy.core.multiarray.scalar": lambda data_type, data: _from_buffer(data, data_type, ()),
    "numpy.core.numeric._frombuffer": _from_buffer,
    "collections.OrderedDict": lambda: {},
    "__builtin__.bytes": lambda: b"",  # how protocols 0 to 2 spell empty ones
    "torch.storage._load_from_bytes": _storage,
    "torch._utils._rebuild_tensor_v2": _tensor,
}


class _Steps(dict[int, Callable[[Any], None]]):
    """What to do at each opcode, a bounded number of times."""

    def __getitem__(self, code: int) -> Callable[[Any], None]:
        self.left = getattr(self, "left", MOST_STEPS) - 1
        if self.left < 0:
            raise Refused(f"more than {MOST_STEPS} steps")
        return super().__getitem__(code)


class _Unpickler(pickle._Unpickler):
    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.dispatch = _Steps({**pickle._Unpickler.dispatch, **_OWN})  # type: ignore[misc]
        self._left = 2 * len(data)

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a global."""
        full = f"{module}.{name}".replace("numpy._core.", "numpy.core.")  # NumPy 2
        if full == "_codecs.encode":
            return self._encode
        if full not in _STAND_INS:
            raise Refused(f"{module}.{name}")
        return _STAND_INS[full]

    def _encode(self, text: str, encoding: object) -> bytes:
        """How protocols 0 to 2 spell bytes. A pickle may ask for the same again and again."""
        self._left -= len(text)
        if self._left < 0 or encoding != "latin1":
            raise Refused("more data than it holds")
        return text.encode("latin1")

    def _build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _DataType | Array):
            raise Refused("a change to a global")
        self.stack[-1].__setstate__(state)

    def _fill(self, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.stack[-1][_key(key)] = value

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._fill(items)

    def _bytearray(self) -> None:
        self.append(self.read(struct.unpack("<Q", self.read(8))[0]))  # no more than is there

    def _refuse(self) -> None:
        raise Refused("a set, which scores do not need")


_OWN: dict[int, Callable[[Any], None]] = {
    pickle.BUILD[0]: _Unpickler._build,
    pickle.DICT[0]: _Unpickler._dict,
    pickle.SETITEM[0]: lambda self: self._fill([self.stack.pop(-2), self.stack.pop()]),
    pickle.SETITEMS[0]: lambda self: self._fill(self.pop_mark()),
    pickle.BYTEARRAY8[0]: _Unpickler._bytearray,
    **{code[0]: _Unpickler._refuse for code in (pickle.EMPTY_SET, pickle.FROZENSET)},
}


def _key(found: object) -> str | int:
    """The key of an entry, where it is text or a number. Others could take forever to hash."""
    value = found.value.item() if isinstance(found, Array) and found.value.ndim == 0 else found
    if isinstance(value, str) or (type(value) is int and 0 <= value < LARGEST_NUMBER):
        return value
    shown = f"{value:.40}" if isinstance(value, float) else type(value).__name__
    raise Refused(f"an entry {value if type(value) is int and abs(value) < 2**63 else shown}")
