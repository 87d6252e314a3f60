"""The graph convolution's main product, sample by sample, with nothing large kept.

With the three subsets k side by side, for one sample, features x (C_in, V, T), weights
W (C, 3, C_in), and the topology as a product of small factors, lift L = [alpha W4, alpha b4, 1]
(3, C, R + 2) and relations m = [tanh(phi - psi), 1, PA] (3, R + 2, V, V):

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

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

NUM_SUBSET = 3


def subset_weights(unit: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return a graph unit's W (3C, C_in), rows ordered (c, k), its bias (3, C) and L."""
    convs = unit.convs
    weight = torch.stack([conv.conv3.weight for conv in convs], dim=1).flatten(2).flatten(0, 1)
    bias = torch.stack([conv.conv3.bias for conv in convs])
    w4 = unit.alpha * torch.stack([conv.conv4.weight for conv in convs]).flatten(2)
    b4 = unit.alpha * torch.stack([conv.conv4.bias for conv in convs]).unsqueeze(-1)
    return weight, bias, torch.cat([w4, b4, torch.ones_like(b4)], dim=-1)


def relation_weights(unit: Any) -> tuple[Tensor, Tensor]:
    """Return weights (6R, C_in) and biases (6R,) of phi and then psi, each of three subsets."""
    parts = [conv.conv1 for conv in unit.convs] + [conv.conv2 for conv in unit.convs]
    weight = torch.cat([part.weight for part in parts]).flatten(1)
    return weight, torch.cat([part.bias for part in parts])


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
    rows = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).flatten(1, 2)
    arguments = [rows, weight, lift, relations, offset]
    if torch.is_autocast_enabled("cpu"):
        arguments = [argument.to(torch.get_autocast_dtype("cpu")) for argument in arguments]
    with torch.autocast("cpu", enabled=False):
        z = _Aggregate.apply(*arguments, not recompute)
    return z.unflatten(1, (x.shape[2], -1)).permute(0, 3, 1, 2)


class _Aggregate(torch.autograd.Function):
    """z as rows (N, V*T, C), sample after sample, each in memory that the one before has used."""

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
        ctx.save_for_backward(rows, weight, lift, relations)
        c, v = offset.shape[1:]
        z = rows.new_empty((*rows.shape[:2], c))
        scratch, ctx.features = _Scratch(rows, c, v), []
        samples = (rows.transpose(1, 2), relations.flatten(3), offset.unsqueeze(3), z)
        for x, relation, shift, target in zip(*samples, strict=True):
            if keep:
                scratch.renew_features()
                ctx.features.append(scratch.f)
            torch.bmm(lift, relation, out=scratch.a_of_subsets)
            torch.mm(weight, x, out=scratch.f_rows)
            torch.baddbmm(shift, scratch.a_transposed, scratch.f, out=scratch.z)
            target.copy_(scratch.z_rows)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, lift, relations = ctx.saved_tensors
        (dz,) = gradients
        c, v = lift.shape[1], relations.shape[-1]
        drows, drelations = torch.empty_like(rows), torch.empty_like(relations)
        doffset = dz.unflatten(1, (v, -1)).sum(2).transpose(1, 2)
        exact = torch.promote_types(rows.dtype, torch.float32)
        dweight, dlift = (torch.zeros_like(w, dtype=exact) for w in (weight, lift))
        scratch, gradient = _Scratch(rows, c, v), _Scratch(rows, c, v)
        lift_transposed = lift.transpose(1, 2)
        features, ctx.features = ctx.features, []
        samples = (rows, relations.flatten(3), dz.transpose(1, 2), drows, drelations.flatten(3))
        for number, (x, relation, dz, dx, drelation) in enumerate(zip(*samples, strict=True)):
            torch.bmm(lift, relation, out=scratch.a_of_subsets)
            if features:
                f, features[number] = features[number], None
            else:
                f = scratch.f
                torch.mm(weight, x.t(), out=scratch.f_rows)
            gradient.z.view(c, -1).copy_(dz)
            torch.bmm(f, gradient.z_transposed, out=gradient.a)
            torch.bmm(scratch.a, gradient.z, out=gradient.f)
            torch.bmm(lift_transposed, gradient.a_of_subsets, out=drelation)
            dlift += torch.bmm(gradient.a_of_subsets, relation.transpose(1, 2))
            torch.mm(gradient.f_rows.t(), weight, out=dx)
            dweight += torch.mm(gradient.f_rows, x)
        return drows, dweight.to(rows.dtype), dlift.to(rows.dtype), drelations, doffset, None


class _Scratch:
    """Memory for a (C, 3V, V), f (C, 3V, T) and z (C, V, T) of one sample, and views of it.

    It is used again for sample after sample, so that it stays in the cache.

    Args:
        rows: (N, V*T, C_in), of the type that is wanted.
    """

    def __init__(self, rows: Tensor, c: int, v: int) -> None:
        self.a = rows.new_empty((c, NUM_SUBSET * v, v))
        self.a_of_subsets = self.a.view(c, NUM_SUBSET, v * v).transpose(0, 1)
        self.a_transposed = self.a.transpose(1, 2)
        self.z = rows.new_empty((c, v, rows.shape[1] // v))
        self.z_transposed = self.z.transpose(1, 2)
        self.z_rows = self.z.view(c, -1).t()
        self.renew_features()

    def renew_features(self) -> None:
        """Take new memory for f: what was there is kept."""
        c, v, t = self.z.shape
        self.f = self.z.new_empty((c, NUM_SUBSET * v, t))
        self.f_rows = self.f.view(-1, v * t)
