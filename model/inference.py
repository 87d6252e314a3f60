"""Evaluation on the CPU: folded weights, and a few samples at a time through the whole network.

In evaluation the batch norms are affine maps, which fold into the convolutions beside them, and
samples have nothing to do with each other. So each thread takes a few samples at a time through all
blocks, in memory that it uses again and again: what one operation writes is still in the
processor's cache when the next one reads it, and no thread waits for another. Folding is cheap, and
done at each call: there is no second copy of the model that could grow stale. Where gradients are
asked for, or a hook waits inside a block, the modules themselves are called instead.

The mathematics are those of ``model.ctrgcn`` and ``model.aggregation``, whose names are used here.
Feature maps of n samples are (n, C, V, T), contiguous: so the graph unit's batched product, which
has a matrix for each channel, writes them without a copy. 1x1 convolutions are matrix products.
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


def run_blocks(blocks: Sequence[FoldedBlock], x: Tensor, *, pool: bool = False) -> Tensor:
    """Map (N, C, V, T) to (N, C', V, T'), in the blocks' precision.

    Nothing is recorded for gradients.

    Args:
        pool: average over joints: (N, C', T').
    """
    n, _, v, t = x.shape
    x = x.to(blocks[0].graph.features.dtype).contiguous()
    frames = t
    for block in blocks:
        frames = -(-frames // block.temporal.stride)
    joints = [] if pool else [v]
    result = x.new_empty((n, len(blocks[-1].graph.bias), *joints, frames))

    def work(parts: Sequence[slice]) -> None:
        memory = _Memory(blocks, v, t, min(n, SAMPLES))
        for part in parts:
            y = x[part]
            for number, block in enumerate(blocks):
                z = _graph(block.graph, y, memory, number)
                y = _temporal(block.temporal, z, y, memory)
            result[part] = y.mean(2) if pool else y

    parts = [slice(start, start + SAMPLES) for start in range(0, n, SAMPLES)]
    with torch.autocast(x.device.type, enabled=False):
        map_shares(work, parts, x.device)
    return result


class _Memory:
    """What a thread writes over and over: scratch memory by name, and the relations of each block.

    The relations are [m, 1, PA] (n, 3, R + 2, V, V), of which only m differs from sample to sample.
    """

    def __init__(self, blocks: Sequence[FoldedBlock], v: int, t: int, samples: int) -> None:
        graphs = [block.graph for block in blocks]
        width = max(len(graph.bias) for graph in graphs)
        size = v * t * width
        taps = max(kernel[0].numel() for block in blocks for kernel in block.temporal.kernels)
        sizes = {
            "a": NUM_SUBSET * width * v * v,
            "f": NUM_SUBSET * size,
            "columns": taps * v * t,
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


def _graph(graph: FoldedGraph, x: Tensor, memory: _Memory, number: int) -> Tensor:
    """Return ReLU(graph unit) of maps (n, C_in, V, T), (n, C, V, T)."""
    n, _, v, t = x.shape
    c = len(graph.bias)
    a, f = memory("a", c, NUM_SUBSET, v * v), memory("f", NUM_SUBSET * c, v * t)
    z = memory("graph", n, c, v, t)
    relations = memory.relations[number][:n]
    # In bfloat16 this product is twice as fast as torch's sum.
    means = torch.mm(x.view(-1, t), x.new_ones(t, 1)).mul_(1 / t).view(n, -1, v).transpose(1, 2)
    both = torch.addmm(graph.relation_bias, means.flatten(0, 1), graph.relation.t())
    phi, psi = both.view(n, v, 2, NUM_SUBSET, -1).permute(2, 0, 3, 4, 1).unbind()
    torch.sub(phi.unsqueeze(-2), psi.unsqueeze(-1), out=relations[:, :, :-2]).tanh_()
    sums = relations.sum(3).permute(0, 3, 1, 2).reshape(n * v, -1)
    offsets = torch.addmm(graph.bias, sums, graph.features_bias.t()).view(n, v, c)
    topology = a.view(c, -1, v).transpose(1, 2)
    for sample, relation, offset, target in zip(x.flatten(2), relations, offsets, z, strict=True):
        torch.bmm(graph.lift, relation.flatten(2), out=a.transpose(0, 1))
        torch.mm(graph.features, sample, out=f)
        torch.baddbmm(offset.t().unsqueeze(2), topology, f.view(c, -1, t), out=target)
        if graph.residual is not None:
            target.flatten(1).addmm_(graph.residual, sample)
    if graph.residual is None:
        z.add_(x)
    return z.clamp_min_(0)


def _temporal(temporal: FoldedTemporal, z: Tensor, x: Tensor, memory: _Memory) -> Tensor:
    """Return ReLU(temporal unit + residual of the block's input x) of maps, (n, C, V, T')."""
    n, c, v, t = z.shape
    w, stride = c // 4, temporal.stride
    reduced = memory("reduced", n, 3 * w, v, t)
    _convolve(temporal.reduce, temporal.reduce_bias, z, out=reduced)
    parts = reduced.clamp_min_(0).split(w, dim=1)
    y = memory.output(n, c, v, -(-t // stride))
    ends = y.split(w, dim=1)
    weights = zip(temporal.kernels, temporal.kernel_biases, temporal.dilations, strict=True)
    for part, end, (kernel, bias, dilation) in zip(parts, ends, weights, strict=False):
        _convolve_in_time(kernel, bias, part, dilation, stride, memory, out=end)
    pooled = _max_of_neighbours(parts[2])[..., ::stride]
    scale, shift = temporal.pool_scale.view(-1, 1, 1), temporal.pool_bias.view(-1, 1, 1)
    torch.mul(pooled, scale, out=ends[2]).add_(shift)
    _convolve(temporal.plain, temporal.plain_bias, z[..., ::stride], out=ends[3])
    if temporal.identity:
        y.add_(x)
    elif temporal.residual is not None:
        matrices = temporal.residual.expand(n, -1, -1)
        y.flatten(2).baddbmm_(matrices, x[..., ::stride].flatten(2))
    return y.clamp_min_(0)


def _convolve(weight: Tensor, bias: Tensor, x: Tensor, out: Tensor) -> None:
    """Write the 1x1 convolution of maps x (n, C, V, T) to ``out``; weight (C_out, C)."""
    matrices = weight.expand(len(x), -1, -1)
    torch.baddbmm(bias.unsqueeze(1), matrices, x.flatten(2), out=out.flatten(2))


def _convolve_in_time(
    kernel: Tensor,
    bias: Tensor,
    x: Tensor,
    dilation: int,
    stride: int,
    memory: _Memory,
    out: Tensor,
) -> None:
    """Write the temporal convolution of maps x (n, w, V, T) to ``out`` (n, w, V, T').

    As a product of the kernel (w, w * size) with what its taps see, laid out for a sample at a
    time. It is in cache, and the product writes where it belongs: torch's convolution lays out its
    input and its output as well, and computes more slowly (float32 with AVX2: 2 to 4 % of a pass of
    the NW-UCLA shape). In half precision torch's own, which no layout of ours has beaten.
    """
    w, size = kernel.shape[0], kernel.shape[-1]
    reach = dilation * (size - 1) // 2
    if kernel.itemsize == 2:
        out.copy_(F.conv2d(x, kernel, bias, (1, stride), (0, reach), (1, dilation)))
        return
    taps = F.pad(x, (reach, reach)).unfold(-1, x.shape[-1], dilation)[..., ::stride]
    for sample, target in zip(taps.transpose(2, 3), out.flatten(2), strict=True):
        columns = memory("columns", *sample.shape).copy_(sample).view(w * size, -1)
        torch.addmm(bias.unsqueeze(1), kernel.flatten(1), columns, out=target)


def _max_of_neighbours(x: Tensor) -> Tensor:
    """Return the maximum of each frame and those before and after it, (n, C, V, T).

    Several times as fast as torch's max pool.
    """
    if x.shape[3] == 1:
        return x
    pairs = torch.maximum(x[..., :-1], x[..., 1:])
    y = torch.empty_like(x)
    y[..., 0], y[..., -1] = pairs[..., 0], pairs[..., -1]
    torch.maximum(pairs[..., :-1], pairs[..., 1:], out=y[..., 1:-1])
    return y


def _cast(weights: Weights, dtype: torch.dtype) -> Weights:
    """Return weights with all tensors in another precision."""

    def cast(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(cast(item) for item in value)
        return value.to(dtype) if isinstance(value, Tensor) else value

    values: Any = weights
    return type(weights)(*(cast(getattr(values, field.name)) for field in fields(values)))
