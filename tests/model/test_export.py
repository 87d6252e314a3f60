"""What leaves the program: torch.export, ONNX by both exporters, traces; plain and accelerated."""

import contextlib
import io
import logging
from typing import Any

import numpy as np
import pytest
import torch
from random_models import NTU, randomised
from torch import Tensor, nn

from model.classifier import Model
from model.cpu import accelerate

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.parametrize("fast", [False, True], ids=["plain", "accelerated"]),
]
HEADS = ("koopman", "average")
N, T = torch.export.Dim("n"), torch.export.Dim("t", min=8)


def build(head: str, fast: bool) -> tuple[nn.Module, list[Tensor]]:
    """A small model in evaluation, and batches: the traced one, another size, another length."""
    torch.manual_seed(0)
    model = randomised(Model(11, **NTU, head=head, channels=[8, 16], stride=[1, 2])).eval()
    shapes = [(2, 3, 16, 25, 2), (2, 3, 16, 25, 2), (5, 3, 16, 25, 2), (3, 3, 21, 25, 2)]
    return accelerate(model) if fast else model, [torch.randn(shape) for shape in shapes]


def check(model: nn.Module, found: Any, batches: list[Tensor]) -> None:
    with torch.no_grad():
        for x in batches:
            torch.testing.assert_close(torch.as_tensor(found(x)), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize(("axes", "count"), [(None, 2), ({0: N}, 3), ({0: N, 2: T}, 4)])
def test_export(head: str, fast: bool, gradients: bool, axes: Any, count: int) -> None:
    model, batches = build(head, fast)
    shapes = None if axes is None else (axes,)
    with torch.set_grad_enabled(gradients):
        program = torch.export.export(model, (batches[0],), dynamic_shapes=shapes)
    check(model, program.module(), batches[:count])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("gradients", [False, True])
def test_trace(head: str, fast: bool, gradients: bool) -> None:
    model, batches = build(head, fast)
    with torch.set_grad_enabled(gradients):
        traced = torch.jit.trace(model, batches[0])
    file = io.BytesIO()
    torch.jit.save(traced, file)
    check(model, torch.jit.load(io.BytesIO(file.getvalue())), batches)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("dynamo", "gradients"), [(True, False), (False, False), (False, True)])
@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_onnx(
    head: str, fast: bool, dynamo: bool, gradients: bool, count: int, monkeypatch
) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    monkeypatch.setattr(logging.root, "disabled", True)
    model, batches = build(head, fast)
    variable = count > 2
    options: dict[str, Any] = {"dynamic_shapes": ({0: N, 2: T},) if variable else None}
    if not dynamo:
        axes = {"x": {0: "n", 2: "t"}} if variable else None
        options = {"input_names": ["x"], "dynamic_axes": axes}
    file, quiet = io.BytesIO(), io.StringIO()
    with (
        torch.set_grad_enabled(gradients),
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
    ):
        program = torch.onnx.export(
            model, (batches[0],), None if dynamo else file, dynamo=dynamo, **options
        )
    if dynamo:
        file.write(program.model_proto.SerializeToString())
    session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(x: Tensor) -> np.ndarray:
        return session.run(None, {name: x.numpy()})[0]

    check(model, run, batches[:count])


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_compiled_steps_are_the_same(head: str, fast: bool) -> None:
    model, (x, *_) = build(head, fast)
    compiled = torch.compile(model.train(), backend="aot_eager", fullgraph=True)
    found = []
    for run in (model, compiled):
        model.load_state_dict(build(head, fast)[0].state_dict())
        model.zero_grad()
        logits = run(x)
        logits.sum().backward()
        found.append([logits.detach(), *(p.grad for p in model.parameters())])
    for mine, wanted in zip(*found, strict=True):
        assert (mine - wanted).norm() < 1e-3 * wanted.norm() + 1e-3
