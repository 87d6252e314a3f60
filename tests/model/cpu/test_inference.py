"""Evaluation on the CPU with folded weights: against the modules themselves."""

from typing import Any

import pytest
import torch
from random_models import NTU, UCLA, randomised

from model.classifier import Model
from model.cpu import accelerate

CHANNELS = [16, 16, 32, 32, 64]
HALVED: dict[str, Any] = {"head": "average", "stride": [1, 1, 2, 1, 3]}


def model_and_batch(arguments: dict[str, Any], frames: int, batch: int = 6):
    """A model with random statistics in evaluation, and a batch for it."""
    torch.manual_seed(2)
    model = accelerate(randomised(Model(7, **arguments, channels=CHANNELS)).eval())
    x = torch.randn(batch, 3, frames, arguments["num_point"], arguments["num_person"])
    return model, x


@pytest.mark.parametrize("frames", [1, 2, 21])
@pytest.mark.parametrize(
    "arguments", [UCLA, NTU, {**UCLA, **HALVED}, {**NTU, **HALVED, "adaptive": False}]
)
def test_equals_the_modules(arguments: dict[str, Any], frames: int) -> None:
    model, x = model_and_batch(arguments, frames)
    model.double()
    expected = model.forward_features(x.double()).detach()  # gradients are asked for: the modules
    with torch.inference_mode():
        actual = model.forward_features(x.double())
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    assert expected.abs().mean() > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(dtype: torch.dtype) -> None:
    model, x = model_and_batch(NTU, 21)
    with torch.inference_mode():
        exact = model.forward_features(x)
        with torch.autocast("cpu", dtype):
            half = model.forward_features(x)
    assert half.dtype == dtype
    error = (half.float() - exact).norm() / exact.norm()
    assert 0 < error < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", ["nan", "-nan", "inf", "-inf"])
def test_what_is_not_finite_shows_in_its_sample_alone(dtype: torch.dtype, value: str) -> None:
    model, x = model_and_batch(NTU, 21)
    x[2, 1, 3, 4, 0] = float(value)
    half = dtype != torch.float32
    with torch.inference_mode(), torch.autocast("cpu", dtype if half else None, enabled=half):
        for given in (model.forward_features(x), model(x)):
            finite = given.isfinite().flatten(1).all(1)
            assert finite.tolist() == [True, True, False, True, True, True]


def test_threads_change_no_bit() -> None:
    model, x = model_and_batch(UCLA, 21, batch=11)
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        with torch.no_grad():
            results.append(model.forward_features(x))
    torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_new_weights_are_used_at_once() -> None:
    model, x = model_and_batch(UCLA, 5)
    with torch.no_grad():
        before = model.forward_features(x)
        model.get_parameter("l1.gcn1.PA").mul_(2)
        assert not torch.allclose(model.forward_features(x), before)
