"""The classifier: its gradients, stages, heads, initial values and errors."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from random_models import NTU, UCLA, randomised
from torch import nn
from torch.nn import functional as F

from model.classifier import Model
from model.errors import ModelError
from model.graph import resolve_graph
from model.published import ALIASES

SMALL: dict[str, Any] = {**UCLA, "channels": [16, 32]}


def gradients(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of a cross-entropy."""
    F.cross_entropy(model(x), torch.arange(len(x)) % 4).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "arguments", [{}, {"head": "average"}, {"adaptive": False}, {"scale": "learnt"}]
)
def test_every_parameter_gets_a_gradient(arguments: dict[str, Any]) -> None:
    model = randomised(Model(4, **SMALL, **arguments))
    found = gradients(model, torch.randn(3, 3, 8, 20, 1))
    assert found.keys() == {name for name, _ in model.named_parameters()}
    before_a_norm = re.compile(  # it takes constants away: zero but for rounding
        r"(branches\.\d\.0|branches\.[01]\.3\.conv|residual\.conv|down\.0)\.bias$"
    )
    zero = {name for name, gradient in found.items() if gradient.abs().max() < 1e-6}
    assert all(before_a_norm.search(name) for name in zero)


def test_poses_in_two_dimensions_have_relations_too() -> None:
    model = Model(4, **SMALL, in_channels=2)
    for relation in model.get_submodule("l1").gcn1.convs:
        assert relation.conv1.weight.shape == (8, 2, 1, 1)


def test_second_stage_trains_all_but_k() -> None:
    model = randomised(Model(4, **SMALL, freeze_koopman=True))
    before = model.K.clone()
    found = gradients(model, torch.randn(3, 3, 8, 20, 1))
    assert found.keys() == {name for name, _ in model.named_parameters()} - {"K"}
    assert torch.equal(model.K, before)


def test_constant_adjacency_is_no_entry_of_the_checkpoint_but_moves_with_the_model() -> None:
    model = Model(4, **SMALL, adaptive=False)
    assert not [name for name in model.state_dict() if name.endswith("PA")]
    assert model.double().l1.gcn1.PA.dtype == torch.float64
    np.testing.assert_allclose(model.l1.gcn1.PA, resolve_graph(UCLA["graph"]), rtol=1e-6)


def test_time_is_kept_under_koopman_and_halved_twice_under_average() -> None:
    x = torch.randn(2, 3, 13, 20, 1)
    assert Model(4, **UCLA).eval().pooled(x).shape == (2, 256, 13)
    assert Model(4, **UCLA, head="average").eval().pooled(x).shape == (2, 256, 4)
    own = Model(4, **SMALL, stride=[1, 3])
    assert own.eval().forward_features(x).shape == (2, 1, 32, 5, 20)


def test_flat_input_is_the_same_as_five_dimensions() -> None:
    model = Model(4, **SMALL).eval()
    x = torch.randn(2, 3, 7, 20, 1)
    flat = x.squeeze(-1).permute(0, 2, 3, 1).flatten(2)
    torch.testing.assert_close(model(flat), model(x))


def test_persons_are_averaged_whatever_their_order_in_the_head() -> None:
    model = Model(4, **{**NTU, "channels": [16]}, return_features=True).eval()
    logits, features = model(torch.randn(2, 3, 7, 25, 2))
    assert logits.shape == (2, 4)
    assert features.shape == (2, 16, 7)
    torch.testing.assert_close(
        model.pooled(torch.ones(1, 3, 7, 25, 2)),
        model.forward_features(torch.ones(1, 3, 7, 25, 2)).mean((1, 4)),
    )


def test_the_batch_is_not_mixed_in_evaluation() -> None:
    model = randomised(Model(4, **SMALL)).double().eval()
    x = torch.randn(5, 3, 7, 20, 1).double()
    alone = torch.cat([model(sample.unsqueeze(0)) for sample in x])
    torch.testing.assert_close(model(x), alone, rtol=1e-12, atol=1e-12)


def test_dropout_acts_in_training_alone() -> None:
    model = Model(4, **SMALL, head="average", drop_out=0.9)
    x = torch.randn(2, 3, 7, 20, 1)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_a_graph_of_ones_own() -> None:
    edges = {"edges": [[1, 0], [2, 1], [3, 1]], "num_point": 4, "center": 0}
    model = Model(3, 4, 1, "model.graph.Graph", edges, channels=[8])
    assert model(torch.randn(2, 3, 6, 4, 1)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "fixed", "features"),
    [
        ("model.Koopman_pooling.Model", False, False),
        ("model.Koopman_pooling_tune.Model", True, False),
        ("model.Koopman_pooling_emb.Model", False, True),
        ("model.ctrgcn_origin.Model", None, False),
    ],
)
def test_published_names(name: str, fixed: bool | None, features: bool) -> None:
    target, arguments = ALIASES[name]
    assert target == "model.classifier.Model"
    model = Model(**{"num_class": 4, **UCLA, "drop_out": 0, "adaptive": True, **arguments})
    assert model.return_features == features
    assert model.num_class == 4
    if fixed is None:
        assert not hasattr(model, "K")
    else:
        assert model.K.requires_grad != fixed


