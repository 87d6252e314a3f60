"""What may be added to a run without a change to the loop: a class with some of these methods."""

from typing import TYPE_CHECKING, Any

import torch

from .evaluation import Evaluation

if TYPE_CHECKING:
    from .trainer import Trainer


class Callback:
    """Hooks of a training run, in the order of their calls; each does nothing here.

    All ranks call them alike, so that they may confer in them.
    """

    def on_start(self, run: "Trainer") -> None:
        """The model and its state are ready: new ones, or those of the run that is resumed."""

    def after_backward(self, run: "Trainer", loss: torch.Tensor) -> bool:
        """A step has its ``loss`` and gradients; where this returns False, it is skipped."""
        return True

    def after_step(self, run: "Trainer") -> None:
        """``run.state`` counts the step."""

    def during_evaluation(self, run: "Trainer") -> None:
        """Before each batch of an evaluation, in training and for the report."""

    def on_save(self, run: "Trainer") -> None:
        """An epoch has been evaluated, and its weights are saved where they are due."""

    def on_log(self, run: "Trainer", values: dict[str, Any]) -> None:
        """Values to be shown at this step, by name: numbers, and pictures (H, W, 3) uint8."""

    def on_report(self, run: "Trainer", stem: str, found: Evaluation) -> None:
        """The test split has been scored (rank 0 alone calls this); files begin with ``stem``."""

    def on_end(self, run: "Trainer") -> None:
        """The run ends, also where it fails."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values that a resumed run needs (rank 0's are saved)."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take ``state`` over, before ``on_start``."""
