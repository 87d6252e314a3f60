"""From whatever names weights to a recogniser."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from koopman_pooling.old_weights import OWN_PACKAGES, card_by_config, saved_beside
from koopman_pooling.recogniser import Recogniser
from model.errors import ModelError
from model.published import ALIASES, WEIGHTS
from torchlight.card import Card, read_card
from torchlight.checkpoint import apply_weights, load_weights
from torchlight.errors import UserError, told
from torchlight.registry import resolve, with_parts


def load(
    source: str | Path,
    *,
    config: str | Path | None = None,
    device: str = "auto",
    allow_import: Sequence[str] = (),
) -> Recogniser:
    """Return the recogniser of trained weights.

    Args:
        source: a name ("nw-ucla-fast"), a work dir (its best weights), or a file of weights.
        config: the YAML that weights without a card were trained by.
        device: "auto", "cpu", "cuda", ...
        allow_import: packages of your own that the model or its preprocessing is in.

    Raises:
        UserError: there are no such weights, or it is not known what they are.
    """
    path = weights_path(source)
    card, _ = read_card(path)
    if config is not None or card.model is None or not card.preprocessing:
        card = card_by_config(path, config or saved_beside(path))
    return recogniser_of(load_weights(path), card, path, device, allow_import)


def weights_path(source: str | Path) -> Path:
    """The file of weights that a name, a work dir or a path stands for."""
    path = Path(WEIGHTS.get(str(source), source))
    if not path.is_dir():
        return path
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
    allowed = (*OWN_PACKAGES, *allow_import)
    where = f"{path}: its card's model"
    name = card.model or ""
    target = resolve(where, name, ALIASES, allowed)
    given = with_parts(where, target, {**card.free_args, **card.model_args}, ALIASES, allowed)
    try:
        model: Any = target.build(given)
    except (UserError, ModelError):
        raise
    except Exception as error:
        raise UserError(f"{where}: {target.name}: {told(error)}") from error
    apply_weights(model, weights, str(path))
    return Recogniser(model, card, device=device, allowed=allowed)
