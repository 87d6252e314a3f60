"""What may be added to a run without a change to the loop: a class with some of these methods."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from .card import Card
from .config import Config
from .distributed import World
from .evaluation import Evaluation
from .loading import BatchPlan, Dataset, TrainBatches
from .state import TrainState
from .workdir import WorkDir


class Run(Protocol):
    """What callbacks and reports see of a run; ``Trainer`` is one.

    Attributes:
        sets: the datasets "train", "test" and, where a part is held out, "val", by name.
        chooser: the one that chooses the best epoch: "val", or else "test".
        folder, callbacks: to be replaced, and added to, before a phase.
        state: what changes from step to step. resumed: whether it is of an earlier process.
        began_on: processes that the run began with.
        measured: of the epoch that ends, by name: "train/loss", "test/accuracy" and so on.
        card: what the weights are that the run trains, or tests.
        plan, batches, steps: of an epoch. rate, loss, gradient_norm: of the last step.
    """

    config: Config
    world: World
    model: nn.Module
    sets: Mapping[str, Dataset]
    chooser: str
    folder: WorkDir
    callbacks: list["Callback"]
    log: logging.Logger
    command: Sequence[str]
    card: Card
    state: TrainState
    resumed: bool
    began_on: int
    measured: dict[str, float]
    plan: BatchPlan
    batches: TrainBatches
    steps: int
    rate: float
    loss: torch.Tensor
    gradient_norm: torch.Tensor

    @property
    def last_name(self) -> str:
        """Of the weights after the last complete epoch."""

    def scored(self, split: str, title: str) -> Evaluation | None:
        """Score a split with the weights that the model holds; the result on rank 0."""

    def save_weights(self, name: str) -> None:
        """Save the weights, the average where there is one, with their card."""

    def show(self, values: dict[str, Any]) -> None:
        """Have the callbacks show values at this step."""


class Callback:
    """Hooks of a training run, in the order of their calls; each does nothing here.

    All ranks call them alike, so that they may confer in them.
    """

    def on_start(self, run: Run) -> None:
        """The model and its state are ready: new ones, or those of the run that is resumed."""

    def after_backward(self, run: Run, loss: torch.Tensor) -> bool:
        """A step has its ``loss`` and gradients; where this returns False, it is skipped."""
        return True

    def after_step(self, run: Run) -> None:
        """``run.state`` counts the step."""

    def during_evaluation(self, run: Run) -> None:
        """Before each batch of an evaluation, in training and for the report."""

    def on_save(self, run: Run) -> None:
        """An epoch has been evaluated, and its weights are saved where they are due."""

    def on_log(self, run: Run, values: dict[str, Any]) -> None:
        """Values to be shown at this step, by name: numbers, and pictures (H, W, 3) uint8."""

    def on_report(self, run: Run, stem: str, found: Evaluation) -> None:
        """The test split has been scored (rank 0 alone calls this); files begin with ``stem``."""

    def on_end(self, run: Run) -> None:
        """The run ends, also where it fails."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values that a resumed run needs (rank 0's are saved)."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take ``state`` over, before ``on_start``."""
