"""Pickles of untrusted files: text, numbers, lists, dicts, arrays and tensors; nothing is run.

A pickle is a program. The standard library's unpickler follows it here with three restrictions:
``find_class`` knows stand-ins of ours alone, which take data and return data; the opcodes are
those that plain data need; keys of dicts are short text or numbers. It is the one written in
Python, as the one in C allocates whatever size a file declares.
"""

import io
import math
import pickle
import pickletools
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

_MOST_OPCODES = 8_000_000  # some 8 seconds; 50,919 samples take a million
LARGEST_NUMBER = 2**31  # of a key: larger ones can be chosen to collide
_CODES = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"})
_STORAGES = {"Float": "<f4", "Double": "<f8", "Half": "<f2", "Long": "<i8", "Int": "<i4"}
_STORAGE = re.compile(rb"ctorch\n(\w+)Storage\n.{,400}\]q\x00X.{4}\d+q\x01a\.(.{8})", re.DOTALL)
"""In a file of one storage, as torch.save writes it: its type, its key, how many numbers follow."""


class Refused(Exception):
    """The pickle asks for something that plain data do not need."""


class DataType:
    """What a pickled ``numpy.dtype`` carries: a code such as ``f4`` and a byte order."""

    def __init__(self, code: object = None, *_: object) -> None:
        text = str(code)[:40] if isinstance(code, str) else "?"
        if text not in _CODES and not (text[:1] == "U" and text[1:].isdecimal()):
            raise Refused(f"an array of type {text!r}")
        self.code, self.order = text, "<"

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|"):
            raise Refused("a malformed array type")
        self.order = str(state[1])


class Array:
    """A pickled array or tensor before and after its contents arrive."""

    def __init__(self, *_: object) -> None:
        self.value: np.ndarray = np.empty(0, np.bool_)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise Refused("a malformed array")
        _, shape, data_type, fortran, buffer = state
        self.value = from_buffer(buffer, data_type, shape, "F" if fortran else "C").value


def from_buffer(buffer: object, data_type: object, shape: object, order: Any = "C") -> Array:
    """A view of bytes that the pickle itself contains: nothing is allocated."""
    if not isinstance(buffer, bytes | bytearray) or not isinstance(data_type, DataType):
        raise Refused("an array of objects")
    if not isinstance(shape, tuple):
        raise Refused("a malformed array")
    flat = np.frombuffer(buffer, np.dtype(data_type.order + data_type.code))
    found = Array()
    found.value = flat.reshape(shape, order=order)
    return found


NUMPY: dict[str, Callable[..., object]] = {
    "numpy.dtype": DataType,
    "numpy.ndarray": Array,
    **{
        f"{core}.{name}": stand_in
        for core in ("numpy.core", "numpy._core")  # NumPy 1 and 2
        for name, stand_in in (
            ("multiarray._reconstruct", Array),
            ("multiarray.scalar", lambda data_type, buffer: from_buffer(buffer, data_type, ())),
            ("numeric._frombuffer", from_buffer),
        )
    },
}
"""Stand-ins for the globals that pickled arrays and numbers name."""


def unpickle(data: bytes) -> Any:
    """The plain data in a pickle; arrays and tensors in it are ``Array``.

    Raises:
        Refused: it asks for what plain data do not need.
        Exception: it is damaged, in one of many ways.
    """
    return _Unpickler(data).load()


class _Unpickler(pickle._Unpickler):
    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.dispatch = _Opcodes(_ADMITTED)  # type: ignore[misc]
        self._left = 2 * len(data)
        self._known: dict[str, Callable[..., object]] = {
            **NUMPY,
            "_codecs.encode": self._encode,
            "collections.OrderedDict": lambda: {},
            "__builtin__.bytes": lambda: b"",  # how protocols 0 to 2 spell empty ones
            "torch.storage._load_from_bytes": _storage,
            "torch._utils._rebuild_tensor_v2": _tensor,
        }

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a global."""
        if f"{module}.{name}" not in self._known:
            raise Refused(f"{module}.{name}")
        return self._known[f"{module}.{name}"]

    def _copy(self, size: int) -> None:
        """Count what is copied out of the file: a pickle may ask for the same again and again."""
        self._left -= size
        if self._left < 0:
            raise Refused("more data than it holds")

    def _encode(self, text: object, encoding: object) -> bytes:
        """How pickle protocols 0 to 2 spell bytes."""
        if not isinstance(text, str) or encoding != "latin1":
            raise Refused("_codecs.encode with another encoding than latin1")
        self._copy(len(text))
        return text.encode("latin1")

    def _build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], DataType | Array):
            raise Refused("a change to a global")
        self.stack[-1].__setstate__(state)

    def _fill(self, items: list[Any]) -> None:
        table = self.stack[-1]
        if not isinstance(table, dict):
            raise ValueError("an entry for what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            table[_key(key)] = value

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._fill(items)

    def _bytearray(self) -> None:
        self.append(self.read(struct.unpack("<Q", self.read(8))[0]))  # no more than is there


def _key(found: object) -> str | int:
    """The key of an entry, where it is text or a number. Others could take forever to hash."""
    value = found.value.item() if isinstance(found, Array) and found.value.ndim == 0 else found
    if isinstance(value, str) or (type(value) is int and 0 <= value < LARGEST_NUMBER):
        return value
    shown = f"{value:.40}" if isinstance(value, float) else type(value).__name__
    raise Refused(f"an entry {value if type(value) is int and abs(value) < 2**63 else shown}")


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


def _tensor(flat: object, offset: int, size: tuple, stride: tuple, *_: object) -> Array:
    """A tensor whose numbers lie in one piece."""
    wanted = [math.prod(size[i + 1 :]) for i in range(len(size))]
    plain = all(n < 2 or given == own for n, given, own in zip(size, stride, wanted, strict=True))
    if not isinstance(flat, np.ndarray) or offset < 0 or not plain:
        raise Refused("a tensor that is not contiguous")
    found = Array()
    found.value = flat[offset : offset + math.prod(size)].reshape(size)
    return found


class _Opcodes(dict[int, Callable[[Any], None]]):
    """What to do at each opcode, a bounded number of times."""

    _left = _MOST_OPCODES

    def __getitem__(self, code: int) -> Callable[[Any], None]:
        self._left -= 1
        if self._left < 0:
            raise Refused(f"more than {_MOST_OPCODES} steps")
        return super().__getitem__(code)

    def __missing__(self, code: int) -> Callable[[Any], None]:
        names = [known.name for known in pickletools.opcodes if known.code == chr(code)]
        raise Refused(f"the operation {names[0]}") if names else ValueError("no pickle")


_NAMES = """MARK STOP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT
BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT GET BINGET
LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE PROTO FRAME"""
_ADMITTED: dict[int, Callable[[Any], None]] = {
    **{
        code: pickle._Unpickler.dispatch[code]
        for code in (getattr(pickle, name)[0] for name in _NAMES.split())
    },
    pickle.BUILD[0]: _Unpickler._build,
    pickle.DICT[0]: _Unpickler._dict,
    pickle.SETITEM[0]: lambda self: self._fill([self.stack.pop(-2), self.stack.pop()]),
    pickle.SETITEMS[0]: lambda self: self._fill(self.pop_mark()),
    pickle.BYTEARRAY8[0]: _Unpickler._bytearray,
}
