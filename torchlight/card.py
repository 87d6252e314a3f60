"""What weights are: a card, a small JSON beside each file of weights (``best.json``, ``best.pt``).

It says which model the weights are of, on what data and how they were trained; whoever takes
weights asks it. What data are, the dataset says: its ``description``, a flat mapping, is compared
key by key and not understood. ``described_by`` has for each key the dataset's arguments that
decide it, so that a message can name them.
"""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import UserError, printable
from .files import atomic_write, reason
from .registry import Target, as_json, decided_by_data
from .untrusted import read_bounded

if TYPE_CHECKING:
    from .config import Config

_LARGEST_BYTES = 1 << 20  # 1,000 class names take 20,000
_LONGEST_LIST = 6


class Card(BaseModel):
    """What is known of a file of weights; an empty card knows nothing and fits everything.

    Attributes:
        sha256: of the file's bytes: a card beside another file than its own is found out.
        model: dotted name of the class. model_name: the name that the configuration gave it.
        model_args: its arguments, defaults included. free_args: those that the weights leave free.
        feeder: dotted name of the dataset's class.
        data, described_by: as the dataset describes itself.
        class_names: in the order of the labels.
        preprocessing: of what is tested, as the dataset spells it out.
        amp: the precision that it is tested in.
        training: recipe, position, accuracy and the like; for people to read.
        normalised: entries that were changed after training, and how.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    format: Literal[1] = 1
    sha256: str = ""
    model: str | None = None
    model_name: str | None = None
    model_args: dict[str, Any] = {}
    free_args: dict[str, Any] = {}
    feeder: str | None = None
    data: dict[str, Any] = {}
    described_by: dict[str, dict[str, Any]] = {}
    class_names: list[str] | None = None
    preprocessing: dict[str, Any] = {}
    amp: Literal["off", "bf16", "fp16"] = "off"
    training: dict[str, Any] = {}
    normalised: dict[str, dict[str, Any]] = {}

    def but(self, **changes: Any) -> "Card":
        """This card with some of it changed."""
        return self.model_copy(update=changes)

    def trained(self, **facts: Any) -> "Card":
        """This card with ``facts`` added to what it says of the training."""
        return self.but(training={**self.training, **facts})

    def write(self, path: Path) -> None:
        """Write the card, whole or not at all."""
        with atomic_write(path) as temporary:
            temporary.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


def card_path(weights: str | Path) -> Path:
    """Where the card of a file of weights lies."""
    return Path(weights).with_suffix(".json")


def sha256_of(path: str | Path) -> str:
    """The digest of a file's bytes, as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_card(weights: str | Path | None) -> tuple[Card, list[str]]:
    """The card of a file of weights, or one that knows only the file, and notes on what is wrong.

    That there are no such weights is not said here but by whoever reads them.
    """
    if weights is None or not Path(weights).is_file():
        return Card(), []
    path = card_path(weights)
    try:
        digest = sha256_of(weights)
    except OSError:
        return Card(), []
    try:
        card = Card.model_validate_json(read_bounded(path, _LARGEST_BYTES))
        if card.sha256 == digest:
            return card, []
        why = f"{weights} is not what its card {path.name} is of (the checksum differs)"
    except FileNotFoundError:
        why = f"{weights} has no card ({path.name})"
    except OSError as error:
        why = f"{weights}: its card {path.name} cannot be read ({reason(error)})"
    except ValidationError:
        why = f"{weights}: {path.name} is no card of weights"
    note = f"{why}: what it was trained on is not known, and not compared"
    return Card(sha256=digest), [note]


def described(dataset: Any) -> Card:
    """What a dataset says of itself."""
    names = getattr(dataset, "class_names", None)
    return Card(
        data=as_json(getattr(dataset, "description", {})),
        described_by=as_json(getattr(dataset, "described_by", {})),
        class_names=None if names is None else [str(name) for name in names],
    )


