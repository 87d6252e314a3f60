"""Where a run is, and what it has summed up on the way: all that changes from step to step."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from .averaging import Average
from .distributed import World

_COUNTERS = ("epoch", "step", "global_step", "best_accuracy", "best_epoch", "history")


class RunningMetrics:
    """Sums over an epoch's training samples; they stay on the device until they are read."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(5, dtype=torch.float64, device=device)

    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Count a micro-batch with mean ``loss`` and ``logits`` (N, c)."""
        hits = (logits.argmax(dim=1) == labels).sum().double()
        count = torch.full_like(hits, len(labels))
        self.sums[:3] += torch.stack([loss.double() * len(labels), hits, count])

    def add_norm(self, norm: torch.Tensor) -> None:
        """Count a step's gradient norm, if it is finite (one of fp16 that overflows is not)."""
        finite = norm.isfinite()
        self.sums[3:] += torch.stack([torch.where(finite, norm, 0).double(), finite.double()])

    def means(self, world: World) -> dict[str, float]:
        """The means over all ranks (a collective)."""
        loss, hits, count, norm, steps = world.sum_(self.sums.clone()).tolist()
        samples, steps = max(count, 1), max(steps, 1)
        return {"loss": loss / samples, "accuracy": hits / samples, "gradient_norm": norm / steps}


class TrainState:
    """Everything that a step changes; ``state_dict`` is all that a resumed run needs.

    Attributes:
        epoch, step, global_step: complete epochs, steps of the next one, and steps in all.
        best_accuracy, best_epoch: so far; the epoch counts from 1.
        history: what was measured, by complete epoch.
        metrics: of the epoch under way.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        average: Average | None,
        world: World,
    ) -> None:
        self.epoch = self.step = self.global_step = self.best_epoch = 0
        self.best_accuracy = -1.0
        self.history: list[dict[str, float]] = []
        self.metrics = RunningMetrics(world.device)
        self._world, self._average, self._holds_average = world, average, False
        self._parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "scaler": scaler}
        if average is not None:
            self._parts["average"] = average

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The model holds what is scored and saved within: its average, where there is one."""
        if self._average is None or self._holds_average:
            yield
            return
        with self._average.exchanged():
            self._holds_average = True
            try:
                yield
            finally:
                self._holds_average = False

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        """The model holds its own weights within, also within ``averaged``."""
        if self._average is not None and self._holds_average:
            with self._average.exchanged():
                yield
        else:
            yield

    def end_epoch(self, measured: dict[str, float]) -> None:
        """Move on to the next epoch; ``measured`` is what is known of this one."""
        self.epoch, self.step = self.epoch + 1, 0
        self.history.append(measured)
        self.metrics = RunningMetrics(self._world.device)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values (a collective)."""
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        sums = self._world.sum_(self.metrics.sums.clone()).tolist()
        return {**parts, "metrics": sums, "counters": {k: getattr(self, k) for k in _COUNTERS}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take ``state`` over.

        Raises:
            Exception: of any kind, where it is of another model or no such state.
        """
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        for name in _COUNTERS:
            setattr(self, name, state["counters"][name])
        if self._world.is_main:
            self.metrics.sums.copy_(torch.tensor(state["metrics"]))
