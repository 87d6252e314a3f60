"""Batch normalisation of channels-last maps: exact sums, several modules in one pass.

torch's own kernel for channels-last maps on the CPU is fast, but adds tens of thousands of float32
numbers one after the other; the error of the mean that this leaves is several times that of
everything else in the network. Here the rows of the map (N * V * T rows of C numbers) are dealt to
up to 16 groups, torch's kernel treats each group's channels as channels of their own, and the
groups' means m_g and variances v_g are joined in float64:

    mean = mean over g of m_g,   var = mean over g of v_g + (m_g - mean)^2

The rest, and the gradient, are torch's kernels.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

GROUPS = 16
MOMENTUM = 0.1
"""Weight of the newest batch in running statistics: torch's default, as published."""


def normalize(x: Tensor, norms: Sequence[nn.BatchNorm2d]) -> Tensor:
    """Apply batch norms to neighbouring ranges of channels of one map, as one.

    In training mode their running statistics are updated.

    Args:
        x: (N, C, V, T), channels-last for speed; C is the sum of the modules' channels.
        norms: modules of one mode, with torch's default eps and momentum.

    Returns:
        A new (N, C, V, T), not kept for the gradient, so that it may be changed in place.
    """
    weight, bias = (torch.cat([getattr(bn, name) for bn in norms]) for name in ("weight", "bias"))
    if not norms[0].training:
        mean = torch.cat([bn.get_buffer("running_mean") for bn in norms])
        var = torch.cat([bn.get_buffer("running_var") for bn in norms])
        return F.batch_norm(x, mean, var, weight, bias, eps=norms[0].eps)
    y, mean, var = _Normalize.apply(x, weight, bias, norms[0].eps)
    with torch.no_grad():
        count = x.numel() // x.shape[1]
        unbiased = var * (count / max(count - 1, 1))
        widths = [bn.num_features for bn in norms]
        for bn, m, v in zip(norms, mean.split(widths), unbiased.split(widths), strict=True):
            bn.get_buffer("running_mean").lerp_(m, MOMENTUM)
            bn.get_buffer("running_var").lerp_(v, MOMENTUM)
            bn.get_buffer("num_batches_tracked").add_(1)
    return y


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
        return normalize(F.conv2d(x, weight, bias, **options), norms)
    scale, shift = affine(norms)
    return F.conv2d(x, weight * scale.view(-1, 1, 1, 1), bias * scale + shift, **options)


class _Normalize(torch.autograd.Function):
    """Batch normalisation with the statistics of the batch; also returns them, (C,) each."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = x.contiguous(memory_format=torch.channels_last)
        mean, var = _statistics(x)
        ctx.eps = eps
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(var + eps))
        ctx.mark_non_differentiable(mean, var)
        y = torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, eps)[0]
        return y, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_deviation = ctx.saved_tensors
        dy = gradients[0].contiguous(memory_format=torch.channels_last)
        dx, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, None, None, mean, inverse_deviation, True, ctx.eps, [True, True, True]
        )
        return dx, dweight, dbias, None


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
