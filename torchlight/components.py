"""What a training run is composed of besides model and data: optimiser, schedule, loss, average.

Each is a name and arguments in the configuration: a plain name is torch's, a dotted one anybody's.
"""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from .averaging import Average, Rule
from .config import Config, bind
from .errors import UserError, printable
from .registry import Aliases, Target, resolve
from .schedule import learning_rates, schedule_of

_AVERAGES: Aliases = {name: (f"{Rule.__module__}.{name.title()}", {}) for name in ("ema", "swa")}
_SET_ELSEWHERE = {
    "optimizer_args.lr": "it is base_lr",
    "optimizer_args.params": "they are the model's",
    "lr_scheduler_args.optimizer": "it is the key optimizer",
    "lr_scheduler_args.last_epoch": "it is the key start_epoch",
}


@dataclass(frozen=True)
class Components:
    """The classes of a run's components."""

    optimizer: Target
    loss: Target
    averaging: Target | None


def bind_components(config: Config, allowed: Iterable[str]) -> tuple[Config, Components | None]:
    """Resolve the components' names and bind their arguments; a test has none.

    Args:
        allowed: packages that dotted names may lead into.
    """
    if config.phase == "test":
        return config, None
    named = config.named
    for dotted, why in _SET_ELSEWHERE.items():
        key, _, name = dotted.partition(".")
        if name in getattr(config, key):
            raise UserError(f"{named(dotted)}: is not for {key}: {why}")

    def find(key: str, within: str, kind: type) -> Target:
        name = getattr(config, key)
        return resolve(named(key), name, {}, allowed, within=within, kind=(kind,))

    targets = {
        "optimizer_args": find("optimizer", "torch.optim", torch.optim.Optimizer),
        "lr_scheduler_args": schedule_of(named("lr_scheduler"), config.lr_scheduler),
        "loss_args": find("loss", "torch.nn", nn.Module),
    }
    if config.nesterov and config.optimizer.rpartition(".")[2] != "SGD":
        raise UserError(
            f"{named('nesterov')} is for SGD, not for {named('optimizer')} {config.optimizer}; "
            f"say --nesterov False"
        )
    if config.averaging is not None:
        average = resolve(named("averaging"), config.averaging, _AVERAGES, ("torchlight",))
        targets["averaging_args"] = average
    elif config.averaging_args:
        raise UserError(f"{named('averaging_args')}: nothing is averaged; say --averaging ema")
    weight = config.loss_args.get("weight")
    if isinstance(weight, list | str):  # make_loss makes it the tensor that the loss takes
        rest = {name: value for name, value in config.loss_args.items() if name != "weight"}
        config = config.but(loss_args=rest)
    given = {"optimizer_args": ["params"], "lr_scheduler_args": ["optimizer"]}
    config = bind(config, targets, {}, allowed, given)
    if isinstance(weight, list | str):
        config = config.but(loss_args={**config.loss_args, "weight": weight})
    if config.loss_args.get("reduction", "mean") != "mean":
        raise UserError(f"{named('loss_args.reduction')}: a step's loss is a mean; leave it out")
    components = Components(
        targets["optimizer_args"], targets["loss_args"], targets.get("averaging_args")
    )
    # Whether they take the values, not the types alone:
    make_optimizer(config, components.optimizer, [nn.Parameter(torch.zeros(2, 2))])
    learning_rates(config.model_dump(), config.num_epoch)
    _rule(config, components.averaging)
    return config, components


