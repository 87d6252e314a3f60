"""The project's commands in forked processes: torch is imported once, so a run starts at once.

The process that forks runs none of them itself, so that no thread of torch's is lost in a fork.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from launch import free_port

Main = Callable[[list[str]], int]
PATIENCE_S = 900


class Run:
    """A command on one or several ranks (without a launcher: rank 0 keeps the store)."""

    def __init__(self, main: Main, words: list[str], output: Path, ranks: int = 1) -> None:
        port = free_port()
        self.started = time.monotonic()
        self.pids = [
            _fork(main, words, output, _environment(rank, ranks, port)) for rank in range(ranks)
        ]
        self.statuses: dict[int, int] = {}

    def poll(self) -> bool:
        """Whether every rank has ended."""
        for rank, pid in enumerate(self.pids):
            if rank not in self.statuses:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    self.statuses[rank] = os.waitstatus_to_exitcode(status)
        return len(self.statuses) == len(self.pids)

    def wait(self, seconds: float = PATIENCE_S) -> bool:
        """Wait for the end, or for ``seconds``; return whether all ranks have ended."""
        deadline = time.monotonic() + seconds
        while not self.poll():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def end(self) -> list[int]:
        """Exit statuses in rank order; the test fails where a rank does not end."""
        if not self.wait():
            self.kill()
            raise AssertionError(f"ranks hang: {self.statuses} have ended of {len(self.pids)}")
        return [self.statuses[rank] for rank in range(len(self.pids))]

    def kill(self, rank: int | None = None, number: int = signal.SIGKILL) -> None:
        """Send a signal to ``rank``, or to all ranks that are left."""
        for own, pid in enumerate(self.pids):
            if rank in (None, own) and own not in self.statuses:
                os.kill(pid, number)


def _environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    if ranks == 1:
        return {}
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), **where}


def _fork(main: Main, words: list[str], output: Path, environment: dict[str, str]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        file = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.environ.update(environment)
        torch.set_num_threads(1)
        status = main(words)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
