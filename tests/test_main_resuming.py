"""Going on with a run whose surroundings have changed, and what must not have changed."""

import contextlib
import io
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
import toy
import yaml
from launch import run
from ranks import Ranks
from toy_run import ALLOW, assert_same_run, train, weights

from torchlight.config import RESOLVED
from torchlight.errors import UserError
from torchlight.loading import plan_batches
from torchlight.summary import epoch_line
from torchlight.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


@contextlib.contextmanager
def leaving_at(number):
    """A run in this process is asked to stop while it takes its step ``number`` (from 1)."""
    take = Trainer._step

    def step(self, batches):
        take(self, batches)
        if self.state.global_step == number - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with mock.patch.object(Trainer, "_step", step):
        yield


@contextlib.contextmanager
def failing_at_once():
    """A run in this process fails at its first step, as for a mistake that shows up there."""
    with mock.patch.object(Trainer, "_step", side_effect=UserError("wrong")):
        yield


def log_of(work):
    """What a run has logged."""
    return (work / "log.txt").read_text()


def largest_difference(a, b):
    """The largest one between two sets of weights."""
    return max(float((a[key].double() - b[key].double()).abs().max()) for key in a)


# -- the number of processes --------------------------------------------------------------------


@pytest.mark.parametrize("began_on", [1, 2, 4, 6])
@pytest.mark.parametrize("world", [1, 2, 3, 4, 5, 9])
def test_every_micro_batch_of_a_step_is_one_process_s(began_on, world):
    plan = replace(plan_batches(4, None, began_on), world=world)
    turns = [plan.number(t, rank) for t in range(plan.accumulate) for rank in range(world)]
    assert [number for number in turns if number < plan.count] == list(range(began_on))
    assert plan.step_size == 4 * began_on


def test_two_processes_go_on_as_the_one_that_began(config_file, tmp_path):
    path = config_file(global_batch_size=None, eval_interval=1)
    train(path, tmp_path / "whole")
    with leaving_at(15):
        assert train(path, tmp_path / "cut") == 0
    done = run(
        "main_multigpu.py", *ALLOW, "--config", path, "--work-dir", tmp_path / "cut",
        processes=2, launcher="torchrun",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    logged = log_of(tmp_path / "cut")
    assert "resuming from epoch 2, step 3; began on 1 processes, 2 now" in logged
    assert "the same steps of 8 samples" in logged
    assert "cannot share out" in logged
    assert largest_difference(weights(tmp_path / "whole"), weights(tmp_path / "cut")) < 1e-6
    means = [re.findall(r"epoch \d/4: [^;]*;", log_of(tmp_path / w)) for w in ("whole", "cut")]
    assert len(means[0]) == 4
    assert means[0] == means[1]


def test_what_is_left_counts_whole_epochs_also_after_a_part_of_one(config_file, tmp_path):
    path = config_file()
    with leaving_at(5):
        assert train(path, tmp_path / "cut") == 0
    with mock.patch("torchlight.trainer.epoch_line", side_effect=epoch_line) as line:
        assert train(path, tmp_path / "cut") == 0
    run, *_, before = line.call_args_list[0].args
    assert before > 0  # five steps lay behind, one was taken
    assert [call.args[3] for call in line.call_args_list[1:]] == [0, 0, 0]
    run.state.epoch = 1
    assert epoch_line(run, 3.0, 0.0, 6.0).endswith("0:00:27 left")


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (4, 3), (2, 3), (1, 4)])
@pytest.mark.parametrize("within", [True, False])
def test_any_number_of_processes_goes_on_as_any_other_began(
    config_file, tmp_path, before, after, within
):
    path = config_file(global_batch_size=None, train_feeder_args={"pause": 0.02})
    for work, size in (("whole", before), ("cut", before), ("cut", after)):
        words = ["--config", path, "--work-dir", str(tmp_path / work)]
        first = (work, size) == ("cut", before)
        between = ["--num-epoch", "2"] if first and not within else []
        ranks = Ranks(tmp_path, *words, *between, size=size)
        if first and within:
            ranks.wait_for("epoch 1/4")
            time.sleep(0.2)
            ranks.signal(0, signal.SIGTERM)
        assert ranks.statuses(list(range(size)), seconds=300) == [0] * size, ranks.said(0)
    step = re.search(r"resuming from epoch \d, step (\d+); began on", log_of(tmp_path / "cut"))[1]
    assert (int(step) > 0) == within
    assert largest_difference(weights(tmp_path / "whole"), weights(tmp_path / "cut")) < 1e-5


