"""Meeting: attempts on one store do not see each other's traces; who is missing is named."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist
from launch import ENVIRONMENT

RANK = """
import sys
from torchlight import distributed
from torchlight.errors import PeersMissing
try:
    world = distributed.start("cpu", float(sys.argv[1]), 5)
except PeersMissing as error:
    print(error)
else:
    print("sum of ranks", sum(world.gather(world.rank)))
    distributed.stop()
"""

STEP = """
import os
import sys
import torch
from torch.nn.parallel import DistributedDataParallel
from torchlight import distributed

def step():
    world = distributed.start("cpu", float(sys.argv[1]), 5)
    model = DistributedDataParallel(torch.nn.Linear(2, 2))
    model(torch.ones(1, 2)).sum().backward()
    circle = [model]  # as the parts of a trainer refer to one another
    circle.append(circle)
    world.gather(world.rank)

def count():
    threads = "/proc/self/task"
    names = [open(f"{threads}/{number}/comm").read() for number in os.listdir(threads)]
    return sum("gloo" in name for name in names)

step()
before = count()
distributed.stop()
print(before > 0, count())
"""


@pytest.fixture
def store():
    """A store as a launcher keeps it for all attempts of its processes."""
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def start(store, rank: int, size: int = 2, wait_s: float = 60, script=RANK) -> subprocess.Popen:
    """Start a rank."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    who = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    return subprocess.Popen(
        [sys.executable, "-c", script, str(wait_s)],
        env={**os.environ, **ENVIRONMENT, **where, **who, "TORCHELASTIC_USE_AGENT_STORE": "True"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen) -> str:
    """What a rank prints until it ends."""
    output, errors = process.communicate(timeout=120)
    return output or errors


def test_attempts_on_one_store_meet_among_themselves(store):
    for _ in range(3):
        ranks = [start(store, rank) for rank in (1, 0)]
        assert [said(rank) for rank in ranks] == ["sum of ranks 0\n", "sum of ranks 1\n"]


def test_a_rank_of_an_attempt_that_never_met_is_not_taken_for_the_new_one(store):
    gone = start(store, 1)
    store.wait(["ask/1"], timedelta(seconds=60))
    gone.kill()
    gone.communicate()
    ranks = [start(store, rank) for rank in (0, 1)]
    assert [said(rank) for rank in ranks] == ["sum of ranks 1\n", "sum of ranks 0\n"]


def test_who_did_not_come_is_named(store):
    words = said(start(store, 0, size=3, wait_s=0.5))
    assert words == f"rank 0: rank 1, 2 did not come to 127.0.0.1:{store.port}\n"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are named by Linux alone")
def test_no_thread_of_the_group_is_left_when_the_interpreter_ends(store):
    # One that then still wants Python's lock, to free what it sent, would abort the process.
    ranks = [start(store, rank, script=STEP) for rank in (1, 0)]
    assert [said(rank) for rank in ranks] == ["True 0\n"] * 2
