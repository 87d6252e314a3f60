"""The model on a GPU against itself on the CPU in float64, in every way it is run there."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from random_models import NTU, randomised
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from model.classifier import Model
from torchlight.graphs import capture

pytestmark = pytest.mark.cuda
HEADS = ("koopman", "average")


def build(head: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = randomised(Model(12, **NTU, head=head, channels=[16, 32, 64], stride=[1, 2, 1]))
    return model, torch.randn(8, 3, 24, 25, 2)


def step(model: nn.Module, x: Tensor, dtype: torch.dtype | None = None) -> list[Tensor]:
    """Logits, gradients and logits in evaluation, in float64 on the CPU."""
    device = x.device.type
    with torch.autocast(device, dtype, enabled=dtype is not None):
        logits = model.train()(x)
        loss = F.cross_entropy(logits, torch.arange(len(x), device=x.device))
    loss.backward()
    with torch.no_grad(), torch.autocast(device, dtype, enabled=dtype is not None):
        evaluated = model.eval()(x)
    gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
    return [value.detach().double().cpu() for value in (logits, gradients, evaluated)]


def check(found: list[Tensor], expected: list[Tensor], limit: float) -> None:
    for mine, wanted in zip(found, expected, strict=True):
        assert (mine - wanted).norm() < limit * wanted.norm()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("dtype", "limit"), [(None, 2e-3), (torch.bfloat16, 0.15), (torch.float16, 0.05)]
)
def test_parity(device: str, head: str, dtype: torch.dtype | None, limit: float) -> None:
    model, x = build(head)
    expected = step(copy.deepcopy(model).double(), x.double())
    check(step(model.to(device), x.to(device), dtype), expected, limit)


@pytest.mark.parametrize("head", HEADS)
def test_recomputing_and_compiling(device: str, head: str) -> None:
    model, x = build(head)
    model, x = model.to(device), x.to(device)
    expected = step(copy.deepcopy(model), x)
    again = copy.deepcopy(model)
    for block in again.blocks:
        block.gcn1.recompute = True
    check(step(again, x), expected, 1e-4)
    check(step(torch.compile(model, fullgraph=True), x), expected, 2e-3)


@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize("head", HEADS)
def test_steps_by_cuda_graphs(device: str, head: str, batches: int) -> None:
    if device == "cpu":
        pytest.skip("CUDA graphs need CUDA")
    model, x = build(head)
    model = model.to(device).train()
    graphed = copy.deepcopy(model)
    capture(graphed, x.to(device), None, accumulates=batches > 1)
    for one, other in zip(model.buffers(), graphed.buffers(), strict=True):
        assert torch.equal(one, other)
    found = []
    for run in (model, graphed):
        optimizer = torch.optim.SGD(run.parameters(), 0.01, momentum=0.9)
        torch.manual_seed(1)
        losses = []
        for _ in range(4):
            for _ in range(batches):
                inputs = torch.randn(x.shape, device=device)
                loss = F.cross_entropy(run.train()(inputs), torch.arange(len(x), device=device))
                loss.backward()
                losses.append(loss.detach())
            optimizer.step()
            optimizer.zero_grad()
        evaluated = run.eval()(torch.randn(3, *x.shape[1:], device=device)).detach()
        weights = torch.cat([value.flatten() for value in run.state_dict().values()])
        found.append([v.double().cpu() for v in (torch.stack(losses), evaluated, weights)])
    check(found[1], found[0], 1e-4)


@pytest.mark.parametrize("head", HEADS)
def test_a_process_group_of_one_card(device: str, head: str, tmp_path: Path) -> None:
    model, x = build(head)
    model, x = model.to(device), x.to(device)
    expected = step(copy.deepcopy(model), x)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{tmp_path}/s", rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(
            model, forward_sync_buffers=False, gradient_as_bucket_view=True
        )
        check(step(parallel, x), expected, 1e-4)
    finally:
        dist.destroy_process_group()
