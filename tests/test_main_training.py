"""The training command on a toy task: what a run leaves, and that it is a function of the seed."""

import csv
import os
import signal
import time

import numpy as np
import pytest
import torch
import yaml
from launch import run, start
from toy_run import ALLOW, CONFIG, assert_same_run, train, weights

from torchlight import numerics
from torchlight.fusion.reading import read_scores

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whole(one_thread, tmp_path_factory):
    """The work dir of a toy run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    assert train(str(path), folder / "w") == 0
    return folder / "w"


def test_a_run_leaves_what_it_promises(config_file, tmp_path, capsys):
    work = tmp_path / "w"
    assert train(config_file(), work) == 0
    found = {path.name for path in work.iterdir()}
    assert {"runs-2-12.pt", "runs-4-24.pt", "best.pt", "toy.yaml", "log.txt", "runs"} <= found
    for tag in ("last", "best"):
        for kind in ("each_class_acc.csv", "confusion.csv", "confusion.png", "wrong.txt"):
            assert f"{tag}_test_{kind}" in found
    assert not list(work.rglob("*.tmp"))
    output = capsys.readouterr().out
    assert "chosen on the test split" in output
    assert "top-1" in output
    assert "top-5" in output
    logged = (work / "log.txt").read_text()
    assert all(line in logged for line in ("epoch 4/4", "best epoch"))


def test_what_is_frozen_as_initialised_is_noted(config_file, tmp_path, capsys):
    path = config_file(num_epoch=1, model="toy.Frozen")
    note = "note: what is frozen keeps its initial values"
    assert train(path, tmp_path / "first") == 0
    assert note in capsys.readouterr().out
    start = ["--weights", str(tmp_path / "first" / "best.pt")]
    assert train(path, tmp_path / "second", *start) == 0
    assert note not in capsys.readouterr().out


def test_cuda_graphs_are_for_gpus(whole, config_file, tmp_path, capsys):
    assert train(config_file(), tmp_path / "w", "--cuda-graphs", "True") == 0
    said = capsys.readouterr().out
    assert "amp off, CUDA graphs; seed" in said
    assert "note: cuda_graphs is for GPUs, and changes nothing here" in said
    assert_same_run(whole, tmp_path / "w")


def test_reports_agree_with_the_scores(config_file, tmp_path):
    work = tmp_path / "w"
    train(config_file(), work)
    table = read_scores(work)
    assert table.names == [f"test_{i}" for i in range(33)]
    wrong = (table.scores.argmax(1) != table.labels).sum()
    assert len((work / "best_test_wrong.txt").read_text().splitlines()) >= wrong
    with open(work / "best_test_confusion.csv") as file:
        cells = [int(c) for row in list(csv.reader(file))[1:] for c in row[1:]]
    assert sum(cells) == 33


def test_a_run_is_a_function_of_the_seed_not_of_workers(config_file, tmp_path):
    path = config_file()
    for name, words in {
        "a": [],
        "b": ["--num-worker", "2"],
        "c": ["--seed", "2"],
    }.items():
        assert train(path, tmp_path / name, *words) == 0
    assert_same_run(tmp_path / "a", tmp_path / "b")
    left, right = weights(tmp_path / "a"), weights(tmp_path / "c")
    assert any(not torch.equal(left[key], right[key]) for key in left)


def test_the_saved_configuration_reproduces_the_run(config_file, tmp_path):
    train(config_file(), tmp_path / "a", "--base-lr", "0.02")
    saved = tmp_path / "a" / "toy.yaml"
    assert train(str(saved), tmp_path / "b") == 0
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_the_test_phase_gives_the_scores_of_training_and_leaves_its_configuration(
    config_file, tmp_path
):
    work = tmp_path / "w"
    train(config_file(), work)
    during, saved = read_scores(work), (work / "toy.yaml").read_bytes()
    (work / "epoch1_test_score.npz").unlink()
    words = ["--phase", "test", "--save-score", "True", "--weights", str(work / "best.pt")]
    assert train(str(work / "toy.yaml"), work, *words) == 0
    assert np.array_equal(read_scores(work).scores, during.scores)
    assert (work / "toy.yaml").read_bytes() == saved
    assert (work / "epoch1_test_wrong.txt").exists()


def test_a_held_out_part_chooses_the_best_epoch(config_file, tmp_path, capsys):
    assert train(config_file(), tmp_path / "w", "--val-subjects", "3") == 0
    output = capsys.readouterr().out
    assert "chosen on part of the training split, held out" in output
    assert "76 training samples" in output


def test_a_finished_run_is_not_trained_again_and_can_be_prolonged(
    config_file, tmp_path, whole, capsys
):
    path, work = config_file(), tmp_path / "w"
    train(path, work, "--num-epoch", "2")
    before = (work / "runs-2-12.pt").read_bytes()
    capsys.readouterr()
    assert train(path, work, "--num-epoch", "2") == 0
    assert "epoch 1/2" not in capsys.readouterr().out
    assert (work / "runs-2-12.pt").read_bytes() == before
    assert train(path, work) == 0
    assert_same_run(work, whole)


def test_another_recipe_in_the_same_folder_is_refused_unless_overwritten(
    config_file, tmp_path, capsys
):
    path, work = config_file(), tmp_path / "w"
    train(path, work)
    before = {p: p.read_bytes() for p in work.rglob("*") if p.is_file()}
    assert train(path, work, "--base-lr", "0.01") == 2
    error = capsys.readouterr().err
    assert "base_lr: 0.05 -> 0.01" in error
    assert "--overwrite" in error
    assert {p: p.read_bytes() for p in work.rglob("*") if p.is_file()} == before
    (work / "notes.txt").write_text("mine")
    assert train(path, work, "--base-lr", "0.01", "--overwrite") == 0
    assert (work / "notes.txt").read_text() == "mine"
    train(path, tmp_path / "fresh", "--base-lr", "0.01")
    assert_same_run(work, tmp_path / "fresh")


def test_strange_weights_in_the_folder_are_not_written_over(config_file, tmp_path, capsys):
    work = tmp_path / "w"
    work.mkdir()
    (work / "runs-65-1.pt").write_bytes(b"precious")
    assert train(config_file(), work) == 2
    assert "runs-65-1.pt" in capsys.readouterr().err


def test_a_second_run_in_the_same_folder_stays_out(config_file, tmp_path, capsys):
    path, work = config_file(train_feeder_args={"pause": 0.05}), tmp_path / "w"
    first = start("main_multigpu.py", *ALLOW, "--config", path, "--work-dir", work)
    try:
        deadline = time.monotonic() + 60
        while not (work / "log.txt").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert train(path, work) == 2
        assert "another run is writing there" in capsys.readouterr().err
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--model-args", "num_class=4"], "num_class is 4"),
        (["--batch-size", "128", "--global-batch-size", "128"], "train split has only 101"),
        (["--weights", "absent.pt"], "absent.pt"),
        (["--model-args", "num_clas=4"], 'did you mean "num_class"'),
        (["--train-feeder-args", "sized=4"], 'did you mean "size"'),
        (["--feeder", "toy.Feed"], 'did you mean "Feeder"'),
        (["--global-batch-size", "20"], "--batch-size"),
        (["--base-lrr", "1"], "--base-lr"),
        (["--phase", "test"], "needs weights"),
        (["--val-subjects", "9"], "no subject"),
        (["--device", "cuda"], "no CUDA device"),
    ],
)
def test_a_mistake_is_one_line_and_status_2_and_nothing_is_written(
    config_file, tmp_path, capsys, words, expected
):
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("CUDA is here")
    assert train(config_file(), tmp_path / "w", *words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: ")
    assert expected in error
    assert not (tmp_path / "w").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_is_written_down(config_file, tmp_path, capsys):
    path = config_file(train_feeder_args={"bad": 7})
    assert train(path, tmp_path / "w") == 1
    assert "not finite" in capsys.readouterr().err
    (note,) = (tmp_path / "w").glob("nonfinite_*.txt")
    where, *names = note.read_text().splitlines()
    assert "train_7" in names
    assert len(names) == 16
    assert "learning rate 0.05" in where


def test_steps_that_are_not_finite_can_be_skipped_and_are_counted(config_file, tmp_path, capsys):
    path = config_file(train_feeder_args={"bad": 7})
    assert train(path, tmp_path / "w", "--on-nonfinite", "skip") == 0
    assert "steps were skipped" in capsys.readouterr().out
    assert all(value.isfinite().all() for value in weights(tmp_path / "w").values())


@pytest.mark.parametrize("launcher", ["launch", pytest.param("torchrun", marks=pytest.mark.slow)])
def test_two_processes_take_the_same_steps_as_one(config_file, tmp_path, launcher):
    path = config_file()
    train(path, tmp_path / "one", "--model-args", "drop_out=0.2")
    done = run(
        "main_multigpu.py", *ALLOW, "--config", path, "--work-dir", tmp_path / "two",
        "--model-args", "drop_out=0.2", processes=2, launcher=launcher,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1/4") == 1
    left, right = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key in left:
        torch.testing.assert_close(left[key], right[key], rtol=1e-5, atol=1e-6)


def test_two_processes_test_as_one(config_file, tmp_path, whole):
    done = run(
        "main_multigpu.py", *ALLOW, "--config", config_file(), "--work-dir", tmp_path / "test",
        "--phase", "test", "--weights", whole / "best.pt", processes=2, launcher="torchrun",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, expected = read_scores(tmp_path / "test"), read_scores(whole)
    assert found.names == expected.names
    assert np.array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("late", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_error_on_two_processes_is_said_once(config_file, tmp_path, late):
    (tmp_path / "sitecustomize.py").write_text(
        f"import os, time; time.sleep(3 * (os.environ.get('RANK') == '{late}'))"
    )
    done = run(
        "main_multigpu.py", *ALLOW, "--config", config_file(), "--work-dir", tmp_path / "w",
        "--base-lr", "-1", processes=2, launcher="torchrun", python_path=tmp_path,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.count("error: ") == 1
    assert "--base-lr" in done.stderr
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGKILL, -9),
        pytest.param(signal.SIGTERM, 0, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_goes_on_to_the_same_end(config_file, tmp_path, whole, number, status):
    path = config_file(train_feeder_args={"pause": 0.02})
    work = tmp_path / "cut"
    process = start("main_multigpu.py", *ALLOW, "--config", path, "--work-dir", work)
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            break
    time.sleep(0.5)
    os.kill(process.pid, number)
    process.communicate(timeout=60)
    assert process.returncode == status
    assert train(path, work) == 0
    assert "resuming from epoch 2" in (work / "log.txt").read_text()
    assert_same_run(work, whole)
    assert not list(work.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 0), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_signal_to_the_whole_job_with_loading_workers_saves_and_leaves_within_seconds(
    config_file, tmp_path, number, status
):
    path, work = config_file(train_feeder_args={"pause": 0.02}), tmp_path / "w"
    process = start(
        "main_multigpu.py", *ALLOW, "--config", path, "--work-dir", work, "--num-worker", "2"
    )
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            break
    os.killpg(process.pid, number)
    asked = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == status
    assert time.monotonic() - asked < 20
    assert "stopped on request" in (work / "log.txt").read_text()


def test_a_precision_that_slows_this_processor_down_is_noted(config_file, tmp_path, monkeypatch):
    monkeypatch.setattr(numerics, "SLOW", 0.0)
    work, log = tmp_path / "w", tmp_path / "w" / "log.txt"
    assert train(config_file(), work, "--amp", "bf16") == 0
    assert log.read_text().count("note: matrix products in bf16") == 1
    words = ["--phase", "test", "--weights", str(work / "best.pt")]
    assert train(str(work / "toy.yaml"), work, *words) == 0
    assert log.read_text().count("note: matrix products in bf16") == 2
