"""The graph convolution's main product, sample by sample, with nothing large kept.

For one sample, features x (C_in, V, T), weights W (C, 3, C_in) and a topology A (C, V, 3V):

    f[c,k,v,t] = sum over i of W[c,k,i] x[i,v,t]
    z[c,u,t]   = sum over k, v of A[c,u,(k,v)] f[c,(k,v),t] + offset[c,u]

f is three times as large as z and is needed again for the gradient of A. It is computed again
instead of kept: for one sample it fits in the processor's cache, where the product that makes it
is cheaper than writing f to memory and reading it back. With g the gradient of z,

    dA[c,u,(k,v)] = sum over t of g[c,u,t] f[c,(k,v),t]
    df[c,(k,v),t] = sum over u of A[c,u,(k,v)] g[c,u,t]
    dx = W^T df,   dW = df x^T,   doffset[c,u] = sum over t of g[c,u,t]

Memory order: x and z are channels-last, (V, T, C); f is (C, 3, V, T), so that A meets it as one
batched product over channels, without a copy.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

PIXEL_GROUPS = 16
"""Rows of a product are handed to the convolution as this many images: with one thread, torch
sends 1x1 convolutions of fewer images to a routine half as fast."""


def aggregate(x: Tensor, weight: Tensor, topology: Tensor, offset: Tensor) -> Tensor:
    """Transform features and sum them over subsets and joints, by the equations above.

    Under autocast all are cast to the autocast type first.

    Args:
        x: (N, C_in, V, T).
        weight: (3C, C_in), rows ordered (c, k).
        topology: (N, C, V, 3V), columns ordered (k, v).
        offset: (N, C, V).

    Returns:
        (N, C, V, T), channels-last.
    """
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return _Aggregate.apply(x, weight, topology, offset)
    dtype = torch.get_autocast_dtype(device)
    arguments = [tensor.to(dtype) for tensor in (x, weight, topology, offset)]
    with torch.autocast(device, enabled=False):
        return _Aggregate.apply(*arguments)


class _Aggregate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, topology: Tensor, offset: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight, topology)
        n, _, v, t = x.shape
        z = x.new_empty((n, offset.shape[1], v, t)).to(memory_format=torch.channels_last)
        for part in _parts(x):
            f = _features(x[part], weight, v)
            a, base = topology[part].flatten(0, 1), offset[part].reshape(-1, v, 1)
            z[part] = torch.baddbmm(base, a, f).view(-1, *z.shape[1:])
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        x, weight, topology = ctx.saved_tensors
        (dz,) = gradients
        v = x.shape[2]
        dx, dtopology = torch.empty_like(x), torch.empty_like(topology)
        dweight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
        for part in _parts(x):
            f = _features(x[part], weight, v)
            g = dz[part].contiguous().flatten(0, 1)
            a = topology[part].flatten(0, 1)
            dtopology[part] = torch.bmm(g, f.transpose(1, 2)).view_as(dtopology[part])
            df = torch.bmm(a.transpose(1, 2), g)
            dx[part], dw = _features_backward(df, x[part], weight)
            dweight += dw
        return dx, dweight.to(weight.dtype), dtopology, dz.sum(-1)


def _parts(x: Tensor) -> list[slice]:
    """Return slices of the batch: single samples on a processor with caches, else all at once."""
    size = 1 if x.device.type == "cpu" else len(x)
    return [slice(start, start + size) for start in range(0, len(x), size)]


def _by_convolution(x: Tensor) -> bool:
    """Whether 1x1 convolutions beat matrix products: float32 on the CPU.

    torch computes float32 matrix products there with MKL, which on processors of another maker
    stays at half of what oneDNN's convolutions reach (measured: 215 and 440 GFLOP/s).
    """
    return x.device.type == "cpu" and x.dtype == torch.float32


def _features(x: Tensor, weight: Tensor, v: int) -> Tensor:
    """Return W x of channels-last x as (n*C, 3V, T).

    As a convolution the parts are swapped: the weights are the image, one pixel a row, and the
    sample's positions are the filters. Its channels-last output (row, position) is f as wanted.
    """
    n, i, _, t = x.shape
    positions = x.permute(0, 2, 3, 1).flatten(1, 2)
    if _by_convolution(x) and len(weight) % PIXEL_GROUPS == 0:
        image = weight.view(PIXEL_GROUPS, -1, 1, i).permute(0, 3, 1, 2)
        filters = positions.view(-1, i, 1, 1)
        f = F.conv2d(image, filters).permute(0, 2, 3, 1)
    else:
        f = torch.matmul(weight, positions.transpose(1, 2))
    return f.reshape(n * len(weight) // 3, 3 * v, t)


def _features_backward(df: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of x (n, C_in, V, T), channels-last, and W (3C, C_in)."""
    n, i, v, t = x.shape
    if not _by_convolution(x):
        df = df.view(n, -1, v * t)
        dx = torch.matmul(df.transpose(1, 2), weight).view(n, v, t, i).permute(0, 3, 1, 2)
        positions = x.permute(0, 2, 3, 1).flatten(1, 2)
        return dx, torch.bmm(df, positions).sum(0)
    # One image a joint: (V, C, T, 1) of the sample's (V, T, C).
    rows = df.view(len(weight), v, t).permute(1, 2, 0).contiguous()
    dx, dw, _ = torch.ops.aten.convolution_backward(
        rows.permute(0, 2, 1).unsqueeze(-1),
        x[0].permute(1, 0, 2).unsqueeze(-1),
        weight[:, :, None, None],
        None,
        [1, 1],
        [0, 0],
        [1, 1],
        False,
        [0, 0],
        1,
        [True, True, False],
    )
    return dx.squeeze(-1).permute(1, 0, 2).unsqueeze(0), dw.flatten(1)
