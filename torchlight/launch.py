"""What torchrun, mpirun and srun tell a process of itself: rank, number of processes, addresses."""

import argparse
import os
import re
import sys
from collections.abc import Mapping
from typing import NamedTuple

from .errors import UserError

_LAUNCHERS = (
    ("RANK", ("WORLD_SIZE",), "LOCAL_RANK"),  # torchrun
    ("OMPI_COMM_WORLD_RANK", ("OMPI_COMM_WORLD_SIZE",), "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_RANK", ("PMI_SIZE",), "MPI_LOCALRANKID"),
    ("SLURM_PROCID", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS"), "SLURM_LOCALID"),
)
"""How torchrun, mpirun and srun tell a process its rank, the number of processes, and its rank on
this machine. srun comes last: the others run inside jobs of Slurm."""


class Launch(NamedTuple):
    """What the launcher says of this process; without one, that it is the only one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    by_srun: bool = False


def launched_rank(environment: Mapping[str, str] = os.environ) -> int:
    """The rank the launcher gave this process; 0 without a launcher."""
    return launch_of(environment).rank


def launched_size(environment: Mapping[str, str] = os.environ) -> int:
    """The number of processes that the launcher says there are."""
    return launch_of(environment).size


def launch_of(environment: Mapping[str, str]) -> Launch:
    """What the first launcher that is recognised says; nothing recognised means one process."""
    for rank, sizes, local in _LAUNCHERS:
        if rank in environment and (rank == "RANK" or local in environment):
            by_srun = rank == "SLURM_PROCID"
            if by_srun and _in_batch_script(environment):
                break
            size = _first_of(environment, *sizes) or "1"
            where = environment.get(local, "0")
            return Launch(int(environment[rank]), int(size), int(where), by_srun)
    return Launch()


def _first_of(environment: Mapping[str, str], *names: str) -> str:
    """The first of these variables that is set; else nothing."""
    return next((environment[name] for name in names if name in environment), "")


def in_srun(environment: Mapping[str, str]) -> bool:
    """Whether this is a task of ``srun``, in a step of its job."""
    return bool(_first_of(environment, "SLURM_STEP_ID", "SLURM_STEPID", "SLURM_STEP_NUM_TASKS"))


def _in_batch_script(environment: Mapping[str, str]) -> bool:
    """Whether this is the one process of a batch script, which is shown task 0 of its whole job."""
    return environment.get("ENVIRONMENT") == "BATCH" and not in_srun(environment)


def check_launch(environment: Mapping[str, str], launch: Launch) -> None:
    """Refuse variables that contradict each other; note where one process is not what was meant.

    Raises:
        UserError: as many processes as WORLD_SIZE were not started, or the rank is not of them.
    """
    rank, size, *_ = launch
    told = environment.get("WORLD_SIZE", str(size))
    if told != str(size) or not 0 <= rank < size:
        raise UserError(
            f"this is process {rank} of {size}, but WORLD_SIZE is {told}; start all processes by "
            f"torchrun or srun, or unset WORLD_SIZE"
        )
    tasks = environment.get("SLURM_NTASKS", "1")
    if launch == Launch() and tasks != "1" and _in_batch_script(environment):
        note = f"note: one process, in a job of {tasks} tasks; srun or torchrun starts more"
        print(note, file=sys.stderr, flush=True)


def address_of(environment: Mapping[str, str], launch: Launch) -> dict[str, str]:
    """MASTER_ADDR and MASTER_PORT for where the launcher has set none, by Slurm's variables.

    Task 0 is on the first node of its step. The port goes by job and step: others share machines.

    Raises:
        UserError: there are several machines, and nothing says which is the first.
    """
    nodes = _first_of(environment, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    first = re.sub(r"\[(\w+)[^]]*\]", r"\1", nodes).split(",")[0]  # of "node[01-03,07],gpu1"
    count = _first_of(environment, "SLURM_STEP_NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NUM_NODES")
    here = _first_of(environment, "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")
    alone = count == "1" or here == str(launch.size) or nodes == first != ""
    spread = not alone and bool(count or here or launch.rank != launch.local_rank)
    if spread and not nodes and "MASTER_ADDR" not in environment:
        raise UserError(
            "these processes are on several machines, but no MASTER_ADDR says where rank 0 is; "
            "set it, or start them by torchrun"
        )
    job, step = environment.get("SLURM_JOB_ID"), environment.get("SLURM_STEP_ID", "0")
    port = 29500 if job is None else 15000 + (int(job) + 1000 * int(step)) % 14000
    address = "127.0.0.1" if alone or not first else first
    return {"MASTER_ADDR": address, "MASTER_PORT": str(port)}


def add_launcher_flags(parser: argparse.ArgumentParser) -> None:
    """Accept the flag that ``torch.distributed.launch`` adds, in both spellings.

    Its value is also in the environment (LOCAL_RANK), which is what ``torchrun`` sets.
    """
    parser.add_argument("--local-rank", "--local_rank", type=int, help=argparse.SUPPRESS)
