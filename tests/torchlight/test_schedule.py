"""The learning rate against the published rule, written as a table."""

import pytest

from torchlight.schedule import learning_rates


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 0.02), (3, 0.08), (4, 0.1), (5, 0.1), (34, 0.1), (35, 0.01), (54, 0.01), (55, 0.001)],
)
def test_warm_up_then_steps(epoch, rate):
    recipe = {"base_lr": 0.1, "step": [35, 55], "lr_decay_rate": 0.1, "warm_up_epoch": 5}
    assert learning_rates(recipe, 65)[epoch] == pytest.approx(rate, rel=1e-12)


def test_without_warm_up_or_steps_the_rate_is_constant():
    recipe = {"base_lr": 0.3, "step": [], "lr_decay_rate": 0.1, "warm_up_epoch": 0}
    assert learning_rates(recipe, 101) == [0.3] * 101
