"""Matrix products by whichever of torch's routines is fastest for the device and type.

On the CPU torch computes float32 matrix products with MKL, which on processors of another maker
stays at half of what oneDNN's 1x1 convolutions reach (measured on two cores of an AVX-512
processor: 215 and 440 GFLOP/s). Rows are pixels there, columns channels. Everything else, bfloat16
on the CPU included, is a plain matrix product.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

MANY_IMAGES = 16
"""Rows are handed over as at least so many images where their number allows: with one thread,
torch sends 1x1 convolutions of fewer images to a routine half as fast."""


def product(rows: Tensor, weight: Tensor) -> Tensor:
    """Return ``rows @ weight.T``: (P, I) and (O, I) to (P, O)."""
    if not _by_convolution(rows):
        return rows @ weight.t()
    y = F.conv2d(_images(rows), _filters(weight))
    return y.permute(0, 2, 3, 1).reshape(len(rows), len(weight))


def product_backward(
    gradient: Tensor, rows: Tensor, weight: Tensor, needed: tuple[bool, bool] = (True, True)
) -> tuple[Any, Any]:
    """Return the gradients of ``rows`` and ``weight`` from that of their product, (P, O).

    One that is not needed is None.
    """
    if not _by_convolution(rows):
        return (
            gradient @ weight if needed[0] else None,
            gradient.t() @ rows if needed[1] else None,
        )
    drows, dweight, _ = torch.ops.aten.convolution_backward(
        _images(gradient.contiguous()),
        _images(rows),
        _filters(weight),
        None,
        [1, 1],
        [0, 0],
        [1, 1],
        False,
        [0, 0],
        1,
        [*needed, False],
    )
    return (
        drows.permute(0, 2, 3, 1).reshape(rows.shape) if needed[0] else None,
        dweight.flatten(1) if needed[1] else None,
    )


def _by_convolution(rows: Tensor) -> bool:
    return rows.device.type == "cpu" and rows.dtype == torch.float32


def _images(rows: Tensor) -> Tensor:
    """Return rows (P, C) as channels-last images (n, C, P / n, 1)."""
    count = next((n for n in range(MANY_IMAGES, 2 * MANY_IMAGES) if len(rows) % n == 0), 1)
    return rows.reshape(count, -1, 1, rows.shape[1]).permute(0, 3, 1, 2)


def _filters(weight: Tensor) -> Tensor:
    """Return a matrix (O, I) as 1x1 filters."""
    return weight.reshape(*weight.shape, 1, 1)