def test_the_step_may_be_written_out_but_not_changed(config_file, tmp_path, capsys):
    path = config_file(global_batch_size=None)
    work = tmp_path / "w"
    train(path, work, "--num-epoch", "2")
    assert train(path, work, "--num-epoch", "2", "--global-batch-size", "8") == 0
    assert train(path, work, "--batch-size", "4") == 2
    error = capsys.readouterr().err
    assert "batch_size: 8 -> 4" in error
    assert "keeps its steps on any number of processes" in error


# -- which weights a report is about ------------------------------------------------------------


def reported(text):
    """{"last": (epoch, step, file), "best": ...} of the last report in ``text``."""
    found = re.findall(r"(last|best) epoch \((\d+), step (\d+), ([\w.-]+)", text)
    return {kind: (int(epoch), int(step), file) for kind, epoch, step, file in found[-2:]}


def test_a_report_says_which_weights_it_scored(config_file, tmp_path, capsys):
    path, work = config_file(save_interval=1, eval_interval=1), tmp_path / "w"
    train(path, work)
    found = reported(capsys.readouterr().out)
    assert found["last"] == (4, 24, "runs-4-24.pt")
    epoch, step, file = found["best"]
    assert file == "best.pt"
    assert (work / f"runs-{epoch}-{step}.pt").read_bytes() == (work / file).read_bytes()
    assert train(path, work, "--phase", "test", "--weights", str(work / file)) == 0
    assert f"test of {work / file} (epoch {epoch}, step {step}): " in capsys.readouterr().out


@pytest.mark.parametrize(("stop", "epochs"), [(None, 4), (14, 3), (12, 2)])
def test_fewer_epochs_than_a_run_has_begun_are_not_claimed(
    config_file, tmp_path, capsys, stop, epochs
):
    path, work = config_file(save_interval=10), tmp_path / "w"
    with leaving_at(stop) if stop else contextlib.nullcontext():
        train(path, work)
    capsys.readouterr()
    assert train(path, work, "--num-epoch", "1") == 0
    output = capsys.readouterr().out
    last = f"runs-{epochs}-{6 * epochs}.pt"
    assert reported(output)["last"] == (epochs, 6 * epochs, last)
    assert f"num_epoch 1 is less than the {epochs} epochs that this run has begun" in output
    assert (work / last).exists()
    assert yaml.safe_load((work / "toy.yaml").read_text())["num_epoch"] == epochs
    assert train(path, work) == 0
    assert (work / "runs-4-24.pt").exists()


def test_a_run_that_was_stopped_between_epochs_can_end_there(config_file, tmp_path, capsys):
    path, work = config_file(save_interval=10, eval_interval=1), tmp_path / "w"
    with leaving_at(13):
        train(path, work)
    assert not (work / "runs-2-12.pt").exists()
    for slot in work.glob("resume.*.state"):  # the newest is of step 13, the other of epoch 2
        content = torch.load(memory(slot), weights_only=True)
        if content["counters"]["step"]:
            slot.unlink()
    capsys.readouterr()
    assert train(path, work, "--num-epoch", "2") == 0
    assert reported(capsys.readouterr().out)["last"] == (2, 12, "runs-2-12.pt")
    assert (work / "runs-2-12.pt").exists()


def memory(slot):
    """The archive in a state file."""
    return io.BytesIO(slot.read_bytes()[8 + 32 + 8 :])


# -- the user's own file ------------------------------------------------------------------------


def own(work, path):
    """A commented configuration of the user's in the work dir."""
    work.mkdir(exist_ok=True)
    with open(path) as file:
        text = "# my notes: half the rate of paper X\n" + file.read()
    (work / "toy.yaml").write_text(text)
    return text


