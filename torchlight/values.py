"""What people write in YAML files and flags, and what it means where it is used.

A word without quotes is text, a number, a truth value or nothing; YAML 1.1 decides by its looks,
so that ``off`` is False, ``1e-3`` text and ``2026-11-26`` a date. Here a word stays a word until
the type that it is meant for is known.
"""

import inspect
import json
import math
import re
import types
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import SchemaError

from .files import expanded

_NULLS = ("", "~", "null", "Null", "NULL")
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NUMBER = re.compile(r"[-+]?(\.?[0-9][0-9a-zA-Z_.+-]*|\.(inf|Inf|INF|nan|NaN|NAN))")
_PATH_TYPE = re.compile(r"\bPath(Like)?\b")
_PATH_NAME = re.compile(r"(^|_)(path|dir|root|file|folder)$")
_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)


class Plain(str):
    """A word without quotes, not yet read as anything."""


class Loader(yaml.SafeLoader):
    """The safe loader, less doubled keys (the first would vanish) and aliases (they explode).

    Words without quotes come out as ``Plain``.
    """

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 (as in the class above it)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            _refuse("aliases (*name) are not accepted", self.peek_event())
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                _refuse(f'key "{key.value}" appears twice', key)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        found = super().construct_mapping(node, deep)
        return {str(k) if isinstance(k, Plain) else k: value for k, value in found.items()}


def _refuse(fault: str, place: Any) -> None:
    raise yaml.constructor.ConstructorError(None, None, fault, place.start_mark)


def _construct_text(loader: Loader, node: Any) -> str:
    return Plain(node.value) if node.style is None else str(node.value)


Loader.add_constructor("tag:yaml.org,2002:str", _construct_text)


def meaning(value: Any) -> Any:
    """What ``value`` says where the type it is meant for is not known."""
    if isinstance(value, dict):
        return {key: meaning(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [meaning(inner) for inner in value]
    if not isinstance(value, Plain):
        return value
    if value in _NULLS or value == "None":
        return None
    number = _number(value)
    return _TRUTH.get(value.lower(), str(value) if number is None else number)


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings as one mapping of dotted keys."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        inner = isinstance(value, Mapping)
        found |= flat(value, f"{above}{key}.") if inner else {f"{above}{key}": value}
    return found


def fitted(kind: Any, value: Any) -> Any:
    """The first reading of ``value`` that the type ``kind`` takes; if none, its plain meaning."""
    branches = _branches(kind)
    if Any in branches or object in branches:
        return meaning(value)
    for reading in _readings(branches, value):
        if not type_fault(kind, reading):
            return reading
    return meaning(value)


def fitted_argument(parameter: inspect.Parameter, value: Any) -> Any:
    """``value`` as the parameter's type means it; without a type, as its default's does.

    Raises:
        ValueError: a path with a variable that is not set; see ``expanded``.
    """
    kind = parameter.annotation
    if kind is parameter.empty or isinstance(kind, str):
        default = type(parameter.default)
        kind = default if default in (bool, int, float, str) else Any
    result = fitted(kind, value)
    if not (_PATH_NAME.search(parameter.name) or _PATH_TYPE.search(str(kind))):
        return result
    if isinstance(result, list):
        return [expanded(item) if isinstance(item, str) else item for item in result]
    return expanded(result) if isinstance(result, str) else result


def type_fault(kind: Any, value: Any) -> str:
    """What keeps a value of a configuration from being of type ``kind``; "" if nothing does.

    What configurations cannot hold, such as tuples and paths, may be given as lists and text.
    Parameters without a type take anything.
    """
    if kind in (inspect.Parameter.empty, Any) or isinstance(kind, str):
        return ""
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(kind, config=_STRICT)
    except (PydanticUserError, SchemaError):  # a type that cannot be checked, such as a protocol
        return ""
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        try:
            adapter.validate_json(json.dumps(value))
        except (ValidationError, TypeError, ValueError):
            message = error.errors()[0]["msg"]
            return f"{message[:1].lower()}{message[1:]}"
    return ""


def _readings(branches: Collection[Any], value: Any) -> Iterator[Any]:
    """What ``value`` may mean, the likeliest first."""
    mappings, sequences = _inner(branches, Mapping), _inner(branches, Collection)
    if isinstance(value, dict):
        yield from ({key: fitted(kind, v) for key, v in value.items()} for kind in mappings)
        yield from ([fitted(kind, value)] for kind in sequences)
        return
    if isinstance(value, list):
        yield from ([fitted(kind, v) for v in value] for kind in sequences)
        return
    words = _text_readings(value) if isinstance(value, str) else (value,)
    lists = len(sequences) == len([b for b in branches if b is not type(None)])
    yield from (word for word in words if not (lists and isinstance(word, str)))
    if isinstance(value, Plain) and value in _NULLS:
        yield from ({}, []) if mappings else ([],)
    for kind in sequences:
        if isinstance(value, Plain) and "," in value:
            yield [fitted(kind, Plain(part.strip())) for part in value.split(",")]
        yield [fitted(kind, value)]


def _text_readings(text: str) -> Iterator[Any]:
    """What a word may mean; one in quotes is first of all text."""
    word, number = text.lower(), _number(text)
    plain, nothing = isinstance(text, Plain), word == "none"
    if plain and (text in _NULLS or nothing):
        yield None
    if plain and word in ("true", "false"):
        yield word == "true"
    if plain and number is not None:
        yield number
    if not (plain and text in _NULLS):
        yield str(text)
    if word in _TRUTH:
        yield _TRUTH[word]
    if number is not None:
        yield number
        if math.isfinite(number) and number == int(number):
            yield int(number)
        if number in (0, 1):
            yield bool(number)
    if nothing or _TRUTH.get(word) is False:
        yield from ("off", None)  # as a choice, where other words for it are none; or as nothing


def _branches(kind: Any) -> list[Any]:
    """The members of a union, or the one type there is; without what ``Annotated`` adds."""
    if get_origin(kind) is Annotated:
        return _branches(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [inner for member in get_args(kind) for inner in _branches(member)]
    return [kind]


def _inner(branches: Collection[Any], base: type) -> list[Any]:
    """The types of what is in the mappings (their values), or in the sequences, among types."""
    found = []
    for branch in branches:
        origin = get_origin(branch) or branch
        other = (str, bytes) if base is Mapping else (str, bytes, Mapping)
        if isinstance(origin, type) and issubclass(origin, base) and not issubclass(origin, other):
            inner = [argument for argument in get_args(branch) if argument is not ...]
            several = Union[tuple(inner)] if inner else Any  # noqa: UP007 (as many as there are)
            found.append(inner[-1] if inner and base is Mapping else several)
    return found


def _number(text: str) -> int | float | None:
    """The number that ``text`` is, as YAML 1.2 writes them; underscores are allowed."""
    if _NUMBER.fullmatch(text):
        special = re.sub(r"\.(?=[inIN])", "", text)  # .inf, .nan
        for read in (int, lambda word: int(word, 0), float):
            try:
                return read(special)
            except ValueError:  # also of "1__0", or thousands of digits
                continue
    return None
