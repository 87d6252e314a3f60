"""Processes: one, several on a machine, or several machines, on CUDA (nccl) or CPU (gloo).

Everything that is not a gradient (scores, decisions, errors) travels over a second gloo group,
so that it never waits for, or synchronises, a device.
"""

import contextlib
import functools
import gc
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist

# Its functions take the process group of the moment of their import as a default, and so keep it
# alive; DistributedDataParallel would import it later, when there is a group (see ``stop``).
import torch.distributed.nn.functional

from .errors import PeersMissing, RunFailed, UserError
from .launch import address_of, check_launch, in_srun, launch_of

T = TypeVar("T")

_POLL_S = 0.02
_GUARD_SPEAKS_FIRST_S = 60
"""Added to the collectives' own time limit, so that a guard ends a run before it, in words."""


class Guard(Protocol):
    """What knows whether the other ranks are still there, and ends this one where they are not."""

    def collective(self) -> contextlib.AbstractContextManager[None]:
        """Wraps what waits for the other ranks."""

    def stop(self, last_words: str | None) -> None:
        """This rank leaves: in good order, or having failed with these words."""


@dataclass(frozen=True)
class World:
    """This process among its peers.

    Attributes:
        control: the gloo group for objects and flags; None for a single process.
        attempt: a word that no other attempt on the launcher's store has.
        timeout_s: longest that a collective may take. silence_s: that a rank may be silent.
        guard: set by ``guarded``.
    """

    rank: int
    size: int
    device: torch.device
    control: dist.ProcessGroup | None = None
    attempt: str = ""
    timeout_s: float = 1800
    silence_s: float = 60
    guard: Guard | None = None

    def guarded(self, guard: Guard) -> "World":
        """This world with a guard, which ``stop`` stops."""
        _guards.append(guard)
        return replace(self, guard=guard)

    def collective(self) -> contextlib.AbstractContextManager[None]:
        """Wrap what waits for the other ranks, so that it is known who is waited for."""
        return self.guard.collective() if self.guard else contextlib.nullcontext()

    @property
    def is_main(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all ranks in rank order, on rank 0; an empty list elsewhere."""
        if self.control is None:
            return [value]
        box: list[Any] | None = [None] * self.size if self.is_main else None
        with self.collective():
            dist.gather_object(value, box, dst=0, group=self.control)
        return box or []

    def broadcast(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        if self.control is None:
            return value
        box = [value]
        with self.collective():
            dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` holds on any rank."""
        return self.largest(int(flag)) > 0

    def largest(self, value: int) -> int:
        """The largest of the ranks' values."""
        if self.control is None:
            return value
        tensor = torch.tensor(value)
        with self.collective():
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self.control)
        return int(tensor)

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add ``tensor`` up over the ranks in place (device collective)."""
        if self.size > 1:
            with self.collective():
                dist.all_reduce(tensor)
        return tensor

    def on_main(self, action: Callable[[], T]) -> T:
        """Run ``action`` on rank 0; every rank gets its result, or its error.

        Raises:
            SharedError: it raised a UserError.
            RunFailed: it did.
        """
        result: Any = None
        error: Exception | None = None
        if self.is_main:
            try:
                result = action()
            except UserError as problem:
                error = SharedError(str(problem))
            except RunFailed as problem:
                error = RunFailed(str(problem))
        result, error = self.broadcast((result, error))
        if error is not None:
            raise error
        return result

    def main_first(self, action: Callable[[], T]) -> T:
        """Run ``action`` on rank 0, then on the others: the first fills a cache for the rest.

        An error of rank 0 is raised by it alone; the others stop with a SharedError.
        """
        failed: Exception | None = None
        result: Any = None
        if self.is_main:
            try:
                result = action()
            except Exception as error:
                failed = error
        told = self.broadcast(failed and str(failed))
        if failed is not None:
            raise failed
        if told is not None:
            raise SharedError(told)
        return result if self.is_main else action()


class SharedError(UserError):
    """An error that every rank has heard of: rank 0 prints it, the others stay quiet."""


_guards: list[Guard] = []
"""This process's, as the process group is this process's."""


_UNPROVEN_PATIENCE_S = 60
"""How long task 0 waits for the others where it may be no task of ``srun``, but alone."""
_START_ALL = "start all of them by torchrun or srun (for one alone, unset SLURM_PROCID)"


def start(device: str | list[int], timeout_s: float, silence_s: float = 60) -> World:
    """Join the processes that a launcher started, or be the only one.

    Args:
        device: "auto" (CUDA where present), "cpu", "cuda", or the CUDA indices to use, in the
            order of the local ranks.
        timeout_s: a rank that the others wait for, for so long, ends the run.
        silence_s: a rank that has died, stopped or been cut off for so long ends the run.

    Raises:
        UserError: CUDA asked for and absent, or fewer devices than local processes; the launcher's
            variables contradict each other.
        PeersMissing: the other processes did not come.
    """
    launch = launch_of(os.environ)
    rank, size, local_rank, by_srun = launch
    check_launch(os.environ, launch)
    sees_its_own = by_srun and "SLURM_GPUS_PER_TASK" in os.environ
    own = _device(device, 0 if sees_its_own else local_rank)
    _share_cores(own)
    if size == 1:
        return World(0, 1, own)
    for name, value in address_of(os.environ, launch).items():
        os.environ.setdefault(name, value)
    backend = "nccl" if own.type == "cuda" else "gloo"
    timeout = timedelta(seconds=timeout_s + _GUARD_SPEAKS_FIRST_S)
    unproven = by_srun and not in_srun(os.environ)
    patience_s = min(timeout_s, _UNPROVEN_PATIENCE_S) if unproven else timeout_s
    try:
        store = _store(rank, size, timeout)
        store.set_timeout(timeout)
        attempt = _agree(store, rank, size, patience_s)
        dist.init_process_group(
            backend,
            store=dist.PrefixStore(attempt, store),
            rank=rank,
            world_size=size,
            timeout=timeout,
            device_id=own if own.type == "cuda" else None,
        )
        control = dist.new_group(backend="gloo", timeout=timeout)
    except RuntimeError as error:
        if not is_broken_connection(error):
            raise
        raise PeersMissing(
            f"rank {rank}: the {size} processes did not all meet at {_where()} "
            f"({str(error).splitlines()[0]}); {_START_ALL}"
        ) from error
    return World(rank, size, own, control, attempt, timeout_s, silence_s)


def is_broken_connection(error: RuntimeError) -> bool:
    """Whether ``error`` is another process's going, as gloo and nccl tell it."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def _store(rank: int, size: int, timeout: timedelta) -> dist.Store:
    """The launcher's key-value store; where it has none, rank 0's."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return next(dist.rendezvous("env://", rank, size, timeout=timeout))[0]
    # Who is missing is for _agree to find, which can be interrupted.
    return _own_store(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), rank == 0)


@functools.cache
def _own_store(address: str, port: int, is_master: bool) -> dist.Store:
    """One for the life of the process: ranks that begin a second run may be ahead of rank 0."""
    return dist.TCPStore(address, port, is_master=is_master, wait_for_workers=False)


def _where() -> str:
    return f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"


def _agree(store: dist.Store, rank: int, size: int, timeout_s: float) -> str:
    """Return a word that all ranks of this attempt have in common, and no other attempt has.

    A launcher that starts its processes again may keep its store, and in it what those before have
    written: torch would try their addresses. (The launcher's count of restarts is no such word, as
    each machine counts its own.) So each rank asks with a new word, and rank 0 answers every word,
    the old ones too, until each rank has shown that it has heard.

    Raises:
        PeersMissing: on rank 0, ranks that did not come.
        RuntimeError: elsewhere, rank 0 did not answer.
    """
    own = uuid.uuid4().hex
    if rank > 0:
        store.set(f"ask/{rank}", own)
        attempt = store.get(f"answer/{own}").decode()
        store.set(f"{attempt}/came/{rank}", "")
        return attempt
    missing, answered = set(range(1, size)), set()
    deadline = time.monotonic() + timeout_s
    while missing:
        for other in sorted(missing):
            if store.check([f"{own}/came/{other}"]):
                missing.discard(other)
            elif store.check([f"ask/{other}"]):
                word = store.get(f"ask/{other}").decode()
                if word not in answered:
                    store.set(f"answer/{word}", own)
                    answered.add(word)
        if missing and time.monotonic() > deadline:
            names = ", ".join(map(str, sorted(missing)))
            raise PeersMissing(f"rank 0: rank {names} did not come to {_where()}; {_START_ALL}")
        time.sleep(_POLL_S)
    return own


def stop(last_words: str | None = None) -> None:
    """Leave the process group, if there is one; with ``last_words``, as one that has failed.

    A thread of gloo's may still have to let go of the last tensors, for which it needs Python's
    lock; should the interpreter end meanwhile, it aborts the process. A group waits for its threads
    when nothing refers to it any more; what did (a parallel model) may be in a reference cycle.
    """
    while _guards:
        _guards.pop().stop(last_words)
    if dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()


def _device(wish: str | list[int], local_rank: int) -> torch.device:
    if wish == "cpu" or (wish == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            f"device: {wish} asked for, but no CUDA device is visible; say --device cpu"
        )
    there = list(range(torch.cuda.device_count()))
    indices = wish if isinstance(wish, list) else there
    absent = [index for index in indices if index not in there]
    if absent:
        raise UserError(
            f"device: there is no CUDA device {absent[0]}, only {there}; choose by --device"
        )
    if local_rank >= len(indices):
        raise UserError(f"device: local process {local_rank} has no device of its own in {indices}")
    device = torch.device("cuda", indices[local_rank])
    torch.cuda.set_device(device)
    return device


def _share_cores(device: torch.device) -> None:
    """On CPU, give each local process its share of the cores.

    Launchers set OMP_NUM_THREADS=1 where the user said nothing, which leaves most of a machine
    idle; a value other than 1 is the user's and stays.
    """
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.type == "cpu" and local_size > 1 and os.environ.get("OMP_NUM_THREADS") == "1":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // local_size))
