"""The command line of a configuration: each key of ``Config`` is a flag, laid over the YAML."""

import argparse
import os
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_origin

import yaml
from pydantic.fields import FieldInfo

from .checkpoint import weights_of
from .cli import Parser, wing
from .config import ALSO_CALLED, Arguments, Config, build
from .errors import UserError
from .files import expanded
from .launch import add_launcher_flags, launched_size
from .layers import read_layers, yaml_fault
from .registry import look_beside
from .terminal import nearest
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
    argv: Sequence[str] | None,
    description: str,
    own: argparse.ArgumentParser | None = None,
    *,
    phases: Mapping[str, str] = types.MappingProxyType({}),
    weights: Mapping[str, str] = types.MappingProxyType({}),
) -> tuple[Config, str]:
    """Read flags and the YAML they name; return the configuration and the YAML's path.

    Args:
        own: a command's own flags, parsed by it before; here for the help and for suggestions.
        phases: what the command knows besides the phases of a configuration, with the functions
            behind them; for the help and for completion.
        weights: files that come with the code, by name.
    """
    path, flags = _read_flags(argv, _parser(description, [own] if own else [], phases))
    resume = flags.pop("resume", False)
    config = _laid_over(path, flags)
    if resume:
        folder, resolved, when = _last_run(config, path)
        config = _laid_over(resolved, {**flags, "work_dir": str(folder)})
        config = config.but(f"--resume last: {folder}, saved at {when}, as {resolved} says")
    if config.weights is not None:
        config = config.but(weights=weights_of(config.weights, weights))
    look_beside(config.allow_import, [Path.cwd(), Path(path).resolve().parent])
    return config, path


def _laid_over(path: str, flags: Mapping[str, Any]) -> Config:
    """The configuration of a YAML with flags laid over it."""
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
    return config.but(*notes)


def _last_run(config: Config, path: str) -> tuple[Path, str, str]:
    if config.phase != "train" or config.overwrite:
        other = "--overwrite" if config.overwrite else f"--phase {config.phase}"
        raise UserError(f"--resume last goes on with training, and not with {other}")
    return wing("--resume", "torchlight.comforts.last_run")(config, path)


def _read_flags(argv: Sequence[str] | None, parser: Parser) -> tuple[str, dict[str, Any]]:
    """The path that ``--config`` names, and the words of the other flags by key."""
    words = {k: value for k, value in vars(parser.parse_args(argv)).items() if value is not None}
    phases = parser.values["phase"]
    if words.get("phase", phases[0]) not in phases:
        raise UserError(f"--phase: {words['phase']!r} is not one of {', '.join(phases)}")
    if "config" not in words:
        raise UserError("--config FILE is missing (--config list names those that are here)")
    try:
        path = expanded(words["config"])
    except ValueError as error:
        raise UserError(f"--config: {error}") from error
    if path == "list" and not os.path.exists(path):
        print(wing("--config list", "torchlight.comforts.listed")(configurations()))
        raise SystemExit(0)
    if not os.path.isfile(path):
        near = [*configurations(), *Path(path).parent.glob("*.yaml"), *Path(path).glob("*.yaml")]
        raise UserError(
            f"{path}: no such file{nearest(path, map(str, near))}; --config list names those that "
            f"are here"
        )
    keys = (*Config.model_fields, "resume")
    return path, {key: value for key, value in words.items() if key in keys}


def configurations() -> list[Path]:
    """The configurations of the working directory, or of the command's folder, by name."""
    here = Path("config") if Path("config").is_dir() else Path(sys.argv[0]).parent / "config"
    return sorted(here.glob("[!_]*/*.yaml"))


def _parser(
    description: str, parents: list[argparse.ArgumentParser], phases: Mapping[str, str]
) -> Parser:
    usage = "%(prog)s --config FILE [--KEY VALUE ...]"
    also = {flag_of(name): flag_of(key) for name, key in ALSO_CALLED.items()}
    parser = Parser(usage=usage, description=description, parents=parents, also=also)
    parser.add_argument("--config", metavar="FILE", help="YAML configuration; list: which are here")
    told = "go on with the newest run of this configuration, wherever it is, as it was begun"
    parser.add_argument("--resume", choices=["last"], help=told)
    parser.tools = phases
    parser.values["config"] = [str(path) for path in configurations()]
    add_launcher_flags(parser)
    for name, known in Config.model_fields.items():
        kind, more = _kind(known.annotation), tuple(phases) if name == "phase" else ()
        parser.values[name] = [*_choices(known), *more]
        nargs: Any = {"list": "*", "dict": "+", "bool": "?"}.get(kind)
        parser.add_argument(
            flag_of(name),
            action="extend" if kind == "dict" else "store",
            nargs=nargs,
            const="true" if kind == "bool" else None,
            default=argparse.SUPPRESS,
            metavar="KEY=VALUE" if kind == "dict" else name.upper(),
            help=_help(known, *more).replace("%", "%%"),
        )
    return parser


def flag_of(key: str) -> str:
    """The flag that sets a key."""
    return f"--{key.replace('_', '-')}"


def _help(known: FieldInfo, *more: str) -> str:
    """What a setting is, what it may be, and in brackets what it is where nothing is said."""
    choices = _choices(known)
    text, default = ", ".join([str(known.description), *more]), known.default
    if choices and not all(choice in text for choice in choices):
        text += f": {', '.join(choices)}"
    if known.is_required():
        return f"{text} (required)"
    shown = " ".join(map(str, default)) if isinstance(default, list) else str(default)
    return text if default in (None, [], {}) else f"{text} [{shown}]"


def _choices(known: FieldInfo) -> list[str]:
    """The words that a setting may be, if they are few."""
    branches = [known.annotation, *getattr(known.annotation, "__args__", ())]
    return [str(c) for b in branches if get_origin(b) is Literal for c in b.__args__]


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
    kind, name = _kind(Config.model_fields[key].annotation), flag_of(key)
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
