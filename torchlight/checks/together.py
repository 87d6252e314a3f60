"""Do the splits of a run go together, and with the weights it starts from?"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..card import Card, described, shown
from ..config import Config
from ..errors import UserError, printable
from ..registry import Target


def check_data(
    config: Config, sets: Mapping[str, Any], feeder: Target, start: Card, *, classes: bool
) -> None:
    """Whether the splits of a run go together, and with the weights it takes.

    Args:
        sets: the datasets by split.
        start: card of the weights.
        classes: whether they must have the same classes.
    """
    test = described(sets["test"])
    train = described(sets["train"]) if "train" in sets else test
    differing = _differing(train, test, classes)
    if differing:
        flags = _flags(["--test-feeder-args"], train, differing)
        others = _flags(["--train-feeder-args"], test, differing)
        advice = f"say {flags}, or {others}" if flags and others else "make them the same"
        raise UserError(
            f"train_feeder_args and test_feeder_args do not go together: "
            f"{'; '.join(differing.values())}; {advice}"
        )
    if config.ignore_card:
        return
    differing = _differing(start, train, classes and not config.ignore_weights)
    if differing:
        places = [f"--{part}-feeder-args" for part in ("train", "test") if part in sets]
        flags = _flags(places, start, differing) if start.feeder == feeder.path else ""
        advice = f"say {flags}, or take other weights" if flags else "take other weights"
        raise UserError(
            f"{config.weights}: trained on other data than the configuration's: "
            f"{'; '.join(differing.values())}; {advice} (--ignore-card takes them all the same)"
        )


def _differing(one: Card, other: Card, classes: bool) -> dict[str, str]:
    """What both know and have otherwise, by key, in words."""
    known = [
        card.data | ({"classes": card.class_names} if classes and card.class_names else {})
        for card in (one, other)
    ]
    return {
        key: f"{printable(key)} {shown(value, known[1][key])}, not {shown(known[1][key], value)}"
        for key, value in known[0].items()
        if key in known[1] and known[1][key] != value
    }


def _flags(places: Sequence[str], card: Card, keys: Iterable[str]) -> str:
    """The flags that make a dataset what ``card`` says; "" where not all keys have arguments."""
    if not all(card.described_by.get(key) for key in keys):
        return ""
    arguments = {n: v for key in keys for n, v in card.described_by[key].items()}
    pairs = [f"{name}={_word(value)}" for name, value in arguments.items()]
    told = " ".join(word for place in places for word in (place, *pairs))
    return told if told.isprintable() else ""


def _word(value: Any) -> str:
    """A value as a word of the command line."""
    if isinstance(value, list):
        return shlex.quote(f"[{','.join(map(str, value))}]")
    return shlex.quote("null" if value is None else str(value))
