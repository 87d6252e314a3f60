"""The layers of a model: what they give, their parameters, their multiply-accumulates."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..evaluation import logits_of


class Layer(NamedTuple):
    """A row: ``shape`` is of the (last) output, "" of what was not called."""

    name: str
    kind: str
    shape: str
    parameters: int
    macs: int


def layers(model: nn.Module, inputs: torch.Tensor) -> list[Layer]:
    """The main parts of ``model`` at work on ``inputs``, and last the whole of it.

    Multiply-accumulates are those of matrix products and convolutions, wherever they are computed
    (``torch.utils.flop_counter``). Main parts are the children, and theirs where one is a plain
    container; parameters of the model's own come between.
    """
    parts = dict(_parts("", model))
    seen: dict[str, Any] = {}
    hooks = [
        part.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
        for name, part in parts.items()
    ]
    was_training, counter = model.training, FlopCounterMode(display=False)
    trained = [entry for entry in model.parameters() if entry.requires_grad]
    try:
        for entry in trained:  # which the counter would follow into the backward pass
            entry.requires_grad_(False)
        with _no_fused_kernels(), counter, torch.no_grad():
            logits = logits_of(model.eval()(inputs))
    finally:
        model.train(was_training)
        for entry in trained:
            entry.requires_grad_(True)
        for hook in hooks:
            hook.remove()
    flops, root = counter.get_flop_counts(), type(model).__name__

    def macs(name: str) -> int:
        return sum(flops.get(name, {}).values()) // 2

    own = model.named_parameters(recurse=False)
    rows = [Layer(n, "Parameter", _shape(p), p.numel(), 0) for n, p in own]
    for name, part in parts.items():
        shape = _shape(seen[name]) if name in seen else ""
        rows.append(Layer(name, type(part).__name__, shape, _size(part), macs(f"{root}.{name}")))
    return [*rows, Layer("", root, _shape(logits), _size(model), macs("Global"))]


@contextlib.contextmanager
def _no_fused_kernels() -> Iterator[None]:
    """Let recurrent layers and attention be computed by the products that are counted."""
    switches: Any = torch.backends.mkldnn, torch.backends.cudnn
    before, fast = [own.enabled for own in switches], torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    for own in switches:
        own.enabled = False
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for own, value in zip(switches, before, strict=True):
            own.enabled = value


def _parts(above: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict):
            yield from _parts(f"{above}{name}.", child)
        else:
            yield f"{above}{name}", child


def _size(module: nn.Module) -> int:
    return sum(entry.numel() for entry in module.parameters())


def _shape(value: Any) -> str:
    """The shape of a tensor, or of those in a tuple."""
    if isinstance(value, torch.Tensor):
        return f"({', '.join(map(str, value.shape))})"
    items = value if isinstance(value, tuple | list) else ()
    return " ".join(_shape(item) for item in items) or type(value).__name__


def table(rows: Iterable[Layer]) -> list[str]:
    """The rows as lines, in columns."""
    cells = [("part", "class", "output", "parameters", "MACs")]
    cells += [(*row[:3], f"{row.parameters:,}", f"{row.macs:,}") for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    shape = "{:<{}}  {:<{}}  {:<{}}  {:>{}}  {:>{}}"
    return [shape.format(*itertools.chain(*zip(row, widths, strict=True))) for row in cells]
