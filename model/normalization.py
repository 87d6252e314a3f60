"""Batch normalisation of channels-last maps: exact sums, and all that follows in one pass.

torch's own kernel for channels-last maps on the CPU is fast, but adds tens of thousands of float32
numbers one after the other; the error of the mean that this leaves is several times that of
everything else in the network. Here the rows of the map (N * V * T rows of C numbers) are dealt to
up to 16 groups, torch's kernel treats each group's channels as channels of their own, and the
groups' means m_g and variances v_g are joined in float64:

    mean = mean over g of m_g,   var = mean over g of v_g + (m_g - mean)^2

Concatenation, residual, ReLU and splitting, each of which would read and write the whole map again,
follow on a few samples at a time, which are still in the processor's cache. The rest, and the
gradient, are torch's kernels.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from model.threads import batch_slices, map_shares

GROUPS = 16
CACHED_BYTES = 1 << 20
"""Size of a map that stays in the cache of one core with what is made from it."""
MOMENTUM = 0.1
"""Weight of the newest batch in running statistics: torch's default, as published."""


def normalize(
    parts: Sequence[Tensor],
    norms: Sequence[nn.BatchNorm2d],
    *,
    residual: Tensor | None = None,
    relu: bool = False,
    pieces: int = 1,
) -> tuple[Tensor, ...]:
    """Concatenate maps, batch-normalise, add a residual, apply ReLU, split: each where asked.

    In training mode the running statistics are updated.

    Args:
        parts: (N, C_i, V, T) each, channels-last for speed.
        norms: modules of one mode, with torch's default eps and momentum, for neighbouring ranges
            of the C = sum of C_i channels.
        residual: (N, C, V, T).
        pieces: how many maps of equal width to return.

    Returns:
        New maps (N, C / pieces, V, T), channels-last.
    """
    weight, bias = (torch.cat([getattr(bn, name) for bn in norms]) for name in ("weight", "bias"))
    eps = norms[0].eps
    if not norms[0].training:
        mean = torch.cat([bn.get_buffer("running_mean") for bn in norms])
        var = torch.cat([bn.get_buffer("running_var") for bn in norms])
        y = F.batch_norm(torch.cat(list(parts), dim=1), mean, var, weight, bias, eps=eps)
        y = y if residual is None else y.add_(residual)
        return (F.relu_(y) if relu else y).chunk(pieces, dim=1)
    *maps, mean, var = _Normalize.apply(weight, bias, eps, relu, pieces, residual, *parts)
    with torch.no_grad():
        count = parts[0].numel() // parts[0].shape[1]
        unbiased = var * (count / max(count - 1, 1))
        widths = [bn.num_features for bn in norms]
        for bn, m, v in zip(norms, mean.split(widths), unbiased.split(widths), strict=True):
            bn.get_buffer("running_mean").lerp_(m, MOMENTUM)
            bn.get_buffer("running_var").lerp_(v, MOMENTUM)
            bn.get_buffer("num_batches_tracked").add_(1)
    return tuple(maps)


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
    weight, bias = (torch.cat([getattr(bn, name) for bn in norms]) for name in ("weight", "bias"))
    mean = torch.cat([bn.get_buffer("running_mean") for bn in norms])
    var = torch.cat([bn.get_buffer("running_var") for bn in norms])
    scale = weight * torch.rsqrt(var + norms[0].eps)
    return scale, bias - mean * scale


def convolve_and_normalize(
    x: Tensor, weight: Tensor, bias: Tensor, norms: Sequence[nn.BatchNorm2d], **options: Any
) -> Tensor:
    """Return a convolution followed by batch norms; ``options`` are those of ``conv2d``.

    In evaluation mode the norms are folded into the weights, which are small, at each call: there
    is no second copy of the model that could grow stale.
    """
    if norms[0].training:
        return normalize([F.conv2d(x, weight, bias, **options)], norms)[0]
    return F.conv2d(x, *fold(weight, bias, norms), **options)


