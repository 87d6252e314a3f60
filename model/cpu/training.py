"""Blocks in training: the equations of ``model.ctrgcn`` with fewer passes over the maps."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.cpu.aggregation import NUM_SUBSET, aggregate, relation_weights, subset_weights
from model.cpu.normalization import normalize
from model.cpu.threads import call_on_chunks, chunks_of


def train_blocks(blocks: Sequence[Any], x: Tensor, *, pool: bool) -> list[Tensor]:
    """Map (N, M, C, V, T) to (N, M, C', V, T'), in chunks of the batch.

    Args:
        pool: average over joints: (N, M, C', T').
    """
    v, persons = x.shape[3], x.shape[1]

    def run(x: Tensor) -> Tensor:
        for block in blocks:
            residual = None if block.residual is None else _residual(block.residual, x)
            x = _temporal(block.tcn1, _graph(block.gcn1, x), residual)
        return x

    chunks = [
        chunk.flatten(0, 1).contiguous(memory_format=torch.channels_last) for chunk in chunks_of(x)
    ]
    parameters = [parameter for block in blocks for parameter in block.parameters()]
    maps = call_on_chunks(run, chunks, parameters)
    if pool:  # as rows: torch sums these, which lie in this order, 20 times as fast
        maps = [chunk.permute(0, 2, 3, 1).sum(1).transpose(1, 2) / v for chunk in maps]
    return [chunk.unflatten(0, (-1, persons)) for chunk in maps]


def _graph(unit: Any, x: Tensor) -> Tensor:
    """Map (N, C_in, V, T) to (N, C, V, T); see ``model.cpu.aggregation``."""
    rows = x.permute(0, 2, 3, 1)
    mean = rows.sum(2) / x.shape[-1]
    both = F.linear(mean, *relation_weights(unit))
    phi, psi = both.transpose(1, 2).unflatten(1, (2, NUM_SUBSET, -1)).unbind(1)
    m = torch.tanh(phi.unsqueeze(-2) - psi.unsqueeze(-1))
    n, k, _, v, _ = m.shape
    adjacency = unit.PA.transpose(1, 2).to(m.dtype).expand(n, 1, k, v, v).transpose(1, 2)
    relations = torch.cat([m, torch.ones_like(adjacency), adjacency], dim=2)
    weight, bias, lift = subset_weights(unit)
    # The bias of the features, summed by the topology, is the same for all frames.
    offset = torch.einsum("kcr,nkru->ncu", bias.unsqueeze(-1) * lift, relations.sum(-2))
    z = aggregate(x, weight, lift, relations, offset, recompute=unit.recompute)
    return normalize([z], [unit.bn], residual=_residual(unit.down, x), relu=True)[0]


def _temporal(unit: Any, x: Tensor, residual: Tensor | None) -> Tensor:
    """Map (N, C, V, T) to ReLU(branches + residual), both (N, C, V, T').

    The first three branches' 1x1 convolutions read the same input, so they are one product with one
    batch norm, and so are the batch norms at the four ends.
    """
    first, second, pooled, plain = unit.branches
    reduced = unit.branches[:3]
    weight = torch.cat([branch[0].weight for branch in reduced])
    bias = torch.cat([branch[0].bias for branch in reduced])
    norms = [branch[1] for branch in reduced]
    a, b, c = normalize([F.conv2d(x, weight)], norms, biases=bias, relu=True, pieces=3)
    stride = pooled[3].stride[0]
    c = F.max_pool2d(c, (1, 3), stride=(1, stride), padding=(0, 1))
    ends = [_convolve(first[3].conv, a), _convolve(second[3].conv, b), c, _convolve(plain[0], x)]
    last = plain[0].bias
    biases = torch.cat([first[3].conv.bias, second[3].conv.bias, torch.zeros_like(last), last])
    norms = [first[3].bn, second[3].bn, pooled[4], plain[1]]
    return normalize(ends, norms, biases=biases, residual=residual, relu=True)[0]


def _residual(module: Any, x: Tensor) -> Tensor:
    """Return what is added: the identity, or a convolution with batch norm."""
    if isinstance(module, nn.Identity):
        return x
    conv, bn = module.children()
    return normalize([_convolve(conv, x)], [bn], biases=conv.bias)[0]


def _convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a convolution along time, (size, 1), to maps with time last, without its bias."""
    options: Any = [tuple(reversed(o)) for o in (conv.stride, conv.padding, conv.dilation)]
    return F.conv2d(x, conv.weight.transpose(2, 3), None, *options)
