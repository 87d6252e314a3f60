"""Batch normalisation in training, of channels-last maps: exact sums, and all else in one pass.

torch's own kernel for channels-last maps on the CPU is fast, but adds tens of thousands of float32
numbers one after the other; the error of the mean that this leaves is several times that of
everything else in the network. Here the rows of the map (N * V * T rows of C numbers) are dealt to
up to 16 groups, torch's kernel treats each group's channels as channels of their own, and the
groups' means m_g and variances v_g are pooled in float64:

    mean = mean over g of m_g,   var = mean over g of v_g + (m_g - mean)^2

Concatenation, residual, ReLU and splitting, each of which would read and write the whole map again,
follow on a few samples at a time, which are still in the processor's cache. Statistics, and the
sums in their gradient, are those of the whole batch, where a thread has but a chunk of it.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model.cpu.threads import all_reduce, is_first

GROUPS = 16
CACHED_BYTES = 1 << 21
"""Size of a map that stays in the cache of one core with what is made from it."""
MOMENTUM = 0.1
"""Weight of the newest batch in running statistics: torch's default, as published."""


def normalize(
    parts: Sequence[Tensor],
    norms: Sequence[nn.BatchNorm2d],
    *,
    biases: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
    pieces: int = 1,
) -> tuple[Tensor, ...]:
    """Concatenate maps, batch-normalise, add a residual, apply ReLU, split: each where asked.

    Running statistics are updated. The maps' memory is used for their gradients, so that the
    backward pass can be run only once.

    Args:
        parts: (N, C_i, V, T) each.
        norms: modules in training, of one eps and momentum, for neighbouring ranges of the
            C = sum of C_i channels.
        biases: (C,), of the convolutions that the maps come from, where they were left out. A norm
            takes every constant away again: to add them, and to sum their gradients, which are
            zero, would be two passes over the map for nothing. Only the running means know of them.
        residual: (N, C, V, T).
        pieces: how many maps of equal width to return.

    Returns:
        New maps (N, C / pieces, V, T), channels-last.
    """
    weight, bias = (torch.cat([getattr(bn, name) for bn in norms]) for name in ("weight", "bias"))
    *maps, mean, var = _Normalize.apply(
        weight, bias, biases, norms[0].eps, relu, pieces, residual, *parts
    )
    if is_first():
        with torch.no_grad():
            mean = mean if biases is None else mean + biases
            widths = [bn.num_features for bn in norms]
            for bn, m, v in zip(norms, mean.split(widths), var.split(widths), strict=True):
                bn.get_buffer("running_mean").lerp_(m, MOMENTUM)
                bn.get_buffer("running_var").lerp_(v, MOMENTUM)
                bn.get_buffer("num_batches_tracked").add_(1)
    return tuple(maps)


