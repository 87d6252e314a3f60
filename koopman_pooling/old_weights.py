"""Weights whose card is missing, or says nothing of preprocessing: a YAML says what they are."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from data import ucla
from data.actions import NTU_ACTIONS
from data.skeletons import NTU, UCLA, Skeleton
from feeders.sources import NtuSource
from feeders.transforms import HOMES
from model.published import ALIASES
from torchlight.card import Card, card_of_run, with_card
from torchlight.config import RESOLVED, Config, bind
from torchlight.contract import with_data
from torchlight.errors import UserError
from torchlight.flags import parse
from torchlight.holdout import open_splits
from torchlight.registry import Target, decided_by_data, plug, resolve, with_each_built
from torchlight.untrusted import read_bounded

OWN_PACKAGES = ("feeders", "model")
_NTU, _UCLA = "feeders.feeder_ntu.Feeder", "feeders.feeder_ucla.Feeder"
_LARGEST_YAML = 1 << 20  # bytes


def saved_beside(path: Path) -> Path:
    """The resolved configuration in the weights' work dir."""
    for file in sorted(path.parent.glob("*.yaml")) if path.is_file() else ():
        with suppress(OSError):
            if read_bounded(file, _LARGEST_YAML).startswith(RESOLVED.encode()):
                return file
    raise UserError(
        f"{path}: no such weights file"
        if not path.is_file()
        else f"{path}: has no card that says how its inputs are made; name the YAML that it was "
        f"trained by: --config FILE, or load(..., config=FILE)"
    )


def card_by_config(path: Path, config_file: str | Path) -> Card:
    """What a configuration says of weights. The data of NTU RGB+D and NW-UCLA need not be there.

    Raises:
        UserError: it is not enough to make inputs by.
    """
    argv = ["--config", str(config_file), "--phase", "test", "--weights", str(path)]
    config, card, model, feeder, sets = opened(parse(argv, "")[0], without_data=True)
    found = card_of_run(config, str(config_file), model, feeder, sets, card, ())
    return found.but(class_names=card.class_names or found.class_names)


def opened(
    config: Config, *, without_data: bool = False
) -> tuple[Config, Card, Target, Target, dict[str, Any]]:
    """The configuration as classes and data mean it, the card of its weights, the classes of the
    model and of the dataset, and the splits.

    Args:
        without_data: blank clips will do, where it is known what the data are like.
    """
    allowed = (*OWN_PACKAGES, *config.allow_import)
    model = resolve(config.named("model"), config.model, ALIASES, allowed)
    config, card = with_card(config, model)
    feeder = resolve(config.named("feeder"), config.feeder, ALIASES, allowed)
    targets = {"test_feeder_args": feeder, "model_args": model}
    targets |= {"train_feeder_args": feeder} if config.phase == "train" else {}
    config = bind(config, targets, ALIASES, allowed, {"model_args": decided_by_data(model)})
    made_of, blank = feeder, dict[str, Any]()
    if without_data:
        arguments = config.test_feeder_args
        if feeder.path.startswith("feeders.oneshot."):  # the classes do not matter to the inputs
            made_of, arguments = _base_of(feeder, arguments)
        blank = _blank(made_of.path, arguments, config.model_args.get("num_class"))
        config = config.but(test_feeder_args=arguments, evaluator=None)

    def build(key: str, given: dict[str, Any]) -> Any:
        return made_of.build({**with_each_built(key, given, HOMES, allowed), **blank})

    sets = open_splits(config, build, made_of.parameters)
    matched = hasattr(sets["test"], "exemplars")  # of classes that the model has no logits for
    judged = not (matched or without_data)
    plug("torchlight.checks.check_data")(config, sets, feeder, card, classes=judged)
    return with_data(config, model, sets, card, matched=matched), card, model, feeder, sets


def _base_of(feeder: Target, arguments: dict[str, Any]) -> tuple[Target, dict[str, Any]]:
    """The feeder that a one-shot feeder reads by, and its arguments."""
    name = arguments.get("base", _UCLA)
    kept = ("data_path", "window_size")  # of the published feeder, which has no base
    own = arguments.get("base_args") or {k: v for k, v in arguments.items() if k in kept}
    base = resolve("base", name, ALIASES, ("feeders",))
    plain = {"augment": False} if "augment" in base.parameters else {}
    return base, {**plain, "split": "test", **own}


def _blank(feeder: str, arguments: dict[str, Any], num_class: int | None) -> dict[str, Any]:
    """A feeder's source without data: one clip of ones a class."""
    of_data = arguments.get("normalization") or arguments.get("window_size") == -1
    if feeder == _UCLA:
        return {"source": _Blank(UCLA, ucla.CLASS_NAMES, np.ones((3, 2, 20, 1)))}
    if feeder != _NTU or of_data:  # which then must be there
        return {}
    large = "120" in str(arguments["data_path"])
    count = len(NTU_ACTIONS) if large or num_class not in (None, 60) else 60
    joints = np.ones((2, 1, 25, 3), np.float32).transpose(3, 0, 2, 1)
    return {"source": _Blank(NTU, NTU_ACTIONS[:count], joints, large)}


class _Blank(NtuSource):
    max_frames = 1

    def __init__(
        self,
        skeleton: Skeleton,
        class_names: Sequence[str],
        joints: np.ndarray,
        lone_twice: bool = False,
    ) -> None:
        self.skeleton, self.class_names = skeleton, list(class_names)
        self.names, self.labels = self.class_names, np.arange(len(class_names))
        self.subjects, self.lone_twice = np.full(len(class_names), -1), lone_twice
        self._joints = joints

    def clip(self, row: int) -> np.ndarray:
        return self._joints
