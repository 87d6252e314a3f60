"""Model against golden numbers of the published implementation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import parity
import pytest
import torch
from torch.nn import functional as F

from model.classifier import Model
from model.published import ALIASES

CASES = ["koopman_ucla", "koopman_ntu60", "ctrgcn_ucla"]


def build(case: str, **extra: Any) -> Model:
    """Build the model of a case by its published names."""
    model, graph = parity.PUBLISHED_MODELS[case]
    name, arguments = ALIASES[model]
    assert name == "model.classifier.Model"
    ntu = "ntu" in graph
    classes = {"koopman_ntu60": 60, "koopman_ntu120": 120, "ctrgcn_ntu60": 60}.get(case, 10)
    return Model(
        num_class=classes,
        num_point=25 if ntu else 20,
        num_person=2 if ntu else 1,
        graph=graph,
        graph_args={"labeling_mode": "spatial"},
        **{**arguments, **extra},
    )


def loaded(shared: Path, case: str, dtype: torch.dtype, **extra: Any) -> Model:
    """Build the model of a case with its weights."""
    model = build(case, **extra)
    model.load_state_dict(parity.read_weights(shared, case))
    return model.to(dtype)


def relative(actual: torch.Tensor, expected: np.ndarray) -> float:
    """Largest difference over the largest entry."""
    difference = np.abs(actual.detach().double().numpy() - expected).max()
    return float(difference / np.abs(expected).max())


@pytest.mark.parametrize("case", parity.PUBLISHED_MODELS)
def test_keys_shapes_and_order_are_the_published_ones(shared: Path, case: str) -> None:
    published = parity.read_keys(shared, case)
    model = build(case)
    ours = [
        [key, list(value.shape), str(value.dtype).removeprefix("torch.")]
        for key, value in model.state_dict().items()
    ]
    assert ours == published["entries"]
    unused = {"fc.weight", "fc.bias"} if case.startswith("koopman") else set()
    assert [name for name, _ in model.named_parameters()] == [
        name for name in published["parameter_order"] if name not in unused
    ]
    buffers = [name for name, _ in model.named_buffers()]
    assert set(buffers) == set(published["buffers"]) | unused


def test_frozen_stage_has_the_same_keys_and_freezes_k(shared: Path) -> None:
    frozen = json.loads((shared / "parity" / "koopman_tune_frozen.json").read_text())
    plain, tune = build("koopman_ucla"), build("koopman_ucla", freeze_koopman=True)
    assert list(plain.state_dict()) == list(tune.state_dict())
    fixed = [name for name, p in tune.named_parameters() if not p.requires_grad]
    assert fixed == frozen["koopman_ucla"]["requires_grad_false_after_first_forward"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("suffix", "limit"), [("f64", 1e-10), ("f32", 1e-5)])
def test_eval_logits(shared: Path, case: str, suffix: str, limit: float) -> None:
    golden = np.load(shared / "parity" / f"model_{case}.npz")
    dtype = torch.float64 if suffix == "f64" else torch.float32
    model = loaded(shared, case, dtype).eval()
    x, labels = torch.from_numpy(golden["x"]).to(dtype), torch.from_numpy(golden["labels"])
    with torch.no_grad():
        logits = model(x)
    assert relative(logits, golden[f"eval_logits_{suffix}"]) < limit
    assert relative(F.cross_entropy(logits, labels), golden[f"eval_loss_{suffix}"]) < limit


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("suffix", "logits_limit", "worst", "median"),
    [("f64", 1e-10, 1e-9, 1e-9), ("f32", 1e-5, 3e-2, 1e-3)],
)
def test_training_step(
    shared: Path, case: str, suffix: str, logits_limit: float, worst: float, median: float
) -> None:
    golden = np.load(shared / "parity" / f"model_{case}.npz")
    dtype = torch.float64 if suffix == "f64" else torch.float32
    model = loaded(shared, case, dtype).train()
    x, labels = torch.from_numpy(golden["x"]).to(dtype), torch.from_numpy(golden["labels"])
    logits = model(x)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    assert relative(logits, golden[f"train_logits_{suffix}"]) < logits_limit
    assert relative(loss, golden[f"train_loss_{suffix}"]) < logits_limit
    errors = _gradient_errors(model, golden, suffix)
    assert max(errors.values()) < worst, max(errors, key=errors.__getitem__)
    assert np.median(list(errors.values())) < median
    _check_buffers(model, golden, suffix, logits_limit)


def _gradient_errors(model: Model, golden: Any, suffix: str) -> dict[str, float]:
    """Return each tensor's largest error, relative to its gradient norm."""
    zero_limit = {"f64": 1e-13, "f32": 1e-5}[suffix]
    parameters = dict(model.named_parameters())
    errors = {}
    for i, name in enumerate(golden["grad_names"].tolist()):
        if not golden["grad_present"][i]:
            assert name not in parameters
            continue
        gradient = parameters[name].grad.flatten().double().numpy()
        norm = golden[f"grad_norm_{suffix}"][i]
        if golden["grad_zero_by_construction"][i]:
            assert np.linalg.norm(gradient) < zero_limit, name
            continue
        first = golden[f"grad_first5_{suffix}"][i]
        cosdot = gradient @ np.cos(np.arange(gradient.size))
        deviations = [
            abs(np.linalg.norm(gradient) - norm),
            np.nanmax(np.abs(gradient[:5] - first[: gradient.size])),
            abs(cosdot - golden[f"grad_cosdot_{suffix}"][i]),
        ]
        errors[name] = float(max(deviations) / norm)
    return errors


def _check_buffers(model: Model, golden: Any, suffix: str, limit: float) -> None:
    """Compare running statistics after one training step."""
    buffers = dict(model.named_buffers())
    for name in ("running_mean", "running_var"):
        assert relative(buffers[f"data_bn.{name}"], golden[f"data_bn_{name}_{suffix}"]) < limit
    sums = golden[f"bn_buffer_sums_{suffix}"]
    for name, total in zip(golden["bn_buffer_names"], sums, strict=True):
        values = buffers[str(name)].double()
        assert abs(float(values.sum()) - total) < limit * float(values.abs().sum()), name
    counts = [value for name, value in buffers.items() if name.endswith("num_batches_tracked")]
    assert all(int(count) == 1 for count in counts)


@pytest.mark.parametrize(("suffix", "limit"), [("f64", 1e-10), ("f32", 1e-5)])
def test_flat_input_and_pooled_features(shared: Path, suffix: str, limit: float) -> None:
    golden = np.load(shared / "parity" / "model_koopman_ucla_extra.npz")
    dtype = torch.float64 if suffix == "f64" else torch.float32
    model = loaded(shared, "koopman_ucla", dtype, return_features=True).eval()
    x = np.load(shared / "parity" / "model_koopman_ucla.npz")["x"]
    with torch.no_grad():
        flat_logits, _ = model(torch.from_numpy(golden["x3"]).to(dtype))
        logits, features = model(torch.from_numpy(x).to(dtype))
    assert relative(flat_logits, golden[f"x3_eval_logits_{suffix}"]) < limit
    assert relative(logits, golden[f"emb_logits_{suffix}"]) < limit
    assert relative(features, golden[f"emb_{suffix}"]) < limit