class _Normalize(torch.autograd.Function):
    """What ``normalize`` does; also returns the batch's mean and unbiased variance, (C,) each."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        bias: Tensor,
        biases: Tensor | None,
        eps: float,
        relu: bool,
        pieces: int,
        residual: Tensor | None,
        *parts: Tensor,
    ) -> tuple[Tensor, ...]:
        parts = tuple(x.contiguous(memory_format=torch.channels_last) for x in parts)
        mean, var, ctx.count = _statistics(parts)
        first = parts[0]
        shape = (len(first), len(weight) // pieces, *first.shape[2:])
        maps = [
            torch.empty(shape, dtype=first.dtype, memory_format=torch.channels_last)
            for _ in range(pieces)
        ]
        for part in _slices(maps[0], CACHED_BYTES // pieces):
            x = first[part] if len(parts) == 1 else torch.cat([x[part] for x in parts], 1)
            y = torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, eps)[0]
            if residual is not None:
                y.add_(residual[part])
            for target, piece in zip(maps, y.chunk(pieces, dim=1), strict=True):
                if relu:
                    torch.clamp_min(piece, 0, out=target[part])
                else:
                    target[part] = piece
        ctx.eps, ctx.relu, ctx.pieces, ctx.biased = eps, relu, pieces, biases is not None
        ctx.residual_dtype = None if residual is None else residual.dtype
        kept = maps if relu else []
        ctx.save_for_backward(weight, mean, torch.rsqrt(var + eps), *kept, *parts)
        unbiased = var * (ctx.count / max(ctx.count - 1, 1))
        ctx.mark_non_differentiable(mean, unbiased)
        return (*maps, mean, unbiased)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, mean, inverse_deviation, *saved = ctx.saved_tensors
        gs, parts = list(gradients[: ctx.pieces]), saved
        if ctx.relu:
            threshold = torch.ops.aten.threshold_backward
            gs = [threshold(g, y, 0) for g, y in zip(gs, saved, strict=False)]
            parts = saved[len(gs) :]
        g = gs[0] if len(gs) == 1 else torch.cat(gs, dim=1)
        widths = [x.shape[1] for x in parts]
        dys = [dy.contiguous(memory_format=torch.channels_last) for dy in g.split(widths, dim=1)]
        columns = zip(*(c.split(widths) for c in (weight, mean, inverse_deviation)), strict=True)
        sums = [
            torch.ops.aten.native_batch_norm_backward(
                dy, x, w, None, None, m, s, True, ctx.eps, [False, True, True]
            )[1:]
            for dy, x, (w, m, s) in zip(dys, parts, columns, strict=True)
        ]
        dweight, dbias = map(torch.cat, zip(*sums, strict=True))
        line = _gradient_line(weight, inverse_deviation, dweight, dbias, ctx.count)
        columns = zip(*(c.split(widths) for c in (*line, mean)), strict=True)
        for dy, x, column in zip(dys, parts, columns, strict=True):
            _write_gradient(dy, x, *column)
        dresidual = None if ctx.residual_dtype is None else g.to(ctx.residual_dtype)
        dbiases = torch.zeros_like(dbias) if ctx.biased else None
        return dweight, dbias, dbiases, None, None, None, dresidual, *parts


def _gradient_line(
    weight: Tensor, inverse_deviation: Tensor, dweight: Tensor, dbias: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a, b and c, (C,) each, of dx = a dy + b (x - mean) + c in a chunk of a batch.

    With x^ = (x - mean) / deviation, and means over the ``count`` rows of the whole batch,

        dx = weight / deviation (dy - mean of dy - x^ mean of (dy x^))

    and the sums of dy and of dy x^ over a chunk are its gradients of bias and weight.
    """

    def reduce(chunks: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        mean_product, mean_dy = (sum(chunk) / count for chunk in zip(*chunks, strict=True))
        a = weight * inverse_deviation
        return a, -a * inverse_deviation * mean_product, -a * mean_dy

    return all_reduce((dweight, dbias), reduce)


def _write_gradient(dy: Tensor, x: Tensor, a: Tensor, b: Tensor, c: Tensor, mean: Tensor) -> None:
    """Overwrite the map x with its gradient, a dy + b (x - mean) + c."""
    for part in _slices(x, CACHED_BYTES):
        line = _affine(x[part], b, c, mean)
        if a.dtype == x.dtype:
            torch.addcmul(line, dy[part], a.view(-1, 1, 1), out=x[part])
        else:  # in the map's precision a would be too coarse
            zero = torch.zeros_like(mean)
            torch.add(line, _affine(dy[part], a, zero, zero), out=x[part])


def _affine(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor) -> Tensor:
    """Return weight (x - mean) + bias, by channels, with torch's kernel for batch norms."""
    var = torch.ones_like(mean)
    return torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, 0.0)[0]


def _slices(x: Tensor, size: int) -> Iterator[slice]:
    """Yield slices of a batch: of at most ``size`` bytes of x, or of one sample."""
    step = max(1, size // (x[:1].numel() * x.element_size()))
    for start in range(0, len(x), step):
        yield slice(start, start + step)


def _statistics(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor, int]:
    """Return mean and biased variance of each channel, in the parameters' precision, and the rows.

    Of the whole batch, also where there is but a chunk of it here.
    """
    count = parts[0].numel() // parts[0].shape[1]
    groups = math.gcd(GROUPS, count)
    own = []
    for x in parts:
        channels = groups * x.shape[1]
        rows = x.permute(0, 2, 3, 1).reshape(1, -1, 1, channels).permute(0, 3, 1, 2)
        found = torch.batch_norm_update_stats(rows, None, None, 0.0)
        own.append(torch.stack(found).view(2, groups, -1))
    dtype = torch.promote_types(parts[0].dtype, torch.float32)

    def reduce(chunks: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor, int]:
        groups, counts = zip(*chunks, strict=True)
        means, variances = torch.cat(groups, dim=1).double()
        sizes = [count / len(own[0]) for own, count in chunks for _ in own[0]]
        weights = means.new_tensor(sizes).unsqueeze(1) / sum(counts)
        mean = (means * weights).sum(0)
        var = ((variances + (means - mean).square()) * weights).sum(0)
        return mean.to(dtype), var.to(dtype), sum(counts)

    return all_reduce((torch.cat(own, dim=2), count), reduce)
