"""The learning rate as a pure function of the epoch: a table, so there is nothing to resume."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from .errors import UserError
from .registry import Aliases, Target, resolve

_TORCH = "torch.optim.lr_scheduler"
_OURS: Aliases = {name: (f"{__name__}.{name.title()}", {}) for name in ("step", "cosine")}


class Rule:
    """A schedule from the end of the warm-up on."""

    def rate(self, epoch: int, base_lr: float, warm_up_epoch: int, num_epoch: int) -> float:
        """The rate of ``epoch`` (from 0; warm-up counts)."""
        raise NotImplementedError


class Step(Rule):
    """``base_lr * lr_decay_rate ** #{s in step: s <= epoch}``, as published."""

    def __init__(self, step: Sequence[int] = (), lr_decay_rate: float = 0.1) -> None:
        self._step, self._decay = step, lr_decay_rate

    def rate(self, epoch: int, base_lr: float, warm_up_epoch: int, num_epoch: int) -> float:
        """See the class."""
        return base_lr * self._decay ** sum(epoch >= cut for cut in self._step)


class Cosine(Rule):
    """Half a cosine from ``base_lr``, where the warm-up ends, to ``min_lr`` after the last epoch.

    Loshchilov and Hutter, SGDR, ICLR 2017, equation 5.
    """

    def __init__(self, min_lr: float = 0.0) -> None:
        self._low = min_lr

    def rate(self, epoch: int, base_lr: float, warm_up_epoch: int, num_epoch: int) -> float:
        """See the class; a ValueError where it would rise."""
        if self._low > base_lr:
            raise ValueError(f"min_lr is above base_lr {base_lr}")
        done = min((epoch - warm_up_epoch) / max(num_epoch - warm_up_epoch, 1), 1.0)
        return self._low + (base_lr - self._low) * (1 + math.cos(math.pi * done)) / 2


def schedule_of(key: str, name: str) -> Target:
    """``step``, ``cosine`` or a class of ``torch.optim.lr_scheduler``, which steps by epochs."""
    if "." in name.removeprefix(f"{_TORCH}."):
        raise UserError(f'{key}: "{name}" is neither step nor cosine nor a class of {_TORCH}')
    kinds = (Rule, LRScheduler)
    target = resolve(key, name, _OURS, ("torchlight",), within=_TORCH, kind=kinds)
    if target.cls is torch.optim.lr_scheduler.ReduceLROnPlateau:
        raise UserError(
            f"{key}: {name} decides by losses; choose one that is a function of the epoch, "
            f"such as step or cosine"
        )
    return target


def learning_rates(settings: Mapping[str, Any], epochs: int) -> list[float]:
    """The rates of the first ``epochs`` epochs of a run with these keys of a configuration.

    ``base_lr * (epoch + 1) / warm_up_epoch`` below ``warm_up_epoch``, then the schedule's.
    """
    base_lr, warm_up = settings["base_lr"], settings["warm_up_epoch"]
    name, given = settings.get("lr_scheduler", "step"), settings.get("lr_scheduler_args", {})
    target, num_epoch = schedule_of("lr_scheduler", name), settings.get("num_epoch", epochs)
    if target.cls is Step:
        flat = {"step": settings["step"], "lr_decay_rate": settings["lr_decay_rate"]}
        given = flat | dict(given)
    warm = [base_lr * (epoch + 1) / warm_up for epoch in range(min(warm_up, epochs))]
    title = f"lr_scheduler_args: {name} {dict(given)!r:.80}"
    try:
        if issubclass(target.cls, Rule):
            rule, rest = target.build(given), range(warm_up, epochs)
            found = [rule.rate(epoch, base_lr, warm_up, num_epoch) for epoch in rest]
        else:
            found = _tabulated(target, given, base_lr, epochs - warm_up)
    except Exception as error:  # of torch's: what it makes of arguments that do not suit it
        raise UserError(f"{title}: {error}") from error
    bad = [rate for rate in found if not (math.isfinite(rate) and rate >= 0)]
    if bad:
        raise UserError(f"{title} gives a rate of {bad[0]}")
    return warm + found


def _tabulated(target: Target, given: Mapping[str, Any], base_lr: float, count: int) -> list[float]:
    """The rates that a scheduler of torch's gives an optimiser that does nothing."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=base_lr)
    scheduler, rates = target.cls(optimizer, **given), []
    for epoch in range(count):
        if epoch:
            optimizer.step()
            scheduler.step()
        rates.append(float(optimizer.param_groups[0]["lr"]))
    return rates
