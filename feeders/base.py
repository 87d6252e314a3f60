"""What every feeder has in common: lengths, epochs, indices, one sample as a batch of one."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from data.errors import DataError
from data.labels import class_numbers


class BatchFeeder(ABC):
    """A dataset whose samples come in batches; subclasses say what a batch holds.

    Sample ``i`` of ``len(feeder)`` is sequence ``i % n``, so that every repetition has random
    numbers of its own.

    Args:
        sample_names: n distinct names.
        labels: classes, int (n,).
        subjects: who acts, int (n,).
        repeat: how often each sequence is seen in an epoch.
        seed: of all random numbers.

    Attributes:
        sample_names: list of n names.
        labels: int64 (n,).
        subjects: int64 (n,).
        epoch: what the random numbers depend on besides seed and index.
        description: what training, testing and weights must agree in, in plain words.
        described_by: for each key of it, the arguments that decide it.

    Raises:
        DataError: ``repeat`` is not a whole number of at least 1, or a label none from 0.
    """

    def __init__(
        self,
        *,
        sample_names: list[str],
        labels: Sequence[int] | np.ndarray,
        subjects: Sequence[int] | np.ndarray,
        repeat: int = 1,
        seed: int = 0,
    ) -> None:
        self.sample_names = sample_names
        self.labels = class_numbers("labels", labels, sample_names)
        self.subjects = np.asarray(subjects, dtype=np.int64)
        self.repeat = at_least_one("repeat", repeat)
        self.seed = seed
        self.epoch = 0
        self.description: dict[str, Any] = {}
        self.described_by: dict[str, dict[str, Any]] = {}

    def describe(self, key: str, value: Any, **arguments: Any) -> None:
        """Add to the description."""
        self.description[key], self.described_by[key] = value, arguments

    def set_epoch(self, epoch: int) -> None:
        """Choose the random numbers of ``epoch``."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sample_names) * self.repeat

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, int]:
        """Return (x (C, T, V, M), label, index).

        Raises:
            IndexError: ``index`` is not in [0, len(feeder)).
        """
        x, labels, indices = self.get_batch([index])
        return x[0], int(labels[0]), int(indices[0])

    def get_batch(
        self, indices: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (x (N, C, T, V, M), labels int64 (N,), indices int64 (N,)).

        Row for row the same bits as ``feeder[i]``.

        Raises:
            IndexError: an index is not in [0, len(feeder)).
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if ((wanted < 0) | (wanted >= len(self))).any():
            raise IndexError(f"index outside [0, {len(self)})")
        rows = wanted % len(self.sample_names)
        return self._sequences(wanted, rows), self.labels[rows], wanted

    @abstractmethod
    def _sequences(self, indices: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return x (N, C, T, V, M) of the sequences ``rows``, drawn at random for ``indices``."""


def at_least_one(name: str, value: int) -> int:
    """Return ``value`` if it is a whole number of at least 1.

    Raises:
        DataError: it is not; the message names the argument.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DataError(f"{name}: {value!r} is not a whole number of at least 1")
    return value


def one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``allowed``.

    Raises:
        DataError: it is not; the message names the argument and what is allowed.
    """
    if value not in allowed:
        raise DataError(f"{name}: {value!r} is not one of {', '.join(map(repr, allowed))}")
    return value
