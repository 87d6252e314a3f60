"""Training in chunks of a batch: the same as on the whole, by every number of threads."""

import threading
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model.classifier import Model
from model.cpu import accelerate
from model.cpu import threads as threads_module
from model.cpu.normalization import normalize
from model.cpu.threads import all_reduce, call_on_chunks, chunks_of, is_first, map_on_threads
from torchlight import distributed


@pytest.fixture
def threads():
    """Set the number of threads; it is set back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def any_size(monkeypatch) -> None:
    """Share out small inputs too."""
    monkeypatch.setattr(threads_module, "MIN_NUMBERS", 0)


def small_model(**options) -> Model:
    torch.manual_seed(0)
    options = {"channels": (16, 32, 32), "stride": (1, 2, 1), **options}
    return accelerate(Model(4, 20, 2, "graph.ucla.Graph", **options).double())


def train_step(model: nn.Module, x: Tensor, *, half: bool = False) -> dict[str, Tensor]:
    """Return logits, gradients and running statistics of one step."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = model(x)
        loss = nn.functional.cross_entropy(logits, torch.arange(len(x)) % 4)
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    return {"logits": logits.detach(), **gradients, **buffers}


@pytest.mark.parametrize("options", [{}, {"head": "average"}, {"recompute": True}])
@pytest.mark.parametrize("samples", [6, 13])
def test_threads_change_nothing_but_rounding(threads, samples: int, options: dict) -> None:
    x = torch.randn(samples, 3, 12, 20, 2, dtype=torch.float64)
    threads(1)
    expected = train_step(small_model(**options), x)
    for count in (2, 3):
        threads(count)
        assert len(chunks_of(x)) == count
        found = train_step(small_model(**options), x)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11, msg=name)
    assert found["l1.gcn1.bn.num_batches_tracked"] == 1


def test_the_same_threads_give_the_same_bits(threads) -> None:
    threads(2)
    x = torch.randn(8, 3, 12, 20, 2)
    first, second = (train_step(small_model().float(), x) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_frozen_parameters_have_no_gradient(threads) -> None:
    threads(2)
    model = small_model(freeze_koopman=True)
    model.l1.requires_grad_(False)
    model.data_bn.requires_grad_(False)
    found = train_step(model, torch.randn(4, 3, 12, 20, 2, dtype=torch.float64))
    assert "l1.gcn1.PA" not in found
    assert "K" not in found
    assert found["l2.gcn1.PA"].abs().sum() > 0


def test_autocast_reaches_the_shares(threads) -> None:
    x = torch.randn(8, 3, 12, 20, 2)
    threads(2)
    model = small_model().float()
    assert model.forward_features(x).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert model.forward_features(x).dtype == torch.bfloat16
    exact, half = train_step(small_model().float(), x), train_step(model, x, half=True)
    name = "l3.tcn1.branches.3.0.weight"
    assert half[name].dtype == torch.float32
    assert (half[name] - exact[name]).norm() < 0.1 * exact[name].norm()


def test_a_batch_stays_whole_where_there_is_nothing_to_gain(threads, monkeypatch) -> None:
    threads(2)
    x = torch.zeros(6, 1)
    assert [len(chunk) for chunk in chunks_of(x)] == [3, 3]
    assert len(chunks_of(x[:5])) == 1  # one thread would wait for the other
    assert [len(chunk) for chunk in chunks_of(torch.zeros(9, 1))] == [5, 4]
    threads(9)
    assert len(chunks_of(torch.zeros(90, 1))) == 8  # Python calls one operation at a time
    threads(2)
    monkeypatch.setattr(threads_module, "MIN_NUMBERS", 7)
    assert len(chunks_of(x)) == 1


def test_values_are_reduced_once_in_the_order_of_the_shares() -> None:
    calls = []

    def total_of(values):
        calls.append(values)
        return sum(values)

    def work(x: Tensor) -> Tensor:
        assert torch.get_num_threads() == 1
        total = [all_reduce(x.item() * 10**i, total_of) for i in range(3)]
        return x * total[2] + is_first()

    chunks = [torch.tensor(float(i), requires_grad=True) for i in (1, 2, 3)]
    found = call_on_chunks(work, chunks, [])
    assert calls == [[1, 2, 3], [10, 20, 30], [100, 200, 300]]
    assert [y.item() for y in found] == [601, 1200, 1800]
    sum(found).backward()
    assert [x.grad.item() for x in chunks] == [600] * 3
    assert all_reduce(5, list) == [5]


@pytest.mark.parametrize("failing", [0, 1])
def test_what_fails_in_a_share_is_raised_and_holds_up_nobody(failing: int) -> None:
    def work(x: Tensor) -> Tensor:
        if x.item() == failing:
            raise ValueError("this chunk fails")
        return all_reduce(x, sum)

    chunks = [torch.tensor(float(i), requires_grad=True) for i in (0, 1)]
    with pytest.raises(ValueError, match="this chunk fails"):
        call_on_chunks(work, chunks, [])
    found = call_on_chunks(lambda x: all_reduce(x.detach(), sum) * x, chunks, [])
    assert [y.item() for y in found] == [0, 1]


def test_threads_of_the_caller_take_turns(monkeypatch) -> None:
    # Two calls of two chunks each, of which one of each is under way, would wait for ever.
    class SlowPool:
        def submit(self, *given):
            future = two.submit(*given)
            time.sleep(0.02)
            return future

    two = threads_module._pool(2)
    monkeypatch.setattr(threads_module, "_pool", lambda count: SlowPool())
    chunks = [torch.tensor(float(i), requires_grad=True) for i in (1, 2)]
    found = []

    def call() -> None:
        y = call_on_chunks(lambda x: all_reduce(x.detach(), sum) * x, chunks, [])
        found.append([chunk.item() for chunk in y])

    callers = [threading.Thread(target=call, daemon=True) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=20)
    assert found == [[3, 6]] * 3


def ddp_step(rank: int, count: int, folder: Path) -> None:
    """One step of one of two processes with ``count`` threads; the first writes its gradients."""
    torch.set_num_threads(count)
    threads_module.MIN_NUMBERS = 0  # this is a process of its own
    store = f"file://{folder}/store{count}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    model = small_model()
    torch.manual_seed(rank)
    x = torch.randn(4, 3, 12, 20, 2, dtype=torch.float64)
    found = train_step(DistributedDataParallel(model, gradient_as_bucket_view=True), x)
    if rank == 0:
        torch.save(found, folder / f"{count}.pt")
    distributed.stop()


def test_gradients_of_two_processes_are_exchanged(tmp_path: Path) -> None:
    for count in (1, 2):
        torch.multiprocessing.spawn(ddp_step, (count, tmp_path), nprocs=2)
    one, two = (torch.load(tmp_path / f"{count}.pt", weights_only=True) for count in (1, 2))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-9, atol=1e-11, msg=name)


