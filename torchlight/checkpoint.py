"""Weights as published: a flat state dict.

Nothing here unpickles: untrusted files are read by ``torch.load(weights_only=True)``.
"""

import argparse
import os
import pickle
import re
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from .card import Card, card_path, sha256_of
from .errors import UserError, printable
from .files import atomic_write
from .launch import launched_rank
from .terminal import nearest
from .untrusted import one_line, open_archive

Weights = dict[str, torch.Tensor]

_WRAPPERS = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every key."""
_STATE_DICTS = ("state_dict", "model_state_dict", "model", "net", "params", "weights")
"""Names of state dicts among others, best first."""
_DEEPEST = 3
_ZIP = b"PK\x03\x04"
_FOREIGN = re.compile(r"GLOBAL ([\w.]+)")
"""How torch names what a pickle reaches for and must not."""


class _Unused:
    """Stands for NumPy's numbers and arrays beside the weights."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


_BESIDE_WEIGHTS: list[Any] = [
    argparse.Namespace,
    *((_Unused, f"numpy.{name}") for name in ("dtype", "ndarray")),
    *(
        (_Unused, f"numpy.{core}.{name}")
        for core in ("core", "_core")  # NumPy 1 and 2
        for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
    ),
]


def save_weights(
    path: str | Path, weights: Mapping[str, torch.Tensor], card: Card | None = None
) -> None:
    """Write a flat state dict (on the CPU, keys without ``module.``), whole or not at all.

    A card goes first, so that there are no new weights without one. Whatever happens between the
    two, no card is taken for that of other weights, for it has their checksum.
    """
    plain = {key.removeprefix("module."): value.detach().cpu() for key, value in weights.items()}
    # Saved to an open file, as torch.save would write a file's name into it: the same weights
    # are then the same bytes, whoever saves them where.
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        torch.save(plain, file)
        file.flush()
        if card is not None:
            card.but(sha256=sha256_of(temporary)).write(card_path(path))


def weights_of(name: str, known: Mapping[str, str]) -> str:
    """The file that ``name`` stands for, of those ``known``; a path stands for itself."""
    plain = Path(name).name == name and not Path(name).suffix and not os.path.exists(name)
    if plain and name not in known and (near := nearest(name, known)):
        raise UserError(f"{name}: no such weights file{near}")
    return known.get(name, name)


def load_weights(path: str | Path) -> Weights:
    """Read a state dict, also one inside a checkpoint of other tools, such as ``{"state_dict":
    ..., "epoch": 3}``; prefixes of DDP and of ``torch.compile`` are taken off the keys.

    Raises:
        UserError: no such file, damaged, no state dict in it, or content that is not plain.
    """
    file = Path(path)
    if not file.is_file():
        beside = [own.name for own in file.parent.glob("*.pt")]
        raise UserError(f"{file}: no such weights file{nearest(file.name, beside)}")
    with open(file, "rb") as stream, torch.serialization.safe_globals(_BESIDE_WEIGHTS):
        content = _unwrapped(load_archive(stream, file), file)
    for key, value in content.items():
        if not isinstance(key, str) or not key.isprintable() or not torch.is_tensor(value):
            shown = printable(repr(key))
            raise UserError(f"{file}: entry {shown} is not a tensor; not a flat state dict")
        if not _is_plain(value):
            raise UserError(f"{file}: entry {key!r} is not a plain tensor with all its numbers")
    weights = {_without_wrappers(key): value for key, value in content.items()}
    if len(weights) < len(content):
        raise UserError(f"{file}: holds entries twice, with and without {' or '.join(_WRAPPERS)}")
    return weights


def _unwrapped(content: Any, file: Path) -> Mapping[Any, Any]:
    """The state dict that a checkpoint is or has inside; says which one."""
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{file}: holds {type(content).__name__}, not a state dict")
    found = dict(_state_dicts(content, set()))
    if not found or "" in found:
        return content
    best = min(found, key=_rank)
    if len(found) > 1 and _rank(best) == len(_STATE_DICTS):
        raise UserError(f"{file}: holds several state dicts: {', '.join(found)}; save one alone")
    others = ", ".join(str(key) for key in content if best.split(".")[0] != key)
    _note(f"{file}: weights are its entry {best!r}; not used: {printable(others or 'no other')}")
    return found[best]