def test_initial_values() -> None:
    torch.manual_seed(0)
    koopman, average = Model(10, **UCLA), Model(10, **UCLA, head="average")
    assert abs(koopman.K.mean().item()) < 0.01
    assert abs(koopman.K.std().item() - 1) < 0.01
    assert average.fc.weight.std().item() == pytest.approx((2 / 10) ** 0.5, rel=0.05)
    adjacency = torch.from_numpy(resolve_graph(UCLA["graph"])).float()
    for name, module in koopman.named_modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias.abs().max() == 0
            fan_out = module.out_channels * module.kernel_size[0]
            assert module.weight.numel() < 2000 or module.weight.std().item() == pytest.approx(
                (2 / fan_out) ** 0.5, rel=0.1
            ), name
        elif isinstance(module, nn.BatchNorm2d):
            assert module.bias.abs().max() == 0
            if "tcn1" in name:
                deviation = module.weight - 1
                assert 0 < deviation.abs().max() < 0.02 * 5, name
            else:
                value = 1e-6 if name.endswith("gcn1.bn") else 1.0
                assert (module.weight == value).all(), name
        elif name.endswith("gcn1"):
            assert module.alpha.item() == 0
            assert torch.equal(module.PA, adjacency)
    spread = torch.cat(
        [m.weight for n, m in koopman.named_modules() if "tcn1" in n and hasattr(m, "running_var")]
    )
    assert spread.std().item() == pytest.approx(0.02, rel=0.1)
    assert spread.mean().item() == pytest.approx(1, abs=0.002)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2, 3, 7, 25, 1), r"expected input \(N, 3, T, 20, 1\) or \(N, T, 60\).*2, 3, 7, 25, 1"),
        ((2, 3, 7, 20, 2), "expected input"),
        ((2, 6, 7, 20, 1), "expected input"),
        ((2, 7, 75), "expected input"),
        ((3, 7, 20, 1), "expected input"),
        ((2, 3, 1, 20, 1), "at least 2 frames"),
        ((0, 3, 7, 20, 1), "expected input"),
    ],
)
def test_wrong_inputs_are_named(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Model(4, **SMALL)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_class": 0}, "num_class must be 1 or more"),
        ({"num_person": 0}, "num_person"),
        ({"in_channels": 0}, "in_channels"),
        ({"num_point": 25}, "num_point is 25, but the graph has 20 joints"),
        ({"head": "max"}, r"'max' is not one of \['koopman', 'average'\]"),
        ({"head": "average", "freeze_koopman": True}, "freeze_koopman"),
        ({"drop_out": 0.5}, "drop_out"),
        ({"head": "average", "drop_out": 1.5}, "drop_out"),
        ({"stride": [1]}, "expected 2 strides, got 1"),
        ({"stride": [1, 0]}, "strides"),
        ({"channels": [16, 30]}, "multiples of 8"),
        ({"channels": []}, "multiples of 8"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Model(**{"num_class": 4, **SMALL, **arguments})


def test_a_head_of_ones_own_is_a_class_and_its_arguments() -> None:
    class MaximumHead(nn.Linear):
        halved_at_blocks = (2,)

        def __init__(self, width: int, num_class: int, *, gain: float) -> None:
            super().__init__(width, num_class)
            self.gain = gain

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gain * super().forward(x.amax(-1))

    model = Model(4, **SMALL, head=MaximumHead, head_args={"gain": 2.0}, return_features=True)
    logits, features = model(torch.randn(2, 3, 8, 20, 1))
    assert features.shape == (2, 32, 4)
    torch.testing.assert_close(logits, 2 * F.linear(features.amax(-1), *model.fc.parameters()))
    with pytest.raises(ModelError, match="takes no argument 'loss'"):
        Model(4, **SMALL, head=MaximumHead, head_args={"loss": 1})
    named = Model(4, **SMALL, head="model.heads.AverageHead", drop_out=0.5)
    assert named.fc.drop_out.p == 0.5
    with pytest.raises(ModelError, match="outside of the package model"):
        Model(4, **SMALL, head="os.path")


def test_identity_operators_with_a_learnt_scale() -> None:
    model = Model(4, **SMALL, init="identity", scale="learnt", return_features=True).eval()
    assert set(model.state_dict()) - set(Model(4, **SMALL).state_dict()) == {"fc.log_scale"}
    model.fc.log_scale.data.fill_(0.7)
    logits, x = model(torch.randn(2, 3, 8, 20, 1))
    moved = (x[:, :, 1:] - x[:, :, :-1]).norm(dim=1).mean(-1)
    torch.testing.assert_close(logits, -(2.718281828**0.7) * moved.unsqueeze(1).expand(2, 4))
    for arguments in ({"init": "zero"}, {"scale": "fixed"}, {"head": "average", "scale": "learnt"}):
        with pytest.raises(ModelError, match=r"init|scale"):
            Model(4, **SMALL, **arguments)


def test_recomputing_changes_no_gradient_and_no_statistics() -> None:
    x, found = torch.randn(3, 3, 8, 20, 1), []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = Model(4, **SMALL, recompute=recompute)
        found.append({**gradients(model, x), **dict(model.named_buffers())})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
