"""Thousands of decimal numbers from bytes at once, each exactly what ``float`` would give.

A raw NTU file holds some 7,000 coordinates of at most 15 characters. Converting them one by one
costs more than all the rest of the preprocessing; here all of them take a few dozen NumPy
operations on 64-bit words, eight characters to a word.

Exactness: a token is read as an integer mantissa below 2**53 and a number of decimals f <= 15.
Both the mantissa and 10**f are exact in float64, and IEEE division rounds correctly, so
mantissa / 10**f is the float64 nearest to the written number (W. D. Clinger, "How to read
floating point numbers accurately", PLDI 1990, section on exact powers). Everything else
(exponents, more digits, signs other than a leading minus) is left to ``float``, token by token.
"""

import re

import numpy as np
import numpy.typing as npt

_WINDOW = 16  # characters looked at, two words; longer tokens go to ``float``
_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")

_U = np.uint64
_EACH_BYTE = 0x0101010101010101
_HIGH_BITS = _U(0x80 * _EACH_BYTE)
_LOW_BITS = _U(0x7F * _EACH_BYTE)
_DOTS = _U(0x2E * _EACH_BYTE)
_ZEROS = _U(0x30 * _EACH_BYTE)
_ABOVE_NINE = _U(0x76 * _EACH_BYTE)  # 0x76 + 9 = 0x7f, 0x76 + 10 sets the high bit
_BYTE_INDEX = _U(0x0706050403020100)  # byte j holds j

# _KEEP[n] selects the last n of the 16 bytes (little-endian: later characters are higher bytes).
_KEEP = np.frombuffer(
    b"".join(b"\x00" * (_WINDOW - n) + b"\xff" * n for n in range(_WINDOW + 1)), "V16"
)
_POWER = 10 ** np.arange(_WINDOW, dtype=np.uint64)


def is_number(token: bytes) -> bool:
    """Whether ``token`` is a plain decimal number (no nan, no inf, no underscores)."""
    return _NUMBER.fullmatch(token) is not None


def parse_decimals(
    text: bytes, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """The tokens ``text[starts[i]:ends[i]]`` as float64 (n,), bit for bit as ``float`` reads them.

    Raises:
        ValueError: a token is no plain decimal number (``is_number``); which one is not said.
    """
    if len(starts) == 0:
        return np.empty(0)
    if int(ends.min()) < _WINDOW:  # the window reaches back from a token's end
        text, starts, ends = b" " * _WINDOW + text, starts + _WINDOW, ends + _WINDOW
    negative = np.frombuffer(text, np.uint8)[starts] == ord("-")
    length = ends - starts - negative
    value, regular = _parse_regular(_windows(text, ends), length)
    np.negative(value, where=negative, out=value)
    for i in np.flatnonzero(~regular):
        token = text[starts[i] : ends[i]]
        if not is_number(token):
            raise ValueError("not a decimal number")
        value[i] = float(token)
    return value


def _windows(text: bytes, ends: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """The 16 bytes before each of ``ends`` as two little-endian words, (n, 2)."""
    every = np.ndarray((len(text) - _WINDOW + 1,), "V16", buffer=text, strides=(1,))
    return every[ends - _WINDOW].view("<u8").reshape(-1, 2)


def _parse_regular(
    words: npt.NDArray[np.uint64], length: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Values (n,) of unsigned tokens ``ddd.ddd`` in the last ``length`` bytes, and which are that.

    Values of tokens of any other form are meaningless.
    """
    keep = _KEEP[np.clip(length, 0, _WINDOW)].view("<u8").reshape(-1, 2)
    dots = _equal_bytes(words, _DOTS) & keep
    keep &= ~((dots >> _U(7)) * _U(0xFF))
    digits = (words ^ _ZEROS) & keep
    junk = ((digits + _ABOVE_NINE) | digits) & _HIGH_BITS | (dots & (dots - _U(1)))
    has_dot = dots != 0
    dot_count = has_dot[:, 0].astype(np.int64) + has_dot[:, 1]
    regular = (junk[:, 0] | junk[:, 1]) == 0
    regular &= (dot_count <= 1) & (length > dot_count) & (length <= _WINDOW)

    # (1 << 8k) * _BYTE_INDEX has 7 - k in its top byte: the characters after a dot at byte k.
    after = ((dots >> _U(7)) * _BYTE_INDEX) >> _U(56)
    decimals = after[:, 0] + after[:, 1] + _U(8) * has_dot[:, 0]
    power = _POWER[np.minimum(decimals, _WINDOW - 1).astype(np.intp)]
    number = _eight_digits(digits)
    mantissa = number[:, 0] * _U(10**8) + number[:, 1]
    # The dot was read as a zero digit: whole * 10**(f+1) + fraction; squeeze that zero out.
    whole = mantissa // (power * _U(10))
    np.subtract(mantissa, whole * power * _U(9), where=dot_count == 1, out=mantissa)
    regular &= mantissa < 2**53
    return mantissa.astype(np.float64) / power.astype(np.float64), regular


def _equal_bytes(words: npt.NDArray[np.uint64], pattern: np.uint64) -> npt.NDArray[np.uint64]:
    """0x80 in every byte of ``words`` that equals the byte of ``pattern``, 0 in the others."""
    differ = words ^ pattern
    return ~(((differ & _LOW_BITS) + _LOW_BITS) | differ) & _HIGH_BITS


def _eight_digits(digits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Eight digits a word (one a byte, first in the lowest) to their number."""
    pairs = (digits * _U(10 * 2**8 + 1)) >> _U(8) & _U(0x00FF00FF00FF00FF)
    fours = (pairs * _U(100 * 2**16 + 1)) >> _U(16) & _U(0x0000FFFF0000FFFF)
    return (fours * _U(10000 * 2**32 + 1)) >> _U(32)
