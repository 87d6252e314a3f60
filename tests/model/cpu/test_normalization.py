"""Joint batch norms against torch's, one by one."""

import pytest
import torch
from torch import nn

from model.cpu.normalization import normalize


def joint(widths: tuple[int, ...]) -> list[nn.BatchNorm2d]:
    """Batch norms with random parameters."""
    torch.manual_seed(1)
    norms = [nn.BatchNorm2d(width).double() for width in widths]
    for bn in norms:
        nn.init.normal_(bn.weight)
        nn.init.normal_(bn.bias)
    return norms


def copies(norms: list[nn.BatchNorm2d]) -> list[nn.BatchNorm2d]:
    """The same modules again."""
    result = []
    for bn in norms:
        twin = nn.BatchNorm2d(bn.num_features).double()
        twin.load_state_dict(bn.state_dict())
        result.append(twin)
    return result


@pytest.mark.parametrize("shape", [(2, 7, 3, 5), (4, 7, 4, 8)])
def test_equals_separate_batch_norms(shape: tuple[int, ...]) -> None:
    ours = joint((3, 4))
    theirs = copies(ours)
    x = (torch.randn(shape, dtype=torch.float64) * 3 + 5).requires_grad_()
    (y,) = normalize([x.clone()], ours)
    expected = torch.cat([bn(part) for bn, part in zip(theirs, x.split([3, 4], 1), strict=True)], 1)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(y)
    ours_leaves = [x, *(p for bn in ours for p in bn.parameters())]
    their_leaves = [x, *(p for bn in theirs for p in bn.parameters())]
    gradients = torch.autograd.grad(y, ours_leaves, direction)
    wanted = torch.autograd.grad(expected, their_leaves, direction)
    torch.testing.assert_close(gradients, wanted, rtol=1e-11, atol=1e-11)
    for bn, twin in zip(ours, theirs, strict=True):
        torch.testing.assert_close(dict(bn.named_buffers()), dict(twin.named_buffers()))
        assert int(bn.num_batches_tracked) == 1


def test_biases_left_out_change_the_running_means_alone() -> None:
    ours = joint((3, 4))
    theirs = copies(ours)
    x = torch.randn(2, 7, 3, 5, dtype=torch.float64, requires_grad=True)
    biases = torch.randn(7, dtype=torch.float64, requires_grad=True)
    (y,) = normalize([x.clone()], ours, biases=biases)
    (expected,) = normalize([x + biases.view(-1, 1, 1)], theirs)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(y)
    dx, dbiases = torch.autograd.grad(y, [x, biases], direction)
    wanted, no = torch.autograd.grad(expected, [x, biases], direction)
    torch.testing.assert_close(dx, wanted, rtol=1e-11, atol=1e-11)
    assert not dbiases.any()
    assert no.abs().max() < 1e-12
    for bn, twin in zip(ours, theirs, strict=True):
        torch.testing.assert_close(dict(bn.named_buffers()), dict(twin.named_buffers()))


def test_float32_sums_are_exact_to_rounding() -> None:
    torch.manual_seed(0)
    x = (torch.randn(16, 8, 20, 52) + 3).contiguous(memory_format=torch.channels_last)
    bn = nn.BatchNorm2d(8)
    normalize([x], [bn])
    mean = x.double().mean((0, 2, 3))
    error = ((bn.running_mean.double() / 0.1 - mean) / mean).abs().max()
    assert error < 3e-7
