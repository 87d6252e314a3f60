"""The splits of a run: the classes wanted, and a part of training held out to choose the epoch.

Held out, because the choice of an epoch then does not see the test split.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from .config import Config
from .contract import View, prepared
from .errors import UserError
from .loading import Dataset

SPLIT_KEYS = ("split", "label_path")


def open_splits(
    config: Config, build: Callable[[str, dict[str, Any]], Any], known: Collection[str]
) -> dict[str, Dataset]:
    """The splits of a run by name, prepared.

    With a part held out, "val" is that part, read as the test split is: by its arguments.

    Args:
        build: makes a dataset of the arguments under a key of the configuration.
        known: names of the arguments that it takes.
    """
    seeded = {"seed": config.seed} if "seed" in known else {}

    def opened(split: str, key: str, arguments: dict[str, Any]) -> Dataset:
        return prepared(split, build(key, {**seeded, **arguments}))

    sets = {"test": opened("test", "test_feeder_args", config.test_feeder_args)}
    if config.phase == "train":
        sets["train"] = opened("train", "train_feeder_args", config.train_feeder_args)
        _check_classes(config.classes, sets)
    sets = {name: _of_classes(name, own, config.classes) for name, own in sets.items()}
    if config.phase == "test" or (config.val_fraction is None and config.val_subjects is None):
        return sets
    train = sets["train"]
    held = held_out_names(
        train, subjects=config.val_subjects, fraction=config.val_fraction, seed=config.seed
    )
    split = {k: v for k, v in config.train_feeder_args.items() if k in SPLIT_KEYS}
    which = split or ({"split": "train"} if "split" in known else config.train_feeder_args)
    plain = {"augment": False} if "augment" in known else {}
    kept = {k: v for k, v in config.test_feeder_args.items() if k not in SPLIT_KEYS}
    again = opened("train", "test_feeder_args", {**kept, **which, **plain})
    sets["val"] = subset("val", _of_classes("val", again, config.classes), held)
    sets["train"] = subset("train", train, set(train.sample_names) - held)
    return sets


def _check_classes(classes: Sequence[int] | None, sets: Mapping[str, Dataset]) -> None:
    there = {int(label) for dataset in sets.values() for label in np.unique(dataset.labels)}
    absent = [number for number in classes or () if number not in there]
    if absent:
        raise UserError(
            f"classes: no sample of {absent}; the data have {len(there)} classes from "
            f"{min(there)} to {max(there)}"
        )


def _of_classes(split: str, dataset: Dataset, classes: Sequence[int] | None) -> Dataset:
    """The samples of ``classes`` (None: all), which are numbered anew, in the order given."""
    if classes is None:
        return dataset
    rows = np.flatnonzero(np.isin(dataset.labels, classes))
    if not len(rows):
        raise UserError(f"classes: the {split} split has no sample of {list(classes)}")
    labels = np.zeros(len(dataset.labels), dtype=np.int64)
    for position, number in enumerate(classes):
        labels[dataset.labels == number] = position
    names = getattr(dataset, "class_names", None)
    known = range(1 + max(classes)) if names is None else names
    if len(known) <= max(classes):
        raise UserError(f"classes: {max(classes)} is none of the {len(known)} class_names")
    chosen = [str(known[number]) for number in classes]
    return View(split, dataset, dataset.sample_names, labels, rows, chosen)


def subset(split: str, dataset: Dataset, keep: set[str]) -> Dataset:
    """The samples whose names are in ``keep``."""
    names = dataset.sample_names
    absent = keep - set(names)
    if absent:
        raise UserError(f"{len(absent)} samples to keep are not there, such as {min(absent)}")
    rows = np.array([i for i, name in enumerate(names) if name in keep], dtype=np.int64)
    return View(split, dataset, names, dataset.labels, rows)


def held_out_names(
    dataset: Dataset, *, subjects: Sequence[int] | None, fraction: float | None, seed: int
) -> set[str]:
    """Names of the training samples to hold out: those of ``subjects``, or a ``fraction``.

    The fraction is drawn class by class, from ``seed`` alone.
    """
    names = np.asarray(dataset.sample_names)
    if subjects is not None:
        known = getattr(dataset, "subjects", None)
        if known is None:
            raise UserError("--val-subjects: this dataset does not know its subjects")
        there = sorted(set(np.asarray(known).tolist()))
        absent = sorted(set(subjects) - set(there))
        if absent:
            raise UserError(
                f"--val-subjects: no subject {absent} in the training split, only {there}"
            )
        held = names[np.isin(known, list(subjects))]
        if len(held) == len(names):
            raise UserError("--val-subjects: holds out the whole training split")
        return set(held.tolist())
    counts = np.bincount(dataset.labels)
    if (counts == 1).any():
        raise UserError(
            f"--val-fraction: class {int(np.argmax(counts == 1))} has one training sample, which "
            f"cannot be held out; say --val-fraction None"
        )
    from sklearn.model_selection import train_test_split  # takes most of a second to import

    try:
        _, held = train_test_split(
            names, test_size=fraction, random_state=seed, stratify=dataset.labels
        )
    except ValueError as error:
        raise UserError(f"--val-fraction {fraction}: {error}") from error
    return set(held.tolist())
