"""A rank killed under torchrun with restarts: the run goes on by itself, to the same end."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
from launch import run, start
from toy_run import ALLOW, assert_same_run

pytestmark = pytest.mark.slow


def workers(agent: int) -> list[int]:
    """The ranks that a launcher has started (Linux)."""
    return [int(word) for word in Path(f"/proc/{agent}/task/{agent}/children").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_launcher_restarts_and_the_run_goes_on(config_file, tmp_path, number):
    path = config_file(train_feeder_args={"pause": 0.02}, rank_timeout_s=6)
    words = ["main_multigpu.py", *ALLOW, "--config", path, "--work-dir"]
    work, log = tmp_path / "w", tmp_path / "w" / "log.txt"
    process = start(*words, work, processes=2, launcher="restarting")
    try:
        deadline = time.monotonic() + 240
        while not (log.exists() and "epoch 1/4" in log.read_text()):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        victims = [pid for pid in workers(process.pid) if is_rank(pid, 1)]
        assert len(victims) == 1
        os.kill(victims[0], number)
        output, _ = process.communicate(timeout=400)
        assert process.returncode == 0, output
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert re.search(r"resuming from epoch [234]", log.read_text())
    done = run(*words, tmp_path / "whole", processes=2, launcher="torchrun")
    assert done.returncode == 0, done.stderr
    assert_same_run(work, tmp_path / "whole")


def is_rank(pid: int, rank: int) -> bool:
    """Whether a process was started as this rank."""
    return f"\0RANK={rank}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes()
