"""Several runs by one command: --seeds, --streams, resumed, and summed up."""

import csv
import os
import signal
import statistics
from pathlib import Path

import pytest
import toy
import yaml
from ranks import Ranks
from toy_run import train, without_pictures
from toy_ucla import write_ucla

from feeders.feeder_ucla import Feeder
from koopman_pooling.several import _planned
from main_multigpu import main
from torchlight.reports.past import read_run


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    without_pictures(monkeypatch)


def rows_of(path):
    """A CSV's rows by their first cell."""
    with open(path, newline="") as file:
        table = list(csv.DictReader(file))
    return {row["runs"]: row for row in table}


def test_seeds_are_trained_once_and_summed_up(config_file, tmp_path, capsys):
    path, parent = config_file(), tmp_path / "w"
    assert train(path, parent, "--seeds", "1", "2") == 0
    shown = capsys.readouterr().out
    assert "nothing chose it" in shown
    found = [read_run(parent / f"seed-{seed}").evaluations for seed in (1, 2)]
    last = [100 * one["last_test"].accuracy for one in found]
    row = rows_of(parent / "summary.csv")["w"]
    assert row["seeds"] == "1 2"
    assert float(row["mean"]) == pytest.approx(statistics.mean(last), abs=0.01)
    assert float(row["deviation"]) == pytest.approx(statistics.stdev(last), abs=0.01)
    assert float(row["best"]) == pytest.approx(max(last), abs=0.01)
    assert float(row["worst"]) == pytest.approx(min(last), abs=0.01)
    assert row["best epoch chosen on"] == "the test split"
    assert row["parameters"] == "261"
    assert (parent / "summary.md").read_text().splitlines()[2] in shown

    logs = [(parent / f"seed-{seed}" / "log.txt").read_text() for seed in (1, 2)]
    assert train(path, parent, "--seeds", "1", "2", "3") == 0  # what has ended is left alone
    assert logs == [(parent / f"seed-{seed}" / "log.txt").read_text() for seed in (1, 2)]
    assert rows_of(parent / "summary.csv")["w"]["seeds"] == "1 2 3"
    assert train(path, tmp_path / "alone", "--seed", "2") == 0
    one, other = (read_run(f).evaluations for f in (tmp_path / "alone", parent / "seed-2"))
    assert (one["last_test"].matrix == other["last_test"].matrix).all()

    assert train(path, parent, "--seeds", "3", "--num-epoch", "5") == 0  # other settings: again
    assert "epoch 5/5" in (parent / "seed-3" / "log.txt").read_text()
    assert "Runs of w differ in num_epoch" in (parent / "summary.md").read_text()


def test_a_request_to_stop_ends_the_command_and_the_next_one_goes_on(
    config_file, tmp_path, capsys, monkeypatch
):
    path, set_epoch = config_file(), toy.Feeder.set_epoch

    def killing(self, epoch):
        set_epoch(self, epoch)
        if self.seed == 2 and epoch == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    seeds = ["--train-feeder-args", "seed=2", "--seeds", "2", "5"]
    assert train(path, tmp_path / "whole", *seeds) == 0
    monkeypatch.setattr(toy.Feeder, "set_epoch", killing)
    assert train(path, tmp_path / "cut", *seeds) == 0
    assert "stopped on request" in capsys.readouterr().err
    assert not (tmp_path / "cut" / "seed-5").exists()
    monkeypatch.setattr(toy.Feeder, "set_epoch", set_epoch)
    assert train(path, tmp_path / "cut", *seeds) == 0
    for seed in (2, 5):
        one, other = (tmp_path / name / f"seed-{seed}" / "best.pt" for name in ("whole", "cut"))
        assert one.read_bytes() == other.read_bytes()
    assert "resuming from epoch" in (tmp_path / "cut" / "seed-2" / "log.txt").read_text()


def test_a_run_that_fails_ends_the_command(config_file, tmp_path, capsys):
    path = config_file(train_feeder_args={"bad": 3})
    assert train(path, tmp_path / "w", "--seeds", "1", "2") == 1
    said = capsys.readouterr()
    assert f"stopped in {tmp_path / 'w' / 'seed-1'}" in said.out
    assert said.err.count("\n") == 1
    assert not (tmp_path / "w" / "seed-2").exists()


@pytest.mark.parametrize("name", ["demo/koopman", "ucla/koopman", "ucla/fast",
                                  "nturgbd-cross-view/koopman"])  # fmt: skip
def test_streams_take_the_place_of_every_spelling(root, name, tmp_path):
    words = ["--config", str(root / "config" / f"{name}.yaml"), "--work-dir", "w"]
    words += ["--seeds", "4", "7", "--streams", "bone", "joint+joint_motion"]
    if name.startswith("nturgbd"):
        words += ["--train-feeder-args", "bone=True", "--test-feeder-args", "vel=True"]
    parent, runs = _planned(words)
    assert parent == Path("w")
    found = [str(run.folder) for run in runs]
    assert found[:2] == ["w/bone/seed-4", "w/bone/seed-7"]
    assert found[2] == "w/joint+joint_motion/seed-4"
    write_ucla(tmp_path / "data")
    for run in runs[1:3]:
        assert run.config.seed == int(run.folder.name[5:])
        for arguments in (run.config.train_feeder_args, run.config.test_feeder_args):
            assert arguments["streams"] == run.folder.parent.name.split("+")
            assert not arguments.get("bone")
            assert not arguments.get("vel")
            if name.startswith("ucla"):
                own = {k: v for k, v in arguments.items() if "transforms" not in k}
                cache = {"root": tmp_path / "data", "cache_dir": tmp_path / "cache"}
                assert Feeder(**{**own, **cache})[0][0].shape[0] == 3 * len(arguments["streams"])


@pytest.mark.parametrize(("words", "told"), [
    (["--seeds", "1", "1"], "twice"),
    (["--seeds", "1", "x"], "invalid int"),
    (["--seeds", "-1"], "seed"),
    (["--seeds"], "--seeds"),
    (["--seeds", "1", "--seed", "2"], "exclude each other"),
    (["--streams", "joint", "bones"], "bones"),
    (["--streams", "joint+joint"], "distinct"),
    (["--seeds", "1", "--phase", "test", "--weights", "x.pt"], "one run at a time"),
    (["--seeds", "1", "--resume", "last"], "leave it out"),
    (["--sedes", "1"], '"--seeds"'),
    (["--stream", "bone"], '"--streams"'),
    (["--seeds", "1", "--dry-run"], "say --dry-run for one run at a time"),
    (["--seeds", "1", "--num-epochs", "3"], "--num-epoch"),
])  # fmt: skip
def test_mistakes_are_found_before_the_first_run(root, tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    config = ["--config", str(root / "config" / "demo" / "koopman.yaml")]
    assert main([*config, "--work-dir", "w", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ranks_go_through_the_runs_together(config_file, tmp_path):
    """They decide alike, also where rank 0 alone sees the work dir, and meet anew for each run."""
    path, parent = config_file(), tmp_path / "w"
    for seeds in (["1"], ["1", "2", "3"]):
        words = ["--config", path, "--work-dir", str(parent), "--seeds", *seeds]
        run = Ranks(tmp_path, *words)
        assert run.statuses([0, 1], seconds=200) == [0, 0], run.said(0) + run.said(1)
    assert "3 runs in" in run.said(0)
    assert "of which 1 have ended" in run.said(0)
    assert rows_of(parent / "summary.csv")["w"]["seeds"] == "1 2 3"
    assert yaml.safe_load((parent / "seed-3" / "toy.yaml").read_text())["seed"] == 3
