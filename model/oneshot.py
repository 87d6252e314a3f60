"""Recognition of classes that a model never trained on, from a few exemplars of each.

An evaluator for the training and testing loop: scores are minus the distances of ``matching``, so
that the largest score wins as among logits. Exemplars go through the model one by one, in
evaluation mode, in the order of their names; the scores therefore do not depend on a batch size,
on the order of the exemplars, or on a seed.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from model.errors import ModelError
from model.matching import RCOND, Match, Matcher, check_matching


class Exemplars(Protocol):
    """A data set of named samples; labels are positions among the classes to be told apart."""

    sample_names: Sequence[str]
    labels: np.ndarray

    def get_batch(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (x (N, C, T, V, M), labels (N,), indices (N,))."""


class Evaluator:
    """Scores samples by the exemplars that they are near to.

    Args:
        exemplars: k samples of each of c classes, labels 0 to c - 1, without augmentation.
        match: a matching's name, or several.
        rcond: cut-off of the dmd fit.

    Raises:
        ModelError: unknown matching, impossible cut-off, classes with differing numbers of
            exemplars or without any.
    """

    def __init__(
        self, exemplars: Exemplars, match: Match | Sequence[Match] = "dmd", rcond: float = RCOND
    ) -> None:
        self.matches: list[Match] = [match] if isinstance(match, str) else list(match)
        for name in self.matches:
            check_matching(name, rcond)
        self._exemplars, self._rcond = exemplars, rcond
        labels = np.asarray(exemplars.labels)
        counts = np.bincount(labels)
        if len(counts) == 0 or len(set(counts.tolist())) > 1:
            raise ModelError(
                f"one-shot: every class needs equally many exemplars, got {counts.tolist()}"
            )
        names = np.asarray(exemplars.sample_names)
        self._order = np.lexsort((names, labels)).reshape(len(counts), -1)
        self._matchers: list[Matcher] = []

    def prepare(self, model: nn.Module, device: torch.device) -> None:
        """Embed the exemplars with ``model`` as it is now and fit the classes to them."""
        was_training = model.training
        model.eval()
        with torch.no_grad():
            rows = [
                torch.cat([self._embed(model, int(i), device) for i in of_class])
                for of_class in self._order
            ]
        model.train(was_training)
        features = torch.stack(rows)
        self._matchers = [Matcher(features, match, self._rcond) for match in self.matches]

    def __call__(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Scores (N, c) of a batch; with several matchings (N, their number * c), one by one."""
        features = _features(model, inputs)
        return torch.cat([-matcher.distances(features) for matcher in self._matchers], dim=1)

    def _embed(self, model: nn.Module, index: int, device: torch.device) -> Tensor:
        """Features (1, d, T) of one exemplar."""
        x, _, _ = self._exemplars.get_batch([index])
        return _features(model, torch.as_tensor(x).to(device))


def _features(model: Any, inputs: Tensor) -> Tensor:
    """Features averaged over joints and persons, (N, d, T)."""
    if not hasattr(model, "pooled"):
        raise ModelError(f"one-shot: {type(model).__name__} has no pooled(x) -> features (N, d, T)")
    return model.pooled(inputs)
