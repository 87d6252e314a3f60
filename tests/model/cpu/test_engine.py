"""The engine against the plain model, and where it steps aside."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from random_models import NTU, UCLA, randomised
from torch import Tensor, nn
from torch.nn import functional as F

from model import cpu
from model.classifier import Model
from model.cpu import accelerate
from model.cpu import threads as threads_module
from torchlight.registry import plug

CHANNELS: dict[str, Any] = {"channels": [16, 32, 32, 64], "stride": [1, 2, 1, 3]}


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    """Two threads that chunk out small inputs too."""
    monkeypatch.setattr(threads_module, "MIN_NUMBERS", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def runs(monkeypatch) -> list[str]:
    """Which of the engine's two ways was taken, call by call."""
    found: list[str] = []
    for name in ("train_blocks", "run_blocks"):
        own = getattr(cpu, name)
        monkeypatch.setattr(
            cpu, name, lambda *a, own=own, name=name, **k: (found.append(name), own(*a, **k))[1]
        )
    return found


def small(**options: Any) -> tuple[Model, Tensor]:
    """A plain model and a batch for it."""
    torch.manual_seed(1)
    facts = {**UCLA, **CHANNELS, **options}
    model = randomised(Model(4, **facts))
    channels = facts.get("in_channels", 3)
    return model, torch.randn(6, channels, 13, facts["num_point"], facts["num_person"])


def step(model: nn.Module, x: Tensor, half: bool = False) -> dict[str, Tensor]:
    """Logits, gradients and buffers of a training step, then the logits of an evaluation."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = model.train()(x)
        F.cross_entropy(logits, torch.arange(len(x)) % 4).backward()
        with torch.no_grad():
            evaluated = model.eval()(x)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"train": logits.detach(), "eval": evaluated, **gradients, **dict(model.named_buffers())}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"head": "average", "drop_out": 0.0},
        {**NTU, "adaptive": False, "in_channels": 9},
        {"recompute": True, "freeze_koopman": True, "scale": "learnt", "init": "identity"},
    ],
)
def test_float64_equals_the_plain_model(options: dict[str, Any], runs: list[str]) -> None:
    model, x = small(**options)
    model, x = model.double(), x.double()
    if options.get("freeze_koopman"):
        model.l2.requires_grad_(False)
    fast = accelerate(copy.deepcopy(model))
    assert list(fast.state_dict()) == list(model.state_dict())
    expected, found = step(model, x), step(fast, x)
    assert runs == ["train_blocks", "run_blocks"]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-9, msg=name)


@pytest.mark.parametrize("half", [False, True])
def test_lower_precision_is_as_near_to_float64_as_the_plain_model(half: bool) -> None:
    model, x = small()
    exact = step(copy.deepcopy(model).double(), x.double())
    plain, fast = step(copy.deepcopy(model), x, half), step(accelerate(model), x, half)

    def error(found: dict[str, Tensor], names: list[str]) -> float:
        pairs = [(found[name].double().flatten(), exact[name].flatten()) for name in names]
        mine, wanted = (torch.cat(column) for column in zip(*pairs, strict=True))
        return ((mine - wanted).norm() / wanted.norm()).item()

    gradients = [name for name, _ in model.named_parameters()]
    for names in (["train"], ["eval"], gradients):
        assert error(fast, names) < 2 * error(plain, names) + (1e-3 if half else 1e-6), names


def test_copies_pickles_and_states_stay_on_the_engine(runs: list[str]) -> None:
    model, x = small()
    with torch.no_grad():
        expected = accelerate(model.eval())(x)
        twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        fresh = accelerate(Model(4, **UCLA, **CHANNELS)).eval()
        fresh.load_state_dict(model.state_dict())
        file = io.BytesIO()
        torch.save(model, file)
        twins += [fresh, torch.load(io.BytesIO(file.getvalue()), weights_only=False)]
        for twin in twins:
            assert torch.equal(twin(x), expected)
    assert len(runs) == 5
    assert isinstance(model, Model)
    assert type(model).__name__ == "Model"
    assert accelerate(model) is model


def quiet(function):
    """A forward of one's own."""
    return lambda *given: function(*given)


HOOKS = {
    "forward hook": lambda m: m.l2.tcn1.register_forward_hook(lambda *given: None),
    "hook of a block": lambda m: m.l1.register_forward_pre_hook(lambda *given: None),
    "backward hook": lambda m: m.l2.tcn1.register_full_backward_hook(lambda *given: None),
    "hook of a parameter": lambda m: m.l2.gcn1.PA.register_hook(lambda gradient: None),
    "method": lambda m: setattr(m.l2, "forward", quiet(m.l2.forward)),
    "synchronised": lambda m: setattr(m.l1.gcn1, "bn", nn.SyncBatchNorm(16)),
    "other module": lambda m: setattr(m.l2.tcn1.branches[0], "2", nn.GELU()),
    "frozen norm": lambda m: m.l1.gcn1.bn.eval(),
    "momentum": lambda m: setattr(m.l1.gcn1.bn, "momentum", None),
    "parametrised": lambda m: nn.utils.parametrizations.weight_norm(m.l1.gcn1.convs[0].conv1),
}


@pytest.mark.parametrize("kind", HOOKS)
def test_changed_blocks_run_as_they_are(kind: str, runs: list[str]) -> None:
    model, x = small()
    fast = accelerate(copy.deepcopy(model)).train()
    HOOKS[kind](model.train())
    HOOKS[kind](fast)
    if kind == "synchronised":
        model, fast, x = model.eval(), fast.eval(), x
    fast(x).sum().backward()
    model(x).sum().backward()
    assert runs == []
    pairs = zip(model.parameters(), fast.parameters(), strict=True)
    assert all(torch.equal(p.grad, q.grad) for p, q in pairs)


def test_hooks_see_the_whole_batch_and_the_engine_comes_back(runs: list[str]) -> None:
    model, x = small()
    seen = []
    handle = accelerate(model).l2.tcn1.register_forward_hook(lambda m, a, y: seen.append(y.shape))
    model(x)
    handle.remove()
    model(x)
    assert seen == [(6, 32, 7, 20)]
    assert runs == ["train_blocks"]


def test_a_hook_outside_of_the_blocks_keeps_the_engine(runs: list[str]) -> None:
    model, x = small()
    seen = []
    accelerate(model).fc.register_forward_hook(lambda module, given, result: seen.append(result))
    model.register_forward_hook(lambda module, given, result: seen.append(result))
    model(x)
    assert len(seen) == 2
    assert runs == ["train_blocks"]


def test_the_rest_runs_as_it_is(runs: list[str]) -> None:
    model, x = small()
    accelerate(model).eval()(x)  # gradients in evaluation
    model.to("meta").forward_features(x.to("meta"))
    assert runs == []

    class Own(Model):
        def pooled(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 64, 9)

    for other in (Own(4, **UCLA, **CHANNELS), nn.Linear(2, 2)):
        assert type(accelerate(other)) is type(other)
    model, x = small()
    total = accelerate(model)(x).sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        total.backward()


def test_a_subclass_of_ones_own_keeps_its_methods(runs: list[str]) -> None:
    class Own(Model):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model, x = small()
    own = Own(4, **UCLA, **CHANNELS)
    own.load_state_dict(model.state_dict())
    torch.testing.assert_close(accelerate(own)(x), 2 * accelerate(model)(x))
    assert isinstance(own, Own)
    assert len(runs) == 2


def test_a_seam_without_its_wing_is_the_identity() -> None:
    assert plug("model.cpu.accelerate") is accelerate
    assert plug("model.absent.accelerate")(3) == 3
