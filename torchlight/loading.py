"""Batches: which samples, in which process, in which order; and their loading by workers.

The unit is the *micro-batch*: ``batch_size`` samples that go through the model together. A step
of the optimiser sees ``global_batch_size`` samples, cut into micro-batches that depend on
(seed, epoch, step) alone. Processes only share them out, so a run is the same, up to
floating-point order, on 1 process with accumulation and on 64 without; one resumed on
another number of processes keeps its micro-batches.
"""

import atexit
import os
import signal
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from .errors import UserError

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Dataset(Protocol):
    """What the engine reads: n named samples, a batch at a time (see ``torchlight.contract``).

    Index i belongs to sample i % n. Optional: ``set_epoch(epoch)``, ``subjects``, ``class_names``;
    ``description``, a flat mapping of what training, testing and weights must agree in, and
    ``described_by``, for each of its keys the arguments that decide it.
    """

    sample_names: Sequence[str]
    labels: np.ndarray

    def __len__(self) -> int: ...

    def get_batch(self, indices: Sequence[int]) -> tuple[Any, Any, Any]: ...


@dataclass(frozen=True)
class BatchPlan:
    """A step's samples: ``count`` micro-batches of ``micro``, dealt out to ``world`` processes."""

    micro: int
    count: int
    world: int

    @property
    def step_size(self) -> int:
        """Samples a step of the optimiser sees, over all processes."""
        return self.micro * self.count

    @property
    def accumulate(self) -> int:
        """Turns of a process in a step. Where they are more than micro-batches, some are idle."""
        return -(-self.count // self.world)

    def number(self, turn: int, rank: int) -> int:
        """The micro-batch of a turn; an idle turn has one from ``count`` on."""
        return turn * self.world + rank


def plan_batches(
    batch_size: int, global_batch_size: int | None, world: int, samples: int | None = None
) -> BatchPlan:
    """Spread ``global_batch_size`` (default: batch_size * world) over ``world`` processes.

    A process takes its share in micro-batches of at most ``batch_size``.

    Raises:
        UserError: the global batch cannot be spread evenly, or there are not so many ``samples``.
    """
    total = global_batch_size or batch_size * world
    share, rest = divmod(total, world)
    if rest or share == 0:
        raise UserError(
            f"global_batch_size {total} cannot be spread evenly over {world} processes; "
            f"use a number of processes that divides it, or another --global-batch-size"
        )
    micro = min(batch_size, share)
    if share % micro:
        raise UserError(
            f"global_batch_size {total} on {world} processes is {share} samples each, which "
            f"batch_size {batch_size} does not divide; use a --batch-size that does"
        )
    if samples is not None and samples < total:
        each = samples // world
        fits = world * (each - each % min(batch_size, each or 1))
        raise UserError(
            f"a step takes {total} samples, but the train split has only {samples}; "
            + (f"say --global-batch-size {fits}" if fits else "use fewer processes")
        )
    return BatchPlan(micro, total // micro, world)


class TrainBatches(Sampler[list[int]]):
    """This rank's micro-batches of an epoch; the incomplete last step is dropped."""

    def __init__(self, length: int, plan: BatchPlan, rank: int, seed: int) -> None:
        self.length, self.plan, self.rank, self.seed = length, plan, rank, seed
        self.epoch = self.first_step = 0

    @property
    def steps(self) -> int:
        """Steps of a whole epoch."""
        return self.length // self.plan.step_size

    def set_position(self, epoch: int, first_step: int) -> None:
        """Start the next iteration at ``first_step`` of ``epoch``."""
        self.epoch, self.first_step = epoch, first_step

    def step_indices(self, epoch: int, step: int) -> list[int]:
        """All samples of one step, over all ranks, in order."""
        size = self.plan.step_size
        return self._order(epoch)[step * size : (step + 1) * size].tolist()

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(
            self.length
        )

    def __len__(self) -> int:
        return (self.steps - self.first_step) * self.plan.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        plan = self.plan
        order = self._order(self.epoch)[: self.steps * plan.step_size]
        parts = order.reshape(self.steps, plan.count, plan.micro)
        for step in range(self.first_step, self.steps):
            for turn in range(plan.accumulate):  # an idle one reads something all the same
                yield parts[step, plan.number(turn, self.rank) % plan.count].tolist()


class EvalBatches(Sampler[list[int]]):
    """Every sample exactly once: consecutive batches, dealt out to the ranks in turn.

    A batch holds the same samples whatever the number of processes, so that its scores are the
    same numbers too.
    """

    def __init__(self, length: int, batch_size: int, rank: int, world: int) -> None:
        self.length, self.batch_size, self.rank, self.world = length, batch_size, rank, world

    def _starts(self) -> range:
        return range(self.rank * self.batch_size, self.length, self.world * self.batch_size)

    @property
    def rounds(self) -> int:
        """Batches of the rank that has most of them."""
        return len(range(0, self.length, self.world * self.batch_size))

    def __len__(self) -> int:
        return len(self._starts())

    def __iter__(self) -> Iterator[list[int]]:
        for start in self._starts():
            yield list(range(start, min(start + self.batch_size, self.length)))


def read(dataset: Dataset, indices: Sequence[int]) -> Batch:
    """Inputs float32, labels and indices of a batch."""
    inputs, labels, own = dataset.get_batch(indices)
    return (
        torch.as_tensor(inputs, dtype=torch.float32),
        torch.as_tensor(labels),
        torch.as_tensor(own),
    )


class _BatchFetcher:
    """A dataset read a batch at a time, in workers that learn of a new epoch.

    Workers outlive an epoch; the epoch reaches them through shared memory, written only while
    no batch is being fetched.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._told: int | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: list[int]) -> Batch:
        epoch = int(self.epoch)
        if epoch != self._told and hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        self._told = epoch
        return read(self.dataset, indices)


def _whole(batch: Any) -> Any:
    """The fetcher hands over batches: nothing is left to collate."""
    return batch


def _leave_signals_to_the_main_process(worker: int) -> None:
    """A signal to a job reaches all its processes; the run still needs its workers to save.

    A second SIGTERM is obeyed: that is how Python ends workers that nobody has closed.
    """

    def pass_over(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, pass_over)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _cores() -> int:
    """Cores this process may use; more loading workers than these only get in the way."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Loader:
    """Iterates a dataset's batches; workers persist over epochs."""

    def __init__(
        self,
        dataset: Dataset,
        batches: TrainBatches | EvalBatches,
        *,
        workers: int,
        pin_memory: bool,
    ) -> None:
        self.dataset, self.batches = dataset, batches
        workers = min(workers, _cores(), max(len(batches), 1))
        self._fetcher = _BatchFetcher(dataset)
        self._loader: DataLoader = DataLoader(
            self._fetcher,  # type: ignore[arg-type]  # read by __getitems__ alone
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_whole,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            worker_init_fn=_leave_signals_to_the_main_process,
        )
        _loaders.add(self)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._loader)

    def close(self) -> None:
        """End the workers."""
        iterator: Any = self._loader._iterator  # where torch keeps the persistent ones
        if iterator is not None:
            iterator._shutdown_workers()
            for worker in iterator._workers:
                worker.kill()  # one that still reads something; it holds nothing to be saved

    def first(self, count: int) -> Batch:
        """The first ``count`` samples, read in this process."""
        return self._fetcher.__getitems__(list(range(count)))

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """This rank's micro-batches of ``epoch``, from ``first_step`` on."""
        assert isinstance(self.batches, TrainBatches)
        self.batches.set_position(epoch, first_step)
        self._fetcher.epoch.fill_(epoch)
        return iter(self._loader)


_loaders: "weakref.WeakSet[Loader]" = weakref.WeakSet()


@atexit.register
def end_workers() -> None:
    """End the workers of all loaders.

    Python itself would end them by a signal, which they pass over, and wait for them.
    """
    for loader in list(_loaders):
        loader.close()
