"""Gradients on the CPU: every thread takes its share of the samples through the network and back.

Torch spreads each operation over all threads, and all wait for each other after every one. Here a
module is called once for each share of the batch instead, in a thread of its own, all on the same
parameters; it then waits for nobody, and its maps are half as large where there are two. Only where
samples have to do with each other, in the statistics of a batch norm, do the threads meet: what
they found is joined, and all go on with the same result (``combine``). The backward pass goes the
same way, and what the shares say of a parameter's gradient is added up in their order. So results
depend on the number of threads, as they do with torch's own operations, by rounding alone.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from functools import reduce
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model.threads import pool

Value = TypeVar("Value")
Result = TypeVar("Result")

MAX_SHARES = 8
"""Every thread calls all operations itself, and Python calls one at a time: so many threads at most
are given shares. (Measured with two; more are left to torch.)"""
MIN_NUMBERS = 12_000
"""With fewer numbers in the input (4,000 joints of 3 coordinates), meeting takes more than work."""
SAMPLES_TO_BE_UNEQUAL = 4
"""With fewer samples a thread, shares must be equal, or some threads would wait for the others."""


class _Meeting:
    """Where the threads of one call join what they found."""

    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count, self._join)
        # Two tables in turn: a thread may write to the next while others still read this one.
        self._tables: list[list[Any]] = [[None] * count, [None] * count]
        self._results: list[Any] = [None, None]
        self._turns = [0] * count
        self._join_with: Callable[[list[Any]], Any] = list

    def combine(self, number: int, value: Value, join: Callable[[list[Value]], Result]) -> Result:
        """Return ``join`` of the values of all numbers, which each comes here with its own."""
        turn = self._turns[number]
        self._turns[number] = 1 - turn
        self._tables[turn][number] = value
        self._join_with = join
        self.barrier.wait()
        return self._results[turn]

    def _join(self) -> None:
        """Called in the thread that comes last, while the others wait."""
        turn = 1 - self._turns[0]
        self._results[turn] = self._join_with(list(self._tables[turn]))


class _Place(threading.local):
    """Where a thread stands: the number of its share, and where it meets the others."""

    meeting: _Meeting | None = None
    number = 0


_place = _Place()
_one_at_a_time = threading.Lock()  # threads that wait for each other must all be running


def share_out(x: Tensor) -> list[Tensor]:
    """Return the shares of a batch, one for each of torch's threads; or the batch as a whole.

    It stays whole where there is nothing to gain: outside the CPU, while no gradients are recorded,
    within a share, for small inputs, and where there are too many threads for the samples or for
    Python.
    """
    count = torch.get_num_threads()
    if x.device.type != "cpu" or not torch.is_grad_enabled() or x.numel() < MIN_NUMBERS:
        return [x]
    if count > MAX_SHARES or (len(x) % count and len(x) < SAMPLES_TO_BE_UNEQUAL * count):
        return [x]
    return list(x.tensor_split(count))


def call_on_shares(module: nn.Module, shares: Sequence[Tensor]) -> list[Tensor]:
    """Call a module on shares of a batch, with gradients; on several, each in its own thread.

    Nothing passes between the shares but what ``combine`` joins. The gradients of all the module's
    parameters come out together, when its backward pass is through.
    """
    if len(shares) == 1:
        return [module(shares[0])]
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return list(_Shares.apply(module, len(shares), *shares, *parameters))


def combine(value: Value, join: Callable[[list[Value]], Result]) -> Result:
    """Return ``join`` of what the threads of all shares pass here, in the order of the shares.

    All of them must come here; it is called once. Outside of a share it is ``join([value])``.
    """
    if _place.meeting is None:
        return join([value])
    return _place.meeting.combine(_place.number, value, join)


def in_share() -> bool:
    """Whether this thread has but a share of the batch; its graph is then walked back only once."""
    return _place.meeting is not None


def is_first() -> bool:
    """Whether this thread has the first share, or the batch as a whole."""
    return _place.number == 0


class _Shares(torch.autograd.Function):
    """The module's own graphs, one a share, as one node of the caller's."""

    @staticmethod
    def forward(ctx: Any, module: nn.Module, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        asked = ctx.needs_input_grad[2]

        def work(number: int) -> tuple[Tensor, Tensor]:
            x = tensors[number].detach().requires_grad_(asked)
            with torch.enable_grad():
                return x, module(x)

        ctx.parameters = tensors[count:]
        ctx.graphs = _run(work, count)
        return tuple(y.detach() for _, y in ctx.graphs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        asked = ctx.needs_input_grad[2]
        graphs, ctx.graphs = ctx.graphs, None
        if graphs is None:
            raise RuntimeError("the backward pass of a batch in shares can be run only once")

        def work(number: int) -> list[Tensor]:
            x, y = graphs[number]
            graphs[number] = None  # so that it is freed here, not by the thread that waits
            inputs = [*([x] if asked else []), *ctx.parameters]
            return list(torch.autograd.grad(y, inputs, gradients[number]))

        found = _run(work, len(gradients))
        dshares = [share.pop(0) if asked else None for share in found]
        dparameters = [reduce(torch.add, shares) for shares in zip(*found, strict=True)]
        return None, None, *dshares, *dparameters


def _run(work: Callable[[int], Value], count: int) -> list[Value]:
    """Call ``work`` with the number of each share, each in a thread with the caller's autocast.

    Raises:
        What one of the calls raised; the others are then called off where they would meet.
    """
    meeting = _Meeting(count)
    half, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def run(number: int) -> Value:
        _place.meeting, _place.number = meeting, number
        try:
            with torch.autocast("cpu", dtype, enabled=half):
                return work(number)
        except BaseException:
            meeting.barrier.abort()
            raise
        finally:
            _place.meeting, _place.number = None, 0

    with _one_at_a_time:
        futures = [pool(count).submit(run, number) for number in range(count)]
        wait(futures)
    for error in [future.exception() for future in futures]:
        if error is not None and not isinstance(error, threading.BrokenBarrierError):
            raise error
    return [future.result() for future in futures]