def _rank(name: str) -> int:
    last = name.rpartition(".")[2]
    return _STATE_DICTS.index(last) if last in _STATE_DICTS else len(_STATE_DICTS)


def _state_dicts(
    content: Mapping[Any, Any], seen: set[int], name: str = ""
) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Dotted names of what holds nothing but tensors, the outermost only."""
    if content and all(torch.is_tensor(value) for value in content.values()):
        yield name, content
    elif name.count(".") < _DEEPEST - 1:
        for key, value in content.items():
            if isinstance(key, str) and isinstance(value, Mapping) and id(value) not in seen:
                seen.add(id(value))
                yield from _state_dicts(value, seen, f"{name}.{printable(key)}".removeprefix("."))


def _without_wrappers(key: str) -> str:
    for prefix in _WRAPPERS * 2:
        key = key.removeprefix(prefix)
    return key.replace("._orig_mod.", ".")


def fit_keys(weights: Weights, wanted: Container[str], source: str) -> Weights:
    """``weights`` without what all keys begin with, such as ``backbone.``, where no key is
    ``wanted`` as it is, but some are then; says so. Otherwise as they were.
    """
    fitted, prefix = weights, ""
    while fitted and not any(key in wanted for key in fitted):
        heads = {key.partition(".")[:2] for key in fitted}
        head = "".join(next(iter(heads)))
        if len(heads) > 1 or not head.endswith("."):
            return weights
        fitted, prefix = {k.removeprefix(head): v for k, v in fitted.items()}, prefix + head
    if prefix:
        _note(f"{source}: its keys begin with {prefix!r}, which is taken off")
    return fitted


def _note(text: str) -> None:
    if launched_rank() == 0:
        print(f"note: {text}", file=sys.stderr, flush=True)


def load_archive(stream: BinaryIO, source: Path) -> Any:
    """The content of a ``torch.save`` archive; what would not fit or would run is refused.

    Raises:
        UserError: names ``source``.
    """
    with one_line(source, "no weights file"):
        if stream.read(len(_ZIP)) == _ZIP:
            open_archive(stream)  # torch writes records as they are; packed ones could unfold
        stream.seek(0)
        try:
            return torch.load(stream, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            found = _FOREIGN.search(str(error))
            why = "it is no torch.save file of tensors"
            if found:
                why = f"it would run {found[1]}; save the model's state_dict() alone"
            raise UserError(f"{source}: refused, {why}") from error


def _is_plain(value: torch.Tensor) -> bool:
    """Whether a tensor is dense, and no larger than the numbers that are there for it."""
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def apply_weights(
    model: nn.Module, weights: Mapping[str, torch.Tensor], source: str, ignore: Sequence[str] = ()
) -> list[str]:
    """Load ``weights`` into ``model``, strictly; return the keys left at their initial values.

    Args:
        ignore: entries whose key contains one of these are left out on purpose.

    Raises:
        UserError: missing, unexpected or differently shaped entries, or NaN among them.
    """
    own = model.state_dict()
    left_out = sorted(key for key in own if any(part in key for part in ignore))
    given = {k: v for k, v in weights.items() if not any(part in k for part in ignore)}
    given = fit_keys(given, own, source)
    kinds = {
        "missing": [k for k in own if k not in given and k not in left_out],
        "unexpected": [k for k in given if k not in own],
        "of another shape": [
            f"{k} is {tuple(v.shape)}, the model's is {tuple(own[k].shape)}"
            for k, v in given.items()
            if k in own and v.shape != own[k].shape
        ],
    }
    faults = [
        f"{len(keys)} {what}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
        for what, keys in kinds.items()
        if keys
    ]
    if faults:
        raise UserError(
            f"{source}: weights of another model ({'; '.join(faults)}); "
            f"--ignore-weights NAME leaves entries containing NAME at their initial values"
        )
    broken = [k for k, v in given.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise UserError(f"{source}: entry {broken[0]} holds NaN or infinity")
    model.load_state_dict(given, strict=False)
    return left_out
