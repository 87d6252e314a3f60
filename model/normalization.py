"""Batch normalisation of channels-last maps: exact sums, and all that follows in one pass.

torch's own kernel for channels-last maps on the CPU is fast, but adds tens of thousands of float32
numbers one after the other; the error of the mean that this leaves is several times that of
everything else in the network. Here the rows of the map (N * V * T rows of C numbers) are dealt to
up to 16 groups, torch's kernel treats each group's channels as channels of their own, and the
groups' means m_g and variances v_g are joined in float64:

    mean = mean over g of m_g,   var = mean over g of v_g + (m_g - mean)^2

Concatenation, residual, ReLU and splitting, each of which would read and write the whole map again,
follow on a few samples at a time, which are still in the processor's cache. The rest is torch's
kernels, and so is the gradient of a whole batch; that of a share of it (see ``model.shares``) is
put together here, from sums over all shares.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from model.shares import combine, in_share, is_first
from model.threads import batch_slices, map_shares

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

    In training mode the running statistics are updated. In a share of a batch the statistics are
    those of the whole (``model.shares``), and the maps' memory is used for their gradients.

    Args:
        parts: (N, C_i, V, T) each, channels-last for speed.
        norms: modules of one mode, with torch's default eps and momentum, for neighbouring ranges
            of the C = sum of C_i channels.
        biases: (C,), of the convolutions that the maps come from, where they were left out. A norm
            with the statistics of the batch takes every constant away again: to add them, and to
            sum their gradients, which are zero, would be two passes over the map for nothing. Only
            the running means know of them.
        residual: (N, C, V, T).
        pieces: how many maps of equal width to return.

    Returns:
        New maps (N, C / pieces, V, T), channels-last.
    """
    weight, bias = _joined(norms, "weight"), _joined(norms, "bias")
    eps = norms[0].eps
    if not norms[0].training:
        mean, var = _joined(norms, "running_mean"), _joined(norms, "running_var")
        x = torch.cat(list(parts), dim=1)
        x = x if biases is None else x + biases.view(-1, 1, 1)
        y = F.batch_norm(x, mean, var, weight, bias, eps=eps)
        y = y if residual is None else y.add_(residual)
        return (F.relu_(y) if relu else y).chunk(pieces, dim=1)
    *maps, mean, var = _Normalize.apply(weight, bias, biases, eps, relu, pieces, residual, *parts)
    if is_first():
        _track(norms, mean if biases is None else mean + biases, var)
    return tuple(maps)


@torch.no_grad()
def _track(norms: Sequence[nn.BatchNorm2d], mean: Tensor, var: Tensor) -> None:
    """Let the running statistics follow a batch's mean and unbiased variance (C,)."""
    widths = [bn.num_features for bn in norms]
    for bn, m, v in zip(norms, mean.split(widths), var.split(widths), strict=True):
        bn.get_buffer("running_mean").lerp_(m, MOMENTUM)
        bn.get_buffer("running_var").lerp_(v, MOMENTUM)
        bn.get_buffer("num_batches_tracked").add_(1)


def join(parts: Sequence[Tensor], residual: Tensor | None) -> Tensor:
    """Return ReLU(concatenated parts + residual), where what went before is normalised already.

    Args:
        parts: (N, C_i, V, T) each.
        residual: (N, sum of C_i, V, T).
    """
    z = torch.cat(list(parts), dim=1)
    return F.relu(z if residual is None else z + residual)


def affine(norms: Sequence[nn.BatchNorm2d]) -> tuple[Tensor, Tensor]:
    """Return scale and shift (C,) of batch norms in evaluation mode: y = scale x + shift."""
    scale = _joined(norms, "weight") * torch.rsqrt(_joined(norms, "running_var") + norms[0].eps)
    mean, bias = _joined(norms, "running_mean"), _joined(norms, "bias")
    return scale, torch.addcmul(bias, mean, scale, value=-1)


def _joined(norms: Sequence[nn.BatchNorm2d], name: str) -> Tensor:
    """Return an entry of norms for neighbouring ranges of channels, (C,)."""
    entries = [getattr(bn, name) for bn in norms]
    return entries[0] if len(entries) == 1 else torch.cat(entries)


def convolve_and_normalize(
    x: Tensor, weight: Tensor, bias: Tensor, norms: Sequence[nn.BatchNorm2d], **options: Any
) -> Tensor:
    """Return a convolution followed by batch norms; ``options`` are those of ``conv2d``.

    In evaluation mode the norms are folded into the weights, which are small, at each call: there
    is no second copy of the model that could grow stale.
    """
    if norms[0].training:
        return normalize([F.conv2d(x, weight, **options)], norms, biases=bias)[0]
    return F.conv2d(x, *fold(weight, bias, norms), **options)


def fold(weight: Tensor, bias: Tensor, norms: Sequence[nn.BatchNorm2d]) -> tuple[Tensor, Tensor]:
    """Return weight (C, ...) and bias (C,) of a linear map with the norms that follow it.

    The norms are in evaluation mode, for neighbouring ranges of the C channels.
    """
    scale, shift = affine(norms)
    by_rows = scale.view(-1, *[1] * (weight.dim() - 1))
    return weight * by_rows, torch.addcmul(shift, bias, scale)


