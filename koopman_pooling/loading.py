"""From whatever names weights to a recogniser."""

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from koopman_pooling import package
from koopman_pooling.old_weights import OWN_PACKAGES, card_by_config, saved_beside
from koopman_pooling.recogniser import Recogniser
from model.errors import ModelError
from model.published import ALIASES, WEIGHTS
from torchlight.card import Card, card_path, read_card
from torchlight.checkpoint import apply_weights, load_weights, weights_of
from torchlight.cli import Parser
from torchlight.errors import UserError, told
from torchlight.files import expanded
from torchlight.registry import look_beside, resolve, with_parts

_FACTOR = 10  # more than this is no slip


def load(
    source: str | Path,
    *,
    config: str | Path | None = None,
    device: str = "auto",
    allow_import: Sequence[str] = (),
) -> Recogniser:
    """Return the recogniser of trained weights.

    Args:
        source: a name ("nw-ucla-fast"), a work dir (its best weights), a file of weights, or the
            folder of a package.
        config: the YAML that weights without a card were trained by.
        device: "auto", "cpu", "cuda", ...
        allow_import: packages of your own that the model or its preprocessing is in.

    Raises:
        UserError: there are no such weights, or it is not known what they are.
    """
    path = weights_path(source)
    if path.name == package.WEIGHTS:
        weights, card = package.read_package(path.parent)
        return recogniser_of(weights, card, path, device, allow_import)
    card, _ = read_card(path)
    if config is not None or card.model is None or not card.preprocessing:
        card = card_by_config(path, config or saved_beside(path))
    if not card.preprocessing:
        told = f"its feeder, {card.feeder}, does not say how inputs are made of clips"
        raise UserError(f"{path}: {told} (an attribute preprocessing, as SkeletonDataset has)")
    return recogniser_of(load_weights(path), card, path, device, allow_import)


def weights_path(source: str | Path) -> Path:
    """The file of weights that a name, a work dir or a path stands for."""
    path = Path(weights_of(str(source), WEIGHTS))
    if not path.is_dir():
        return path
    if any((path / name).exists() for name in (package.WEIGHTS, package.CONFIG)):
        return path / package.WEIGHTS
    found = sorted(path.glob("runs-*.pt"), key=lambda file: _step(file.name))
    for file in (path / "best.pt", *reversed(found)):
        if file.is_file():
            return file
    raise UserError(f"{path}: neither weights (best.pt, runs-*.pt) nor a package in this folder")


def _step(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def recogniser_of(
    weights: dict[str, Tensor],
    card: Card,
    path: Path,
    device: str = "auto",
    allow_import: Iterable[str] = (),
) -> Recogniser:
    """The recogniser of weights from ``path``, which their card describes."""
    named = path.with_name(package.CONFIG) if path.name == package.WEIGHTS else card_path(path)
    try:
        model = _built(card, tuple(allow_import), _numbers(weights))
        recogniser = Recogniser(model, card, device=device, allowed=tuple(allow_import))
    except (UserError, ModelError) as error:
        raise UserError(f"{named}: {error}") from error
    apply_weights(model, weights, str(path))
    return recogniser


def _built(card: Card, own: Sequence[str], numbers: int) -> nn.Module:
    """The model that a card describes, of weights that have so many numbers.

    Args:
        own: packages of the user's.
    """
    allowed = (*OWN_PACKAGES, *own)
    target = resolve("model", card.model or "", ALIASES, allowed, kind=(nn.Module,))
    arguments = {**card.free_args, **card.model_args}
    given = with_parts("model_args", target, arguments, ALIASES, allowed)
    try:
        wanted = 0
        if not own:  # a stranger's card may ask for more memory than there is
            with torch.device("meta"):
                wanted = _numbers(target.build(given).state_dict())
        if wanted > _FACTOR * numbers:
            raise UserError(f"model_args: of {wanted} numbers, and the weights have {numbers}")
        return target.build(given)
    except (UserError, ModelError):
        raise
    except Exception as error:
        raise UserError(f"model: {target.name}: {told(error)}") from error


def _numbers(weights: Mapping[str, Tensor]) -> int:
    return sum(value.numel() for value in weights.values())


def add_weights_flags(parser: Parser) -> None:
    """The flags of a command that takes trained weights."""
    add = parser.add_argument
    add("--weights", required=True, help="a name (nw-ucla-fast), a file, a work dir or a package")
    add("--config", metavar="FILE", help="the YAML that weights without a card were trained by")
    add("--allow-import", nargs="*", default=[], help="packages of your own that these need")


def load_given(given: argparse.Namespace, device: str) -> tuple[Recogniser, Path]:
    """The recogniser that flags ask for, and the file of its weights."""
    look_beside(given.allow_import, [Path.cwd()])
    try:
        weights, config = expanded(given.weights), given.config and expanded(given.config)
    except ValueError as error:
        raise UserError(f"--weights, --config: {error}") from error
    options = {"config": config, "device": device, "allow_import": given.allow_import}
    return load(weights, **options), weights_path(weights)
