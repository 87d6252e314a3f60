"""Measures of scores (n, c), larger being likelier, against labels (n,), integers in [0, c).

A tie goes to the lower class index everywhere, as in ``numpy.argmax``.
"""

from collections.abc import Iterable

import numpy as np


def topk_accuracy(
    scores: np.ndarray, labels: np.ndarray, ks: Iterable[int] = (1, 5)
) -> dict[int, float]:
    """Fraction of samples whose label is among the k largest scores, for each k.

    The rank of the label is the number of classes with a larger score plus those with an equal
    score and a lower index; a k above the number of classes counts every sample.

    Raises:
        ValueError: there is no sample, or a k is below 1.
    """
    wanted = list(ks)
    if len(labels) == 0 or min(wanted) < 1:
        raise ValueError(f"top-k accuracy needs samples and k >= 1, got {len(labels)}, k={wanted}")
    own = scores[np.arange(len(labels)), labels][:, None]
    before = np.arange(scores.shape[1])[None] < labels[:, None]
    rank = ((scores > own) | ((scores == own) & before)).sum(axis=1)
    return {k: float((rank < k).mean()) for k in wanted}


def confusion(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(c, c) int64: entry [i, j] counts the samples of class i predicted as class j."""
    classes = np.shape(scores)[1]
    cells = np.asarray(labels) * classes + np.argmax(scores, axis=1)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def class_accuracy(matrix: np.ndarray) -> np.ndarray:
    """(c,) float64: fraction of each class's samples predicted right, NaN where it has none."""
    total = matrix.sum(axis=1)
    return np.divide(np.diag(matrix), total, out=np.full(len(matrix), np.nan), where=total > 0)
