"""The word about a precision that slows the processor down."""

import pytest
import torch

from torchlight import numerics
from torchlight.config import Config

CPU = torch.device("cpu")


def config(amp: str) -> Config:
    """A configuration of that precision."""
    return Config(feeder="toy.Feeder", model="toy.Model", amp=amp)  # type: ignore[arg-type]


@pytest.mark.parametrize(("amp", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
@pytest.mark.parametrize(("times", "noted"), [(30.0, True), (0.5, False), (1.5, False)])
def test_only_a_slow_precision_is_noted(monkeypatch, amp, dtype, times, noted):
    seconds = {torch.float32: 0.1, dtype: 0.1 * times}
    monkeypatch.setattr(numerics, "_product_time", seconds.__getitem__)
    notes = numerics.precision_notes(config(amp), CPU)
    assert len(notes) == noted
    assert all(f"{amp} take 30 times as long" in note and "--amp off" in note for note in notes)


def test_nothing_is_measured_without_need(monkeypatch):
    monkeypatch.setattr(numerics, "_product_time", lambda dtype: pytest.fail("measured"))
    assert numerics.precision_notes(config("off"), CPU) == []
    assert numerics.precision_notes(config("bf16"), torch.device("cuda")) == []


def test_products_of_this_processor_are_timed(monkeypatch):
    monkeypatch.setattr(numerics, "SLOW", 0.0)
    (note,) = numerics.precision_notes(config("bf16"), CPU)
    assert note.startswith("note: matrix products in bf16 take ")
