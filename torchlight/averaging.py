"""The average of a model's weights over the steps of training, which is what is then scored."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn


class Rule:
    """How much a step counts in the average, which begins with the first of ``start_epoch``."""

    def __init__(self, start_epoch: int = 0) -> None:
        if start_epoch < 0:
            raise ValueError(f"start_epoch {start_epoch} is negative")
        self.start_epoch = start_epoch

    def share(self, count: int) -> float:
        """The weight of a step after ``count`` others."""
        raise NotImplementedError


class Ema(Rule):
    """Exponential moving average: each step weighs the past by ``decay``."""

    def __init__(self, decay: float = 0.99, start_epoch: int = 0) -> None:
        super().__init__(start_epoch)
        if not 0 <= decay < 1:
            raise ValueError(f"decay {decay} is not in [0, 1)")
        self._decay = decay

    def share(self, count: int) -> float:
        """The same for all but the first, which the average begins with."""
        return 1 - self._decay if count else 1.0


class Swa(Rule):
    """All steps weigh alike (Izmailov et al., UAI 2018)."""

    def share(self, count: int) -> float:
        """One of all so far."""
        return 1 / (count + 1)


class Average:
    """The average of a model's parameters and buffers; of whole numbers, the newest.

    The tensors of ``model`` are held on to: make it when they are where they will be.
    """

    def __init__(self, model: nn.Module, rule: Rule) -> None:
        self._live = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self._own = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        self._rule, self._count = rule, 0

    @torch.no_grad()
    def update(self, epoch: int) -> None:
        """Take in the weights after a step of ``epoch`` (from 0)."""
        share = self._rule.share(self._count)
        floats = [name for name, live in self._live.items() if live.is_floating_point()]
        mixed = floats if share < 1 else []
        for name in self._live.keys() - set(mixed):
            self._own[name].copy_(self._live[name])
        if mixed:  # lerp leaves what is frozen as it is, to the bit
            own, live = ([table[name] for name in mixed] for table in (self._own, self._live))
            torch._foreach_lerp_(own, live, share)
        self._count += epoch >= self._rule.start_epoch

    @contextlib.contextmanager
    def exchanged(self) -> Iterator[None]:
        """The model holds the average within; within that, again, its own weights."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, live in self._live.items():
            kept = live.detach().clone()
            live.copy_(self._own[name])
            self._own[name].copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"count": self._count, "weights": self._own}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take ``state`` over; a KeyError where it is of another model."""
        self._count = int(state["count"])
        for name, own in self._own.items():
            own.copy_(state["weights"][name])
