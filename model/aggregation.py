"""The graph convolution's main product, sample by sample, with nothing large kept.

For one sample, features x (C_in, V, T), weights W (C, 3, C_in), and the topology as a product of
small factors, lift L (3, C, R') and relations m (3, R', V, V):

    a[c,k,v,u] = sum over r of L[k,c,r] m[k,r,v,u]
    f[c,k,v,t] = sum over i of W[c,k,i] x[i,v,t]
    z[c,u,t]   = sum over k, v of a[c,(k,v),u] f[c,(k,v),t] + offset[c,u]

f is three times as large as z, and a is as large. For one sample they fit in the processor's cache,
where a is cheaper to compute again for the gradient than to write to memory and read back. Keeping
f saves a tenth of the time of a training step; computing it again, a third of its memory
(``recompute``). With g the gradient of z,

    da[c,(k,v),u] = sum over t of f[c,(k,v),t] g[c,u,t], dL[k] = da[k] m[k]^T, dm[k] = L[k]^T da[k]
    df[c,(k,v),t] = sum over u of a[c,(k,v),u] g[c,u,t], dx = W^T df,  dW = df x^T
    doffset[c,u]  = sum over t of g[c,u,t]

Memory order: x and z are channels-last, (V, T, C); f is (C, 3, V, T) and a is (C, 3, V, V), so that
the sum over k and v is one product a channel, without a copy.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.threads import batch_slices, map_shares

NUM_SUBSET = 3


def aggregate(
    x: Tensor,
    weight: Tensor,
    lift: Tensor,
    relations: Tensor,
    offset: Tensor,
    *,
    recompute: bool = False,
) -> Tensor:
    """Transform features and sum them over subsets and joints, by the equations above.

    Under autocast all are cast to the autocast type first.

    Args:
        x: (N, C_in, V, T).
        weight: (3C, C_in), rows ordered (c, k).
        lift: (3, C, R').
        relations: (N, 3, R', V, V), the last two (v, u): from joint v to joint u.
        offset: (N, C, V).
        recompute: compute f again for the gradient instead of keeping it.

    Returns:
        (N, C, V, T), channels-last.
    """
    device = x.device.type
    arguments = [_rows(x), weight, lift, relations, offset]
    keep = torch.is_grad_enabled() and not recompute
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        arguments = [argument.to(dtype) for argument in arguments]
    with torch.autocast(device, enabled=False):
        z = _Aggregate.apply(*arguments, keep)
    return z.unflatten(1, (x.shape[2], -1)).permute(0, 3, 1, 2)


class _Aggregate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weight: Tensor,
        lift: Tensor,
        relations: Tensor,
        offset: Tensor,
        keep: bool,
    ) -> Tensor:
        v = relations.shape[-1]
        relations = relations.flatten(3)
        ctx.save_for_backward(rows, weight, lift, relations)
        ctx.features = {}
        z = rows.new_empty((*rows.shape[:2], lift.shape[1]))

        def work(parts: Sequence[slice]) -> None:
            a, f, total = (_scratch(rows[parts[0]], lift, v, kind) for kind in ("a", "f", "z"))
            for part in parts:
                if keep:
                    f = ctx.features[part.start] = torch.empty_like(f)
                _topology(lift, relations[part], a)
                _features(rows[part], weight, f)
                torch.baddbmm(offset[part].reshape(-1, v, 1), a.transpose(1, 2), f, out=total)
                _write_transposed(z[part], total.view(-1, *z.shape[:0:-1]))

        map_shares(work, batch_slices(rows, 1), rows.device)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, lift, relations = ctx.saved_tensors
        (dz,) = gradients
        v = math.isqrt(relations.shape[-1])
        drows, drelations = torch.empty_like(rows), torch.empty_like(relations)
        doffset = rows.new_empty((len(rows), lift.shape[1], v))
        exact = torch.promote_types(rows.dtype, torch.float32)

        def work(parts: Sequence[slice]) -> tuple[Tensor, Tensor]:
            dweight, dlift = (torch.zeros_like(w, dtype=exact) for w in (weight, lift))
            a, f, g = (_scratch(rows[parts[0]], lift, v, kind) for kind in ("a", "f", "z"))
            da, df = torch.empty_like(a), torch.empty_like(f)
            for part in parts:
                _topology(lift, relations[part], a)
                if part.start in ctx.features:
                    f = ctx.features.pop(part.start)
                else:
                    _features(rows[part], weight, f)
                _write_transposed(g.view(-1, *dz.shape[:0:-1]), dz[part])
                doffset[part] = g.sum(-1).view(doffset[part].shape)
                torch.bmm(f, g.transpose(1, 2), out=da)
                torch.bmm(a, g, out=df)
                dlift += _topology_backward(da, lift, relations[part], drelations[part])
                dweight += _features_backward(df, rows[part], weight, drows[part])
            return dweight, dlift

        shares = map_shares(work, batch_slices(rows, 1), rows.device)
        dweight, dlift = (sum(share).to(rows.dtype) for share in zip(*shares, strict=True))
        return drows, dweight, dlift, drelations.unflatten(3, (v, v)), doffset, None


def _rows(x: Tensor) -> Tensor:
    """Return maps (N, C, V, T) as rows (N, V*T, C), without a copy if they are channels-last."""
    return x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).flatten(1, 2)


def _scratch(rows: Tensor, lift: Tensor, v: int, kind: str) -> Tensor:
    """Return memory for a (n*C, 3V, V), f (n*C, 3V, T) or z (n*C, V, T) of samples (n, V*T, C_in).

    It is used again for sample after sample, so that it stays in the cache.
    """
    frames = rows.shape[1] // v
    shape = {"a": (NUM_SUBSET * v, v), "f": (NUM_SUBSET * v, frames), "z": (v, frames)}[kind]
    return rows.new_empty((len(rows) * lift.shape[1], *shape))


def _write_transposed(target: Tensor, x: Tensor) -> None:
    """Copy x (n, a, b) to (n, b, a).

    Single samples are copied as matrices, which torch transposes in tiles, several times faster.
    """
    if len(x) == 1:
        target[0].copy_(x[0].t())
    else:
        target.copy_(x.transpose(1, 2))


def _topology(lift: Tensor, relations: Tensor, a: Tensor) -> None:
    """Write a of relations (n, 3, R', V*V), (n*C, 3V, V)."""
    a = a.view(len(relations), lift.shape[1], NUM_SUBSET, -1)
    if len(relations) == 1:
        torch.bmm(lift, relations[0], out=a[0].transpose(0, 1))
    else:
        a.copy_(torch.matmul(lift, relations).transpose(1, 2))


def _topology_backward(da: Tensor, lift: Tensor, relations: Tensor, drelations: Tensor) -> Tensor:
    """Return the gradient of L, write that of relations (n, 3, R', V*V), from a's, (n*C, 3V, V)."""
    da = da.view(len(relations), lift.shape[1], NUM_SUBSET, -1).transpose(1, 2)
    if len(relations) == 1:
        torch.bmm(lift.transpose(1, 2), da[0], out=drelations[0])
        return torch.bmm(da[0], relations[0].transpose(1, 2))
    drelations.copy_(torch.matmul(lift.transpose(1, 2), da))
    return torch.matmul(da, relations.transpose(2, 3)).sum(0)


def _features(rows: Tensor, weight: Tensor, f: Tensor) -> None:
    """Write f = W x of rows (n, V*T, C_in), (n*C, 3V, T)."""
    f = f.view(len(rows), len(weight), -1)
    if len(rows) == 1:
        torch.mm(weight, rows[0].t(), out=f[0])
    else:
        f.copy_(torch.matmul(weight, rows.transpose(1, 2)))


def _features_backward(df: Tensor, rows: Tensor, weight: Tensor, drows: Tensor) -> Tensor:
    """Return the gradient of W (3C, C_in), write that of rows (n, V*T, C_in), from that of f."""
    df = df.view(len(rows), len(weight), -1)
    if len(rows) == 1:
        torch.mm(df[0].t(), weight, out=drows[0])
        return torch.mm(df[0], rows[0])
    flat = df.transpose(1, 2).flatten(0, 1)
    drows.copy_((flat @ weight).view(rows.shape))
    return flat.t() @ rows.flatten(0, 1)
