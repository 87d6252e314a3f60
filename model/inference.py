"""Evaluation on the CPU: folded weights, and a few samples at a time through the whole network.

In evaluation the batch norms are affine maps, which fold into the convolutions beside them, and
samples have nothing to do with each other. So each thread takes a few samples at a time through all
blocks, in memory that it uses again and again: what one operation writes is still in the
processor's cache when the next one reads it, and no thread waits for another. Folding is cheap, and
done at each call: there is no second copy of the model that could grow stale. Where gradients are
asked for, or a hook waits inside a block, the modules themselves are called instead.

The mathematics are those of ``model.ctrgcn`` and ``model.aggregation``, whose names are used here.
A feature map of n samples is rows (n, V*T, C), so that 1x1 convolutions are products of matrices.
Biases of maps that are added up are added up beforehand.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from model.aggregation import NUM_SUBSET
from model.threads import map_shares

Weights = TypeVar("Weights")

SAMPLES = 4
"""Samples that a thread takes through the network at a time: with fewer the number of calls counts,
with more the maps outgrow the cache. Results do not depend on the number of threads."""


@dataclass(frozen=True)
class FoldedGraph:
    """Weights of a graph unit, its norm folded in.

    Attributes:
        features: (3C, C_in), rows ordered (c, k).
        relation: (6R, C_in), of phi and then of psi, each ordered (k, r).
        relation_bias: (6R,).
        lift: (3, C, R + 2).
        features_bias: (C, 3(R + 2)), the features' biases times the lift.
        bias: (C,).
        adjacency: (3, V, V), from joint v to joint u.
        residual: (C, C_in) of the residual's convolution, or None for the identity.
    """

    features: Tensor
    relation: Tensor
    relation_bias: Tensor
    lift: Tensor
    features_bias: Tensor
    bias: Tensor
    adjacency: Tensor
    residual: Tensor | None


@dataclass(frozen=True)
class FoldedTemporal:
    """Weights of a temporal unit and its block's residual, their norms folded in; w = C / 4.

    Attributes:
        reduce, reduce_bias: (3w, C) and (3w,), the 1x1 convolutions of the first three branches.
        kernels, kernel_biases: (w, w, 1, size) and (w,), the temporal convolutions.
        dilations: theirs.
        pool_scale, pool_bias: (w,), the norm after the max pool.
        plain, plain_bias: (w, C) and (w,), the fourth branch.
        stride: in time.
        identity: the residual is the block's input.
        residual: (C, C_in), the residual's convolution; or None.
    """

    reduce: Tensor
    reduce_bias: Tensor
    kernels: tuple[Tensor, ...]
    kernel_biases: tuple[Tensor, ...]
    dilations: tuple[int, ...]
    pool_scale: Tensor
    pool_bias: Tensor
    plain: Tensor
    plain_bias: Tensor
    stride: int
    identity: bool
    residual: Tensor | None


@dataclass(frozen=True)
class FoldedBlock:
    """Weights of a block."""

    graph: FoldedGraph
    temporal: FoldedTemporal

    def to(self, dtype: torch.dtype) -> "FoldedBlock":
        """Return the block with all its tensors in another precision."""
        return FoldedBlock(_cast(self.graph, dtype), _cast(self.temporal, dtype))


def run_blocks(blocks: Sequence[FoldedBlock], x: Tensor) -> Tensor:
    """Map (N, C, V, T), channels-last, to (N, C', V, T'), channels-last, in the blocks' precision.

    Nothing is recorded for gradients.
    """
    n, c, v, t = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(n, v * t, c).to(blocks[0].graph.features.dtype)
    frames = t
    for block in blocks:
        frames = -(-frames // block.temporal.stride)
    result = rows.new_empty((n, v, frames, len(blocks[-1].graph.bias)))

    def work(parts: Sequence[slice]) -> None:
        memory = _Memory(blocks, v, t, min(n, SAMPLES))
        for part in parts:
            y = rows[part]
            for number, block in enumerate(blocks):
                z = _graph(block.graph, y, v, memory, number)
                y = _temporal(block.temporal, z, y, v, memory)
            result[part] = y.view(result[part].shape)

    parts = [slice(start, start + SAMPLES) for start in range(0, n, SAMPLES)]
    with torch.autocast(x.device.type, enabled=False):
        map_shares(work, parts, x.device)
    return result.permute(0, 3, 1, 2)


class _Memory:
    """What a thread writes over and over: scratch memory by name, and the relations of each block.

    The relations are [m, 1, PA] (n, 3, R + 2, V, V), of which only m differs from sample to sample.
    """

    def __init__(self, blocks: Sequence[FoldedBlock], v: int, t: int, samples: int) -> None:
        graphs = [block.graph for block in blocks]
        width = max(len(graph.bias) for graph in graphs)
        size = v * t * width
        sizes = {
            "a": NUM_SUBSET * width * v * v,
            "f": NUM_SUBSET * size,
            "sum": size,
            "graph": samples * size,
            "reduced": samples * size,
            "even": samples * size,
            "odd": samples * size,
        }
        self._flat = {name: graphs[0].features.new_empty(size) for name, size in sizes.items()}
        self.relations = []
        for graph in graphs:
            relations = graph.lift.new_ones((samples, *graph.lift.shape[::2], v, v))
            relations[:, :, -1] = graph.adjacency
            self.relations.append(relations)
        self._turn = False

    def __call__(self, name: str, *shape: int) -> Tensor:
        """Return the scratch memory of that name in a shape."""
        return self._flat[name][: math.prod(shape)].view(shape)

    def output(self, *shape: int) -> Tensor:
        """Return memory for a block's output that does not hold its input."""
        self._turn = not self._turn
        return self("odd" if self._turn else "even", *shape)


