"""Where commands are started: threads, clusters, terminals of few letters, drives of few rights."""

import asyncio
import errno
import fcntl
import io
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from launch import ENVIRONMENT, command
from toy_run import ALLOW, assert_same_run, train

import eigen_normalization
import ensemble
import test_oneshot
from data.demo.__main__ import main as demo
from data.preparation.command import read
from torchlight.resilience import locks

pytestmark = pytest.mark.usefixtures("one_thread")


def in_thread(action):
    """The result of ``action`` in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(action).result()


def test_training_in_a_thread_is_the_same_run(config_file, tmp_path, capsys):
    path = config_file(num_worker=1)
    assert train(path, tmp_path / "main") == 0
    assert "not in the main thread" not in capsys.readouterr().out
    assert in_thread(lambda: train(path, tmp_path / "thread")) == 0
    assert capsys.readouterr().out.count("not in the main thread") == 1
    assert_same_run(tmp_path / "main", tmp_path / "thread")


def test_training_from_a_running_event_loop(config_file, tmp_path):
    async def cell():
        return train(config_file(), tmp_path / "w", "--num-epoch", "1")

    assert asyncio.run(cell()) == 0


def test_two_threads_take_turns(config_file, tmp_path, capsys):
    path = config_file(num_epoch=1)
    together = threading.Barrier(2)

    def one(name):
        together.wait()
        return train(path, tmp_path / name)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(one, ["a", "b"])) == [0, 0]
    assert "waits for another run" in capsys.readouterr().err
    assert (tmp_path / "a" / "best.pt").read_bytes() == (tmp_path / "b" / "best.pt").read_bytes()


@pytest.mark.parametrize(
    "mistake",
    [
        lambda absent: eigen_normalization.main(
            ["--load-path", absent, "--save-path", f"{absent}.pt"]
        ),
        lambda absent: ensemble.main(["--scores", absent]),
        lambda absent: test_oneshot.main(["--config", absent]),
        lambda absent: read("ntu60", ["--input", absent]),
        lambda absent: demo(["--out", f"{absent}/x", "--limit", "1"]),
    ],
)
def test_every_command_runs_in_a_thread(mistake, tmp_path, capsys):
    (tmp_path / "absent").touch()  # no folder, and no weights either
    assert in_thread(lambda: mistake(str(tmp_path / "absent"))) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_ascii_terminal_gets_every_line(config_file, tmp_path, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    work = tmp_path / "Läufe 数"
    assert train(config_file(num_epoch=1), work) == 0
    assert b"L\\xe4ufe" in raw.getvalue()
    assert f"in {work}" in (work / "log.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "number", [errno.ENOLCK, pytest.param(errno.ENOSYS, marks=pytest.mark.slow), 524]
)
def test_a_drive_without_locks_is_said_and_trained_on(
    config_file, tmp_path, monkeypatch, capsys, number
):
    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "_PATIENCE_S", 0.2)
    path, work = config_file(num_epoch=1), tmp_path / "w"
    assert train(path, work) == 0
    assert capsys.readouterr().out.count("without locks") == 1
    other = locks.FolderLock(work)
    other.acquire()
    assert train(path, work) == 2
    assert f"delete {work}/.lock.soft" in capsys.readouterr().err
    other.release()
    assert train(path, work) == 0


def tasks(folder, words, **more):
    """Two tasks as ``srun`` starts them, each with its output in a file."""
    started = []
    for rank in ("0", "1"):
        own = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NTASKS": "2"}
        with open(folder / f"task{rank}.out", "w") as file:
            process = subprocess.Popen(
                command("main_multigpu.py", *ALLOW, *words),
                env={**ENVIRONMENT, **own, "SLURM_JOB_ID": str(os.getpid()), **more},
                stdout=file,
                stderr=file,
            )
        started.append(process)
    try:
        return [process.wait(100) for process in started]
    finally:
        for process in started:
            process.kill()


@pytest.mark.parametrize(
    "more",
    [
        {},
        pytest.param(
            {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "n1"}, marks=pytest.mark.slow
        ),
    ],
)
def test_tasks_of_srun_train_together(config_file, tmp_path, more):
    words = ["--config", config_file(num_epoch=1), "--work-dir", str(tmp_path / "w")]
    assert tasks(tmp_path, words, **more) == [0, 0]
    first, second = ((tmp_path / f"task{rank}.out").read_text() for rank in (0, 1))
    assert "; 2 x cpu" in first
    assert second == ""
