"""Heads: from pooled features (N, d, T) to logits.

Both are registered under the published name ``fc``.
"""

import math

import torch
from torch import Tensor, nn

from model.koopman import koopman_scores


class AverageHead(nn.Linear):
    """Mean over time, dropout, linear: the plain CTR-GCN classifier.

    Weights start as N(0, sqrt(2 / num_class)), biases as torch's default, as published.
    """

    def __init__(self, width: int, num_class: int, *, drop_out: float = 0.0) -> None:
        super().__init__(width, num_class)
        self.drop_out = nn.Dropout(drop_out)
        nn.init.normal_(self.weight, 0.0, math.sqrt(2.0 / num_class))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, d, T) to logits (N, num_class)."""
        return super().forward(self.drop_out(x.mean(-1)))


class KoopmanHead(nn.Module):
    """One linear dynamic a class; the logit says how well it predicts the sequence.

    The operators themselves are the classifier's parameter ``K`` (that is where published
    checkpoints have it). The published model also carries a linear layer that it never uses. Its
    entries are kept as buffers, so that files pass both ways between the two programs while every
    parameter here has a gradient.
    """

    def __init__(self, width: int, num_class: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(num_class, width))
        self.register_buffer("bias", torch.zeros(num_class))

    def forward(self, x: Tensor, K: Tensor) -> Tensor:
        """Map (N, d, T) and operators (num_class, d, d) to logits (N, num_class)."""
        return koopman_scores(x, K)
