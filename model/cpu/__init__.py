"""An engine that makes training and evaluation fast on processors; ``accelerate`` plugs it in.

Nothing else of ``model`` knows of this package, and all works without it, only slower. Inside, a
feature map is (N, C, V, T), joints before time, so that the products over joints and over channels
need no copies (see ``aggregation``).

* ``training``: a step on chunks of the batch, each in a thread of its own (``threads``), with
  ``normalization`` and ``aggregation`` written for the caches;
* ``inference``: evaluation with the batch norms folded into the weights beside them.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from model import ctrgcn
from model.cpu.inference import run_blocks
from model.cpu.training import train_blocks

KNOWN = (
    *(ctrgcn.Block, ctrgcn.GraphUnit, ctrgcn.RefinedGraphConvolution),
    *(ctrgcn.TemporalUnit, ctrgcn.TemporalConvolution),
    *(nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d),
    *(nn.Sequential, nn.ModuleList, nn.Identity),
)
"""What the engine computes in its own way. Blocks with anything else in them run as they are."""


def accelerate(model: nn.Module) -> nn.Module:
    """Let a model run on the engine wherever it can; return it.

    The model becomes an instance of a subclass: its parameters, buffers, keys and hooks stay. On
    another device, under ``torch.compile``, in exports, with hooks or changed modules inside, in
    evaluation with gradients and in training without them, it runs as before. In training the
    backward pass can be run once, and not differentiated again. A model that is no backbone of
    ours, or that overrides its methods, stays as it is.
    """
    cls: Any = type(model)
    methods = ("forward_features", "pooled", "normalized")
    if isinstance(model, ctrgcn.Backbone) and all(
        getattr(cls, name) is getattr(ctrgcn.Backbone, name) for name in methods
    ):
        model.__class__ = _on_engine(cls)
    return model


class _Engine(ctrgcn.Backbone):
    """Overrides of the backbone's methods, laid over a model's own class."""

    def forward_features(self, x: Tensor) -> Tensor:
        chunks = self._run(x, pool=False)
        return super().forward_features(x) if chunks is None else torch.cat(chunks).transpose(3, 4)

    def pooled(self, x: Tensor) -> Tensor:
        chunks = self._run(x, pool=True)
        return super().pooled(x) if chunks is None else torch.cat(chunks).mean(1)

    def _run(self, x: Tensor, *, pool: bool) -> list[Tensor] | None:
        """Return features (N, M, C, V, T), or (N, M, C, T) of them averaged over joints, in chunks
        of the batch; or None where the engine is not for this call."""
        training = self.training
        if training != torch.is_grad_enabled() or not _fits(self.blocks, x, training):
            return None
        x = self.normalized(x).transpose(3, 4)
        run = train_blocks if training else run_blocks
        return run(self.blocks, x, pool=pool)

    def __reduce__(self) -> Any:
        return _new, (type(self).__bases__[1],), self.__dict__


@functools.cache
def _on_engine(cls: type) -> type:
    return type(
        cls.__name__, (_Engine, cls), {"__module__": cls.__module__, "__doc__": cls.__doc__}
    )


def _new(cls: type) -> Any:
    """Return an empty model on the engine, for copies and unpickling."""
    engine: Any = _on_engine(cls)
    return engine.__new__(engine)


def _fits(blocks: list[nn.Module], x: Tensor, training: bool) -> bool:
    """Whether the engine's way through the blocks is theirs."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if x.device.type != "cpu" or traced or _has_any_global_hook():
        return False
    modules = [module for block in blocks for module in block.modules()]
    return all(_is_plain(module, training) for module in modules)


def _is_plain(module: nn.Module, training: bool) -> bool:
    """Whether a module is what it was built as, and nobody listens to it."""
    if type(module) not in KNOWN or "forward" in vars(module):
        return False
    if isinstance(module, nn.BatchNorm2d):
        published = (module.eps, module.momentum, module.training) == (1e-5, 0.1, training)
        if not (published and module.affine and module.track_running_stats):
            return False
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    if any(getattr(module, name) for name in hooks):
        return False
    return not any(p is not None and p._backward_hooks for p in module._parameters.values())
