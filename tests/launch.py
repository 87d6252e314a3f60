"""Real processes: the project's command lines as a user starts them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
}


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def command(script: str, *words: str, processes: int = 1, launcher: str = "plain") -> list[str]:
    """The command that runs a root script.

    Args:
        launcher: "plain", "launch" (torch.distributed), "torchrun", or "restarting" (torchrun that
            starts failed processes again, twice).
    """
    line = [str(ROOT / script), *map(str, words)]
    spread = [f"--nproc_per_node={processes}"]
    address = ["--master_addr=127.0.0.1", f"--master_port={free_port()}"]
    prefix = {
        "plain": [],
        "launch": ["-m", "torch.distributed.launch", *spread, *address],
        "torchrun": ["-m", "torch.distributed.run", *spread, *address],
        "restarting": ["-m", "torch.distributed.run", "--max-restarts=2", *spread, *address],
    }[launcher]
    return [sys.executable, *prefix, *line]


def run(
    script: str, *words: str, timeout: float = 300, python_path: Path | None = None, **how
) -> subprocess.CompletedProcess:
    """Run a root script to its end, output captured as text.

    Args:
        python_path: searched for modules before all else.
    """
    path = ENVIRONMENT["PYTHONPATH"]
    return subprocess.run(
        command(script, *words, **how),
        env={**ENVIRONMENT, "PYTHONPATH": f"{python_path}:{path}" if python_path else path},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def start(script: str, *words: str, **how) -> subprocess.Popen:
    """Start a root script in a process group of its own."""
    return subprocess.Popen(
        command(script, *words, **how),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