class _Normalize(torch.autograd.Function):
    """What ``normalize`` does with the statistics of the batch.

    Also returns its mean and unbiased variance, (C,) each.
    """

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
        maps = _maps(parts[0], len(weight), pieces)

        def work(slices: Sequence[slice]) -> None:
            for part in slices:
                x = parts[0][part] if len(parts) == 1 else torch.cat([x[part] for x in parts], 1)
                y = torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, eps)[0]
                if residual is not None:
                    y.add_(residual[part])
                for target, piece in zip(maps, y.chunk(pieces, dim=1), strict=True):
                    if relu:
                        torch.clamp_min(piece, 0, out=target[part])
                    else:
                        target[part] = piece

        map_shares(work, batch_slices(maps[0], CACHED_BYTES // pieces), weight.device)
        ctx.eps, ctx.relu, ctx.pieces = eps, relu, pieces
        ctx.residual_dtype = None if residual is None else residual.dtype
        ctx.biased = biases is not None
        kept = maps if relu else []
        ctx.save_for_backward(weight, mean, torch.rsqrt(var + eps), *kept, *parts)
        unbiased = var * (ctx.count / max(ctx.count - 1, 1))
        ctx.mark_non_differentiable(mean, unbiased)
        return (*maps, mean, unbiased)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, mean, inverse_deviation, *saved = ctx.saved_tensors
        gs = list(gradients[: ctx.pieces])
        if ctx.relu:
            gs = [
                torch.ops.aten.threshold_backward(g, y, 0) for g, y in zip(gs, saved, strict=False)
            ]
        g = gs[0] if len(gs) == 1 else torch.cat(gs, dim=1)
        parts = saved[len(gs) if ctx.relu else 0 :]
        widths = [x.shape[1] for x in parts]
        dys = [dy.contiguous(memory_format=torch.channels_last) for dy in g.split(widths, dim=1)]
        columns = zip(*(c.split(widths) for c in (weight, mean, inverse_deviation)), strict=True)
        whole = not in_share()
        found = [
            torch.ops.aten.native_batch_norm_backward(
                dy, x, w, None, None, m, s, True, ctx.eps, [whole, True, True]
            )
            for dy, x, (w, m, s) in zip(dys, parts, columns, strict=True)
        ]
        dparts, *sums = zip(*found, strict=True)
        dweight, dbias = map(torch.cat, sums)
        if not whole:
            line = _gradient_line(weight, mean, inverse_deviation, dweight, dbias, ctx.count)
            columns = zip(*(c.split(widths) for c in line), strict=True)
            for dy, x, column in zip(dys, parts, columns, strict=True):
                _write_gradient(dy, x, *column)
            dparts = parts
        dresidual = None if ctx.residual_dtype is None else g.to(ctx.residual_dtype)
        dbiases = torch.zeros_like(dbias) if ctx.biased else None
        return dweight, dbias, dbiases, None, None, None, dresidual, *dparts


def _gradient_line(
    weight: Tensor,
    mean: Tensor,
    inverse_deviation: Tensor,
    dweight: Tensor,
    dbias: Tensor,
    count: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a, b, c and mean, (C,) each, of dx = a dy + b (x - mean) + c in a share of a batch.

    With x^ = (x - mean) / deviation, and means over the ``count`` rows of the whole batch,

        dx = weight / deviation (dy - mean of dy - x^ mean of (dy x^))

    and the sums of dy and of dy x^ over a share are its gradients of bias and weight.
    """

    def join(shares: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean_product, mean_dy = (sum(share) / count for share in zip(*shares, strict=True))
        a = weight * inverse_deviation
        return a, -a * inverse_deviation * mean_product, -a * mean_dy, mean

    return combine((dweight, dbias), join)


def _write_gradient(dy: Tensor, x: Tensor, a: Tensor, b: Tensor, c: Tensor, mean: Tensor) -> None:
    """Overwrite the map x with its gradient, a dy + b (x - mean) + c."""
    for part in batch_slices(x, CACHED_BYTES):
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


def _maps(like: Tensor, channels: int, pieces: int) -> list[Tensor]:
    """Return new maps, channels-last, that together have ``channels``, else like the given one."""
    shape = (len(like), channels // pieces, *like.shape[2:])
    return [
        torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)
        for _ in range(pieces)
    ]


def _statistics(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor, int]:
    """Return mean and biased variance of each channel, in the parameters' precision, and the rows.

    Of the whole batch, also where there is but a share of it here.
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

    def join(shares: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor, int]:
        groups, counts = zip(*shares, strict=True)
        means, variances = torch.cat(groups, dim=1).double()
        sizes = [count / len(own[0]) for own, count in shares for _ in own[0]]
        weights = means.new_tensor(sizes).unsqueeze(1) / sum(counts)
        mean = (means * weights).sum(0)
        var = ((variances + (means - mean).square()) * weights).sum(0)
        return mean.to(dtype), var.to(dtype), sum(counts)

    return combine((torch.cat(own, dim=2), count), join)
