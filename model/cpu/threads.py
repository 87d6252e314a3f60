"""Threads that take samples through the whole network, instead of one operation at a time.

Torch spreads each operation over all threads, and all wait for each other after every one. Here
each thread takes its chunk of the samples through all operations and waits for nobody; what it
works on is smaller, and stays in the cache of its core. Operations leave Python's lock while they
compute, so that Python's own threads serve.

In training, samples have to do with each other in the statistics of a batch norm alone: there the
threads wait at a barrier, their values are reduced, and all continue with the result
(``all_reduce``). The backward pass goes the same way, and the chunks' gradients of a parameter are
added up in their order. So results depend on the number of threads, as they do with torch's own
operations, by rounding alone.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import reduce
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Part = TypeVar("Part")
Value = TypeVar("Value")
Result = TypeVar("Result")

MAX_CHUNKS = 8
"""Every thread calls all operations itself, and Python calls one at a time."""
MIN_NUMBERS = 12_000
"""With fewer numbers in the input (4,000 joints of 3 coordinates), waiting takes more than work."""
SAMPLES_TO_BE_UNEQUAL = 4
"""With fewer samples a thread, chunks must be equal, or some threads would wait for the others."""

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
if hasattr(os, "register_at_fork"):  # threads do not live on in a forked process
    os.register_at_fork(after_in_child=_pools.clear)


class _Group:
    """The threads of one call, which reduce their values at a barrier."""

    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count, self._reduce)
        self._values: list[Any] = [None] * count

    def all_reduce(self, number: int, value: Any, reduce: Callable[[list[Any]], Any]) -> Any:
        self._values[number], self._by = value, reduce
        self.barrier.wait()
        return self._result  # stays until all have come back here

    def _reduce(self) -> None:
        """Called in the thread that comes last, while the others wait."""
        self._result = self._by(list(self._values))


class _Place(threading.local):
    """The number of the chunk that a thread has, and the group it belongs to."""

    group: _Group | None = None
    number = 0


_place = _Place()
_one_at_a_time = threading.Lock()  # threads of a group must all be running


def chunks_of(x: Tensor) -> list[Tensor]:
    """Return the chunks of a batch, one for each of torch's threads; or the batch as a whole.

    It stays whole where there is nothing to gain: for small inputs, or too few samples.
    """
    count = min(torch.get_num_threads(), MAX_CHUNKS)
    unequal = len(x) % count and len(x) < SAMPLES_TO_BE_UNEQUAL * count
    return [x] if x.numel() < MIN_NUMBERS or unequal else list(x.tensor_split(count))


def call_on_chunks(
    function: Callable[[Tensor], Tensor], chunks: Sequence[Tensor], parameters: Sequence[Tensor]
) -> list[Tensor]:
    """Call a function of x and parameters on chunks of a batch, with gradients, each in a thread.

    Nothing passes between the chunks but what is all-reduced. The gradients of all parameters come
    out together, when the backward pass is through.
    """
    asked = [parameter for parameter in parameters if parameter.requires_grad]
    return list(_Chunks.apply(function, len(chunks), *chunks, *asked))


def all_reduce(value: Value, reduce: Callable[[list[Value]], Result]) -> Result:
    """Return ``reduce`` of what the threads of all chunks pass here, in the order of the chunks.

    All of them must come here; it is called once. Outside of a chunk it is ``reduce([value])``.
    """
    if _place.group is None:
        return reduce([value])
    return _place.group.all_reduce(_place.number, value, reduce)


def is_first() -> bool:
    """Whether this thread has the first chunk, or the batch as a whole."""
    return _place.number == 0


def map_on_threads(work: Callable[[int], Value], count: int) -> list[Value]:
    """Call ``work`` with 0, 1, ..., each in a thread of its own with the caller's modes.

    Raises:
        What one of the calls raised; the others are then called off where they would wait.
    """
    if count == 1:
        return [work(0)]
    group = _Group(count)
    half, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
    gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def run(number: int) -> Value:
        _place.group, _place.number = group, number
        try:
            with (  # modes are a thread's own
                torch.inference_mode(inference),
                torch.set_grad_enabled(gradients),
                torch.autocast("cpu", dtype, enabled=half),
            ):
                return work(number)
        except BaseException:
            group.barrier.abort()
            raise
        finally:
            _place.group, _place.number = None, 0

    with _one_at_a_time:
        futures = [_pool(count).submit(run, number) for number in range(count)]
        wait(futures)
    for error in [future.exception() for future in futures]:
        if error is not None and not isinstance(error, threading.BrokenBarrierError):
            raise error
    return [future.result() for future in futures]


class _Chunks(torch.autograd.Function):
    """The function's own graphs, one a chunk, as one node of the caller's."""

    @staticmethod
    def forward(
        ctx: Any, function: Callable[[Tensor], Tensor], count: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        asked = ctx.needs_input_grad[2]

        def work(number: int) -> tuple[Tensor, Tensor]:
            x = tensors[number].detach().requires_grad_(asked)
            with torch.enable_grad():
                return x, function(x)

        ctx.parameters = tensors[count:]
        ctx.graphs = map_on_threads(work, count)
        return tuple(y.detach() for _, y in ctx.graphs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        asked = ctx.needs_input_grad[2]
        graphs, ctx.graphs = ctx.graphs, None
        if graphs is None:
            raise RuntimeError("the backward pass on the CPU's engine can be run only once")

        def work(number: int) -> list[Tensor]:
            x, y = graphs[number]
            graphs[number] = None  # so that it is freed here, not by the thread that waits
            inputs = [*([x] if asked else []), *ctx.parameters]
            return list(torch.autograd.grad(y, inputs, gradients[number]))

        with torch.autocast("cpu", enabled=False):
            found = map_on_threads(work, len(gradients))
        dchunks = [chunk.pop(0) if asked else None for chunk in found]
        dparameters = [reduce(torch.add, chunks) for chunks in zip(*found, strict=True)]
        return None, None, *dchunks, *dparameters


def _pool(count: int) -> ThreadPoolExecutor:
    """Return ``count`` threads among which torch's own are divided."""
    own = torch.get_num_threads()
    if (count, own) not in _pools:
        started = threading.Barrier(count)

        def prepare() -> None:
            # Asked first: the first question, or parallel operation, of a thread sets the default.
            torch.get_num_threads()
            torch.set_num_threads(max(1, own // count))
            started.wait()

        pool = ThreadPoolExecutor(count, "samples")
        for future in [pool.submit(prepare) for _ in range(count)]:
            future.result()
        torch.set_num_threads(own)  # also the default of threads to come, as before
        _pools[count, own] = pool
    return _pools[count, own]