def card_of_run(
    config: "Config",
    recipe: str,
    model: Target,
    feeder: Target,
    sets: Mapping[str, Any],
    start: Card,
    frozen: Sequence[str],
) -> Card:
    """The card of what a run trains or tests.

    Args:
        recipe: the configuration file.
        sets: the datasets by split: what trains knows the classes, what tests the preprocessing.
        start: card of the weights it starts from.
        frozen: names of the parameters that are not trained.
    """
    arguments = model.spelled_out(config.model_args)
    card = described(sets.get("train", sets["test"])).but(
        model=model.path,
        model_name=model.name,
        free_args={name: arguments.pop(name) for name in _free(model) if name in arguments},
        model_args=arguments,
        feeder=feeder.path,
        preprocessing=as_json(getattr(sets["test"], "preprocessing", None) or {}),
        amp=config.amp,
    )
    if config.phase == "test":
        kept = {"sha256": start.sha256, "training": start.training, "normalised": start.normalised}
        return card.but(**kept)
    facts = {
        "recipe": Path(recipe).name,
        "digest": config.digest(),
        "seed": config.seed,
        "frozen": list(frozen),
        "weights": config.weights,
        "weights_sha256": start.sha256 or None,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy")},
    }
    normalised = {name: how for name, how in start.normalised.items() if name in frozen}
    return card.but(training=facts, normalised=normalised)


def with_card(config: "Config", target: Target) -> tuple["Config", Card]:
    """The configuration with the arguments that the weights' model was built with, and their card.

    The card knows better than a configuration file what decides the model; a flag that says
    otherwise is refused. The number of classes, and what is named in ``free_arguments`` of the
    model's class, are taken from the card only where the configuration says nothing. What the data
    decide is left to them.

    Args:
        target: the model's class.
    """
    decided = {*decided_by_data(target)}
    said = {k: v for k, v in config.model_args.items() if v is not None or k not in decided}
    config = config.but(model_args=said)  # null leaves to the data what a base says
    card, notes = read_card(config.weights)
    if card.model is None or config.ignore_card:
        return config.but(*notes), card
    own = target.spelled_out(config.model_args)
    loose = {*_free(target), "num_class"} & own.keys()
    loose |= decided - said.keys() - target.implied.keys()
    of_card = card.free_args | card.model_args
    taken = {n: v for n, v in of_card.items() if n not in loose and own.get(n, ...) != v}
    taken |= {f"{n}_args": of_card[f"{n}_args"] for n in taken if f"{n}_args" in of_card}
    other, name = "", printable(card.model_name)
    if target.path != card.model or taken.keys() & target.implied.keys():
        other = f"{name}) than the configuration's ({config.model}); say --model {name}"
    for part in taken.keys() & getattr(target.cls, "parts", {}).keys():
        wanted = f"{part}={printable(taken[part])}"
        told = f"{part}={printable(own.get(part))}"
        other = other or f"{wanted}) than the configuration's ({told}); say --model-args {wanted}"
    for arg in [name for name in taken if name in own and not other]:
        told, key = f"{shown(taken[arg])}, not {shown(own[arg])}", f"model_args.{arg}"
        if config.by_flag(key):
            other = f"{printable(arg)} {told}); leave {config.named(key)} out"
        notes.append(f"{printable(key)}: {told}, as {config.weights} was trained")
    if other:
        raise UserError(
            f"{config.weights}: weights of another model ({other}, or take other weights "
            f"(--ignore-card tries them all the same)"
        )
    return config.but(*notes, model_args={**config.model_args, **taken}), card


def _free(model: Target) -> tuple[str, ...]:
    """Arguments of a model on which what it computes from given weights does not depend."""
    return tuple(getattr(model.cls, "free_arguments", ()))


def shown(value: Any, beside: Any = ()) -> str:
    """A value in a message: of a list what ``beside`` has not, and that cut."""
    if not isinstance(value, list):
        return printable(value)
    apart = [item for item in value if not isinstance(beside, list) or item not in beside] or value
    more = ", ..." if len(apart) > _LONGEST_LIST else ""
    return printable(", ".join(str(item) for item in apart[:_LONGEST_LIST]) or "none") + more
