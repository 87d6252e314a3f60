"""Checks of arguments that come from a configuration."""

import inspect
import json
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


def refuse_unheard(feeder: type, transforms: Sequence[Any], **given: Any) -> None:
    """Refuse what has no effect where ``transforms`` is the whole list.

    Args:
        given: arguments of ``feeder`` that choose among its own transforms.

    Raises:
        DataError: one is not its default; or the list is empty.
    """
    if not transforms:
        raise DataError("only_transforms: there are none; name them in transforms")
    known = inspect.signature(feeder).parameters
    unheard = {name: known[name].default for name in given if given[name] != known[name].default}
    if unheard:
        told = ", ".join(f"{name}: {json.dumps(default)}" for name, default in unheard.items())
        raise DataError(
            f"only_transforms: {', '.join(unheard)} would have no effect; name the transforms in "
            f"the list, and set {told}"
        )


def one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``allowed``.

    Raises:
        DataError: it is not; the message names the argument and what is allowed.
    """
    if value not in allowed:
        raise DataError(f"{name}: {value!r} is not one of {', '.join(map(repr, allowed))}")
    return value
