"""What a work dir of today, or of earlier versions, tells of its run; runs beside each other."""

import csv

import numpy as np
import pytest
import yaml
from toy_run import train, without_pictures

from torchlight.compare import main, markdown
from torchlight.config import RESOLVED
from torchlight.reports import tables
from torchlight.reports.past import read_run, wilson

OLD_LOG = """\
[2026-11-26 04:02:22] python 3.11.7, torch 2.13.0+cpu, numpy 2.4.6; 1 x cpu; amp bf16; seed 1
[2026-11-26 04:02:22] 431,753 trained parameters; 5100 training samples; a step is 16 = 1 x 16
[2026-11-26 04:04:47] epoch 1/2: rate 0.1, loss 1.6537 accuracy 47.84 %; 90.0 s, 35 samples/s in training, 2 % waiting for data, 0:45:58 left
[2026-11-26 04:04:49] epoch 1/2: rate 0.1, loss 1.5000 accuracy 50.00 %; 60.0 s, 45 samples/s in training, 2 % waiting for data, 0:45:58 left
[2026-11-26 04:54:26] epoch 2/2: rate 0.01, loss 0.5698 accuracy 98.68 %, test loss 0.3007 accuracy 60.00 % (best so far); 30.0 s, 28 samples/s in training, 1 % waiting for data, 0:00:00 left
[2026-11-26 04:55:12] last epoch (2, step 6360, runs-2-6360.pt): test top-1 60.00 %, top-5 98.71 % (5 samples)
"""  # noqa: E501


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    without_pictures(monkeypatch)


@pytest.fixture
def old(tmp_path):
    """A work dir as it may have been left long ago."""
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "log.txt").write_text(OLD_LOG)
    (folder / "a.yaml").write_text(RESOLVED + yaml.safe_dump({"base_lr": 0.1, "seed": 1}))
    scores = np.eye(3, dtype=np.float32)[[0, 1, 1, 2, 0]]
    names, classes = ["a", "b", "c", "d", "e"], ["sit, down", "<b>", 'say "x"\nagain']
    tables.write_report(folder, "last_test", scores, np.array([0, 1, 2, 2, 1]), names, classes)
    return folder


@pytest.mark.parametrize(("right", "total", "low", "high"), [
    (437, 464, 0.91666, 0.95970),  # by R's binom.wilson
    (0, 10, 0.0, 0.27754),
    (10, 10, 0.72246, 1.0),
    (0, 0, 0.0, 1.0),
])  # fmt: skip
def test_intervals_are_wilsons(right, total, low, high):
    assert wilson(right, total) == pytest.approx((low, high), abs=1e-4)


def test_an_old_work_dir_is_understood(old):
    run = read_run(old)
    assert run.missing == []
    assert run.parameters == 431753
    assert run.minutes == 1.5  # an epoch that was run again counts once
    assert run.epochs[1]["train/loss"] == 1.5
    assert run.epochs[2]["test/accuracy"] == 0.6
    last = run.evaluations["last_test"]
    assert last.counts == (3, 5)
    assert last.classes == ["sit, down", "<b>", 'say "x"\nagain']
    assert last.title.startswith("last epoch (2, step 6360")
    assert run.chosen_on == "the test split"
    assert run.command == []


def test_curves_come_from_whatever_there_is(config_file, tmp_path):
    """Log, CSV and TensorBoard tell the same."""
    assert train(config_file(loggers=["TensorBoard", "CSV"]), tmp_path / "w") == 0
    by_log = read_run(tmp_path / "w").epochs
    (tmp_path / "w" / "log.txt").unlink()
    by_csv = read_run(tmp_path / "w").epochs
    (tmp_path / "w" / "curves.csv").unlink()
    by_events = read_run(tmp_path / "w").epochs
    assert len(by_log) == 4
    for other in (by_csv, by_events):
        assert other.keys() == by_log.keys()
        for epoch, line in by_log.items():
            for name in line.keys() - {"seconds", "speed"}:
                assert other[epoch][name] == pytest.approx(line[name], abs=1e-4), name
    for path in (tmp_path / "w" / "runs").iterdir():
        path.write_bytes(b"x" * 100)
    run = read_run(tmp_path / "w")
    assert not run.epochs
    assert any("curves" in told for told in run.missing)
    assert any("log.txt" in told for told in run.missing)


def test_runs_are_set_beside_each_other(old, config_file, tmp_path, capsys, monkeypatch):
    assert train(config_file(), tmp_path / "new" / "a") == 0
    assert train(config_file(val_fraction=0.2), tmp_path / "new" / "b", "--seed", "2") == 0
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(["new", "old"]) == 0
    shown = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    assert "nothing chose it" in shown
    assert main(["new", "old", "--out", "t.csv"]) == 0
    assert main(["new", "old", "--out", "t.md"]) == 0
    with open("t.csv", newline="") as file:
        rows = {row[0]: row[1:] for row in csv.reader(file)}
    assert rows[""] == ["new/a", "new/b", "old"]
    log = (tmp_path / "new" / "a" / "log.txt").read_text()
    assert f"top-1 {rows['top-1, last epoch'][0]} %" in log
    assert rows["top-1, last epoch"][2] == "60.00"
    assert rows["best epoch chosen on"] == ["the test split", "a part of training held out", "–"]
    assert rows["trained parameters"] == ["261", "261", "431753"]
    assert rows["seed"] == ["1", "2", "1"]
    assert rows["val_fraction"] == ["–", "0.2", "–"]
    assert "work_dir" not in rows
    assert main(["new", "--out", "same.csv"]) == 0
    settings = (tmp_path / "same.csv").read_text()
    assert "\nval_fraction," in settings
    assert "\nbase_lr," not in settings
    assert "| seed " in (tmp_path / "t.md").read_text()
    assert "nothing chose it" in (tmp_path / "t.md").read_text()


def test_a_table_stays_one_whatever_is_in_it():
    lines = markdown([["a", "b"], ["x|y", "1\n2"]]).splitlines()
    assert len(lines) == 3
    assert lines[2] == "| x\\|y | 1 2 |"


@pytest.mark.parametrize(("words", "told"), [
    (["none"], "no such folder"),
    (["empty"], "no run in it"),
    (["old", "--out", "t.txt"], ".csv and .md"),
    (["old", "--out", "none/t.csv"], "none/"),
    ([], "DIR"),
])  # fmt: skip
def test_mistakes_are_one_line(old, tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