def make_optimizer(
    config: Config, target: Target, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimiser; SGD has the published momentum of 0.9 unless its arguments say otherwise."""
    implied: dict[str, Any] = {"lr": config.base_lr}
    if "weight_decay" in target.parameters:
        implied["weight_decay"] = config.weight_decay
    elif config.weight_decay:
        name = config.named("weight_decay")
        raise UserError(f"{name}: {target.name} has none; say --weight-decay 0")
    if target.cls is torch.optim.SGD:
        implied |= {"momentum": 0.9, "nesterov": config.nesterov}
    try:
        return target.cls(parameters, **{**implied, **config.optimizer_args})
    except Exception as error:  # anybody's class
        name = config.named("optimizer")
        raise UserError(f"{name}: {target.name}: {printable(error)}") from error


def make_loss(config: Config, target: Target, labels: np.ndarray, num_class: int) -> nn.Module:
    """The loss of logits (N, num_class) and labels (N,): one number, the mean of a batch.

    ``weight`` may be a list of one number a class, or ``balanced``: n / (c n_k) for a class that
    n_k of the n training ``labels`` have, of c there are. The mean is then weighted, too, so that
    it depends on what is together in a batch.
    """
    given, title = dict(config.loss_args), f"{config.named('loss')}: {target.name}"
    if given.get("weight") is not None:
        name = config.named("loss_args.weight")
        given["weight"] = _class_weights(name, given["weight"], labels, num_class)
    try:
        loss = target.build(given)
        with warnings.catch_warnings():  # of shapes, which are an error here
            warnings.simplefilter("ignore")
            value = loss(torch.zeros(2, num_class), torch.tensor([0, num_class - 1]))
    except Exception as error:  # anybody's class
        raise UserError(
            f"{title} is no loss of logits (N, c) and labels (N) with these arguments "
            f"({printable(error)})"
        ) from error
    if not (isinstance(value, torch.Tensor) and value.shape == ()):
        raise UserError(f"{title} gives no single number for a batch")
    if any(p.requires_grad for p in loss.parameters()):
        raise UserError(f"{title} has parameters, which nothing would train")
    return loss


def _class_weights(name: str, weight: Any, labels: np.ndarray, num_class: int) -> torch.Tensor:
    """``loss_args.weight`` as a tensor (num_class,)."""
    if weight == "balanced":
        counts = np.bincount(labels, minlength=num_class)[:num_class]
        there = counts > 0
        balanced = counts.sum() / (there.sum() * np.maximum(counts, 1))
        return torch.tensor(np.where(there, balanced, 0), dtype=torch.float32)
    numbers = [w for w in weight if type(w) in (int, float) and w >= 0] if weight else []
    if not isinstance(weight, list) or len(numbers) != len(weight) or not any(numbers):
        raise UserError(f"{name}: {weight!r:.80} is neither balanced nor a list of weights >= 0")
    if len(weight) != num_class:
        raise UserError(f"{name}: has {len(weight)} numbers for {num_class} classes")
    return torch.tensor(weight, dtype=torch.float32)


def make_average(config: Config, target: Target | None, model: nn.Module) -> Average | None:
    """The average of a model's weights, if one is asked for."""
    rule = _rule(config, target)
    return None if rule is None else Average(model, rule)


def _rule(config: Config, target: Target | None) -> Rule | None:
    if target is None:
        return None
    try:
        rule: Rule = target.build(config.averaging_args)
    except ValueError as error:
        raise UserError(f"{config.named('averaging_args')}: {error}") from error
    if rule.start_epoch >= config.num_epoch:
        name = config.named("averaging_args.start_epoch")
        raise UserError(f"{name} {rule.start_epoch} leaves none of num_epoch {config.num_epoch}")
    return rule


def used(config: Config) -> list[str]:
    """What is not as published, for the head of a log."""
    parts = {
        "optimizer": (config.optimizer, config.optimizer_args, "SGD"),
        "learning rate": (config.lr_scheduler, config.lr_scheduler_args, "step"),
        "loss": (config.loss, config.loss_args, "CrossEntropyLoss"),
        "averaging": (config.averaging, config.averaging_args, None),
    }
    told = [
        f"{key} {_shown(name, args)}"
        for key, (name, args, usual) in parts.items()
        if args or name != usual
    ]
    if config.clip_grad_norm is not None:
        told.append(f"gradients clipped to a norm of {config.clip_grad_norm:g}")
    lines = ["; ".join(told)] if told else []
    if config.lr_scheduler != "step" and config.step:
        lines.append(f"note: step and lr_decay_rate are not used by {config.lr_scheduler}")
    if config.averaging is not None:
        lines.append("scored and saved in best.pt and runs-*.pt are the averaged weights")
    return lines


def _shown(name: str | None, args: Mapping[str, Any]) -> str:
    told = ", ".join(f"{key} {value}" for key, value in args.items())
    return printable(f"{name} ({told})" if told else name)
