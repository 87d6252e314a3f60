"""Work on many small tensors, shared out to threads.

Torch spreads each operation over all threads, and all wait for each other after every one. Where
the work falls apart into samples, it is better the other way round: each thread takes some of the
samples through all operations, its intermediates stay in the cache of its core, and nobody waits
(measured on two cores: a tenth of a whole training step). Operations leave Python's lock while
they compute, so Python's own threads serve.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Part = TypeVar("Part")
Result = TypeVar("Result")

_pools: dict[int, ThreadPoolExecutor] = {}
if hasattr(os, "register_at_fork"):  # threads do not live on in a forked process
    os.register_at_fork(after_in_child=_pools.clear)


def map_shares(
    work: Callable[[Sequence[Part]], Result], parts: Sequence[Part], device: torch.device
) -> list[Result]:
    """Call ``work`` on consecutive shares of ``parts``, on the CPU one for each of torch's threads.

    Nothing is recorded for gradients. The shares depend on the number of threads alone.

    Returns:
        What the calls returned, in the order of the shares.
    """
    count = min(torch.get_num_threads(), len(parts)) if device.type == "cpu" else 1
    if count <= 1:
        return [work(parts)]
    shares = [parts[len(parts) * i // count : len(parts) * (i + 1) // count] for i in range(count)]
    inference = torch.is_inference_mode_enabled()
    half, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def run(share: Sequence[Part]) -> Result:
        with (  # modes are a thread's own
            torch.inference_mode(inference),
            torch.no_grad(),
            torch.autocast("cpu", dtype, enabled=half),
        ):
            return work(share)

    return list(pool(count).map(run, shares))


def batch_slices(x: Tensor, size: int) -> list[slice]:
    """Return slices of a batch: of at most ``size`` bytes of x on the CPU (or of one sample).

    Elsewhere the whole batch is one slice: there are no caches of that kind.
    """
    own = x[:1].numel() * x.element_size()
    step = max(1, size // own) if x.device.type == "cpu" else len(x)
    return [slice(start, start + step) for start in range(0, len(x), step)]


def pool(count: int) -> ThreadPoolExecutor:
    """Return ``count`` threads in which torch uses no further ones."""
    if count not in _pools:
        started = threading.Barrier(count)
        own = torch.get_num_threads()

        def prepare() -> None:
            # Asked first: the first question, or parallel operation, of a thread sets the default.
            torch.get_num_threads()
            torch.set_num_threads(1)
            started.wait()

        pool = ThreadPoolExecutor(count, "samples")
        for future in [pool.submit(prepare) for _ in range(count)]:
            future.result()
        torch.set_num_threads(own)  # also the default of threads to come, as before
        _pools[count] = pool
    return _pools[count]
