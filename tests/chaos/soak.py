"""Train, kill, go on, for as long as one likes; memory and open files of the process over its life.

    python tests/chaos/soak.py --minutes 60

A toy task with pauses, so that a core is nearly idle. Lives end by SIGKILL or SIGTERM in turn, at
random moments. At the end the run is finished, and compared with one that nobody disturbed.
"""

import argparse
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from launch import ENVIRONMENT, command  # noqa: E402
from toy_run import ALLOW, CONFIG  # noqa: E402

SAMPLE_S = 2.0
WARM_UP_EPOCHS = 2
"""Importing, the first steps and the first evaluations; memory is expected to grow in them."""
MEMORY_SLACK = 0.02
FILES_SLACK = 2
TASK_PAUSE = 0.03
LIVES_S = (60, 120, 300, 600)
TASK = {
    **CONFIG,
    "eval_interval": 1,
    "save_interval": 1_000_000,
    "log_interval": 5,
    "save_minutes": 0.02,
    "num_worker": 1,
    "num_epoch": 1_000_000,
    "step": [200],
}


@dataclass
class Life:
    """What was seen of one process: seconds since its start, resident MiB, open files."""

    end: str
    seconds: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    settles: float = float("inf")

    def settled(self, values: list) -> list:
        """``values`` after the warm-up."""
        return [v for v, s in zip(values, self.seconds, strict=True) if s > self.settles]

    @property
    def flat(self) -> bool | None:
        """Whether the last quarter is as the first, after the warm-up; None: too short to say."""
        memory, files = self.settled(self.memory), self.settled(self.files)
        quarter = len(memory) // 4
        if quarter < 2:
            return None
        before, after = statistics.median(memory[:quarter]), statistics.median(memory[-quarter:])
        more_files = statistics.median(files[-quarter:]) - statistics.median(files[:quarter])
        return after <= before * (1 + MEMORY_SLACK) and more_files <= FILES_SLACK

    def row(self, number: int) -> str:
        """One line of the table."""
        memory, files = self.settled(self.memory), self.settled(self.files)
        if not memory:
            return f"{number:4d} {self.seconds[-1] if self.seconds else 0:7.0f}  {self.end}: short"
        verdict = {True: "flat", False: "NOT FLAT", None: "short"}[self.flat]
        return (
            f"{number:4d} {self.seconds[-1]:7.0f}  {self.end:8s} {memory[0]:9.1f} "
            f"{statistics.median(memory):9.1f} {memory[-1]:9.1f} {files[0]:7d} {max(files):7d} "
            f"{files[-1]:7d}  {verdict}"
        )


def memory_and_files(pid: int) -> tuple[float, int]:
    """Resident MiB and number of open files of a process (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]
    return resident, len(os.listdir(f"/proc/{pid}/fd"))


def epochs(work: Path) -> int:
    """Epochs that the log tells of, those done again counted again."""
    log = work / "log.txt"
    return log.read_text().count(": rate ") if log.exists() else 0


def live(config: Path, work: Path, seconds: float, end: str) -> Life:
    """Run the training command for ``seconds``, sampling it, and end it by the signal ``end``."""
    life = Life(end)
    words = [*ALLOW, "--config", str(config), "--work-dir", str(work)]
    with open(work.parent / "output.txt", "a") as output:
        process = subprocess.Popen(
            command("main_multigpu.py", *words), env=ENVIRONMENT, stdout=output, stderr=output
        )
    started, before = time.monotonic(), epochs(work)
    while time.monotonic() - started < seconds:
        time.sleep(SAMPLE_S)
        if process.poll() is not None:
            raise AssertionError(f"ended by itself, status {process.returncode}")
        memory, files = memory_and_files(process.pid)
        life.seconds.append(time.monotonic() - started)
        life.memory.append(memory)
        life.files.append(files)
        if epochs(work) >= before + WARM_UP_EPOCHS:
            life.settles = min(life.settles, life.seconds[-1])
    process.send_signal(getattr(signal, end))
    status = process.wait(timeout=60)
    expected = {"SIGTERM": 0, "SIGKILL": -signal.SIGKILL}[end]
    importing = epochs(work) == before and status == -signal.SIGTERM  # nothing listens as yet
    assert status == expected or importing, status
    return life


def finish(config: Path, work: Path) -> bool:
    """Train ``work`` to the end of its epoch; is it as a run that nobody disturbed?"""
    done = re.findall(r"epoch (\d+)/", (work / "log.txt").read_text())
    last = 1 + max((int(number) for number in done), default=0)
    undisturbed = work.parent / "undisturbed"
    for folder, pause in ((work, TASK_PAUSE), (undisturbed, 0.0)):
        values = {**TASK, "num_epoch": last, "train_feeder_args": {"pause": pause}}
        if folder is undisturbed:
            values["save_minutes"] = 1000
        path = config.with_name("finish.yaml")
        path.write_text(yaml.safe_dump(values))
        words = [*ALLOW, "--config", str(path), "--work-dir", str(folder)]
        subprocess.run(
            command("main_multigpu.py", *words), env=ENVIRONMENT, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
    ((one,), (two,)) = (list(f.glob(f"runs-{last}-*.pt")) for f in (work, undisturbed))
    leftovers = list(work.rglob("*.tmp"))
    same = one.read_bytes() == two.read_bytes()
    same &= (work / "best.pt").read_bytes() == (undisturbed / "best.pt").read_bytes()
    print(f"{last} epochs; weights equal to the undisturbed run's: {same}; leftovers: {leftovers}")
    return same and not leftovers


def soak(minutes: float, seed: int) -> bool:
    """Run for ``minutes`` and print the table; return whether all is well."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        config, work = Path(folder) / "toy.yaml", Path(folder) / "work"
        config.write_text(yaml.safe_dump({**TASK, "train_feeder_args": {"pause": TASK_PAUSE}}))
        print(
            "life seconds  end       MiB first    median      last   files     max    last",
            flush=True,
        )
        lives: list[Life] = []
        deadline = time.monotonic() + 60 * minutes
        while (left := deadline - time.monotonic()) > 0:
            length = min(rng.choice(LIVES_S) * rng.uniform(0.5, 1.5), left)
            lives.append(live(config, work, length, ("SIGKILL", "SIGTERM")[len(lives) % 2]))
            print(lives[-1].row(len(lives)), flush=True)
        resumed = (work / "log.txt").read_text().count("resuming from epoch")
        judged = [life.flat for life in lives if life.flat is not None]
        flat = all(judged)
        print(f"{len(lives)} lives, {resumed} resumed; {sum(judged)} of {len(judged)} flat")
        return finish(config, work) and flat


def main() -> int:
    """Return 0 where memory and files are flat and the end result is the undisturbed one's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    return 0 if soak(arguments.minutes, arguments.seed) else 1


if __name__ == "__main__":
    sys.exit(main())