def fold(weight: Tensor, bias: Tensor, norms: Sequence[nn.BatchNorm2d]) -> tuple[Tensor, Tensor]:
    """Return weight (C, ...) and bias (C,) of a linear map with the norms that follow it.

    The norms are in evaluation mode, for neighbouring ranges of the C channels.
    """
    scale, shift = affine(norms)
    return weight * scale.view(-1, *[1] * (weight.dim() - 1)), bias * scale + shift


class _Normalize(torch.autograd.Function):
    """What ``normalize`` does with the statistics of the batch; also returns them, (C,) each."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        relu: bool,
        pieces: int,
        residual: Tensor | None,
        *parts: Tensor,
    ) -> tuple[Tensor, ...]:
        parts = tuple(x.contiguous(memory_format=torch.channels_last) for x in parts)
        mean, var = (torch.cat(s) for s in zip(*map(_statistics, parts), strict=True))
        widths = [x.shape[1] for x in parts]
        columns = [c.split(widths) for c in (weight, bias, mean, var)]
        maps = _maps(parts, pieces)

        def work(slices: Sequence[slice]) -> None:
            for part in slices:
                y = [
                    torch.native_batch_norm(x[part], w, b, m, s, False, 0.0, eps)[0]
                    for x, w, b, m, s in zip(parts, *columns, strict=True)
                ]
                _finish(y, part, residual, maps, relu=relu)

        map_shares(work, batch_slices(maps[0], CACHED_BYTES // pieces), weight.device)
        ctx.eps, ctx.relu, ctx.pieces = eps, relu, pieces
        ctx.residual_dtype = None if residual is None else residual.dtype
        kept = maps if relu else []
        ctx.save_for_backward(weight, mean, torch.rsqrt(var + eps), *kept, *parts)
        ctx.mark_non_differentiable(mean, var)
        return (*maps, mean, var)

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
        columns = [c.split(widths) for c in (weight, mean, inverse_deviation)]
        found = [
            torch.ops.aten.native_batch_norm_backward(
                own.contiguous(memory_format=torch.channels_last),
                x,
                w,
                None,
                None,
                m,
                deviation,
                True,
                ctx.eps,
                [True, True, True],
            )
            for own, x, w, m, deviation in zip(g.split(widths, dim=1), parts, *columns, strict=True)
        ]
        dparts, dweight, dbias = zip(*found, strict=True)
        dresidual = None if ctx.residual_dtype is None else g.to(ctx.residual_dtype)
        return torch.cat(dweight), torch.cat(dbias), None, None, None, dresidual, *dparts


def _maps(parts: Sequence[Tensor], pieces: int) -> list[Tensor]:
    """Return new maps, channels-last, that together are as wide as the parts."""
    first = parts[0]
    width = sum(x.shape[1] for x in parts) // pieces
    return [
        torch.empty(
            (len(first), width, *first.shape[2:]),
            dtype=first.dtype,
            device=first.device,
            memory_format=torch.channels_last,
        )
        for _ in range(pieces)
    ]


def _finish(
    y: list[Tensor], part: slice, residual: Tensor | None, maps: list[Tensor], *, relu: bool
) -> None:
    """Concatenate some samples' maps, add their residual, apply ReLU; split into ``maps[part]``."""
    z = y[0] if len(y) == 1 else torch.cat(y, dim=1)
    if residual is not None:
        z.add_(residual[part])
    for target, piece in zip(maps, z.chunk(len(maps), dim=1), strict=True):
        if relu:
            torch.clamp_min(piece, 0, out=target[part])
        else:
            target[part] = piece


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of each channel, in the parameters' precision."""
    channels = x.shape[1]
    groups = math.gcd(GROUPS, x.numel() // channels)
    rows = x.permute(0, 2, 3, 1).reshape(1, -1, 1, groups * channels).permute(0, 3, 1, 2)
    means, variances = (
        part.double().view(groups, channels)
        for part in torch.batch_norm_update_stats(rows, None, None, 0.0)
    )
    mean = means.mean(0)
    var = (variances + (means - mean).square()).mean(0)
    dtype = torch.promote_types(x.dtype, torch.float32)
    return mean.to(dtype), var.to(dtype)
