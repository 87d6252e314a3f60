"""The sample-by-sample product against its equations, and its gradient by differences."""

import pytest
import torch

from model.cpu.aggregation import aggregate


def arguments(dtype: torch.dtype, samples: int = 3, channels: int = 16) -> list[torch.Tensor]:
    """Random arguments with V = 4, T = 5, C_in = 6, R' = 3."""
    torch.manual_seed(0)
    shapes = [
        (samples, 6, 4, 5),
        (3 * channels, 6),
        (3, channels, 3),
        (samples, 3, 3, 4, 4),
        (samples, channels, 4),
    ]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def by_definition(
    x: torch.Tensor,
    weight: torch.Tensor,
    lift: torch.Tensor,
    relations: torch.Tensor,
    offset: torch.Tensor,
) -> torch.Tensor:
    topology = torch.einsum("kcr,nkrvu->nckvu", lift, relations)
    features = torch.einsum("cki,nivt->nckvt", weight.unflatten(0, (-1, 3)), x)
    return torch.einsum("nckvu,nckvt->ncut", topology, features) + offset.unsqueeze(-1)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("channels", [16, 5])
def test_values_and_gradients(dtype: torch.dtype, limit: float, channels: int) -> None:
    given = arguments(dtype, channels=channels)
    exact = [argument.detach().double().requires_grad_() for argument in given]
    z, expected = aggregate(*given), by_definition(*exact)
    assert z.is_contiguous(memory_format=torch.channels_last)
    direction = torch.randn_like(expected)
    gradients = torch.autograd.grad(z, given, direction.to(dtype))
    expected_gradients = torch.autograd.grad(expected, exact, direction)
    pairs = [(z, expected), *zip(gradients, expected_gradients, strict=True)]
    for actual, wanted in pairs:
        assert (actual.double() - wanted).abs().max() < limit * wanted.abs().max()


def test_recomputing_changes_no_bit() -> None:
    given = arguments(torch.float32)
    kept, again = (aggregate(*given, recompute=recompute) for recompute in (False, True))
    direction = torch.randn_like(kept)
    found = [torch.autograd.grad(z, given, direction) for z in (kept, again)]
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_gradcheck() -> None:
    assert torch.autograd.gradcheck(aggregate, arguments(torch.float64, samples=2, channels=2))


def test_autocast_computes_in_bfloat16_and_returns_float32_gradients() -> None:
    given = arguments(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        z = aggregate(*given)
    assert z.dtype == torch.bfloat16
    z.float().sum().backward()
    assert all(argument.grad.dtype == torch.float32 for argument in given)
    expected = by_definition(*given)
    assert (z.float() - expected).abs().max() < 0.03 * expected.abs().max()
