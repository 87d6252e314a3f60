"""A rank that dies, stops or hangs: the others end within the set time and say which, and why."""

import signal
import time

import pytest
import yaml
from chaos import chain
from ranks import Ranks

SILENCE_S = 6


@pytest.fixture
def ranks(config_file, tmp_path):
    """Start two or more ranks of a slow toy run; what is left of them is killed in the end."""
    started = []

    def start(size=2, pause=0.02, **values):
        path = config_file(
            train_feeder_args={"pause": pause, **values.pop("feeder", {})},
            **{
                "rank_timeout_s": SILENCE_S,
                "global_batch_size": 48 if size == 3 else 16,
                **values,
            },
        )
        started.append(
            Ranks(tmp_path, "--config", path, "--work-dir", str(tmp_path / "w"), size=size)
        )
        return started[-1]

    yield start
    for run in started:
        run.kill()


def lines(text):
    """The error lines of an output."""
    return [line for line in text.splitlines() if line.startswith("error: ")]


def test_a_killed_rank_is_named_by_the_other_and_the_same_command_goes_on(ranks, tmp_path):
    run = ranks()
    run.wait_for("epoch 1/4")
    run.signal(1, signal.SIGKILL)
    killed = time.monotonic()
    assert run.statuses([0]) == [1]
    assert time.monotonic() - killed < 3 * SILENCE_S
    (line,) = lines(run.said(0))
    assert line.startswith("error: rank 1 (")
    assert "has not answered for" in line
    assert "Traceback (most recent call last)" not in run.said(0)
    assert "rank 1 (" in (tmp_path / "w" / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_rank_ends_the_others_with_one_line(ranks, size, victim, number):
    run = ranks(size)
    run.wait_for("epoch 1/4")
    run.signal(victim, number)
    lost = time.monotonic()
    left = [rank for rank in range(size) if rank != victim]
    assert run.statuses(left) == [1] * len(left)
    assert time.monotonic() - lost < 5 * SILENCE_S
    said = [line for rank in left for line in lines(run.said(rank))]
    assert said
    assert all(line.startswith(f"error: rank {victim}") for line in said), said
    assert all("Traceback (most recent call last)" not in run.said(rank) for rank in left)


@pytest.mark.slow
def test_a_rank_that_hangs_is_named_although_it_lives(ranks):
    run = ranks(feeder={"hang_rank": 1}, timeout_minutes=0.2)
    run.wait_for("epoch 1/4")
    assert run.statuses([0]) == [1]
    (line,) = lines(run.said(0))
    assert line.startswith("error: rank 1 (")
    assert "has kept the others waiting for 1" in line


@pytest.mark.slow
def test_a_rank_that_fails_tells_the_others_why(ranks):
    run = ranks(feeder={"fail_rank": 1})
    assert run.statuses([0, 1]) == [1, 2]
    (line,) = lines(run.said(0))
    assert line.startswith("error: rank 1 (")
    assert "failed: train split: sample train_" in line
    assert "OSError: the reading head is worn out" in line


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_to_one_rank_lets_all_save_and_leave(ranks, tmp_path, number, status):
    run = ranks()
    run.wait_for("epoch 1/4")
    run.signal(1, number)
    asked = time.monotonic()
    assert run.statuses([0, 1]) == [status, status]
    assert time.monotonic() - asked < 10
    assert "stopped on request" in (tmp_path / "w" / "log.txt").read_text()


@pytest.mark.slow
def test_a_request_to_leave_is_followed_while_another_rank_is_stopped(ranks):
    run = ranks(rank_timeout_s=100)
    run.wait_for("epoch 1/4")
    run.signal(1, signal.SIGSTOP)
    time.sleep(2)
    run.signal(0, signal.SIGTERM)
    asked = time.monotonic()
    assert run.statuses([0]) == [1]
    assert time.monotonic() - asked < 20
    assert "error: rank 1 (" in run.said(0)


@pytest.mark.slow
def test_ranks_that_never_come_are_said(ranks, tmp_path):
    run = ranks(timeout_minutes=0.05)
    run.signal(1, signal.SIGKILL)
    assert run.statuses([0], seconds=150) == [1]
    assert "rank 1 did not come to 127.0.0.1:" in run.said(0)
    assert "Traceback (most recent call last)" not in run.said(0)


@pytest.mark.slow
def test_three_ranks_that_go_on_end_as_three_that_never_stopped(tmp_path):
    config = {**chain.CONFIG, "global_batch_size": 12, "save_minutes": 100, "rank_timeout_s": 60}
    path = tmp_path / "koopman.yaml"
    path.write_text(yaml.safe_dump(config))
    for work, epochs in (("whole", 2), ("cut", 1), ("cut", 2)):
        words = ["--config", str(path), "--work-dir", str(tmp_path / work)]
        run = Ranks(tmp_path, *words, "--num-epoch", str(epochs), size=3)
        assert run.statuses([0, 1, 2], seconds=200) == [0, 0, 0], run.said(0)
    files = [next((tmp_path / work).glob("runs-2-*.pt")) for work in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()
