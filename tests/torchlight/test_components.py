"""What a run is composed of: optimisers, schedules, losses, averages, clipping."""

import io
import itertools
import math

import numpy as np
import pytest
import torch
import toy
import toy_run
import yaml
from ranks import Ranks
from torch import nn

from torchlight.averaging import Average, Ema, Swa
from torchlight.checks import check_optimizer
from torchlight.components import bind_components, make_loss, make_optimizer, used
from torchlight.config import Config, build
from torchlight.errors import UserError
from torchlight.resilience.signals import Request, Signals
from torchlight.schedule import learning_rates

LEAST = {"feeder": "toy.Feeder", "model": "toy.Model"}
FULL = {
    "optimizer": "AdamW",
    "optimizer_args": {"betas": [0.8, 0.9]},
    "base_lr": 0.01,
    "lr_scheduler": "cosine",
    "lr_scheduler_args": {"min_lr": 0.001},
    "warm_up_epoch": 1,
    "loss_args": {"label_smoothing": 0.1, "weight": "balanced"},
    "averaging": "ema",
    "averaging_args": {"decay": 0.9},
    "clip_grad_norm": 0.5,
}


def bound(**keys):
    """The configuration and its components, with ``keys`` over the least there can be."""
    found = bind_components(build({**LEAST, **keys}, "c.yaml"), ["toy"])
    check_optimizer(*found)
    return found


def rates(epochs, **keys):
    """The rates of a configuration."""
    return learning_rates(bound(num_epoch=epochs, **keys)[0].model_dump(), epochs)


@pytest.fixture
def trained(tmp_path):
    """Train the toy with some keys; the work dir and what was said."""

    def run(name, *words, status=0, **keys):
        path = tmp_path / "c.yaml"
        path.write_text(yaml.safe_dump({**toy_run.CONFIG, **keys}))
        assert toy_run.train(str(path), tmp_path / name, *words) == status
        return tmp_path / name

    return run


# -- the learning rate -------------------------------------------------------------------------


def test_cosine_falls_from_the_end_of_the_warm_up_to_the_lowest_rate():
    found = rates(
        12, base_lr=0.5, warm_up_epoch=2, lr_scheduler="cosine", lr_scheduler_args={"min_lr": 0.1}
    )
    formula = [0.1 + 0.4 * (1 + math.cos(math.pi * done / 10)) / 2 for done in range(10)]
    assert found == pytest.approx([0.25, 0.5, *formula], rel=1e-12)


