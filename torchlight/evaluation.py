"""A whole split scored exactly once, whatever the number of processes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from .distributed import World
from .errors import RunFailed
from .loading import Dataset, EvalBatches, Loader


class Evaluator(Protocol):
    """Turns inputs into scores (N, c); larger is likelier."""

    def prepare(self, model: nn.Module, device: torch.device) -> None:
        """Called once before a split is scored, with the model in evaluation mode."""

    def __call__(self, model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        """Scores (N, c) of a batch."""


class Logits:
    """The model's own logits, which is what almost everything is scored by."""

    def prepare(self, model: nn.Module, device: torch.device) -> None:
        """Nothing to prepare."""

    def __call__(self, model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        """The logits (N, c), also of a model that returns more than these."""
        return logits_of(model(inputs))


def logits_of(output: Any) -> torch.Tensor:
    """The logits of a model's output, which may be (logits, features)."""
    return output[0] if isinstance(output, tuple) else output


@dataclass(frozen=True)
class Evaluation:
    """Scores (n, c) float32 and labels (n,) int64 of n named samples, in the dataset's order."""

    names: list[str]
    scores: np.ndarray
    labels: np.ndarray

    @property
    def loss(self) -> float:
        """Cross-entropy of the scores, the mean over the samples (float64)."""
        scores = torch.from_numpy(self.scores).double()
        return float(nn.functional.cross_entropy(scores, torch.from_numpy(self.labels)))

    @property
    def accuracy(self) -> float:
        """Share of samples whose largest score is at the label (ties: the lower class)."""
        return float((self.scores.argmax(axis=1) == self.labels).mean())


class SplitScorer:
    """Scores one split again and again with a model that changes."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        workers: int,
        world: World,
        evaluator: Evaluator,
        precision: Callable[[], Any],
    ) -> None:
        batches = EvalBatches(len(dataset), batch_size, world.rank, world.size)
        pin = world.device.type == "cuda"
        self.dataset, self.world = dataset, world
        self._loader = Loader(dataset, batches, workers=workers, pin_memory=pin)
        self._rounds = batches.rounds
        self._evaluator, self._precision = evaluator, precision

    def __call__(
        self, model: nn.Module, title: str, interrupted: Callable[[], None] = lambda: None
    ) -> Evaluation | None:
        """Score the split; the result on rank 0, None elsewhere.

        Args:
            interrupted: called before each round of batches, on every rank equally often, so
                that the ranks may confer in it; raises to break the evaluation off.

        Raises:
                RunFailed: a score is not finite (on every rank).
        """
        model.eval()
        parts = []
        with torch.inference_mode(), self._precision():
            self._evaluator.prepare(model, self.world.device)
            batches = iter(self._loader)
            for _ in tqdm(
                range(self._rounds),
                title,
                disable=None if self.world.is_main else True,
                leave=False,
            ):
                interrupted()
                batch = next(batches, None)
                if batch is None:  # another rank has one more
                    continue
                inputs, labels, indices = batch
                scores = self._evaluator(model, inputs.to(self.world.device, non_blocking=True))
                parts.append((indices.numpy(), labels.numpy(), scores.float().cpu().numpy()))
        gathered = self.world.gather(parts)
        result, failure = None, None
        if self.world.is_main:
            try:
                result = self._assemble([part for own in gathered for part in own])
            except RunFailed as error:
                failure = str(error)
        failure = self.world.broadcast(failure)
        if failure is not None:
            raise RunFailed(failure)
        return result

    def _assemble(self, parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Evaluation:
        indices, labels, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(indices)
        if not np.array_equal(indices[order], np.arange(len(self.dataset))):
            raise AssertionError("an evaluation must see every sample exactly once")
        if not np.isfinite(scores).all():
            bad = indices[~np.isfinite(scores).all(axis=1)]
            name = self.dataset.sample_names[int(bad[0])]
            raise RunFailed(f"scores of {len(bad)} samples are not finite, among them {name}")
        names = list(self.dataset.sample_names)
        # A dataset that shows each sample several times (augmented, say) is scored by their mean.
        scores = scores[order].reshape(-1, len(names), scores.shape[1]).mean(axis=0)
        return Evaluation(names, scores, labels[order[: len(names)]])
