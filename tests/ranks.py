"""Ranks started one by one, without a launcher: each can be killed, stopped or cut off."""

import os
import subprocess
import time
from pathlib import Path

from launch import ENVIRONMENT, command, free_port
from toy_run import ALLOW


class Ranks:
    """Two or more ranks of the toy task's training, each with a file of its own for its output."""

    def __init__(self, folder: Path, *words: str, size: int = 2) -> None:
        port = str(free_port())
        self.outputs = [folder / f"rank{rank}.out" for rank in range(size)]
        self.processes = []
        for rank, output in enumerate(self.outputs):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            with open(output, "w") as file:
                process = subprocess.Popen(
                    command("main_multigpu.py", *ALLOW, *words),
                    env={**ENVIRONMENT, **own, **where},
                    stdout=file,
                    stderr=file,
                )
            self.processes.append(process)

    def wait_for(self, words: str, rank: int = 0, seconds: float = 200) -> None:
        """Wait until ``rank`` has said ``words``."""
        deadline = time.monotonic() + seconds
        while words not in self.said(rank):
            assert time.monotonic() < deadline, self.said(rank)
            assert self.processes[rank].poll() is None, self.said(rank)
            time.sleep(0.05)

    def said(self, rank: int) -> str:
        """All that ``rank`` has printed."""
        return self.outputs[rank].read_text()

    def signal(self, rank: int, number: int) -> None:
        """Send a signal to ``rank``."""
        os.kill(self.processes[rank].pid, number)

    def statuses(self, ranks: list[int], seconds: float = 100) -> list[int]:
        """Exit statuses of ``ranks``, which must end within ``seconds``."""
        deadline = time.monotonic() + seconds
        return [self.processes[r].wait(max(deadline - time.monotonic(), 0.1)) for r in ranks]

    def kill(self) -> None:
        """Kill what is left."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
