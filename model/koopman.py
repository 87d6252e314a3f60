"""Koopman operators: the score of a sequence, and the least-squares fit to one.

A Koopman operator K (d, d) advances pooled features by one frame: x[:, t + 1] ~ K x[:, t]
(Wang et al., Neural Koopman Pooling, CVPR 2023).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.errors import ModelError

CLASS_BLOCK = 8
"""Classes scored at a time: their residuals, about a megabyte a class, stay near the caches."""


def koopman_scores(x: Tensor, K: Tensor) -> Tensor:
    """Score sequences by how well each class's linear dynamics predict the next frame.

        scores[n, c] = - mean over t of || K[c] x[n, :, t] - x[n, :, t + 1] ||_2

    Computed in float32 or float64 also under autocast: the logits are small differences of large
    norms.

    Args:
        x: (N, d, T) with T >= 2.
        K: (c, d, d).

    Returns:
        (N, c), not above zero; the gradient at a zero residual is zero.

    Raises:
        ModelError: shapes that do not fit, or fewer than two frames.
    """
    if x.dim() != 3 or K.dim() != 3 or K.shape[1:] != (x.shape[1], x.shape[1]):
        raise ModelError(
            f"koopman: expected x (N, d, T) and K (c, d, d), got {tuple(x.shape)} and"
            f" {tuple(K.shape)}"
        )
    _check_frames(x)
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(x.dtype, K.dtype), torch.float32)
        frames = x.to(dtype).transpose(1, 2)
        now, following = frames[:, :-1].contiguous(), frames[:, 1:].contiguous()
        # A trace that calls a Function of Python's could not be saved.
        measure = _distances if torch.jit.is_tracing() else _Distances.apply
        return -measure(now, following, K.to(dtype)).mean(1)


class _Distances(torch.autograd.Function):
    """Distances D[n,t,c] = || K[c] x[n,t] - y[n,t] || of frames x, y (N, T, d), in blocks of c.

    The residuals r[n,t,c] = K[c] x[n,t] - y[n,t] are (N, T, c, d): too many to keep, so that they
    are computed again for the gradient. With s = dD / D, and 0 where D is 0,

        dK[c] = sum over n, t of s[n,t,c] r[n,t,c] x[n,t]^T
        dx[n,t] = sum over c of s[n,t,c] K[c]^T r[n,t,c],   dy[n,t] = - sum over c of s r[n,t,c]
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, K: Tensor) -> Tensor:
        distances = _distances(x, y, K)
        ctx.save_for_backward(x, y, K, distances)
        return distances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(gradients[0].device.type, enabled=False):
            x, y, K, distances = ctx.saved_tensors
            return _gradients(x, y, K, distances, gradients[0], ctx.needs_input_grad[2])


def _gradients(
    x: Tensor, y: Tensor, K: Tensor, distances: Tensor, gradient: Tensor, of_K: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return dx, dy and, if asked for, dK."""
    scale = torch.where(distances > 0, gradient / distances, 0.0)
    dx, dy = torch.zeros_like(x), torch.zeros_like(y)
    dK = torch.empty_like(K) if of_K else None
    for start in range(0, len(K), CLASS_BLOCK):
        block = slice(start, start + CLASS_BLOCK)
        weighted = _residuals(x, y, K[block]).mul_(scale[:, :, block].unsqueeze(-1))
        dy -= weighted.sum(2)
        flat = weighted.flatten(2).flatten(0, 1)
        dx.flatten(0, 1).addmm_(flat, K[block].flatten(0, 1))
        if dK is not None:
            dK[block] = (flat.t() @ x.flatten(0, 1)).view(dK[block].shape)
    return dx, dy, dK


def _distances(x: Tensor, y: Tensor, K: Tensor) -> Tensor:
    blocks = [torch.linalg.vector_norm(_residuals(x, y, k), dim=3) for k in K.split(CLASS_BLOCK)]
    return torch.cat(blocks, dim=2)


def _residuals(x: Tensor, y: Tensor, K: Tensor) -> Tensor:
    """Return K[c] x[n,t] - y[n,t] of a block of classes, (N, T, c, d)."""
    predicted = x @ K.flatten(0, 1).t()
    return predicted.unflatten(2, K.shape[:2]).sub_(y.unsqueeze(2))


def fit_operator(x: Tensor, rcond: float | None = None) -> Tensor:
    """Fit the operator of a sequence by least squares: K = X_2 pinv(X_1).

    X_1 holds all frames but the last, X_2 all but the first.

    Args:
        x: floating (..., d, T) with T >= 2; float64 gives a float64 fit.
        rcond: singular values of X_1 at or below ``rcond`` times the largest are dropped; by
            default those at rounding level. One-shot matching uses 0.9: it keeps the one or two
            strongest directions.

    Returns:
        (..., d, d).

    Raises:
        ModelError: fewer than two frames, or values that are not finite.
    """
    if x.dim() < 2:
        raise ModelError(f"koopman: expected a sequence (..., d, T), got {tuple(x.shape)}")
    _check_frames(x)
    return fit_transition(x[..., :-1], x[..., 1:], rcond)


def fit_transition(before: Tensor, after: Tensor, rcond: float | None = None) -> Tensor:
    """Fit K to pairs of states by least squares: K = after pinv(before).

    The pairs may come from several sequences of one dynamic; ``fit_operator`` takes those of one.

    Args:
        before, after: floating (..., d, P), column p of ``after`` following that of ``before``.
        rcond: as for ``fit_operator``.

    Returns:
        (..., d, d).

    Raises:
        ModelError: values that are not finite.
    """
    if not (torch.isfinite(before).all() and torch.isfinite(after).all()):
        raise ModelError("koopman: cannot fit an operator to features that are not finite")
    return after @ torch.linalg.pinv(before, rtol=rcond)


def _check_frames(x: Tensor) -> None:
    """Refuse a sequence without a next frame."""
    if x.shape[-1] < 2:
        raise ModelError(f"koopman: at least 2 frames are needed, got {x.shape[-1]}")
