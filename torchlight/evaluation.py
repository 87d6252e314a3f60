"""A whole split scored exactly once, whatever the number of processes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from .config import Config
from .distributed import World
from .errors import RunFailed, UserError
from .loading import Dataset, EvalBatches, Loader
from .metrics import topk_accuracy
from .numerics import precision_of
from .registry import Target


class Evaluator(Protocol):
    """Turns inputs into scores (N, c); larger is likelier."""

    def prepare(self, model: nn.Module, device: torch.device) -> None:
        """Called once before a split is scored, with the model in evaluation mode."""

    def __call__(self, model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        """Scores (N, c) of a batch."""


def from_test_set(evaluator: Target) -> tuple[str, ...]:
    """Arguments of an evaluator that are no matter of the configuration."""
    return tuple(name for name in ("exemplars",) if name in evaluator.parameters)


def given_by_test_set(config: Config, evaluator: Target, test_set: Any) -> dict[str, Any]:
    """What an evaluator that compares with exemplars takes from the test split.

    Raises:
        UserError: the split has none, or the configuration chooses among other classes.
    """
    given = {}
    for name in from_test_set(evaluator):
        unfit = [k for k in ("classes", "val_fraction", "val_subjects") if getattr(config, k)]
        if unfit:
            raise UserError(f"{config.named(unfit[0])}: {evaluator.name} scores other classes")
        if not hasattr(test_set, name):
            raise UserError(f"evaluator: {evaluator.name} needs a feeder that knows its {name}")
        given[name] = getattr(test_set, name)
    return given


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
        """Fraction of samples whose largest score is at the label (ties: the lower class)."""
        return self.topk((1,))[1]

    def topk(self, ks: Iterable[int]) -> dict[int, float]:
        """Fraction of samples whose label is among the k largest scores, for each k."""
        return topk_accuracy(self.scores, self.labels, ks)

    @property
    def measures(self) -> dict[str, float]:
        """Loss, accuracy and top-5 accuracy."""
        return {"loss": self.loss, "accuracy": self.accuracy, "top5": self.topk((5,))[5]}


class SplitScorer:
    """Scores one split again and again with a model that changes."""

    def __init__(
        self, dataset: Dataset, config: Config, world: World, evaluator: Evaluator | None = None
    ) -> None:
        batches = EvalBatches(len(dataset), config.test_batch_size, world.rank, world.size)
        pin = world.device.type == "cuda"
        self.dataset, self.config, self.world = dataset, config, world
        self._loader = Loader(dataset, batches, workers=config.num_worker, pin_memory=pin)
        self._rounds = batches.rounds
        self._evaluator = evaluator or Logits()

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
        parts, device = [], self.world.device
        with torch.inference_mode(), precision_of(self.config, device):
            self._evaluator.prepare(model, device)
            batches = iter(self._loader)
            quiet = None if self.world.is_main else True
            for _ in tqdm(range(self._rounds), title, disable=quiet, leave=False):
                interrupted()
                batch = next(batches, None)
                if batch is None:  # another rank has one more
                    continue
                inputs, labels, indices = batch
                scores = self._evaluator(model, inputs.to(device, non_blocking=True))
                parts.append((indices.numpy(), labels.numpy(), scores.float().cpu().numpy()))
        gathered = [part for own in self.world.gather(parts) for part in own]
        result: list[Evaluation] = []  # to stay on rank 0
        self.world.on_main(lambda: result.append(self._assemble(gathered)))
        return result[0] if result else None

    def _assemble(self, parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Evaluation:
        indices, labels, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(indices)
        assert np.array_equal(indices[order], np.arange(len(self.dataset)))
        if not np.isfinite(scores).all():
            bad = indices[~np.isfinite(scores).all(axis=1)]
            name = self.dataset.sample_names[int(bad[0])]
            raise RunFailed(f"scores of {len(bad)} samples are not finite, among them {name}")
        names = list(self.dataset.sample_names)
        # A dataset that shows each sample several times (augmented, say) is scored by their mean.
        scores = scores[order].reshape(-1, len(names), scores.shape[1]).mean(axis=0)
        return Evaluation(names, scores, labels[order[: len(names)]])
