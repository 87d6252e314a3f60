"""The command line of a configuration: each key of ``Config`` is a flag, laid over the YAML."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_origin

import yaml
from pydantic.fields import FieldInfo

from .cli import Parser
from .config import Arguments, Config, build
from .distributed import add_launcher_flags, launched_size
from .errors import UserError
from .files import expanded
from .layers import read_layers, yaml_fault
from .registry import look_beside, nearest
from .values import Loader, Plain

RETIRED = {
    "config": "it is the file itself",
    **dict.fromkeys(("local_rank", "nprocs", "master_port"), "the launcher sets it"),
    "model_saved_name": "weights are saved in work_dir as runs-<epoch>-<step>.pt",
    **dict.fromkeys(
        ("only_train_part", "only_train_epoch"), "the adjacency is trained from the first epoch on"
    ),
}
"""Keys found in published configurations, and why they are passed over; the log says so."""


def parse(
    argv: Sequence[str] | None, description: str, own: argparse.ArgumentParser | None = None
) -> tuple[Config, str]:
    """Read flags and the YAML they name; return the configuration and the YAML's path.

    Args:
        own: a command's own flags, parsed by it before; here for the help and for suggestions.
    """
    path, flags = _read_flags(argv, description, own)
    values, files = read_layers(path)
    retired = [key for key in RETIRED if values.pop(key, None) is not None]
    notes = [f'{files[key]}: key "{key}" is passed over: {RETIRED[key]}' for key in retired]
    if values.pop("allow_import", None):
        raise UserError(
            f'{files["allow_import"]}: key "allow_import": a file cannot let its own dotted names '
            f"in; say --allow-import PACKAGE on the command line"
        )
    spelled = {key: _flag_value(key, flag, values) for key, flag in flags.items()}
    by_flag = frozenset(name for key, flag in flags.items() for name in _dotted(key, flag))
    config = build({**values, **spelled}, path, by_flag, files)
    one = isinstance(config.device, list) and len(config.device) == 1
    if one and launched_size() > 1 and "device" not in by_flag:  # passed over by published code too
        notes.append(f"each process takes a CUDA device of its own, not {config.device} alone")
        config = config.but(device="cuda")
    look_beside(config.allow_import, [Path.cwd(), Path(path).resolve().parent])
    return config.but(*notes), path


def _read_flags(
    argv: Sequence[str] | None, description: str, own: argparse.ArgumentParser | None
) -> tuple[str, dict[str, Any]]:
    """The path that ``--config`` names, and the words of the other flags by key."""
    parser = _parser(description, [own] if own else [])
    known, unknown = parser.parse_known_args(sys.argv[1:] if argv is None else list(argv))
    words = {key: value for key, value in vars(known).items() if value is not None}
    names = [*Config.model_fields, *(vars(own.parse_args([])) if own else ())]
    flags = [f"--{name.replace('_', '-')}" for name in names]
    faults = [
        f"{word}: unknown flag{nearest(word.split('=')[0].replace('_', '-'), flags)}"
        if word[:1] == "-"
        else f"{word}: unexpected argument"
        for word in sorted(unknown, key=lambda word: word[:1] != "-")
    ]
    if faults:
        raise UserError("; ".join(faults))
    if "config" not in words:
        raise UserError("--config FILE is missing (see config/ for one of each benchmark)")
    try:
        path = expanded(words["config"])
    except ValueError as error:
        raise UserError(f"--config: {error}") from error
    return path, {key: value for key, value in words.items() if key in Config.model_fields}


def _parser(description: str, parents: list[argparse.ArgumentParser]) -> Parser:
    usage = "%(prog)s --config FILE [--KEY VALUE ...]"
    parser = Parser(usage=usage, description=description, parents=parents)
    parser.add_argument("--config", metavar="FILE", help="YAML configuration")
    add_launcher_flags(parser)
    for name, known in Config.model_fields.items():
        kind = _kind(known.annotation)
        nargs: Any = {"list": "*", "dict": "+", "bool": "?"}.get(kind)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            action="extend" if kind == "dict" else "store",
            nargs=nargs,
            const="true" if kind == "bool" else None,
            default=argparse.SUPPRESS,
            metavar="KEY=VALUE" if kind == "dict" else name.upper(),
            help=_help(known).replace("%", "%%"),
        )
    return parser


def _help(known: FieldInfo) -> str:
    """What a setting is, what it may be, and in brackets what it is where nothing is said."""
    branches = [known.annotation, *getattr(known.annotation, "__args__", ())]
    choices = [str(c) for b in branches if get_origin(b) is Literal for c in b.__args__]
    text, default = str(known.description), known.default
    if choices and not all(choice in text for choice in choices):
        text += f": {', '.join(choices)}"
    if known.is_required():
        return f"{text} (required)"
    shown = " ".join(map(str, default)) if isinstance(default, list) else str(default)
    return text if default in (None, [], {}) else f"{text} [{shown}]"


def _kind(annotation: Any) -> str:
    """Whether a field is written as a list, as key=value pairs, as a switch, or as one word."""
    if annotation in (bool, Arguments):
        return "bool" if annotation is bool else "dict"
    return "list" if "list[" in str(annotation) else "word"


def _dotted(key: str, flag: Any) -> list[str]:
    """The dotted names of what a flag sets."""
    if _kind(Config.model_fields[key].annotation) != "dict":
        return [key]
    return [f"{key}.{pair.partition('=')[0]}" for pair in flag]


def _flag_value(key: str, flag: Any, values: Mapping[str, Any]) -> Any:
    """A flag's words as the value of ``key``; key=value pairs are laid over the YAML's mapping."""
    kind, name = _kind(Config.model_fields[key].annotation), f"--{key.replace('_', '-')}"
    if kind == "list":
        words = [_word(name, word) for word in flag]
        return words[0] if len(words) == 1 else words
    if kind != "dict":
        return Plain(flag)
    below = values.get(key)
    result = dict(below) if isinstance(below, dict) else {}
    for pair in flag:
        inner, equals, text = pair.partition("=")
        if not equals or not inner:
            raise UserError(f"{name}: {pair!r} is not KEY=VALUE")
        *path, last = inner.split(".")
        target = result
        for part in path:  # mappings are copied on the way, as the YAML's are not ours
            target[part] = dict(target[part]) if isinstance(target.get(part), dict) else {}
            target = target[part]
        target[last] = _word(f"{name} {inner}", text)
    return result


def _word(name: str, text: str) -> Any:
    try:
        return yaml.load(text or "~", Loader=Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{name}: {text!r}: {yaml_fault(error)}") from error
