"""Checks of arguments that come from a configuration."""

from collections.abc import Sequence
from typing import Any

from data.errors import DataError


def at_least_one(name: str, value: Any) -> int:
    """Return ``value`` if it is a whole number of at least 1.

    Raises:
        DataError: it is not; the message names the argument.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DataError(f"{name}: {value!r} is not a whole number of at least 1")
    return value


def one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``allowed``.

    Raises:
        DataError: it is not; the message names the argument and what is allowed.
    """
    if value not in allowed:
        raise DataError(f"{name}: {value!r} is not one of {', '.join(map(repr, allowed))}")
    return value
