"""Labels of published files: one-hot or class numbers; what is neither is named with its row."""

import numpy as np
import pytest

from data.errors import DataError
from data.labels import class_numbers, labels_of_data_set, published_labels
from feeders.feeder_ntu import Feeder

Y = np.array([2, 0, 1, 1])


def file(tmp_path, train, test=None, compressed=False):
    """An ``.npz`` of these labels and of as many empty recordings."""
    arrays = {"y_train": train, "y_test": train if test is None else test}
    arrays |= {
        f"x{key[1:]}": np.zeros((len(y), 3, 150), "f4") for key, y in arrays.items() if y.ndim
    }
    path = tmp_path / "labels.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "y",
    [
        np.eye(3)[Y],
        np.eye(5, dtype=bool)[Y],
        np.eye(3, dtype=np.uint8)[Y],
        Y,
        Y.astype(np.float32),
        Y.astype(np.uint8),
        Y[:, None],
        Y[:, None].astype(float),
    ],
)
def test_the_usual_forms_are_read(tmp_path, y, compressed):
    path = file(tmp_path, y, compressed=compressed)
    found = published_labels(path, "train", 4)
    assert found.tolist() == Y.tolist()
    assert found.dtype == np.int64
    assert labels_of_data_set(path) == {f"test_{i}": label for i, label in enumerate(Y.tolist())}
    assert Feeder(data_path=path).labels.tolist() == Y.tolist()


def test_labels_one_wide_are_one_hot_only_where_the_whole_file_has_one_class(tmp_path):
    ones = np.ones((4, 1))
    assert published_labels(file(tmp_path, ones), "test").tolist() == [0] * 4
    assert published_labels(file(tmp_path, Y[:, None], ones[:1]), "test").tolist() == [1]


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (np.array([0, 1, -1, 2]), r"train_2 \(row 2\) has label -1"),
        (np.array([0, 0.5, 1, 1]), r"train_1 \(row 1\) has label 0.5"),
        (np.array([0, 1, 1, np.nan]), r"train_3 \(row 3\) has label nan"),
        (np.array([0, 1, np.inf, 1]), r"train_2 \(row 2\) has label inf"),
        (np.array([[0], [0.5], [1], [1]]), r"train_1 \(row 1\) has label 0.5"),
        (np.array([0, 2**63, 0, 0], np.uint64), r"train_1 \(row 1\) has label 9223372036854775808"),
        (np.eye(4)[[0, 1, 2, 2]] - np.eye(4)[[1, 2, 2, 3]], r"train_0 \(row 0\) has 2 entries"),
        (np.eye(3)[Y] * [[1], [1], [0], [1]], r"train_2 \(row 2\) has 0 entries"),
        (np.eye(3)[Y] * [[1], [1], [0.9], [1]], r"train_2 .* 1 entries .* add up to 0.9"),
        (np.full((4, 2), 0.5), r"train_0 \(row 0\) has 2 entries other than 0, which add up to 1"),
        (np.eye(3)[Y] * [[1], [1], [1], [np.nan]], r"train_3 \(row 3\)"),
        (Y > 0, "bool"),
        (Y.astype(str), "<U21"),
        (Y[:3], "expected labels of 4 samples"),
        (np.zeros((4, 2, 2)), r"\(4, 2, 2\)"),
        (np.float64(3), r"\(\)"),
    ],
)
def test_the_first_row_that_is_no_label_is_named(tmp_path, y, expected):
    path = file(tmp_path, np.asarray(y), Y)
    with pytest.raises(DataError, match=expected) as caught:
        published_labels(path, "train", 4)
    assert str(caught.value).startswith(f"{path}: y_train")
    assert "\n" not in str(caught.value)


def test_class_numbers_name_the_sample():
    with pytest.raises(DataError, match=r"labels: sample b \(row 1\) has label 1.5"):
        class_numbers("labels", [0, 1.5], ["a", "b"])
    with pytest.raises(DataError, match="expected 2 class numbers"):
        class_numbers("labels", ["0", "1"], ["a", "b"])
