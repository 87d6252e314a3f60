"""Labels of named samples: from the names themselves, or from a data set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data import splits, ucla
from data.errors import DataError
from data.npz import read_array
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
    """Labels of the samples of a store (``.h5``) or of a published ``.npz``'s test part.

    Raises:
        DataError: the file cannot be read as either.
    """
    if path.suffix in STORE_SUFFIXES:
        store = Store(path)
        return dict(zip(store.names, store.labels.tolist(), strict=True))
    return _labels_of_published(path)


def _labels_of_published(path: Path) -> dict[str, int]:
    """Labels of the test part of a published data set, whose samples are test_0, test_1, ...

    Raises:
        DataError: the file cannot be read or has no one-hot array ``y_test`` (n, c).
    """
    one_hot = read_array(path, "y_test")
    if (
        one_hot.dtype.kind not in "fiub"
        or one_hot.ndim != 2
        or not len(one_hot)
        or not ((one_hot != 0).sum(axis=1) == 1).all()
    ):
        raise DataError(f"{path}: y_test, of shape {one_hot.shape}, is not one-hot")
    return {f"test_{i}": label for i, label in enumerate(one_hot.argmax(axis=1).tolist())}
