"""YAML files, each laid over those that its key ``base`` names."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .config import BASE
from .errors import UserError, printable
from .files import expanded
from .untrusted import read_bounded
from .values import Loader, meaning

_MOST_BASES = 16  # one below the other
_LARGEST_YAML_BYTES = 1 << 16  # a second of parsing; configurations have some 1,000 bytes

_Layers = tuple[dict[str, Any], dict[str, str]]


def read_layers(path: str | Path) -> _Layers:
    """Read a YAML, laid over those that its ``base`` names; return its values, and by key the file.

    ``base`` is a path from the file's own folder, or a list of such, the last uppermost. Mappings
    are merged key by key, anything else is replaced. A file may only be based on those in the
    working directory, or in the folder above its own.
    """
    first = Path(path)
    return _layers(first, (Path.cwd(), _real(first).parent.parent), (), {})


def _layers(
    file: Path, roots: Sequence[Path], above: Sequence[Path], known: dict[Path, _Layers]
) -> _Layers:
    """``read_layers`` of a file that those ``above`` are based on; ``known`` are read already."""
    own, above = read_yaml(file), (*above, _real(file))
    values, files = dict[str, Any](), dict[str, str]()
    for base in _bases(file, own.pop(BASE, None)):
        there, fault = _real(base), ""
        if there in above:
            fault = "is based on this file again, in a circle"
        elif len(above) > _MOST_BASES:
            fault = f"is more than {_MOST_BASES} files deep"
        elif not any(there.is_relative_to(root) for root in roots):
            fault = f"is outside of {' and of '.join(map(str, dict.fromkeys(roots)))}"
        elif not os.path.isfile(there):  # unlike Path's, of any name
            fault = "no such file"
        if fault:
            raise UserError(f'{file}: key "{BASE}": {printable(base)}: {fault}')
        if there not in known:
            known[there] = _layers(base, roots, above, known)
        values, files = _laid_over(values, known[there][0]), files | known[there][1]
    return _laid_over(values, own), files | dict.fromkeys(own, str(file))


def _real(path: Path) -> Path:
    """The path without links; of links in a circle as far as that goes."""
    return Path(os.path.realpath(path))


def _bases(file: Path, value: Any) -> list[Path]:
    """The files that ``value``, the base of ``file``, names."""
    names = value if isinstance(value, list) else [] if meaning(value) is None else [value]
    if not all(isinstance(name, str) and name for name in names):
        raise UserError(f'{file}: key "{BASE}": {value!r:.80} is no path, and no list of paths')
    try:
        return [file.parent / expanded(str(name)) for name in names]
    except ValueError as error:
        raise UserError(f'{file}: key "{BASE}": {error}') from error


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings, merged key by key; what ``above`` says wins."""
    merged = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _laid_over(below[key], above[key])
    return merged


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping of text keys; aliases, doubled keys and huge files are refused."""
    file, data = Path(path), b""
    try:
        data = read_bounded(file, _LARGEST_YAML_BYTES)
        content = yaml.load(data.decode("utf-8"), Loader=Loader)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{file}: line {line}: not UTF-8 text; save the file as UTF-8") from error
    except yaml.YAMLError as error:
        raise UserError(f"{file}: {yaml_fault(error)}") from error
    except RecursionError as error:
        raise UserError(f"{file}: nested too deeply") from error
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{file}: not a mapping of keys to values")
    return content


def yaml_fault(error: yaml.YAMLError) -> str:
    """What is wrong, with the line, and what to do where it is a common slip; on one line."""
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error).splitlines()[0]
    if "unknown escape" in reason:
        reason += "; write the path in single quotes, or with / for \\"
    if "'\\t'" in reason:
        reason += "; indent with blanks, not with tabs"
    return f"line {mark.line + 1}: {reason}" if mark else reason
