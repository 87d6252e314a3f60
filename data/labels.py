"""Labels of named samples: from the names themselves, or from a data set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data import splits, ucla
from data.errors import DataError
from data.npz import array_names, open_array
from data.store import Store

STORE_SUFFIXES = (".h5", ".hdf5")


def labels_in_names(names: Sequence[str]) -> np.ndarray | None:
    """Labels (n,) int64 that NW-UCLA or NTU RGB+D names state, None where they are neither's.

    A suffix, such as ``.skeleton``, is no part of the name.
    """
    for parse in (ucla.parse_name, splits.parse_name):
        try:
            return np.array([parse(name.partition(".")[0]).label for name in names], dtype=np.int64)
        except DataError:
            continue
    return None


def labels_of_data_set(path: Path) -> dict[str, int]:
    """Labels of the samples of a store (``.h5``), or of a published ``.npz``'s test part.

    The samples of that are called test_0, test_1, ...

    Raises:
        DataError: the file cannot be read as either.
    """
    if path.suffix in STORE_SUFFIXES:
        store = Store(path)
        return dict(zip(store.names, store.labels.tolist(), strict=True))
    return {f"test_{i}": label for i, label in enumerate(published_labels(path, "test").tolist())}


def class_numbers(
    title: str, values: Sequence[int] | np.ndarray, names: Sequence[str]
) -> np.ndarray:
    """``values`` as classes, int64 (n,): numbers (n,), or a column of them.

    Raises:
        DataError: they are something else than n whole numbers from 0; the first is named.
    """
    found = np.asarray(values)
    if found.dtype.kind not in "iuf" or found.shape not in ((len(names),), (len(names), 1)):
        raise DataError(
            f"{title} is {str(found.dtype)[:40]} {found.shape}, expected {len(names)} class numbers"
        )
    found = found.reshape(-1)
    with np.errstate(invalid="ignore"):  # of NaN, which then differs
        numbers = found.astype(np.int64)
    wrong = np.flatnonzero((numbers != found) | (numbers < 0))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{title}: sample {names[row]} (row {row}) has label {found[row]}; "
            f"labels are whole numbers from 0"
        )
    return numbers


def published_labels(path: Path, split: str, count: int | None = None) -> np.ndarray:
    """Classes, int64 (n,), of an ``.npz``'s ``y_SPLIT``: one-hot (n, classes), or class numbers.

    Args:
        count: what n must be, where it is known.

    Raises:
        DataError: the file cannot be read, or the array is something else; the first row that is
            wrong is named.
    """
    name = f"y_{split}"
    y = open_array(path, name)
    rows = len(y) if y.ndim else 0
    if not rows or y.ndim > 2 or y.dtype.kind not in "fiub" or rows != (count or rows):
        raise DataError(
            f"{path}: {name} is {y.dtype} {y.shape}, expected labels of "
            f"{count or 'some'} samples (it has {', '.join(array_names(path))})"
        )
    names = [f"{split}_{row}" for row in range(rows)]
    if y.ndim == 1 or (y.shape[1] == 1 and not _one_class(path)):
        return class_numbers(f"{path}: {name}", y, names)
    others = np.count_nonzero(y, axis=1)
    wrong = np.flatnonzero((others != 1) | (np.count_nonzero(y == 1, axis=1) != 1))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{path}: {name} is not one-hot: sample {names[row]} (row {row}) has {others[row]} "
            f"entries other than 0, which add up to {y[row].sum():g}"
        )
    return y.argmax(axis=1)


def _one_class(path: Path) -> bool:
    """Whether labels one wide are one-hot, of a single class, rather than a column of numbers."""
    names = [name for name in array_names(path) if name in ("y_train", "y_test")]
    return all(bool((open_array(path, name) == 1).all()) for name in names)
