"""Speed and memory of the NTU feeder.

    python tests/bench/feeder_ntu.py [--work-dir DIR]

Samples a second of one core, test and training path, against a plain implementation that goes
frame by frame; then, for a store of 10 GB (a sparse file), the time from start to the first batch
and the memory of 4 processes that read from it.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import h5py
import numpy as np

from data.splits import NTU120, SampleName, parse_name
from data.store import FORMAT, VERSION, Store, write_store
from feeders.feeder_ntu import Feeder

TEST = {"split": "test", "p_interval": [0.95]}
TRAIN = {"split": "train", "p_interval": [0.5, 1], "random_rot": True}
BATCH = 64


def sample_names(count: int) -> list[SampleName]:
    """Names in name order, half of them with training subjects."""
    names = (
        f"S{s:03d}C{c:03d}P{p:03d}R{r:03d}A{a:03d}"
        for s in range(1, 33)
        for c in (1, 2, 3)
        for p in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
        for r in (1, 2)
        for a in range(1, 121)
    )
    return [parse_name(name) for name, _ in zip(names, range(count), strict=False)]


def make_store(path: Path, count: int = 2000) -> None:
    """A store of samples of 80 frames, every fifth with two actors."""
    random = np.random.default_rng(0)
    frames = random.integers(50, 111, count)
    actors = 1 + (random.random(count) < 0.2)
    sequences = (
        random.normal(size=(t, a, 25, 3)).astype(np.float32)
        for t, a in zip(frames, actors, strict=True)
    )
    write_store(path, NTU120, sample_names(count), frames, actors, actors == 1, sequences)


def make_sparse_store(path: Path, gigabytes: float = 10.0) -> None:
    """A store with the tables of a real one and joints that occupy no disk."""
    count = int(gigabytes * 1e9 / (300 * 25 * 3 * 4))
    samples = sample_names(count)
    with h5py.File(path, "w") as file:
        joints = file.create_dataset("joints", (count * 300, 25, 3), "<f4")
        joints[-1:] = 1  # sets the file's length; what lies before stays a hole
        file["offsets"] = np.arange(count + 1) * 300
        file["actors"] = np.ones(count, np.uint8)
        file["copied"] = np.ones(count, np.uint8)
        file["names"] = np.array([sample.name.encode() for sample in samples])
        for fact in ("label", "subject", "camera", "setup", "replication"):
            file[f"{fact}s"] = np.array([getattr(sample, fact) for sample in samples])
        file["splits/xsub/train"] = np.arange(count)
        file.attrs.update(format=FORMAT, version=VERSION, dataset="ntu120", skeleton="ntu")
        file.attrs.update(num_class=120, max_frames=300)


def plain_sample(sequence: np.ndarray, random: np.random.Generator | None) -> np.ndarray:
    """Crop, resize and turn one sample (T, 2, 25, 3), frame by frame; gives (3, 64, 25, 2)."""
    frames = [frame for frame in sequence if frame.sum() != 0]
    valid = len(frames)
    if random is None:
        start = int(0.05 * valid / 2)
        length = valid - 2 * start
    else:
        length = min(max(int(random.uniform(0.5, 1) * valid), 64), valid)
        start = int(random.integers(0, valid - length + 1))
    result = np.empty((64, 2, 25, 3), np.float32)
    for i in range(64):
        position = max((i + 0.5) * length / 64 - 0.5, 0)
        before = int(position)
        after = min(before + 1, length - 1)
        weight = position - before
        result[i] = (1 - weight) * frames[start + before] + weight * frames[start + after]
    if random is not None:
        a, b, c = random.uniform(-0.3, 0.3, 3)
        about_x = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
        about_y = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
        about_z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
        turn = (np.array(about_z) @ about_y @ about_x).astype(np.float32)
        for i in range(64):
            result[i] = result[i] @ turn.T
    return result.transpose(3, 0, 2, 1)


def rate(run: Callable[[int], None], count: int) -> float:
    """Samples a second, best of three."""
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        run(count)
        best = min(best, time.process_time() - started)
    return count / best


def print_speed(path: Path) -> None:
    """Feeder and plain implementation, both paths."""
    for title, arguments in (("test", TEST), ("training", TRAIN)):
        feeder = Feeder(data_path=path, benchmark="xsub", **arguments)
        store = Store(path)
        rows = store.split("xsub", str(arguments["split"]))
        random = np.random.default_rng(0) if title == "training" else None

        def run_feeder(count: int, feeder: Feeder = feeder) -> None:
            for first in range(0, count, BATCH):
                feeder.get_batch(np.arange(first, first + BATCH) % len(feeder))

        def run_plain(
            count: int,
            store: Store = store,
            rows: np.ndarray = rows,
            random: np.random.Generator | None = random,
        ) -> None:
            for i in range(count):
                plain_sample(store.padded(int(rows[i % len(rows)])), random)

        fast, slow = rate(run_feeder, 32 * BATCH), rate(run_plain, 4 * BATCH)
        print(f"{title} path: {fast:.0f} samples a second, plain {slow:.0f}: x {fast / slow:.1f}")


def read_some(path: Path, seed: int, queue: multiprocessing.Queue) -> None:
    """Open, time the first batch, read 2 GB of samples; report seconds and memory in bytes."""
    started = time.perf_counter()
    feeder = Feeder(data_path=path, benchmark="xsub", **TRAIN)
    feeder.get_batch(range(BATCH))
    first = time.perf_counter() - started
    order = np.random.default_rng(seed).permutation(len(feeder))
    peak = resident()
    for begin in range(0, 20_000, BATCH):
        feeder.get_batch(order[begin : begin + BATCH])
        peak = max(peak, resident())
    queue.put((first, peak))


def resident() -> int:
    """Resident memory of this process in bytes (Linux)."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def print_memory(path: Path) -> None:
    """Four processes on the large store."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=read_some, args=(path, i, queue)) for i in range(4)]
    for process in processes:
        process.start()
    results = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    first, memory = max(r[0] for r in results), sum(r[1] for r in results)
    size = path.stat().st_size
    print(f"{size / 1e9:.1f} GB store: first batch after {first:.2f} s (4 processes at once)")
    print(f"4 processes, 20,000 samples each: {memory / 1e6:.0f} MB resident together")


def main(argv: list[str] | None = None) -> int:
    """Make the stores, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work-dir", type=Path, help="kept, stores made once")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.work_dir or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        small, large = folder / "NTU120.h5", folder / "NTU120_large.h5"
        if not small.exists():
            make_store(small)
        if not large.exists():
            make_sparse_store(large)
        print_speed(small)
        print_memory(large)
    return 0


if __name__ == "__main__":
    sys.exit(main())
