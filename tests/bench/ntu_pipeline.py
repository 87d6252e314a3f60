"""Speed and memory of the three NTU steps, on generated raw files.

    python tests/bench/ntu_pipeline.py [--files 2000] [--workers 2] [--work-dir DIR]

Writes raw files of about 80 frames and 1.2 bodies in the recorder's number format, runs the three
scripts as a user would, and prints files a second (start-up of Python included), peak memory of
all processes together, and what that means for the 114,480 files of NTU RGB+D 120. To see that
memory stays flat, it runs a quarter of the files first.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
FULL_SET = 114_480  # raw files of NTU RGB+D 120
PUBLISHED_GB = 20.5  # its published .npz
SCRIPTS = ("get_raw_skes_data.py", "get_raw_denoised_data.py", "seq_transformation.py")


def write_raw_files(folder: Path, count: int, seed: int = 0) -> None:
    """Write raw files of 50 to 110 frames, every fifth with two bodies."""
    random = np.random.default_rng(seed)
    names = (
        f"S{s:03d}C{c:03d}P{p:03d}R{r:03d}A{a:03d}"
        for s in range(1, 18)
        for p in range(1, 41)
        for a in range(1, 61)
        for c in (1, 2, 3)
        for r in (1, 2)
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, _ in zip(names, range(count), strict=False):
        bodies = 1 + (random.random() < 0.2)
        path = folder / f"{name}.skeleton"
        path.write_text(_raw_text(random, bodies), newline="\r\n")


def _raw_text(random: np.random.Generator, bodies: int) -> str:
    """A recording with seven significant digits a number, like the recorder's."""
    frames = int(random.integers(50, 111))
    drift = np.cumsum(random.normal(0, 0.01, (frames, bodies, 1, 3)), axis=0)
    joints = random.normal(0, 0.3, (1, bodies, 25, 3)) * [1, 2, 1] + [0, 0, 3] + drift
    joints = joints + random.normal(0, 0.005, joints.shape)
    rest = random.normal(300, 100, (frames, bodies, 25, 8))
    line = "%.7g " * 11 + "2\n"
    lines = [f"{frames}\n"]
    for positions, others in zip(joints, rest, strict=True):
        lines.append(f"{bodies}\n")
        for body in range(bodies):
            lines.append(f"{72057594037931101 + body} 0 1 1 1 1 0 0.02764709 0.05745083 2\n25\n")
            numbers = np.concatenate([positions[body], others[body]], axis=1)
            lines.extend(line % tuple(row) for row in numbers.tolist())
    return "".join(lines)


def run_steps(
    raw: Path, work: Path, workers: int, limit: int
) -> tuple[list[float], list[float], int]:
    """Run the three scripts; returns seconds and CPU seconds of each, and peak memory in bytes."""
    options = [
        ["--input", str(raw), "--output", str(work / "raw_data"), "--workers", str(workers)],
        ["--input", str(work / "raw_data"), "--output", str(work / "denoised_data")],
        ["--input", str(work / "denoised_data"), "--output", str(work)],
    ]
    options[0] += ["--limit", str(limit)]
    options[1] += ["--workers", str(workers)]
    seconds, cpu, peak = [], [], 0
    for script, extra in zip(SCRIPTS, options, strict=True):
        command = [sys.executable, str(ROOT / "data" / "ntu" / script), *extra]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        watcher = _MemoryWatcher(process.pid)
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds.append(time.perf_counter() - started)
        cpu.append(usage.ru_utime + usage.ru_stime)  # workers included
        watcher.join()
        peak = max(peak, watcher.peak)
        if status:
            raise SystemExit(f"{script} ended with status {status}")
    return seconds, cpu, peak


class _MemoryWatcher(threading.Thread):
    """Samples the resident memory of a process and its children, added up (Linux)."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.process = process
        self.peak = 0

    def run(self) -> None:
        while True:
            family = [self.process, *_children(self.process)]
            total = sum(_resident(process) for process in family)
            if total == 0:
                return
            self.peak = max(self.peak, total)
            time.sleep(0.01)


def _children(process: int) -> list[int]:
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def _resident(process: int) -> int:
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def main(argv: list[str] | None = None) -> int:
    """Generate, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work-dir", type=Path, help="kept, files generated once")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        base = args.work_dir or Path(temporary)
        raw = base / "nturgb+d_skeletons"
        if not raw.is_dir() or len(list(raw.iterdir())) < args.files:
            write_raw_files(raw, args.files)
        size = sum(path.stat().st_size for path in raw.iterdir())
        print(f"{args.files} raw files, {size / args.files / 1e3:.0f} kB each")
        for run, limit in enumerate((max(args.files // 4, 1), args.files)):
            work = base / f"run{run}-{time.time_ns()}"
            seconds, cpu, peak = run_steps(raw, work, args.workers, limit)
            _print_run(limit, seconds, cpu, peak, (work / "NTU60.h5").stat().st_size)
    return 0


def _print_run(count: int, seconds: list[float], cpu: list[float], peak: int, store: int) -> None:
    total = sum(seconds)
    steps = " + ".join(f"{step:.2f}" for step in seconds)
    print(
        f"{count} files: {steps} = {total:.2f} s, {count / total:.0f} files a second, "
        f"peak {peak / 1e6:.0f} MB"
    )
    print(f"  CPU: {' + '.join(f'{step:.2f}' for step in cpu)} = {sum(cpu):.2f} s over all cores")
    print(
        f"  {FULL_SET} files: {FULL_SET / count * total:.0f} s, "
        f"store {FULL_SET / count * store / 1e9:.1f} GB (published .npz: {PUBLISHED_GB} GB)"
    )


if __name__ == "__main__":
    sys.exit(main())
