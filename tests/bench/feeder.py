"""How fast NW-UCLA training samples are made, against a plain implementation, one sample a time.

    OMP_NUM_THREADS=1 python tests/bench/feeder.py [--root data/NW-UCLA/all_sqe] [--json FILE]

Both start from parsed sequences in memory and make the same kind of sample. They take turns
(A B A B ...) in one process on one core; the ratio of the medians is what to look at, for it does
not depend on how fast the machine is.
"""

import argparse
import json
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from data import ucla
from data.errors import DataError
from data.skeletons import UCLA
from feeders.feeder_ucla import WINDOW, Feeder

BATCH = 16
STREAMS = ("joint", "bone", "motion", "bone motion")


def plain_sample(frames: np.ndarray, stream: str) -> np.ndarray:
    """One training sample (3, 52, 20, 1) as the recipe reads, frames (T, 20, 3) in NumPy."""
    tilt, yaw = (math.radians(random.uniform(-60, 60)) for _ in range(2))
    scale = random.uniform(0.5, 1.5)
    about_x = [[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]]
    about_y = [[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]]
    matrix = scale * np.dot(np.array(about_x), np.array(about_y))
    points = np.dot((frames - frames[0, 1]).reshape(-1, 3), matrix.T)
    low, high = points.min(axis=0), points.max(axis=0)
    unit = ((points - low) / (high - low) * 2 - 1).reshape(frames.shape)
    x = np.zeros((3, WINDOW, UCLA.num_point, 1), dtype=np.float32)
    for t, frame in enumerate(sorted(random.choices(range(len(unit)), k=WINDOW))):
        x[:, t, :, 0] = unit[frame].T
    if "bone" in stream:
        bone = np.zeros_like(x)
        for child, parent in UCLA.bones:
            bone[:, :, child] = x[:, :, child] - x[:, :, parent]
        x = bone
    if "motion" in stream:
        x[:, :-1] = x[:, 1:] - x[:, :-1]
        x[:, -1] = 0
    return x


def measure(sides: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """Run all sides in turn ``rounds`` times; return each one's median microseconds a sample."""
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, run in sides.items():
            start = time.perf_counter()
            count = run()
            times[side].append((time.perf_counter() - start) / count * 1e6)
    return {side: statistics.median(values) for side, values in times.items()}


def compare(root: Path, stream: str, rounds: int) -> dict[str, float]:
    """Measure plain code, the feeder by batches, and the feeder sample by sample."""
    feeder = Feeder(root=root, data_path=stream)
    data = ucla.load(root)
    by_name = dict(zip(data.names, np.split(data.joints, data.lengths.cumsum()[:-1]), strict=True))
    frames = [by_name[name] for name in feeder.sample_names]
    order = np.random.default_rng(0).permutation(len(feeder))[: 20 * BATCH]

    def plain() -> int:
        batches = order.reshape(-1, BATCH)
        return sum(len(np.stack([plain_sample(frames[i], stream) for i in b])) for b in batches)

    def batched() -> int:
        return sum(len(feeder.get_batch(batch)[0]) for batch in order.reshape(-1, BATCH))

    def single() -> int:
        return len([feeder[int(i)] for i in order])

    return measure({"plain": plain, "batched": batched, "single": single}, rounds)


def main(argv: list[str] | None = None) -> int:
    """Print a table, and write it as JSON if asked; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(ucla.DEFAULT_ROOT))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args(argv)
    results = {}
    print(f"NW-UCLA training samples, batches of {BATCH}: microseconds a sample on one core")
    print(f"{'stream':12} {'plain':>8} {'single':>8} {'batched':>8} {'plain / batched':>16}")
    for stream in STREAMS:
        row = compare(args.root, stream, args.rounds)
        row["ratio"] = row["plain"] / row["batched"]
        results[stream] = row
        print(
            f"{stream:12} {row['plain']:8.1f} {row['single']:8.1f} {row['batched']:8.1f} "
            f"{row['ratio']:15.1f}x"
        )
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DataError as error:
        sys.exit(f"error: {error}")
