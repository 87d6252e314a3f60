"""Heads: from pooled features (N, d, T) to logits. A new one is a class here or elsewhere, and a
line in ``HEADS`` (or none: the classifier takes the class itself, or its dotted name).

A head is built as ``Head(width, num_class, **its own options)`` and registered under the published
name ``fc``. Parameters that it names ``at_root`` are the classifier's (that is where published
checkpoints have them) and are given to its ``forward`` by name.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from model.errors import ModelError
from model.koopman import koopman_scores


class AverageHead(nn.Linear):
    """Mean over time, dropout, linear: the plain CTR-GCN classifier.

    Weights start as N(0, sqrt(2 / num_class)), biases as torch's default, as published.

    Args:
        drop_out: dropout probability before the linear layer.
    """

    halved_at_blocks: ClassVar = (5, 8)
    """Blocks, counted from 1, in which the backbone halves time under this head."""

    def __init__(self, width: int, num_class: int, *, drop_out: float = 0.0) -> None:
        super().__init__(width, num_class)
        if not 0 <= drop_out < 1:
            raise ModelError(f"model: drop_out is a probability below 1, got {drop_out}")
        self.drop_out = nn.Dropout(drop_out)
        nn.init.normal_(self.weight, 0.0, math.sqrt(2.0 / num_class))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, d, T) to logits (N, num_class)."""
        return super().forward(self.drop_out(x.mean(-1)))


class KoopmanHead(nn.Module):
    """One linear dynamic a class; the logit says how well it predicts the sequence.

    The published model also carries a linear layer that it never uses. Its entries are kept as
    buffers, so that files pass both ways between the two programs while every parameter here has a
    gradient.

    Args:
        freeze_koopman: K takes no gradient: the second stage.
        init: K starts as ``normal`` (standard normal, as published) or as the ``identity``: every
            class then predicts that nothing moves.
        scale: ``none``, or ``learnt``: logits are multiplied by exp(log_scale), 1 at the start.
    """

    at_root: ClassVar = ("K",)

    def __init__(
        self,
        width: int,
        num_class: int,
        *,
        freeze_koopman: bool = False,
        init: str = "normal",
        scale: str = "none",
    ) -> None:
        super().__init__()
        if init not in ("normal", "identity"):
            raise ModelError(f"model: init {init!r} is not one of ['normal', 'identity']")
        if scale not in ("none", "learnt"):
            raise ModelError(f"model: scale {scale!r} is not one of ['none', 'learnt']")
        if init == "normal":
            operators = torch.randn(num_class, width, width)
        else:
            operators = torch.eye(width).repeat(num_class, 1, 1)
        self.K = nn.Parameter(operators, requires_grad=not freeze_koopman)
        self.register_buffer("weight", torch.zeros(num_class, width))
        self.register_buffer("bias", torch.zeros(num_class))
        self.log_scale = nn.Parameter(torch.zeros(())) if scale == "learnt" else None

    def forward(self, x: Tensor, K: Tensor) -> Tensor:
        """Map (N, d, T) and operators (num_class, d, d) to logits (N, num_class)."""
        scores = koopman_scores(x, K)
        return scores if self.log_scale is None else self.log_scale.exp() * scores


HEADS: dict[str, type[nn.Module]] = {"koopman": KoopmanHead, "average": AverageHead}
