"""Evaluation: folded weights, and a few samples at a time through the whole network.

In evaluation the batch norms are affine maps, which fold into the convolutions beside them, and
samples have nothing to do with each other. So each thread takes a few samples at a time through all
blocks, in memory that it uses again and again: what one operation writes is still in the
processor's cache when the next one reads it, and no thread waits for another. Folding is cheap, and
done at each call: there is no second copy of the model that could grow stale.

Maps of n samples are (n, C, V, T), contiguous: so the graph unit's batched product, which has a
matrix for each channel, writes them without a copy. 1x1 convolutions are matrix products. Biases
of maps that are added up are added up beforehand. The equations are those of ``aggregation``.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.cpu.aggregation import NUM_SUBSET, relation_weights, subset_weights
from model.cpu.threads import map_on_threads

SAMPLES = 4
"""Samples that a thread takes through the network at a time: with fewer the number of calls counts,
with more the maps outgrow the cache. Results do not depend on the number of threads."""


def run_blocks(blocks: Sequence[Any], x: Tensor, *, pool: bool) -> list[Tensor]:
    """Map (N, M, C, V, T) to a list of one (N, M, C', V, T'), in autocast's precision.

    Nothing is recorded for gradients.

    Args:
        pool: average over joints: (N, M, C', T').
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    persons, joints = x.shape[1], x.shape[3]
    x = x.flatten(0, 1).to(dtype).contiguous()
    folded = [(_fold_graph(block.gcn1, dtype), _fold_temporal(block, dtype)) for block in blocks]
    frames = x.shape[-1]
    for _, temporal in folded:
        frames = -(-frames // temporal["stride"])
    body = [] if pool else [joints]
    result = x.new_empty((len(x), len(folded[-1][0]["bias"]), *body, frames))
    parts = [slice(start, start + SAMPLES) for start in range(0, len(x), SAMPLES)]
    count = min(torch.get_num_threads(), len(parts))

    def work(number: int) -> None:
        memory = _Memory(x)
        for part in parts[len(parts) * number // count : len(parts) * (number + 1) // count]:
            y = x[part]
            for i, (graph, temporal) in enumerate(folded):
                z = _graph(graph, y, memory)
                y = _temporal(temporal, z, y, memory, "odd" if i % 2 else "even")
            result[part] = y.mean(2) if pool else y

    with torch.autocast("cpu", enabled=False):
        map_on_threads(work, count)
    return [result.unflatten(0, (-1, persons))]


class _Memory:
    """What a thread writes over and over: scratch memory by name, in the precision of ``like``."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._flat: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """Return the scratch memory of that name in a shape."""
        size = math.prod(shape)
        if name not in self._flat or len(self._flat[name]) < size:
            self._flat[name] = self._like.new_empty(size)
        return self._flat[name][:size].view(shape)


def _fold_graph(unit: Any, dtype: torch.dtype) -> dict[str, Any]:
    """Return the weights of a graph unit, its norm folded in.

    features (3C, C_in), rows ordered (c, k); relation (6R, C_in) and its bias, of phi and then psi;
    lift (3, C, R + 2); features_bias (C, 3(R + 2)), the features' biases times the lift; bias (C,);
    adjacency (3, V, V), from joint v to joint u; residual (C, C_in), or None for the identity.
    """
    features, features_bias, lift = subset_weights(unit)
    relation, relation_bias = relation_weights(unit)
    scale, bias = _affine([unit.bn])
    lift = lift * scale.unsqueeze(-1)
    residual = None
    if not isinstance(unit.down, nn.Identity):
        conv, bn = unit.down
        residual, residual_bias = _fold(conv.weight.flatten(1), conv.bias, [bn])
        bias = bias + residual_bias
    features_bias = (features_bias.unsqueeze(-1) * lift).transpose(0, 1).flatten(1)
    weights = {
        "features": features,
        "relation": relation,
        "relation_bias": relation_bias,
        "lift": lift,
        "features_bias": features_bias,
        "bias": bias,
        "adjacency": unit.PA.transpose(1, 2),
        "residual": residual,
    }
    return {name: None if w is None else w.to(dtype) for name, w in weights.items()}


def _fold_temporal(block: Any, dtype: torch.dtype) -> dict[str, Any]:
    """Return the weights of a temporal unit and its block's residual, their norms folded in.

    With w = C / 4: reduce (3w, C), the 1x1 convolutions of the first three branches; kernels
    (w, w, 1, size) of the first two, and their dilations; pool, the scale (w, 1, 1) after the max
    pool; plain (w, C) of the fourth branch; biases of each; residual (C, C_in), True for the
    identity, or None; stride in time.
    """
    first, second, pooled, plain = block.tcn1.branches
    reduced = block.tcn1.branches[:3]
    reduce, reduce_bias = _fold(
        torch.cat([branch[0].weight for branch in reduced]).flatten(1),
        torch.cat([branch[0].bias for branch in reduced]),
        [branch[1] for branch in reduced],
    )
    ends = [_fold(end.conv.weight, end.conv.bias, [end.bn]) for end in (first[3], second[3])]
    scale, shift = _affine([pooled[4]])
    last, last_bias = _fold(plain[0].weight.flatten(1), plain[0].bias, [plain[1]])
    biases = torch.cat([ends[0][1], ends[1][1], shift, last_bias])
    residual: Any = None if block.residual is None else True
    if block.residual is not None and not isinstance(block.residual, nn.Identity):
        conv = block.residual.conv
        residual, bias = _fold(conv.weight.flatten(1), conv.bias, [block.residual.bn])
        residual, biases = residual.to(dtype), biases + bias
    return {
        "reduce": reduce.to(dtype),
        "reduce_bias": reduce_bias.to(dtype),
        "kernels": [kernel.transpose(2, 3).to(dtype) for kernel, _ in ends],
        "dilations": [branch[3].conv.dilation[0] for branch in (first, second)],
        "pool": scale.view(-1, 1, 1).to(dtype),
        "plain": last.to(dtype),
        "biases": biases.to(dtype).chunk(4),
        "residual": residual,
        "stride": pooled[3].stride[0],
    }


def _affine(norms: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Return scale and shift (C,) of norms for neighbouring ranges of channels."""
    names = ("weight", "bias", "running_mean", "running_var")
    weight, bias, mean, var = (torch.cat([getattr(bn, name) for bn in norms]) for name in names)
    scale = weight * torch.rsqrt(var + norms[0].eps)
    return scale, torch.addcmul(bias, mean, scale, value=-1)


def _fold(weight: Tensor, bias: Tensor, norms: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Return weight (C, ...) and bias (C,) of a linear map with the norms that follow it."""
    scale, shift = _affine(norms)
    return weight * scale.view(-1, *[1] * (weight.dim() - 1)), torch.addcmul(shift, bias, scale)


def _graph(w: dict[str, Any], x: Tensor, memory: _Memory) -> Tensor:
    """Return ReLU(graph unit) of maps (n, C_in, V, T), (n, C, V, T)."""
    n, _, v, t = x.shape
    c = len(w["bias"])
    a, f = memory("a", c, NUM_SUBSET, v * v), memory("f", NUM_SUBSET * c, v * t)
    z = memory("graph", n, c, v, t)
    # In bfloat16 this product is twice as fast as torch's sum.
    means = torch.mm(x.view(-1, t), x.new_ones(t, 1)).mul_(1 / t).view(n, -1, v).transpose(1, 2)
    both = torch.addmm(w["relation_bias"], means.flatten(0, 1), w["relation"].t())
    phi, psi = both.view(n, v, 2, NUM_SUBSET, -1).permute(2, 0, 3, 4, 1).unbind()
    relations = memory("relations", n, *w["lift"].shape[::2], v, v)
    torch.sub(phi.unsqueeze(-2), psi.unsqueeze(-1), out=relations[:, :, :-2]).tanh_()
    relations[:, :, -2], relations[:, :, -1] = 1, w["adjacency"]
    sums = relations.sum(3).permute(0, 3, 1, 2).reshape(n * v, -1)
    offsets = torch.addmm(w["bias"], sums, w["features_bias"].t()).view(n, v, c)
    topology = a.view(c, -1, v).transpose(1, 2)
    for sample, relation, offset, target in zip(x.flatten(2), relations, offsets, z, strict=True):
        torch.bmm(w["lift"], relation.flatten(2), out=a.transpose(0, 1))
        torch.mm(w["features"], sample, out=f)
        torch.baddbmm(offset.t().unsqueeze(2), topology, f.view(c, -1, t), out=target)
        if w["residual"] is not None:
            target.flatten(1).addmm_(w["residual"], sample)
    if w["residual"] is None:
        z.add_(x)
    return z.clamp_min_(0)


def _temporal(w: dict[str, Any], z: Tensor, x: Tensor, memory: _Memory, name: str) -> Tensor:
    """Return ReLU(temporal unit + residual of the block's input x) of maps, (n, C, V, T')."""
    n, c, v, t = z.shape
    stride = w["stride"]
    reduced = memory("reduced", n, 3 * (c // 4), v, t)
    _convolve(w["reduce"], w["reduce_bias"], z, out=reduced)
    *parts, third = reduced.clamp_min_(0).split(c // 4, dim=1)
    y = memory(name, n, c, v, -(-t // stride))
    ends = y.split(c // 4, dim=1)
    kernels = zip(w["kernels"], w["biases"], w["dilations"], strict=False)
    for part, end, (kernel, bias, dilation) in zip(parts, ends, kernels, strict=False):
        reach = dilation * (kernel.shape[-1] - 1) // 2
        end.copy_(F.conv2d(part, kernel, bias, (1, stride), (0, reach), (1, dilation)))
    pool_bias = w["biases"][2].view(-1, 1, 1)
    torch.mul(_max_of_neighbours(third)[..., ::stride], w["pool"], out=ends[2]).add_(pool_bias)
    _convolve(w["plain"], w["biases"][3], z[..., ::stride], out=ends[3])
    if w["residual"] is True:
        y.add_(x)
    elif w["residual"] is not None:
        y.flatten(2).baddbmm_(w["residual"].expand(n, -1, -1), x[..., ::stride].flatten(2))
    return y.clamp_min_(0)


def _convolve(weight: Tensor, bias: Tensor, x: Tensor, out: Tensor) -> None:
    """Write the 1x1 convolution of maps x (n, C, V, T) to ``out``; weight (C_out, C)."""
    matrices = weight.expand(len(x), -1, -1)
    torch.baddbmm(bias.unsqueeze(1), matrices, x.flatten(2), out=out.flatten(2))


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