@pytest.mark.parametrize("how", ["plain", "relative", "symlink", "hard link", "not named", "alike"])
def test_a_file_of_the_user_s_is_never_written_to(config_file, tmp_path, monkeypatch, capsys, how):
    path, work = config_file(), tmp_path / "w"
    text = own(work, path)
    file = work / "toy.yaml"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    given = str(file)
    if how == "relative":
        monkeypatch.chdir(elsewhere)
        given = "../w/../w/toy.yaml"
    if how in ("symlink", "hard link"):
        shutil.move(file, elsewhere / "toy.yaml")
        link = os.symlink if how == "symlink" else os.link
        link(elsewhere / "toy.yaml", file)
        given = str(elsewhere / "toy.yaml")
    if how == "not named":
        given = path
    if how == "alike":
        given = shutil.copy(file, elsewhere)
    assert train(given, work, "--num-epoch", "1", "--base-lr", "0.01") == 0
    assert file.read_text() == text
    assert file.is_symlink() == (how == "symlink")
    assert f"the resolved configuration is {work / 'resolved_toy.yaml'}" in capsys.readouterr().out
    saved = (work / "resolved_toy.yaml").read_text()
    assert saved.startswith(RESOLVED)
    assert yaml.safe_load(saved)["base_lr"] == 0.01
    assert train(given, work, "--num-epoch", "2", "--base-lr", "0.01") == 0
    assert {p.name for p in work.glob("*.yaml")} == {"toy.yaml", "resolved_toy.yaml"}
    assert yaml.safe_load((work / "resolved_toy.yaml").read_text())["num_epoch"] == 2
    words = ["--phase", "test", "--weights", str(work / "best.pt")]
    assert train(str(file), work, *words) == 0
    assert file.read_text() == text


def test_going_on_by_the_saved_configuration_leaves_it_alone(config_file, tmp_path, capsys):
    work = tmp_path / "w"
    train(config_file(), work, "--num-epoch", "1")
    saved = (work / "toy.yaml").read_bytes()
    assert train(str(work / "toy.yaml"), work) == 0
    assert [p.name for p in work.glob("*.yaml")] == ["toy.yaml"]
    assert train(str(work / "toy.yaml"), work, "--num-epoch", "2") == 0
    assert (work / "toy.yaml").read_bytes() == saved
    assert yaml.safe_load((work / "resolved_toy.yaml").read_text())["num_epoch"] == 2


def test_another_command_brings_the_saved_configuration_up_to_date(config_file, tmp_path):
    path, work = config_file(), tmp_path / "w"
    train(path, work, "--num-epoch", "1")
    train(path, work, "--num-epoch", "2")
    assert yaml.safe_load((work / "toy.yaml").read_text())["num_epoch"] == 2
    assert [p.name for p in work.glob("*.yaml")] == ["toy.yaml"]


# -- surroundings -------------------------------------------------------------------------------


@pytest.fixture
def stored(config_file, tmp_path):
    """Write points for ``toy.Stored``; return the configuration that reads them."""

    def write(place="job1/points.npy", **changes):
        points = toy.Feeder().points
        points[10:60] += changes.get("shift", 0.0)
        (tmp_path / place).parent.mkdir(exist_ok=True)
        np.save(tmp_path / place, points[: changes.get("size", 101)])
        return config_file(feeder="toy.Stored", test_feeder_args={"path": str(tmp_path / place)})

    return write


def data_at(place):
    """Flags for where the data lie."""
    return ["--train-feeder-args", f"path={place}", "--test-feeder-args", f"path={place}"]


def test_data_may_move_and_be_spelt_otherwise(stored, tmp_path, monkeypatch, capsys):
    stored("job1/points.npy")
    path = stored("job2/points.npy")
    monkeypatch.chdir(tmp_path)
    train(path, tmp_path / "whole", *data_at(tmp_path / "job1" / "points.npy"))
    with leaving_at(9):
        train(path, tmp_path / "w", *data_at(tmp_path / "job1" / "points.npy"))
    shutil.rmtree(tmp_path / "job1")
    with leaving_at(14):
        assert train(path, tmp_path / "w", *data_at(tmp_path / "job2" / "points.npy")) == 0
    assert "job2/points.npy' (the same samples)" in capsys.readouterr().out
    assert train(path, tmp_path / "w", *data_at("job2/points.npy")) == 0
    assert_same_run(tmp_path / "w", tmp_path / "whole")


