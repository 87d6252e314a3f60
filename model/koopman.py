"""Koopman operators: score, least-squares fit, spectrum, eigenvalue normalisation."""

import torch
from torch import Tensor

from model.errors import ModelError

CLASS_BLOCK = 16
"""Classes scored at a time: residuals of a block stay near the caches."""


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
    if x.shape[2] < 2:
        raise ModelError(f"koopman: a score needs at least 2 frames, got {x.shape[2]}")
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(x.dtype, K.dtype), torch.float32)
        x, K = x.to(dtype), K.to(dtype)
        blocks = [_block_scores(x, block) for block in K.split(CLASS_BLOCK)]
        return torch.cat(blocks, dim=1)


def _block_scores(x: Tensor, K: Tensor) -> Tensor:
    """Scores of a block of classes, (N, c)."""
    predicted = torch.einsum("cde,net->ncdt", K, x[..., :-1])
    return -torch.linalg.vector_norm(predicted - x[:, None, :, 1:], dim=2).mean(-1)