def _graph(graph: FoldedGraph, x: Tensor, v: int, memory: _Memory, number: int) -> Tensor:
    """Return ReLU(graph unit) of rows (n, V*T, C_in), (n, V*T, C)."""
    n, rows, _ = x.shape
    c, t = len(graph.bias), rows // v
    a, f = memory("a", c, NUM_SUBSET, v * v), memory("f", NUM_SUBSET * c, rows)
    total, z = memory("sum", c, v, t), memory("graph", n, rows, c)
    relations = memory.relations[number][:n]
    means = x.view(n, v, t, -1).sum(2).mul_(1 / t)
    both = torch.addmm(graph.relation_bias, means.flatten(0, 1), graph.relation.t())
    phi, psi = both.view(n, v, 2, NUM_SUBSET, -1).permute(2, 0, 3, 4, 1).unbind()
    torch.sub(phi.unsqueeze(-2), psi.unsqueeze(-1), out=relations[:, :, :-2]).tanh_()
    sums = relations.sum(3).permute(0, 3, 1, 2).reshape(n * v, -1)
    offsets = torch.addmm(graph.bias, sums, graph.features_bias.t()).view(n, v, c)
    for sample, relation, offset, target in zip(x, relations, offsets, z, strict=True):
        torch.bmm(graph.lift, relation.flatten(2), out=a.transpose(0, 1))
        torch.mm(graph.features, sample.t(), out=f)
        topology = a.view(c, -1, v).transpose(1, 2)
        torch.baddbmm(offset.t().unsqueeze(2), topology, f.view(c, -1, t), out=total)
        target.copy_(total.view(c, rows).t())
    if graph.residual is None:
        z.add_(x)
    else:
        z.flatten(0, 1).addmm_(x.flatten(0, 1), graph.residual.t())
    return z.clamp_min_(0)


def _temporal(temporal: FoldedTemporal, z: Tensor, x: Tensor, v: int, memory: _Memory) -> Tensor:
    """Return ReLU(temporal unit + residual of the block's input x) of rows, (n, V*T', C)."""
    n, rows, c = z.shape
    w, t, stride = c // 4, rows // v, temporal.stride
    flat = z.view(n * rows, c)
    reduced = memory("reduced", n * rows, 3 * w)
    torch.addmm(temporal.reduce_bias, flat, temporal.reduce.t(), out=reduced).clamp_min_(0)
    reduced = reduced.view(n, v, t, 3 * w)
    y = memory.output(n, v, -(-t // stride), c)
    branches = y.split(w, dim=3)
    weights = zip(temporal.kernels, temporal.kernel_biases, temporal.dilations, strict=True)
    for i, (kernel, bias, dilation) in enumerate(weights):
        branch = F.conv2d(
            reduced[..., i * w : (i + 1) * w].permute(0, 3, 1, 2),
            kernel,
            bias,
            stride=(1, stride),
            padding=(0, dilation * (kernel.shape[-1] - 1) // 2),
            dilation=(1, dilation),
        )
        branches[i].copy_(branch.permute(0, 2, 3, 1))
    pooled = _max_of_neighbours(reduced[..., 2 * w :])[:, :, ::stride]
    torch.addcmul(temporal.pool_bias, pooled, temporal.pool_scale, out=branches[2])
    kept = z.view(n, v, t, c)[:, :, ::stride].reshape(-1, c)
    torch.addmm(temporal.plain_bias, kept, temporal.plain.t(), out=y.view(-1, c)[:, 3 * w :])
    if temporal.identity:
        y.add_(x.view(y.shape))
    elif temporal.residual is not None:
        kept = x.view(n, v, t, -1)[:, :, ::stride]
        y.view(-1, c).addmm_(kept.flatten(0, 2), temporal.residual.t())
    return y.clamp_min_(0).view(n, -1, c)


def _max_of_neighbours(x: Tensor) -> Tensor:
    """Return the maximum of each frame and those before and after it, (n, V, T, C).

    Several times as fast as torch's max pool.
    """
    if x.shape[2] == 1:
        return x
    pairs = torch.maximum(x[:, :, :-1], x[:, :, 1:])
    y = torch.empty_like(x)
    y[:, :, 0], y[:, :, -1] = pairs[:, :, 0], pairs[:, :, -1]
    torch.maximum(pairs[:, :, :-1], pairs[:, :, 1:], out=y[:, :, 1:-1])
    return y


def _cast(weights: Weights, dtype: torch.dtype) -> Weights:
    """Return weights with all tensors in another precision."""

    def cast(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(cast(item) for item in value)
        return value.to(dtype) if isinstance(value, Tensor) else value

    values: Any = weights
    return type(weights)(*(cast(getattr(values, field.name)) for field in fields(values)))
