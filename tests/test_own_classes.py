"""Somebody's own package beside the working directory; a part of the classes of any data set."""

import sys

import numpy as np
import pytest
import yaml
from toy_run import CONFIG

import main_multigpu

pytestmark = pytest.mark.usefixtures("one_thread", "own_path")

DATASET = """
import numpy as np

class Feeder:
    def __init__(self, split):
        rng = np.random.default_rng(len(split))
        self.x = [rng.normal(size=8) + i % 5 for i in range(30)]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], i % 5
"""
FLAGS = ["--num-epoch", "1", "--eval-interval", "1", "--device", "cpu", "--num-worker", "0"]


@pytest.fixture
def own_path(monkeypatch):
    """What a run adds to the search path, or imports from there, goes with the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] == "mydata":
            del sys.modules[name]


def train(config, *words, allow=("mydata", "toy")):
    """Train by the file ``config``; return the exit status."""
    return main_multigpu.main(["--config", str(config), "--allow-import", *allow, *FLAGS, *words])


def written(folder, code, place="mydata/coco.py", name="mydata.coco.Feeder"):
    """A configuration in ``folder`` and the class it names at ``place``."""
    file = folder / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(code)
    content = {**CONFIG, "feeder": name, "train_feeder_args": {"split": "train"}, "step": []}
    (folder / "own.yaml").write_text(yaml.safe_dump(content))
    return folder / "own.yaml"


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("mydata/coco.py", "mydata.coco.Feeder"),
        ("mydata.py", "mydata.Feeder"),
        ("mydata/__init__.py", "mydata.Feeder"),
    ],
)
@pytest.mark.parametrize("start", [".", "elsewhere"])
def test_an_own_package_is_found_beside_the_working_directory_or_the_configuration(
    tmp_path, monkeypatch, place, name, start
):
    config = written(tmp_path, DATASET, place, name)
    (tmp_path / start).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / start)
    assert train(config, "--work-dir", str(tmp_path / "w")) == 0
    assert sys.path[-1] == str(tmp_path)


def test_only_an_allowed_package_opens_its_folder_and_only_at_the_end(
    tmp_path, monkeypatch, capsys
):
    config = written(tmp_path, DATASET)
    (tmp_path / "yaml.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    assert train(config, allow=("toy",)) == 2
    assert "say --allow-import mydata" in capsys.readouterr().err
    assert str(tmp_path) not in sys.path
    assert train(config, "--work-dir", "w") == 0
    assert sys.path.index(str(tmp_path)) == len(sys.path) - 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x = (", "SyntaxError: '(' was never closed"),
        ("import nothing_here", "No module named 'nothing_here'"),
        ("from numpy import nothing", "ImportError: cannot import name"),
        ("1 / 0", "ZeroDivisionError"),
        ("__import__('numpy').stack([[1], [2, 3]])", "ValueError: all input arrays must"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_module_that_fails_is_named_with_its_line(tmp_path, monkeypatch, capsys, code, expected):
    monkeypatch.chdir(tmp_path)
    assert train(written(tmp_path, f"import os\n{code}\n")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: feeder: "mydata.coco.Feeder": ')
    assert expected in line
    assert line.endswith(f"({tmp_path / 'mydata' / 'coco.py'}, line 2)")


def test_a_package_that_is_not_there_is_said(tmp_path, monkeypatch, capsys):
    config = written(tmp_path, DATASET)
    (tmp_path / "mydata" / "coco.py").rename(tmp_path / "mydata" / "cooc.py")
    monkeypatch.chdir(tmp_path)
    assert train(config) == 2
    assert "No module named 'mydata.coco'" in capsys.readouterr().err


def test_a_class_that_cannot_be_built_is_one_line(tmp_path, monkeypatch, capsys):
    broken = DATASET.replace("self.x = [", "self.x = open('nowhere') + [")
    monkeypatch.chdir(tmp_path)
    assert train(written(tmp_path, broken), "--work-dir", "w") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: test_feeder_args: mydata.coco.Feeder: FileNotFoundError")
    assert not (tmp_path / "w").exists()


def test_a_sample_that_a_worker_cannot_read_is_one_line(tmp_path, monkeypatch, capsys):
    broken = DATASET.replace("return self.x[i]", "return {}[i] if i == 17 else self.x[i]")
    broken += "\n    labels = [i % 5 for i in range(30)]\n"
    monkeypatch.chdir(tmp_path)
    config = written(tmp_path, broken)
    assert train(config, "--work-dir", "w", "--num-worker", "1") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "rror" in line]
    assert line.startswith("error: train split: sample train_17 cannot be read: KeyError: 17 (")
    assert line.endswith("coco.py, line 13)")


def published(path, labels, split=None):
    """A made-up ``.npz`` of these labels, for both splits, or for ``split`` with one-hot beside."""
    x = np.random.default_rng(0).normal(size=(len(labels), 6, 150)).astype(np.float32)
    arrays = {"x_train": x, "x_test": x}
    for part in ("train", "test"):
        wanted = split in (None, part)
        arrays[f"y_{part}"] = np.asarray(labels) if wanted else np.arange(len(labels)) % 3
    np.savez(path, **arrays)
    return path


MODEL = {
    "num_class": 3,
    "num_point": 25,
    "num_person": 2,
    "graph": "model.graph.Graph",
    "graph_args": {"skeleton": "ntu"},
    "channels": [8],
}


def small(folder, feeder, **arguments):
    """A configuration of the smallest skeleton model."""
    content = {
        "feeder": feeder,
        "model": "model.classifier.Model",
        "model_args": MODEL,
        "batch_size": 6,
        "base_lr": 0.01,
        **{f"{split}_feeder_args": {"split": split, **arguments} for split in ("train", "test")},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(content))
    return folder / "small.yaml"


def test_the_advice_for_a_part_of_the_classes_can_be_followed(tmp_path, capsys):
    file = published(tmp_path / "subset.npz", [6, 7, 41] * 4)
    config = small(tmp_path, "feeders.feeder_ntu.Feeder", data_path=str(file), window_size=8)
    work = tmp_path / "w"
    assert train(config, "--work-dir", str(work)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert not work.exists()
    advice = line.split("say ")[1].split(";")[0].split()
    assert advice == ["--classes", "6", "7", "41"]
    assert train(config, "--work-dir", str(work), *advice) == 0
    rows = (work / "last_test_each_class_acc.csv").read_text().splitlines()[1:]
    assert [row.split(",")[:3] for row in rows] == [
        ["0", "6", "4"],
        ["1", "7", "4"],
        ["2", "41", "4"],
    ]
    again = ["--phase", "test", "--weights", str(work / "best.pt"), "--work-dir", str(work)]
    assert main_multigpu.main(["--config", str(work / "small.yaml"), *again]) == 0
    assert train(config, *again, "--classes", "6", "7", "--model-args", "num_class=2") == 2
    assert "best.pt" in capsys.readouterr().err


def test_labels_that_count_from_one_are_said_and_can_be_numbered_from_zero(tmp_path, capsys):
    file = published(tmp_path / "one.npz", [1, 2, 3] * 4)
    config = small(tmp_path, "feeders.feeder_ntu.Feeder", data_path=str(file), window_size=8)
    assert train(config, "--work-dir", str(tmp_path / "w")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "seem to count from 1" in line
    advice = line.split("say ")[1].split()
    assert train(config, "--work-dir", str(tmp_path / "w"), *advice) == 0


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("wrong", [-1, np.nan, 0.5, np.inf])
def test_a_wrong_label_in_a_file_stops_before_training(tmp_path, capsys, split, wrong):
    labels = (np.arange(12) % 3).astype(type(wrong))
    labels[5] = wrong
    file = published(tmp_path / "wrong.npz", labels, split)
    config = small(tmp_path, "feeders.feeder_ntu.Feeder", data_path=str(file), window_size=8)
    assert train(config, "--work-dir", str(tmp_path / "w")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {file}: y_{split}: sample {split}_5 (row 5) has label {wrong}")
    assert not (tmp_path / "w").exists()


def test_the_demo_can_be_trained_on_a_part_of_its_classes(tmp_path):
    arguments = {"actions": 4, "performers": 4, "replications": 1, "window_size": 8}
    config = small(tmp_path, "feeders.feeder_demo.Feeder", **arguments)
    words = ["--classes", "3", "1", "--model-args", "num_class=2", "num_person=1"]
    assert train(config, "--work-dir", str(tmp_path / "w"), *words) == 0
    rows = (tmp_path / "w" / "last_test_each_class_acc.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["0", "1"]
    assert [row.split(",")[1] for row in rows] == ["jump", "kick"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["num_person=1"], "num_person is 1, but the data have 2 "),
        (["in_channels=2"], "in_channels is 2, but the data have 3 "),
        (["num_point=20", "graph_args.skeleton=ucla"], "num_point is 20, but the data have 25 "),
    ],
)
def test_a_model_that_does_not_fit_the_data_leaves_no_work_dir(tmp_path, capsys, words, expected):
    file = published(tmp_path / "data.npz", [0, 1, 2] * 4)
    config = small(tmp_path, "feeders.feeder_ntu.Feeder", data_path=str(file), window_size=8)
    assert train(config, "--work-dir", str(tmp_path / "w"), "--model-args", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --model-args {expected}(samples of shape (3, 8, 25, 2))")
    assert not (tmp_path / "w").exists()


def test_one_sample_and_one_class_can_be_tested(tmp_path, capsys):
    file = published(tmp_path / "one.npz", np.eye(1)[[0]])
    config = small(tmp_path, "feeders.feeder_ntu.Feeder", data_path=str(file), window_size=8)
    words = ["--batch-size", "1", "--work-dir", str(tmp_path / "w")]
    assert train(config, *words, "--model-args", "num_class=1") == 0
    assert "(1 samples)" in capsys.readouterr().out
