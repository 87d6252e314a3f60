"""Loggers: named in a configuration, three methods each, every point once."""

import csv
import sys

import pytest
from toy_run import ALLOW, train

import main_multigpu
from torchlight import loggers

pytestmark = pytest.mark.usefixtures("one_thread")

OWN = """
class Lines:
    def __init__(self, name="lines.txt"):
        self.name = name

    def start(self, config, folder, step):
        self.file = open(folder / self.name, "a")
        print("start", config["base_lr"], step, file=self.file)

    def log(self, values, step):
        print(step, *sorted(values), file=self.file)

    def close(self):
        print("close", file=self.file)
        self.file.close()


class Half:
    def start(self, config, folder, step):
        pass
"""


def rows(work):
    """{name: [step, ...]} of ``curves.csv``."""
    found = {}
    with open(work / "curves.csv", newline="") as file:
        for step, name, value in list(csv.reader(file))[1:]:
            float(value)
            found.setdefault(name, []).append(int(step))
    return found


def test_a_table_of_a_resumed_run_has_each_point_once(config_file, tmp_path):
    path = config_file(loggers=["CSV"], log_interval=4)
    for epochs in ("2", "3", "4"):
        assert train(path, tmp_path / "w", "--num-epoch", epochs) == 0
    found = rows(tmp_path / "w")
    assert found["train/loss"] == found["learning_rate"] == [6, 12, 18, 24]
    assert found["test/top5"] == [12, 18, 24]  # each run's last epoch is evaluated
    assert found["step/loss"] == [4, 8, 12, 16, 20, 24]
    assert not (tmp_path / "w" / "runs").exists()


def test_points_after_the_saved_state_are_logged_anew(config_file, tmp_path):
    path, work = config_file(loggers=["CSV"]), tmp_path / "w"
    train(path, work, "--num-epoch", "2")
    whole = rows(work)
    with open(work / "curves.csv", "a") as file:
        file.write("13,step/loss,0.5\n18,train/loss,0.5\n19,step/l")  # and was killed
    train(path, work, "--num-epoch", "2")
    assert rows(work) == whole


def test_a_held_out_part_is_called_val_and_the_test_split_test(config_file, tmp_path):
    path = config_file(loggers=["CSV"])
    train(path, tmp_path / "w", "--val-fraction", "0.2")
    names = {name.partition("/")[0] for name in rows(tmp_path / "w")}
    assert names == {"learning_rate", "train", "val"}
    assert ", val loss " in (tmp_path / "w" / "log.txt").read_text()


def test_curves_wait_for_a_disk_that_is_full(config_file, tmp_path, monkeypatch, capsys):
    append, left = loggers._append, [3]

    def refuse(path, content):
        if left[0] and path.exists():
            left[0] -= 1
            raise OSError(28, "No space left on device")
        append(path, content)

    path = config_file(loggers=["CSV"], log_interval=2)
    train(path, tmp_path / "plenty")
    monkeypatch.setattr(loggers, "_append", refuse)
    assert train(path, tmp_path / "w") == 0
    assert capsys.readouterr().out.count("curves not written (No space left on device)") == 3
    assert rows(tmp_path / "w") == rows(tmp_path / "plenty")


def test_a_logger_of_one_s_own(config_file, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.delitem(sys.modules, "mine", raising=False)  # of another test
    monkeypatch.syspath_prepend(tmp_path)
    path = config_file(loggers=["CSV", {"name": "mine.Lines", "name_of_file": 1}])
    words = [*ALLOW, "mine", "--config", path, "--work-dir", str(tmp_path / "w")]
    assert main_multigpu.main(words) == 2
    path = config_file(loggers=["CSV", {"name": "mine.Lines"}])
    assert main_multigpu.main(words) == 0
    lines = (tmp_path / "w" / "lines.txt").read_text().splitlines()
    assert lines[0] == "start 0.05 0"
    assert lines[1].startswith("6 learning_rate train/accuracy")
    assert lines[-1] == "close"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["TensorBord"], 'did you mean "TensorBoard"'),
        (["WandB"], "WandB needs the package wandb"),
        (["mine.Half"], "has no method log"),
        ([{"args": 1}], "loggers[0]"),
        ([{"name": "CSV", "folder": "x"}], "takes no such argument"),
    ],
)
def test_a_mistake_is_one_line(config_file, tmp_path, monkeypatch, capsys, names, expected):
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.delitem(sys.modules, "mine", raising=False)  # of another test
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    words = [*ALLOW, "mine", "--config", config_file(loggers=names)]
    assert main_multigpu.main([*words, "--work-dir", str(tmp_path / "w")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert expected in error
    assert not (tmp_path / "w").exists()
