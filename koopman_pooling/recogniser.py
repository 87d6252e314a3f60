"""A trained model that takes clips as people have them and answers in names of classes."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn

from data.errors import DataError
from koopman_pooling.package import publish, published, write_package
from koopman_pooling.preprocessing import Clip, ClipReader
from model.matching import RCOND, Match
from model.oneshot import Evaluator
from torchlight.card import Card
from torchlight.errors import RunFailed, UserError, printable
from torchlight.evaluation import Logits
from torchlight.numerics import precision_of
from torchlight.registry import plug

BATCH = 64  # as in a test: with others, sums may differ in the last digit


@dataclass(frozen=True)
class Prediction:
    """What a clip shows.

    Attributes:
        class_names: c of them. scores: float32 (c,), the model's logits, or minus distances.
    """

    class_names: Sequence[str]
    scores: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """The softmax of the scores, float64 (c,)."""
        return softmax(self.scores.astype(np.float64))

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.top(1)[0][0]

    @property
    def probability(self) -> float:
        """Of the likeliest class."""
        return self.top(1)[0][1]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The k likeliest classes and their probabilities, the likeliest first."""
        order, found = np.argsort(-self.scores, kind="stable")[:k], self.probabilities
        return [(self.class_names[i], float(found[i])) for i in order.tolist()]

    def __repr__(self) -> str:
        told = ", ".join(f"{name!r} {p:.3f}" for name, p in self.top(3))
        return f"{type(self).__name__}({told})"