@pytest.mark.parametrize("changes", [{"shift": 1.0}, {"size": 96}])
def test_other_data_at_another_place_are_refused(stored, tmp_path, capsys, changes):
    path = stored("job1/points.npy")
    stored("job2/points.npy", **changes)
    words = ["--num-epoch", "1"]
    train(path, tmp_path / "w", *words, *data_at(tmp_path / "job1" / "points.npy"))
    assert train(path, tmp_path / "w", *words, *data_at(tmp_path / "job2" / "points.npy")) == 2
    error = capsys.readouterr().err
    here, there = (repr(str(tmp_path / job / "points.npy")) for job in ("job1", "job2"))
    assert f"train_feeder_args.path: {here} -> {there}" in error


def test_another_split_at_the_same_place_is_refused(stored, tmp_path, capsys):
    path = stored("job1/points.npy")
    words = ["--num-epoch", "1", *data_at(tmp_path / "job1" / "points.npy")]
    train(path, tmp_path / "w", *words)
    stored("job1/points.npy", size=96)
    assert train(path, tmp_path / "w", *words) == 2
    assert "train split: 101 samples -> 96 others" in capsys.readouterr().err


def test_a_word_that_is_no_place_is_a_setting(config_file, tmp_path, capsys):
    path = config_file(train_feeder_args={"size": 50})
    train(path, tmp_path / "w", "--num-epoch", "1")
    assert train(path, tmp_path / "w", "--num-epoch", "1", "--train-feeder-args", "size=49") == 2
    assert "train_feeder_args.size: 50 -> 49" in capsys.readouterr().err


def test_start_weights_may_be_gone_or_lie_elsewhere(config_file, tmp_path, capsys):
    path, start = config_file(), tmp_path / "start.pt"
    train(path, tmp_path / "first", "--num-epoch", "1")
    shutil.copy(tmp_path / "first" / "best.pt", start)
    train(path, tmp_path / "whole", "--weights", str(start), "--seed", "5")
    words = ["--seed", "5", "--weights"]
    with leaving_at(9):
        train(path, tmp_path / "w", *words, str(start))
    start.rename(tmp_path / "moved.pt")
    with leaving_at(14):
        assert train(path, tmp_path / "w", *words, str(start)) == 0
    assert train(path, tmp_path / "w", *words, str(tmp_path / "moved.pt")) == 0
    assert_same_run(tmp_path / "w", tmp_path / "whole")
    capsys.readouterr()
    other = tmp_path / "first" / "runs-1-6.pt"
    other.write_bytes((tmp_path / "whole" / "runs-4-24.pt").read_bytes())
    for wrong in (str(other), "gone.pt"):
        assert train(path, tmp_path / "w", *words, wrong) == 2
        assert "weights: " in capsys.readouterr().err
    shutil.copy(other, tmp_path / "moved.pt")
    assert train(path, tmp_path / "w", *words, str(tmp_path / "moved.pt")) == 2
    assert "holds others than it began with" in capsys.readouterr().err
    assert train(path, tmp_path / "w", "--seed", "5") == 2
    assert "-> not set" in capsys.readouterr().err


def test_start_weights_of_a_run_that_has_not_taken_a_step_may_be_gone(config_file, tmp_path):
    path, start = config_file(), tmp_path / "start.pt"
    train(path, tmp_path / "first", "--num-epoch", "1")
    shutil.copy(tmp_path / "first" / "best.pt", start)
    train(path, tmp_path / "whole", "--weights", str(start))
    with failing_at_once():
        assert train(path, tmp_path / "w", "--weights", str(start)) == 2
    start.unlink()
    assert train(path, tmp_path / "w", "--weights", str(start)) == 0
    assert_same_run(tmp_path / "w", tmp_path / "whole")