def test_threads_take_over_the_callers_modes_and_leave_it_its_threads(threads) -> None:
    threads(5)

    def work(number: int):
        product = torch.mm(torch.ones(2, 2), torch.ones(2, 2))
        modes = (product.dtype, torch.is_grad_enabled(), product.is_inference())
        return number, torch.get_num_threads(), modes

    assert map_on_threads(work, 2) == [(i, 2, (torch.float32, True, False)) for i in (0, 1)]
    assert torch.get_num_threads() == 5
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert map_on_threads(work, 2) == [(i, 2, (torch.bfloat16, False, True)) for i in (0, 1)]


def test_a_second_backward_pass_is_refused() -> None:
    chunks = [torch.tensor(float(i), requires_grad=True) for i in (1, 2)]
    total = sum(call_on_chunks(lambda x: x * x, chunks, []))
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        total.backward()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("pieces", "widths"), [(1, (6,)), (3, (6,)), (1, (2, 4))])
def test_unequal_shares_are_normalised_as_one_batch(dtype, pieces: int, widths) -> None:
    torch.manual_seed(0)
    maps = [(3 + 2 * torch.randn(5, width, 3, 4)).to(dtype) for width in widths]
    residual = torch.randn(5, 6, 3, 4).to(dtype) if pieces == 1 else None
    direction = torch.randn(5, 6, 3, 4).to(dtype)

    def run(counts: list[int], precision: torch.dtype) -> list[Tensor]:
        norms = [nn.BatchNorm2d(width) for width in widths]
        for norm in norms:
            norm.to(torch.promote_types(precision, torch.float32))
        given = torch.cat([*maps, *([] if residual is None else [residual])], dim=1)
        given = given.to(precision).requires_grad_()

        def work(x: Tensor) -> Tensor:
            parts = [part.clone() for part in x[:, :6].split(widths, dim=1)]
            own = None if residual is None else x[:, 6:]
            relu = dtype != torch.bfloat16  # at zero, rounding decides
            found = normalize(parts, norms, residual=own, relu=relu, pieces=pieces)
            return torch.cat(found, dim=1)

        parameters = list(nn.ModuleList(norms).parameters())
        y = torch.cat(call_on_chunks(work, given.split(counts), parameters))
        y.backward(direction.to(precision))
        statistics = torch.cat([norm.running_mean for norm in norms])
        variances = torch.cat([norm.running_var for norm in norms])
        weights = torch.cat([norm.weight.grad for norm in norms])
        return [y, given.grad, weights, statistics, variances]

    limit = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    pairs = zip(run([2, 3], dtype), run([5], torch.float64), strict=True)
    for found, expected in pairs:
        assert (found.double() - expected).norm() < limit * expected.norm()
