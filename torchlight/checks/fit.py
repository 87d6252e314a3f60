"""Does the model fit the data? Found before the first epoch, not late in it."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from ..config import Config
from ..contract import sample_title
from ..errors import UserError, told
from ..evaluation import logits_of
from ..loading import Dataset, read

_SHOWN = 12
"""Class ids that are written out in a message; more of them are given as a range."""


def check_model(
    config: Config,
    model: nn.Module,
    datasets: Mapping[str, Dataset],
    *,
    matched: bool = False,
    mistakes: tuple[type[Exception], ...] = (),
) -> None:
    """Find what would otherwise show up late, with labels or with the inputs of the first samples.

    Args:
        datasets: prepared, by split.
        matched: an evaluator scores what is tested, by classes of its own.
        mistakes: exceptions whose message is made for the user.
    """
    classes = 0
    scored = {split: own for split, own in datasets.items() if split == "train" or not matched}
    for split, dataset in scored.items():
        classes = _try(config, model, split, dataset, mistakes)
    known = hasattr(model, "num_class")
    named = f"model_args.num_class is {classes}" if known else f"the model has {classes} classes"
    wanted = len(config.classes or ())
    if scored and config.classes is not None and classes != wanted:
        raise UserError(f"{named}, but classes lists {wanted}; say --model-args num_class={wanted}")
    for split, dataset in scored.items():
        above = np.flatnonzero(dataset.labels >= classes)
        if len(above):
            row = int(above[0])
            raise UserError(
                f"{named}, but the {split} split has label {dataset.labels[row]} (sample "
                f"{dataset.sample_names[row]}); {_advice(classes, scored)}"
            )
        names = getattr(dataset, "class_names", None)
        if names is not None and len(names) != classes:
            raise UserError(
                f"{named}, but the {split} split has {len(names)} class_names; "
                f"say --model-args num_class={len(names)}, or mend the names"
            )


def _try(
    config: Config,
    model: nn.Module,
    split: str,
    dataset: Dataset,
    mistakes: tuple[type[Exception], ...],
) -> int:
    """Let ``model`` score the first sample; return the number of classes it has scores for."""
    inputs, _, _ = read(dataset, [0])
    title = sample_title(split, dataset.sample_names[0])
    if config.on_nonfinite == "stop" and not bool(inputs.isfinite().all()):
        raise UserError(f"{title} has inputs that are not finite (NaN or infinite)")
    was_training = model.training
    try:
        with torch.inference_mode():
            logits = logits_of(model.eval()(inputs))
    except Exception as error:
        why = str(error) if isinstance(error, mistakes) else told(error)
        shape = tuple(inputs.shape[1:])
        raise UserError(f"{title}, of shape {shape}, does not fit the model: {why}") from error
    finally:
        model.train(was_training)
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2 or len(logits) != 1:
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise UserError(f"model: gives {found} for one sample, expected logits (1, classes)")
    return logits.shape[1]


def _advice(classes: int, datasets: Mapping[str, Dataset]) -> str:
    """What to do about labels that are not below ``classes``."""
    there = sorted({int(label) for d in datasets.values() for label in np.unique(d.labels)})
    within = [label for label in there if label < classes]
    keep = f"to keep the labels say --model-args num_class={there[-1] + 1}"
    if there[0] == 1 and there[-1] == classes:
        return f"labels seem to count from 1: say --classes {_ids(there)}"
    if len(there) == classes:
        return f"to number these {classes} classes from 0 say --classes {_ids(there)}; {keep}"
    if len(within) == classes:
        return f"{keep}; to leave such samples out say --classes {_ids(within)}"
    return keep


def _ids(classes: Sequence[int]) -> str:
    """Class ids as a shell takes them."""
    in_a_row = len(classes) == classes[-1] - classes[0] + 1
    if len(classes) > _SHOWN and in_a_row:
        return f"$(seq {classes[0]} {classes[-1]})"
    return " ".join(map(str, classes))