class Recogniser:
    """A model with the preprocessing it was trained for; ``koopman_pooling.load`` makes one.

    A clip is (T, V, C), or (M, T, V, C) of several persons: an array, a tensor or nested lists, of
    any number of frames, in the units and axes of the training data. A joint that is missing is
    zero or NaN. Several clips are a list, or an array (N, M, T, V, C).

    Where testing looks at a clip several times at random, the random numbers are those of its place
    in the list, as in a data set; a clip alone is the first. The same call gives the same answer.

    Args:
        model: with its weights. card: what is known of them.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        allowed: packages of somebody that the card's transforms and streams may be of.

    Attributes:
        model, card, device: in evaluation mode, on the device.
        class_names: c of them. persons: M of the model's inputs, where it is known.
        reader: makes the model's inputs of clips.

    Raises:
        UserError: the card does not say how inputs are made; there is no such device.
    """

    def __init__(
        self,
        model: nn.Module,
        card: Card,
        *,
        device: str = "auto",
        allowed: Sequence[str] = (),
    ) -> None:
        self.device = _device(device)
        self.card = card
        self.reader = ClipReader(card.preprocessing, allowed)
        self.class_names = _names(card.class_names, getattr(model, "num_class", None))
        on_cpu = self.device.type == "cpu"
        self.model: Any = plug("model.cpu.accelerate", wanted=on_cpu)(model.to(self.device).eval())
        self.persons = card.model_args.get("num_person")
        self._scorer: Any = Logits()

    def __repr__(self) -> str:
        return (
            f"Recogniser({len(self.class_names)} classes, skeleton {self.reader.skeleton.name}, "
            f"{self.device})"
        )

    def predict(self, clips: Clip) -> Any:
        """Return the ``Prediction`` of a clip, or a list of them of several.

        Raises:
            DataError: a clip has another shape than the model's skeleton.
        """
        if _is_one(clips):
            return self.predict([clips])[0]
        scores = self.scores(list(clips))
        names = _names(self.class_names, scores.shape[1])
        return [Prediction(names, row) for row in scores]

    def scores(
        self, clips: Sequence[Clip], progress: Callable[[int], object] = lambda done: None
    ) -> np.ndarray:
        """Return the logits of clips, float32 (n, c): the mean over the looks at each.

        Args:
            progress: called with the number of looks that a batch had.

        Raises:
            RunFailed: a score is not finite.
        """
        if not len(clips):
            return np.zeros((0, len(self.class_names)), np.float32)
        found = self._run(partial(self._scorer, self.model), clips, self.reader.looks, progress)
        if not np.isfinite(found).all():
            bad = int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0]) % len(clips)
            raise RunFailed(f"scores are not finite, of clip {bad} among others")
        return found.reshape(-1, len(clips), found.shape[1]).mean(axis=0)

    def features(self, clips: Clip) -> Any:
        """Return what the head sees of a clip, float32 (d, T), of several clips (n, d, T).

        Where testing looks at a clip several times, this is the first look.
        """
        if _is_one(clips):
            return self.features([clips])[0]
        return self._run(self.model.pooled, clips, looks=1)

    def match(
        self,
        exemplars: Mapping[str, Clip | Sequence[Clip]],
        match: Match = "dmd",
        rcond: float = RCOND,
    ) -> "Recogniser":
        """Return a recogniser of other classes, each known by some clips, equally many a class.

        Its scores are minus the distances of ``model.matching``; its probabilities, their softmax,
        order the classes and are not calibrated.
        """
        names = list(exemplars)
        groups = [[found] if _is_one(found) else list(found) for found in exemplars.values()]
        labels = [label for label, group in enumerate(groups) for _ in group]
        clips = [clip for group in groups for clip in group]
        evaluator = Evaluator(self.reader.dataset(clips, labels, names), match, rcond)
        matched = copy.copy(self)
        matched.class_names, matched._scorer = names, evaluator
        with torch.inference_mode(), precision_of(self.card, self.device):
            evaluator.prepare(self.model, self.device)
        return matched

    def save_pretrained(self, folder: str | Path) -> None:
        """Write weights and card as a package; see ``koopman_pooling.package``."""
        write_package(Path(folder), self.model.state_dict(), self.card)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, device: str = "auto", **options: Any
    ) -> "Recogniser":
        """Load a package: a folder, or the name of one on the Hugging Face hub.

        Args:
            options: of ``huggingface_hub.snapshot_download``, such as revision and token.
        """
        from koopman_pooling.loading import load

        return load(published(str(name), options), device=device)

    def push_to_hub(self, name: str, **options: Any) -> str:
        """Upload a package to the Hugging Face hub; return the address of the commit.

        Args:
            options: of ``huggingface_hub.ModelHubMixin.push_to_hub``, such as private and token.
        """
        return publish(self, name, options)

    def _run(
        self,
        function: Callable[[Tensor], Tensor],
        clips: Sequence[Clip],
        looks: int,
        progress: Callable[[int], object] = lambda done: None,
    ) -> np.ndarray:
        """What a function of the model's inputs gives, look after look, computed as in a test."""
        dataset, rows = self.reader.dataset(clips), []
        with torch.inference_mode(), precision_of(self.card, self.device):
            for start in range(0, len(clips) * looks, BATCH):
                end = min(start + BATCH, len(clips) * looks)
                x, _, _ = dataset.get_batch(range(start, end))
                if self.persons not in (None, x.shape[-1]):
                    told = f"clips of {x.shape[-1]} persons; the model takes {self.persons}"
                    raise DataError(told)
                inputs = torch.as_tensor(x, dtype=torch.float32).to(self.device)
                rows.append(function(inputs).float().cpu())
                progress(end - start)
        return torch.cat(rows).numpy()


def _names(known: Sequence[str] | None, count: int | None) -> Sequence[str]:
    """The classes' names, or numbers where these are of others."""
    known = known or []
    return known if count in (None, len(known)) else [str(number) for number in range(count or 0)]


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {name}: {printable(str(error).splitlines()[0])}") from error
    return device


def _is_one(clips: Clip) -> bool:
    """Whether it is one clip: an array of three or four axes, or lists of numbers three deep."""
    if isinstance(clips, np.ndarray | Tensor):
        return clips.ndim < 5 and clips.dtype != object
    depth, inner = 0, clips
    while isinstance(inner, list | tuple) and inner:
        depth, inner = depth + 1, inner[0]
    return depth == 3 and not isinstance(inner, np.ndarray | Tensor)
