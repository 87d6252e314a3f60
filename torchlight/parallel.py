"""One model on several processes: the same steps and statistics however a step is spread out."""

import contextlib
import warnings
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from .distributed import World
from .loading import BatchPlan


def parallelised(
    model: nn.Module, world: World, backward: Callable[[nn.Module], None]
) -> nn.Module:
    """``model``, whose gradients are summed over the ranks, as each loss is its part of a step's.

    Args:
        backward: a forward and backward pass of some batch through a model.
    """
    if world.size == 1:
        return model
    devices = [world.device] if world.device.type == "cuda" else None
    # Weights with dimensions of one have several equivalent strides; what is copied is small.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    # Buffers are averaged by RunningStatistics, so rank 0's are not broadcast.
    with world.collective():
        parallel = DistributedDataParallel(
            model, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True
        )
        parallel.register_comm_hook(None, _sum)
        if world.size > 2:
            _warm_up(model, parallel, backward)
    return parallel


def _sum(state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """An average over the ranks would round otherwise on another number of them."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def _warm_up(model: nn.Module, parallel: nn.Module, backward: Callable[[nn.Module], None]) -> None:
    """Take a pass that leaves nothing behind, in new and in resumed runs alike.

    After its first pass DistributedDataParallel regroups the gradients, and on three or more
    ranks the order in which they are summed depends on the groups.
    """
    with buffers_kept(model):
        backward(parallel.train())
        model.zero_grad(set_to_none=True)


@contextlib.contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """What passes within leave in the buffers (running statistics) is taken back in place."""
    buffers = [buffer.clone() for buffer in model.buffers()]
    yield
    with torch.no_grad():
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)


class RunningStatistics:
    """Running statistics as the mean of what each micro-batch of a step would make of them.

    With momentum m a forward of micro-batch j turns r into (1 - m) r + m s_j. On several
    processes these results are averaged; with accumulation each micro-batch starts from the same
    r and the results are averaged too, so that both give (1 - m) r + m mean_j(s_j). For one
    micro-batch on one process nothing is done.

    Args:
        plan: how many micro-batches a step has, and how they are dealt out.
        can_undo: keep what is needed for ``undo``.
    """

    def __init__(
        self, model: nn.Module, plan: BatchPlan, world: World, *, can_undo: bool = False
    ) -> None:
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        self._floats: list[torch.Tensor] = []
        self._counts: list[torch.Tensor] = []
        for norm in norms:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            self._floats += [norm.running_mean, norm.running_var]
            if norm.num_batches_tracked is not None:
                self._counts.append(norm.num_batches_tracked)
        self._accumulate, self._count, self._world = plan.accumulate, plan.count, world
        self._idle = not norms or (plan.accumulate == 1 and world.size == 1)
        self._keeps_start = bool(norms) and (plan.accumulate > 1 or can_undo)
        self._start: list[torch.Tensor] = []
        self._total: list[torch.Tensor] = []

    @torch.no_grad()
    def before(self, micro: int) -> None:
        """Call before the forward of micro-batch ``micro`` (0, 1, ...)."""
        if not self._keeps_start:
            return
        if micro == 0:
            self._start = [b.clone() for b in self._floats]
            self._total = [torch.zeros_like(b) for b in self._floats]
        else:
            torch._foreach_copy_(self._floats, self._start)
            if self._counts:
                torch._foreach_sub_(self._counts, 1)  # a step counts as one batch

    @torch.no_grad()
    def after(self, micro: int, *, counts: bool) -> None:
        """Call after the forward of micro-batch ``micro``; an idle turn does not count."""
        if self._idle:
            return
        if not counts:
            torch._foreach_zero_(self._floats)
        if self._accumulate > 1:
            torch._foreach_add_(self._total, self._floats)
        if micro == self._accumulate - 1:
            sums = self._total if self._accumulate > 1 else self._floats
            flat = torch.cat([b.reshape(-1) for b in sums])
            flat = self._world.sum_(flat) / self._count
            pieces = flat.split([b.numel() for b in self._floats])
            torch._foreach_copy_(
                self._floats, [p.view_as(b) for p, b in zip(pieces, self._floats, strict=True)]
            )

    @torch.no_grad()
    def undo(self) -> None:
        """Forget the step: a forward of NaN has left NaN in the statistics."""
        if self._keeps_start:
            torch._foreach_copy_(self._floats, self._start)
            if self._counts:
                torch._foreach_sub_(self._counts, 1)