@pytest.mark.parametrize(
    ("name", "args", "formula"),
    [
        ("ExponentialLR", {"gamma": 0.5}, lambda e: 0.1 * 0.5**e),
        ("StepLR", {"step_size": 2}, lambda e: 0.1 * 0.1 ** (e // 2)),
        ("MultiStepLR", {"milestones": [1, 3], "gamma": 0.5},
         lambda e: 0.1 * 0.5 ** ((e >= 1) + (e >= 3))),
        ("CosineAnnealingLR", {"T_max": 6},
         lambda e: 0.05 * (1 + math.cos(math.pi * e / 6))),
    ],
)  # fmt: skip
def test_a_schedule_of_torch_is_tabulated_after_the_warm_up(name, args, formula):
    found = rates(6, base_lr=0.1, warm_up_epoch=2, lr_scheduler=name, lr_scheduler_args=args)
    assert found == pytest.approx([0.05, 0.1, *(formula(e) for e in range(4))], rel=1e-9)


def test_the_long_form_of_step_is_the_short_one():
    flat = rates(9, step=[3, 5], lr_decay_rate=0.5)
    assert rates(9, lr_scheduler_args={"step": [3, 5], "lr_decay_rate": 0.5}) == flat
    assert flat == [0.1] * 3 + [0.05] * 2 + [0.025] * 4


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_warm_up_may_be_all_there_is(epochs):
    for keys in ({"lr_scheduler": "cosine"}, {"lr_scheduler": "ExponentialLR",
                                              "lr_scheduler_args": {"gamma": 0.9}}):  # fmt: skip
        found = rates(epochs, warm_up_epoch=4, base_lr=0.4, **keys)
        assert found == pytest.approx([0.1, 0.2, 0.3][:epochs])


# -- optimiser and loss ------------------------------------------------------------------------


def test_sgd_is_as_published_and_others_take_what_they_know():
    weight = nn.Parameter(torch.zeros(2, 2))
    config, parts = bound(nesterov=True, base_lr=0.3, weight_decay=0.01)
    group = make_optimizer(config, parts.optimizer, [weight]).param_groups[0]
    known = {"lr": 0.3, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
    assert {key: group[key] for key in known} == known
    config, parts = bound(optimizer_args={"momentum": 0.5, "weight_decay": 0.2})
    group = make_optimizer(config, parts.optimizer, [weight]).param_groups[0]
    assert (group["momentum"], group["weight_decay"]) == (0.5, 0.2)
    config, parts = bound(optimizer="torch.optim.AdamW", optimizer_args={"betas": [0.8, 0.9]})
    made = make_optimizer(config, parts.optimizer, [weight])
    assert type(made) is torch.optim.AdamW
    assert tuple(made.param_groups[0]["betas"]) == (0.8, 0.9)


def _value(logits, labels, of=(0, 1, 2), **keys):
    config, parts = bound(**keys)
    loss = make_loss(config, parts.loss, np.asarray(of), 3)
    return float(loss(logits, labels))


def test_the_loss_by_formula():
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    labels = torch.tensor([0, 2])
    logs = logits.double().log_softmax(1)
    own = -logs[[0, 1], labels]
    assert _value(logits, labels) == pytest.approx(float(own.mean()), rel=1e-6)
    smooth = 0.7 * own.mean() - 0.3 * logs.mean()
    found = _value(logits, labels, loss_args={"label_smoothing": 0.3})
    assert found == pytest.approx(float(smooth), rel=1e-6)
    weighted = (2 * own[0] + 0.5 * own[1]) / 2.5
    found = _value(logits, labels, loss_args={"weight": [2, 1, 0.5]})
    assert found == pytest.approx(float(weighted), rel=1e-6)


def test_balanced_weights_make_classes_count_alike():
    config, parts = bound(loss_args={"weight": "balanced"})
    labels = np.array([0, 0, 0, 1, 3, 3])
    weight = make_loss(config, parts.loss, labels, 5).weight
    assert torch.allclose(weight, torch.tensor([6 / 9, 2.0, 0.0, 1.0, 0.0]))  # n / (3 n_k)


def test_a_loss_of_ones_own():
    logits, labels = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([0])
    found = _value(logits, labels, loss="toy.Hinge", loss_args={"margin": 2.0})
    assert found == pytest.approx((0 + 1) / 3)


# -- averages ----------------------------------------------------------------------------------


def _steps(rule, epochs):
    """Averages of a layer after each step, and the weights that the steps gave."""
    layer = nn.BatchNorm1d(2)
    average = Average(layer, rule)
    averages, taken = [], []
    for number, epoch in enumerate(epochs):
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([1.0, -2.0]) * (number + 1) ** 2)
            layer.running_var.fill_(number)
            layer.num_batches_tracked.fill_(number)
        average.update(epoch)
        taken.append(layer.weight.detach().clone())
        with average.exchanged():
            averages.append(layer.weight.detach().clone())
            buffers = float(layer.running_var[0]), int(layer.num_batches_tracked)
            with average.exchanged():
                assert torch.equal(layer.weight, taken[-1])
        assert torch.equal(layer.weight, taken[-1])
    return averages, taken, buffers


def test_ema_by_formula():
    averages, taken, buffers = _steps(Ema(decay=0.75), [0] * 4)
    expected = taken[0]
    assert torch.equal(averages[0], expected)
    for found, weight in zip(averages[1:], taken[1:], strict=True):
        expected = 0.75 * expected + 0.25 * weight
        assert torch.allclose(found, expected)
    assert buffers == (pytest.approx(0.75 * (0.75 * 0.25 + 0.25 * 2) + 0.25 * 3), 3)


def test_swa_is_the_mean_of_the_steps_from_its_start_on():
    averages, taken, _ = _steps(Swa(start_epoch=1), [0, 0, 1, 1, 2])
    assert torch.equal(averages[1], taken[1])
    assert torch.equal(averages[2], taken[2])
    assert torch.allclose(averages[4], torch.stack(taken[2:]).mean(0))


@pytest.mark.parametrize("rule", [Ema(0.99), Swa()])
def test_what_does_not_change_averages_to_itself(rule):
    layer = nn.Linear(7, 5)
    average, before = Average(layer, rule), layer.weight.detach().clone()
    for _ in range(50):
        average.update(0)
    with average.exchanged():
        assert torch.equal(layer.weight, before)


# -- whole runs --------------------------------------------------------------------------------


def test_a_run_says_what_it_uses_and_saves_the_averaged_weights(trained):
    folder = trained("full", **FULL)
    log = (folder / "log.txt").read_text()
    assert "optimizer AdamW (betas [0.8, 0.9]); learning rate cosine (min_lr 0.001); loss " in log
    assert "averaging ema (decay 0.9); gradients clipped to a norm of 0.5" in log
    assert "are the averaged weights" in log
    assert "note: step and lr_decay_rate are not used by cosine" in log
    plain = trained("plain", **{**FULL, "averaging": None, "averaging_args": {}})
    averaged, own = toy_run.weights(folder), toy_run.weights(plain)
    assert not torch.equal(averaged["head.weight"], own["head.weight"])
    assert torch.equal(averaged["body.1.num_batches_tracked"], own["body.1.num_batches_tracked"])
    # The steps are the same, so the full state has the weights that the other run ends with.
    states = [torch.load(_state(f), weights_only=True) for f in (folder, plain)]
    assert all(torch.equal(states[0]["model"][key], own[key]) for key in own)
    for key, value in states[0]["average"]["weights"].items():
        assert torch.equal(averaged[key], value)


def _state(folder):
    """The newest state as an archive for torch.load."""
    files = sorted(folder.glob("resume.*.state"), key=lambda p: p.read_bytes()[40:48])
    return io.BytesIO(files[-1].read_bytes()[48:])


def test_nothing_is_said_of_what_is_as_published():
    assert used(Config(**LEAST)) == []


@pytest.mark.parametrize("averaging", [pytest.param("ema", marks=pytest.mark.slow), "swa"])
def test_a_run_that_stops_anywhere_goes_on_to_the_bit(averaging, trained, monkeypatch):
    args = {"averaging_args": {}} if averaging == "swa" else {}
    keys = {**FULL, "averaging": averaging, **args}
    undisturbed = trained("undisturbed", **keys)
    for count in (2, 9, 15):  # in the first epoch, in the second, in its evaluation
        _stop_at(count, monkeypatch, lambda name=f"stopped_{count}": trained(name, **keys))
        folder = trained(f"stopped_{count}", **keys)
        assert "resuming from epoch" in (folder / "log.txt").read_text()
        toy_run.assert_same_run(undisturbed, folder)


def _stop_at(count, monkeypatch, run):
    """Ask ``run`` to stop at its ``count``-th look, be it after a step or within an evaluation."""
    looks = itertools.count(1)

    def take(self):
        return Request.TERMINATE if next(looks) == count else Request.NONE

    with monkeypatch.context() as patched:
        patched.setattr(Signals, "take", take)
        run()


@pytest.mark.parametrize("amp", ["off", "fp16"])
def test_a_gradient_is_clipped_to_the_norm(amp, trained):
    """With plain SGD a step is as long as the rate times the norm."""
    plain = {
        "optimizer_args": {"momentum": 0},
        "weight_decay": 0,
        "num_epoch": 1,
        "base_lr": 1.0,
        "amp": amp,
    }
    one = {**plain, "global_batch_size": 101, "batch_size": 101}
    free = trained("free", **one)
    cut = trained("cut", **one, clip_grad_norm=0.01)
    start = trained("start", **{**one, "base_lr": 1e-12})
    paths = [next(folder.glob("runs-1-*.pt")) for folder in (free, cut, start)]
    free, cut, start = (torch.load(path, weights_only=True) for path in paths)
    names = [key for key in start if key.endswith(("weight", "bias"))]
    length = [
        math.sqrt(sum(float((w[k] - start[k]).double().square().sum()) for k in names))
        for w in (free, cut)
    ]
    assert length[1] == pytest.approx(0.01, rel=1e-3)
    assert length[0] > 0.02
    assert all(torch.allclose((free[k] - start[k]) / length[0], (cut[k] - start[k]) / length[1],
                              atol=1e-4) for k in names)  # fmt: skip


def test_what_is_frozen_stays_to_the_bit_in_the_average_too(trained):
    folder = trained("frozen", **FULL, model="toy.Frozen")
    first = trained("first", **{**FULL, "num_epoch": 1}, model="toy.Frozen")
    last, early = toy_run.weights(folder), torch.load(first / "best.pt", weights_only=True)
    assert torch.equal(last["head.weight"], early["head.weight"])
    assert not torch.equal(last["body.0.weight"], early["body.0.weight"])


def test_a_step_that_is_skipped_is_not_averaged(trained):
    """The bad sample spoils a step of each epoch; the weights before it count once."""
    keys = {**FULL, "averaging": "swa", "averaging_args": {}, "on_nonfinite": "skip"}
    folder = trained("skipped", **keys, train_feeder_args={"bad": 3})
    state = torch.load(_state(folder), weights_only=True)
    skipped = state["callbacks"]["NonFinite"]["skipped"]
    assert skipped >= 3
    assert state["average"]["count"] == state["counters"]["global_step"] - skipped
    assert all(bool(w.isfinite().all()) for w in toy_run.weights(folder).values())


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")  # AdamW makes whole steps of gradients that are rounding
def test_two_processes_go_on_with_what_one_began(trained, tmp_path, monkeypatch):
    keys = {**FULL, "num_epoch": 2}
    one = trained("one", **keys)
    _stop_at(8, monkeypatch, lambda: trained("two", **keys))
    run = Ranks(tmp_path, "--config", str(tmp_path / "c.yaml"), "--work-dir", str(tmp_path / "two"))
    assert run.statuses([0, 1], seconds=200) == [0, 0], run.said(0)
    assert "resuming from epoch 2, step 2" in run.said(0)
    for name in ("best.pt", "runs-2-12.pt"):
        both = [torch.load(f / name, weights_only=True) for f in (one, tmp_path / "two")]
        assert all(torch.allclose(both[0][k], both[1][k], atol=1e-4) for k in both[0])


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"averaging_args": {"decay": 0.8}}, "averaging_args.decay: 0.9 -> 0.8"),
        ({"clip_grad_norm": 1.0}, "clip_grad_norm: 0.5 -> 1.0"),
        ({"loss_args": {"label_smoothing": 0.1}}, "loss_args.weight: 'balanced' -> not set"),
        ({"num_epoch": 5}, "num_epoch: 4 -> 5"),
        ({"lr_scheduler_args": {}}, "lr_scheduler_args.min_lr: 0.001 -> not set"),
    ],
)
def test_a_run_with_another_recipe_is_refused(keys, named, trained, capsys):
    trained("run", **FULL)
    trained("run", **{**FULL, **keys}, status=2)
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


