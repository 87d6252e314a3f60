"""Meeting: attempts on one store do not see each other's traces; who is missing is named."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist
from launch import ENVIRONMENT

from torchlight import distributed
from torchlight.errors import PeersMissing, UserError
from torchlight.launch import Launch, address_of, check_launch, launch_of

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
    assert words.startswith(f"rank 0: rank 1, 2 did not come to 127.0.0.1:{store.port}; ")
    assert "torchrun" in words


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are named by Linux alone")
def test_no_thread_of_the_group_is_left_when_the_interpreter_ends(store):
    # One that then still wants Python's lock, to free what it sent, would abort the process.
    ranks = [start(store, rank, script=STEP) for rank in (1, 0)]
    assert [said(rank) for rank in ranks] == ["True 0\n"] * 2


JOB = {"SLURM_JOB_ID": "42", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4"}
TASK = {**JOB, "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "4"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1, 0, False)),
        (TASK, (3, 4, 1, True)),
        # A step of fewer tasks than the job may run; a batch script; a job's shell without tasks.
        ({**TASK, "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, (1, 2, 1, True)),
        ({**JOB, "ENVIRONMENT": "BATCH"}, (0, 1, 0, False)),
        ({"SLURM_JOB_ID": "42", "SLURM_NTASKS": "4"}, (0, 1, 0, False)),
        # srun from a batch script; torchrun and mpirun in steps of Slurm.
        ({**TASK, "ENVIRONMENT": "BATCH"}, (3, 4, 1, True)),
        ({**TASK, "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "2"}, (5, 8, 2, False)),
        (
            {
                **TASK,
                "OMPI_COMM_WORLD_RANK": "1",
                "OMPI_COMM_WORLD_SIZE": "2",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
            },
            (1, 2, 1, False),
        ),
        ({**TASK, "PMI_RANK": "3", "PMI_SIZE": "4"}, (3, 4, 1, True)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1"}, (1, 2, 1, False)),
    ],
)
def test_each_launcher_is_understood(environment, expected):
    assert tuple(launch_of(environment)) == expected


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node[01-03,07]", "node01"),
        ("gpu-1,gpu-2", "gpu-1"),
        ("rack[2-3]-gpu[04-05]", "rack2-gpu04"),
        ("a[7],b1", "a7"),
        ("alone", "127.0.0.1"),
        ("", "127.0.0.1"),
    ],
)
def test_tasks_meet_on_the_first_node(nodes, first):
    environment = {
        **TASK,
        "SLURM_STEP_ID": "2",
        **({"SLURM_STEP_NODELIST": nodes} if nodes else {}),
    }
    launch = Launch(1, 4, 1, True)
    assert address_of(environment, launch) == {
        "MASTER_ADDR": first,
        "MASTER_PORT": str(15000 + 42 + 2000),
    }


@pytest.mark.parametrize("variables", [{"SLURM_NNODES": "2"}, {}])
def test_tasks_on_unknown_machines_are_told_what_starts_them(variables):
    launch = Launch(2, 4, 0, True)
    with pytest.raises(UserError, match="torchrun"):
        address_of({**JOB, **variables}, launch)
    assert address_of({**JOB, **variables, "MASTER_ADDR": "a"}, launch)


@pytest.mark.parametrize(
    "environment",
    [{"WORLD_SIZE": "4"}, {**TASK, "WORLD_SIZE": "8"}, {"RANK": "4", "WORLD_SIZE": "4"}],
)
def test_variables_that_contradict_each_other_are_refused(environment):
    with pytest.raises(UserError, match="WORLD_SIZE"):
        check_launch(environment, launch_of(environment))


def test_a_batch_script_is_told_that_it_is_one_process(capsys):
    environment = {**JOB, "ENVIRONMENT": "BATCH"}
    check_launch(environment, launch_of(environment))
    assert "one process, in a job of 4 tasks" in capsys.readouterr().err


def test_one_that_may_be_no_task_does_not_wait_for_ever(monkeypatch):
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in {**JOB, **address}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "_UNPROVEN_PATIENCE_S", 0.2)
    with pytest.raises(PeersMissing, match=r"rank 1, 2, 3 did not come .* torchrun or srun"):
        distributed.start("cpu", 600)
