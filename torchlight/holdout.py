"""Part of the training split held out: the choice of an epoch then does not see the test split."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import UserError
from .loading import Dataset


class Subset:
    """The samples of a dataset whose names are kept; repeats and randomness stay as they were."""

    def __init__(self, dataset: Dataset, keep: set[str]) -> None:
        names = list(dataset.sample_names)
        absent = keep - set(names)
        if absent:
            raise UserError(f"{len(absent)} samples to keep are not there, such as {min(absent)}")
        chosen = [i for i, name in enumerate(names) if name in keep]
        repeats = len(dataset) // len(names)
        self._dataset = dataset
        self._indices = np.concatenate(
            [np.array(chosen, dtype=np.int64) + r * len(names) for r in range(repeats)]
        )
        self.sample_names = [names[i] for i in chosen]
        self.labels = np.asarray(dataset.labels)[chosen]
        for name in ("class_names", "description", "described_by"):
            if hasattr(dataset, name):
                setattr(self, name, getattr(dataset, name))

    def __len__(self) -> int:
        return len(self._indices)

    def set_epoch(self, epoch: int) -> None:
        """Hand the epoch on."""
        if hasattr(self._dataset, "set_epoch"):
            self._dataset.set_epoch(epoch)

    def __getitem__(self, index: int) -> tuple[Any, int, int]:
        inputs, label, _ = self._dataset[int(self._indices[index])]
        return inputs, label, index

    def get_batch(self, indices: Sequence[int]) -> tuple[Any, Any, np.ndarray]:
        """Inputs and labels stacked, and ``indices`` as they were asked for."""
        own = self._indices[np.asarray(indices)]
        if hasattr(self._dataset, "get_batch"):
            inputs, labels, _ = self._dataset.get_batch(own)
        else:
            samples = [self._dataset[int(i)] for i in own]
            inputs = np.stack([np.asarray(s[0]) for s in samples])
            labels = np.array([s[1] for s in samples], dtype=np.int64)
        return inputs, labels, np.asarray(indices, dtype=np.int64)


def held_out_names(
    dataset: Dataset, *, subjects: Sequence[int] | None, fraction: float | None, seed: int
) -> set[str]:
    """Names of the training samples to hold out: those of ``subjects``, or a ``fraction``.

    The fraction is drawn class by class, from ``seed`` alone.

    Raises:
        UserError: unknown subjects, nothing held out, nothing left, or too few samples.
    """
    names = np.asarray(dataset.sample_names)
    if subjects is not None:
        known = getattr(dataset, "subjects", None)
        if known is None:
            raise UserError("val_subjects: this dataset does not know its subjects")
        absent = sorted(set(subjects) - {int(s) for s in known})
        if absent:
            there = sorted({int(s) for s in known})
            raise UserError(
                f"val_subjects: no subject {absent} in the training split, only {there}"
            )
        held = names[np.isin(known, list(subjects))]
        if len(held) == len(names):
            raise UserError("val_subjects: holds out the whole training split")
        return set(held.tolist())
    from sklearn.model_selection import train_test_split  # takes most of a second to import

    try:
        _, held = train_test_split(
            names, test_size=fraction, random_state=seed, stratify=dataset.labels
        )
    except ValueError as error:
        raise UserError(f"val_fraction {fraction}: {error}") from error
    return set(held.tolist())