def test_a_schedule_may_be_cut_where_its_rates_are_the_same_up_to_here(trained):
    keys = {"lr_scheduler": "MultiStepLR", "lr_scheduler_args": {"milestones": [2], "gamma": 0.5}}
    trained("run", **keys)
    keys["lr_scheduler_args"] = {"milestones": [2, 5], "gamma": 0.5}
    folder = trained("run", **keys, num_epoch=6)
    assert "the same rates up to here" in (folder / "log.txt").read_text()


def test_a_run_that_was_saved_before_there_were_such_keys_goes_on(trained, monkeypatch):
    new = ("optimizer_args", "lr_scheduler", "lr_scheduler_args", "loss", "loss_args",
           "averaging", "averaging_args", "clip_grad_norm")  # fmt: skip
    with monkeypatch.context() as patched:
        whole = Config.recipe
        patched.setattr(
            Config, "recipe", lambda c: {k: v for k, v in whole(c).items() if k not in new}
        )
        trained("old", num_epoch=2)
    folder = trained("old")
    assert "resuming from epoch 3" in (folder / "log.txt").read_text()
    toy_run.assert_same_run(trained("undisturbed"), folder)


# -- faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"optimizer": "adamw"}, 'optimizer: module "torch.optim" has no class "adamw" (did you '
                                 'mean "AdamW"?)'),
        ({"optimizer": "lr_scheduler.StepLR"}, "outside of the allowed packages"),
        ({"optimizer": "torch.nn.Linear"}, "outside of the allowed packages"),
        ({"optimizer": "toy.Model"}, '"toy.Model" is no torch.optim.optimizer.Optimizer'),
        ({"optimizer": "LBFGS", "weight_decay": 0}, "optimizer: LBFGS cannot train here"),
        ({"optimizer": "SparseAdam", "weight_decay": 0}, "optimizer: SparseAdam cannot train here"),
        ({"optimizer": "Rprop"}, "weight_decay: Rprop has none; say --weight-decay 0"),
        ({"optimizer_args": {"momentun": 1}}, "optimizer_args.momentun: SGD takes no such argument "
                                              '(did you mean "momentum"?)'),
        ({"optimizer_args": {"momentum": "much"}}, "optimizer_args.momentum: 'much': "),
        ({"optimizer_args": {"momentum": -1}}, "optimizer: SGD: Invalid momentum"),
        ({"optimizer_args": {"lr": 1}}, "optimizer_args.lr: is not for optimizer_args: it is base"),
        ({"optimizer": "AdamW", "optimizer_args": {"betas": [0.9]}}, "optimizer_args.betas: [0.9]"),
        ({"lr_scheduler": "cosin"}, '(did you mean "cosine"?)'),
        ({"lr_scheduler": "ReduceLROnPlateau"}, "lr_scheduler: ReduceLROnPlateau decides by"),
        ({"lr_scheduler": "toy.Model"}, '"toy.Model" is neither step nor cosine nor a class'),
        ({"lr_scheduler": "cosine", "lr_scheduler_args": {"min_lr": 1}}, "min_lr is above base_lr"),
        ({"averaging": "swa", "averaging_args": {"start_epoch": 65}},
         "averaging_args.start_epoch 65 leaves none of num_epoch 65"),
        ({"lr_scheduler": "LambdaLR"}, "lr_scheduler_args.lr_lambda: LambdaLR needs it"),
        ({"lr_scheduler": "SequentialLR", "lr_scheduler_args": {"schedulers": [1],
                                                                "milestones": []}}, "SequentialLR"),
        ({"lr_scheduler": "OneCycleLR", "lr_scheduler_args": {"max_lr": 1, "total_steps": 3,
                                                              "cycle_momentum": False}},
         "lr_scheduler_args: OneCycleLR"),
        ({"lr_scheduler": "LRScheduler"}, "lr_scheduler_args: LRScheduler"),
        ({"lr_scheduler": "cosine", "lr_scheduler_args": {"min_lr": -1}}, "gives a rate of"),
        ({"lr_scheduler": "cosine", "lr_scheduler_args": {"low": 1}}, "lr_scheduler_args.low: "
                                                                      "cosine takes no such"),
        ({"loss": "CrossEntropy"}, '(did you mean "CrossEntropyLoss"?)'),
        ({"loss": "toy.Feeder"}, '"toy.Feeder" is no torch.nn.modules.module.Module'),
        ({"loss_args": {"smoothing": 0.1}}, "loss_args.smoothing: CrossEntropyLoss takes no such"),
        ({"loss_args": {"reduction": "sum"}}, "loss_args.reduction: a step's loss is a mean"),
        ({"averaging": "mean"}, 'key "averaging": input should be'),
        ({"averaging": "ema", "averaging_args": {"decay": 1.5}}, "decay 1.5 is not in [0, 1)"),
        ({"averaging": "swa", "averaging_args": {"decay": 0.5}}, "averaging_args.decay: swa takes"),
        ({"averaging_args": {"decay": 0.5}}, "averaging_args: nothing is averaged"),
        ({"clip_grad_norm": 0}, 'key "clip_grad_norm": input should be greater than 0'),
        ({"nesterov": True, "optimizer": "AdamW"}, "nesterov is for SGD, not for optimizer AdamW; "
                                                   "say --nesterov False"),
        ({"nesterov": True, "optimizer": "Adam2"}, '(did you mean "Adam"?)'),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_that_names_the_key(keys, message):
    with pytest.raises(UserError) as caught:
        bound(**keys)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"loss": "MSELoss"}, "loss: MSELoss is no loss of logits (N, c) and labels (N)"),
        ({"loss": "Linear", "loss_args": {"in_features": 3, "out_features": 1}}, "loss: Linear is"),
        ({"loss": "toy.Learnt"}, "has parameters, which nothing would train"),
        ({"loss_args": {"label_smoothing": 2.0}}, "label_smoothing must be between"),
        ({"loss_args": {"weight": [1, 2]}}, "loss_args.weight: has 2 numbers for 3 classes"),
        ({"loss_args": {"weight": [1, 2, -1]}}, "neither balanced nor a list of weights >= 0"),
        ({"loss_args": {"weight": "balance"}}, "neither balanced nor a list of weights >= 0"),
        ({"loss_args": {"weight": [0, 0, 0]}}, "neither balanced nor a list of weights >= 0"),
    ],
)
def test_a_loss_that_does_not_fit_is_one_line(keys, message):
    config, parts = bound(**keys)
    with pytest.raises(UserError) as caught:
        make_loss(config, parts.loss, np.arange(3), 3)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_fault_writes_nothing_and_names_the_flag(trained, tmp_path, capsys):
    trained("none", "--optimizer-args", "momentun=1", status=2)
    assert capsys.readouterr().err.startswith("error: --optimizer-args momentun: SGD takes no such")
    trained("none", "--optimizer", "Muon", status=2)
    assert capsys.readouterr().err.startswith("error: --optimizer: Muon: ")
    trained("none", "--loss-args", "weight=[1, 2]", status=2)
    assert f"has 2 numbers for {toy.CLASSES} classes" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
