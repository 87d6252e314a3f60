"""Reports of an evaluation, against counts made by hand."""

import csv
from pathlib import Path

import numpy as np
import pytest

from torchlight.metrics import class_accuracy, confusion, topk_accuracy
from torchlight.reports.tables import write_report

SCORES = np.array(
    [[3, 2, 1, 0], [3, 2, 1, 0], [0, 1, 2, 3], [1, 1, 1, 1], [0, 5, 5, 0]], np.float32
)
LABELS = np.array([0, 2, 2, 1, 2])


def test_topk_counts_the_rank_and_breaks_ties_by_index() -> None:
    # ranks of the labels: 0, 2, 1, 1 (tie: class 0 comes first), 1 (tie with class 1)
    assert topk_accuracy(SCORES, LABELS, (1, 2, 3, 4, 9)) == {1: 0.2, 2: 0.8, 3: 1, 4: 1, 9: 1}


def test_top_one_is_argmax_on_ties_too() -> None:
    scores = np.random.default_rng(0).integers(0, 3, (500, 6)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 6, 500)
    assert topk_accuracy(scores, labels)[1] == (scores.argmax(1) == labels).mean()


@pytest.mark.parametrize(("count", "k"), [(0, 1), (5, 0)])
def test_topk_needs_samples_and_a_positive_k(count: int, k: int) -> None:
    with pytest.raises(ValueError, match="top-k"):
        topk_accuracy(SCORES[:count], LABELS[:count], (k,))


def test_confusion_has_a_row_for_classes_never_seen() -> None:
    matrix = confusion(SCORES, LABELS)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, [[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0]])
    np.testing.assert_array_equal(class_accuracy(matrix), [1, 0, 0, np.nan])
    assert confusion(SCORES[:1], LABELS[:1]).shape == (4, 4)


def test_files_say_what_was_counted(tmp_path: Path) -> None:
    names = [f"s{i}" for i in range(5)]
    paths = write_report(tmp_path, "best", SCORES, LABELS, names, ["w", "x", "y", "z"])
    assert sorted(paths) == sorted(tmp_path.iterdir())
    assert [path.name for path in paths] == [
        "best_each_class_acc.csv", "best_confusion.csv", "best_confusion.png", "best_wrong.txt",
    ]  # fmt: skip
    with paths[0].open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1:] == [
        ["0", "w", "1", "1", "1.000000"],
        ["1", "x", "1", "0", "0.000000"],
        ["2", "y", "3", "0", "0.000000"],
        ["3", "z", "0", "0", ""],
    ]
    with paths[1].open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][1:] == ["w", "x", "y", "z"]
    assert rows[3] == ["y", "1", "1", "0", "1"]
    assert paths[3].read_text().splitlines()[1:] == [
        "s1\ty\tw", "s2\ty\tz", "s3\tx\tw", "s4\ty\tx",
    ]  # fmt: skip


@pytest.mark.parametrize("classes", [2, 10, 120])
def test_figure_grows_with_the_classes(tmp_path: Path, classes: int) -> None:
    labels = np.arange(classes).repeat(2)
    scores = np.eye(classes, dtype=np.float32)[labels]
    names = [f"{i}" for i in labels]
    path = write_report(tmp_path, "r", scores, labels, names)[2]
    header = path.read_bytes()[:24]
    width = int.from_bytes(header[16:20], "big")
    assert header.startswith(b"\x89PNG")
    assert width > (2000 if classes > 100 else 600)  # about 17 pixels for each label of 7 points
