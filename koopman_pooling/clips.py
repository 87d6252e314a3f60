"""What is exported, and clips to compare it on: of a configuration's data, or at random."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from data.errors import DataError
from data.skeletons import bone_parents
from feeders.streams import fused
from koopman_pooling.in_graph import Prepared, settled
from koopman_pooling.loading import load, weights_path
from koopman_pooling.old_weights import OWN_PACKAGES, opened
from koopman_pooling.package import WEIGHTS as PACKED
from koopman_pooling.package import read_package
from koopman_pooling.preprocessing import ClipReader
from model.published import ALIASES
from torchlight.card import Card, read_card
from torchlight.checkpoint import apply_weights, load_weights
from torchlight.config import Config
from torchlight.errors import UserError
from torchlight.flags import parse
from torchlight.registry import look_beside, with_parts

OUTPUTS = ("logits", "features")
COMPARED = 32
RANDOM_CLIPS = 12


def feed_of(asked: argparse.Namespace, rest: Sequence[str], *, training: bool) -> "Feed":
    """The model that ``asked.weights`` names, with the data of ``asked.config`` if there are any.

    Args:
        rest: more flags of the configuration.
        training: the training split is wanted as well.

    Raises:
        UserError: it is not known what the weights are of.
        DataError: there are no data, and they are needed.
    """
    weights = weights_path(asked.weights)
    if asked.config is not None:
        words = ["--config", str(asked.config), "--weights", str(weights), *rest]
        words += ["--phase", "train" if training else "test"]
        words += ["--allow-import", *asked.allow_import] if asked.allow_import else []
        try:
            return _of_config(parse(words, "")[0], weights)
        except DataError as error:
            if training:
                raise
            print(f"note: compared on random clips ({error})", file=sys.stderr)
    config = None if read_card(weights)[0].preprocessing else asked.config
    look_beside(asked.allow_import, [Path.cwd()])
    recogniser = load(weights, config=config, device="cpu", allow_import=asked.allow_import)
    reader, persons = recogniser.reader, recogniser.card.model_args.get("num_person", 1)
    clips = [_random_clip(i, persons, reader) for i in range(RANDOM_CLIPS)]
    card = recogniser.card.but(class_names=list(recogniser.class_names))
    return Feed(recogniser.model, card, reader.dataset(clips), None, "random clips")


def _random_clip(seed: int, persons: int, reader: ClipReader) -> np.ndarray:
    """Joints that wander (M, T, V, C)."""
    random = np.random.default_rng(seed)
    shape = (persons, int(random.integers(20, 120)), reader.skeleton.num_point, reader.channels)
    return random.normal(size=(*shape[:1], 1, *shape[2:])) + random.normal(0, 0.05, shape).cumsum(1)


def _of_config(config: Config, path: Path) -> "Feed":
    """The model and the datasets of a configuration."""
    packed = read_package(path.parent) if path.name == PACKED else None
    entries, own = packed or (load_weights(path), None)
    config = config.but(weights=None) if packed else config  # whose card is elsewhere
    config, card, target, _, sets = opened(config)
    card, allowed = own or card, (*OWN_PACKAGES, *config.allow_import)
    matched = hasattr(sets["test"], "exemplars")
    if matched and config.phase == "train":
        raise UserError("--quantize: accuracy is measured, but the test split has other classes")
    given = with_parts("model_args", target, config.model_args, ALIASES, allowed, config.named)
    model = target.build(given)
    apply_weights(model, entries, str(path), config.ignore_weights)
    for note in config.notes:
        print(f"note: {note}", file=sys.stderr)
    names = card.class_names or (None if matched else getattr(sets["test"], "class_names", None))
    card = card.but(class_names=names and list(names), model=card.model or target.path)
    return Feed(model, card, sets["test"], sets.get("train"), "clips of the test split")


class Feed:
    """A graph to export, its inputs, and what the model itself makes of the same clips.

    Args:
        model: with its weights. card: what is known of them.
        test, train: datasets; ``title`` says what the clips of the first are.

    Attributes:
        graph: takes ``inputs``, by name; gives ``outputs``. raw: inputs are joints as recorded.
        transforms: in the graph. notes: on what is not.
        rows: clips of the test split to compare on; ``on`` says which.
    """

    def __init__(self, model: nn.Module, card: Card, test: Any, train: Any, title: str) -> None:
        self.model, self.card, self.test, self.train = model.eval(), card, test, train
        if hasattr(self.model, "return_features"):
            self.model.return_features = True  # type: ignore[assignment]
        n = len(test.sample_names)
        self.rows = np.unique(np.linspace(0, n - 1, min(n, COMPARED)).astype(int)).tolist()
        self.on = f"{len(self.rows)} of {n} {title}"
        x = test.get_batch([0])[0]
        self.outputs = OUTPUTS[: len(self.run(self.model, x))]
        self.graph, self.raw = self.model, False
        self.inputs: tuple[str, ...] = ("x",)
        self.transforms, self.notes = list[Any](), list[str]()
        if not hasattr(test, "stream_table"):
            self.notes = ["all preprocessing: x is what the dataset gives"]
            return
        self.transforms, self.notes = settled([*test.from_raw, *test.transforms])
        try:
            parents = bone_parents(test.skeleton)
            graph = Prepared(self.model, self.transforms, list(test.stream_table), parents)
        except KeyError as error:
            own = getattr(error.args[0], "__name__", error.args[0])
            self.notes = [f"all preprocessing, as {own} has no form in a graph"]
            return
        if len(test) > n:
            self.notes.append(f"testing takes the mean of {len(test) // n} looks: here it is one")
        self.graph, self.raw, self.persons = graph.eval(), True, np.shape(x)[-1]
        self.inputs = ("joints", "frames") if graph.ragged else ("joints",)

    def about(self) -> dict[str, Any]:
        """What travels in the file."""
        card, test = self.card, self.test
        example = self.batch(self.rows[:1])
        size = [*map(str, example[self.inputs[0]].shape)]
        if hasattr(self.model, "pooled") and not self.raw:
            size[2] = "frames"
        told, inside = f"x float32 (clips, {', '.join(size[1:])})", ["nothing"]
        if self.raw:
            joints = f"{size[3]} joints of {test.skeleton.name}, {size[4]} coordinates as recorded"
            told = f"joints float32 (clips, {size[1]} persons, frames, {joints})"
            inside = [type(transform).__name__ for transform in self.transforms]
            inside.append(f"streams {', '.join(test.stream_table)}")
        if len(self.inputs) > 1:
            told += "; frames int64 (clips): how many each clip has, what follows is padding"
        parts = dict(zip(self.outputs, self.eager(self.rows[:1]), strict=True))
        shapes = [f"{k} (clips, {', '.join(map(str, p.shape[1:]))})" for k, p in parts.items()]
        numbers = [str(number) for number in range(parts["logits"].shape[1])]
        return {
            "input": told,
            "output": "; ".join(shapes),
            "in the graph": ", ".join(inside),
            "not in the graph": "; ".join(self.notes) or "nothing",
            "weights": f"{card.model}, sha256 {card.sha256}",
            "class_names": card.class_names or numbers,
        }

    def batch(self, rows: Sequence[int], dataset: Any = None) -> dict[str, np.ndarray]:
        """The graph's inputs of clips (of the test split): raw ones padded to the longest."""
        dataset = dataset or self.test
        if not self.raw:
            return {"x": np.asarray(dataset.get_batch(rows)[0], np.float32)}
        clips = [clip.transpose(3, 1, 2, 0) for clip in self._clips(dataset, rows)]
        frames = np.array([clip.shape[1] for clip in clips], np.int64)
        joints = np.zeros((len(clips), self.persons, frames.max(), *clips[0].shape[2:]), np.float32)
        for place, clip in zip(joints, clips, strict=True):
            place[: len(clip), : clip.shape[1]] = clip[: self.persons]
        return dict(zip(self.inputs, (joints, frames), strict=False))

    def eager(self, rows: Sequence[int]) -> list[np.ndarray]:
        """The model's outputs for clips of the test split, prepared as in training."""
        test, random = self.test, np.random.default_rng(0)
        if not self.raw:
            return self.run(self.model, test.get_batch(rows)[0])
        clips = self._clips(test, rows)
        for transform in self.transforms:
            clips = [transform(clip, random) for clip in clips]
        x = fused(np.stack(clips), test.stream_table, bone_parents(test.skeleton))
        return self.run(self.model, x.astype(np.float32))

    @staticmethod
    def run(model: nn.Module, *inputs: Any) -> list[np.ndarray]:
        """The outputs of a model, as arrays."""
        with torch.no_grad():
            found = model(*(torch.as_tensor(x) for x in inputs))
        return [part.numpy() for part in (found if isinstance(found, tuple) else (found,))]

    def _clips(self, dataset: Any, rows: Sequence[int]) -> list[np.ndarray]:
        """Clips of the source (C, T, V, M): a part of the classes may be shown, in other rows."""
        places = {name: row for row, name in enumerate(dataset.source.names)}
        return [dataset.source.clip(places[dataset.sample_names[row]]) for row in rows]