def test_settings_may_be_corrected_until_the_first_step(config_file, tmp_path, capsys):
    path, fixed = config_file(), ["--model-args", "drop_out=0.1", "--start-epoch", "1"]
    with failing_at_once():
        assert train(path, tmp_path / "w", "--model-args", "drop_out=0.6") == 2
        assert train(path, tmp_path / "w", "--model-args", "drop_out=0.5") == 2
    capsys.readouterr()
    with leaving_at(3):
        assert train(path, tmp_path / "w", *fixed) == 0
    output = capsys.readouterr().out
    assert "had not taken a step; it begins anew" in output
    assert "model_args.drop_out: 0.5 -> 0.1" in output
    assert train(path, tmp_path / "w", "--model-args", "drop_out=0.5") == 2
    assert "model_args.drop_out: 0.1 -> 0.5" in capsys.readouterr().err
    assert train(path, tmp_path / "w", *fixed) == 0
    train(path, tmp_path / "whole", *fixed)
    assert_same_run(tmp_path / "w", tmp_path / "whole")


def test_what_lies_ahead_of_a_run_may_change(config_file, tmp_path, capsys):
    path, work = config_file(step=[1]), tmp_path / "w"
    train(path, work, "--num-epoch", "2")
    ahead = ["--step", "1", "3", "--save-interval", "3", "--num-worker", "1"]
    ahead += ["--on-nonfinite", "skip", "--log-interval", "1", "--save-minutes", "1"]
    capsys.readouterr()
    assert train(path, work, *ahead) == 0
    assert "step: [1] -> [1, 3] (the same rates up to here)" in capsys.readouterr().out
    train(path, tmp_path / "whole", "--step", "1", "3")
    assert_same_run(work, tmp_path / "whole")
    for past in (["--step", "1"], ["--step", "0", "3"], ["--lr-decay-rate", "0.5"]):
        assert train(path, work, *past) == 2
        assert "-> " in capsys.readouterr().err


# -- advice that can be followed ----------------------------------------------------------------


def test_a_run_stopped_by_a_loss_of_nan_follows_the_advice(config_file, tmp_path, capsys):
    path, work = config_file(train_feeder_args={"bad": 7}), tmp_path / "w"
    assert train(path, work) == 1
    assert "resume with --on-nonfinite skip" in capsys.readouterr().err
    assert train(path, work, "--on-nonfinite", "skip") == 0
    assert "steps were skipped" in log_of(work)


@pytest.mark.parametrize("words", [[], ["--global-batch-size", "240", "--batch-size", "48"]])
def test_a_step_larger_than_the_split_is_mended_as_advised(config_file, tmp_path, capsys, words):
    path = config_file(global_batch_size=None, batch_size=128, num_epoch=1)
    assert train(path, tmp_path / "w", *words) == 2
    advice = re.search(r"say (--global-batch-size) (\d+)", capsys.readouterr().err)
    assert train(path, tmp_path / "w", *words, *advice.groups()) == 0


def test_overwriting_spares_the_weights_to_start_from(config_file, tmp_path, capsys):
    path, work = config_file(), tmp_path / "w"
    train(path, work, "--num-epoch", "1")
    before = (work / "best.pt").read_bytes()
    words = ["--base-lr", "0.01", "--overwrite", "--weights", str(work / "best.pt")]
    assert train(path, work, *words) == 2
    assert f"or move {work / 'best.pt'} out of it first" in capsys.readouterr().err
    assert train(path, work, *words[:2], *words[3:]) == 2
    assert "--overwrite" not in capsys.readouterr().err
    assert (work / "best.pt").read_bytes() == before
    shutil.move(work / "best.pt", tmp_path / "start.pt")
    words[-1] = str(tmp_path / "start.pt")
    assert train(path, work, *words) == 0
    assert (tmp_path / "start.pt").read_bytes() == before


def test_weights_of_other_names_in_the_folder_are_no_run_s(config_file, tmp_path):
    path, work = config_file(), tmp_path / "w"
    train(path, tmp_path / "first", "--num-epoch", "1")
    work.mkdir()
    shutil.copy(tmp_path / "first" / "best.pt", work / "start.pt")
    for _ in range(2):
        assert train(path, work, "--weights", str(work / "start.pt"), "--num-epoch", "1") == 0


def test_a_launcher_that_starts_lost_processes_again_does_not_start_over(
    config_file, tmp_path, monkeypatch
):
    path, work = config_file(), tmp_path / "w"
    with leaving_at(9):
        train(path, work, "--overwrite")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert train(path, work, "--overwrite") == 0
    assert "resuming from epoch 2, step 3" in log_of(work)
