"""A store of a million clips: how fast it opens, and what it costs in memory.

    python tests/bench/store_scale.py [--clips 1000000] [--processes 4]

Makes a sparse store in a temporary folder (its joints occupy no disk), and opens it in several
processes at once, as the ranks of a run do. Prints the seconds until the store is open, those
until the first batch is there besides, and the memory of all processes together: pages that
processes share are counted once (Linux, proportional set size). Aims: 2 seconds, 1 second, 2 GB.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from data.store import FORMAT, VERSION, Store, checksum  # noqa: E402
from feeders.feeder_ntu import Feeder  # noqa: E402

FRAMES = 80
BATCH = 64
SIZES = (32, 3, 106, 10, 120)


def make_sparse_store(path: Path, count: int) -> None:
    """A store with the tables of a real one and joints that occupy no disk."""
    # Names rise with setup, camera, subject, replication, action.
    numbers = dict(zip("SCPRA", np.unravel_index(np.arange(count), SIZES), strict=True))
    facts = dict(zip("SCPR", ("setups", "cameras", "subjects", "replications"), strict=True))
    text = np.empty(count, "U20")
    for letter, values in numbers.items():
        text = np.char.add(text, np.char.add(letter, np.char.zfill((values + 1).astype("U3"), 3)))
    with h5py.File(path, "w") as file:
        joints = file.create_dataset("joints", (count * FRAMES, 25, 3), "<f4")
        joints[-1:] = 1  # sets the file's length; what lies before stays a hole
        tables = {
            "offsets": np.arange(count + 1) * FRAMES,
            "actors": np.ones(count, np.uint8),
            "copied": np.ones(count, np.uint8),
            "names": text.astype("S20"),
            "labels": numbers["A"],
        }
        tables |= {fact: numbers[letter] + 1 for letter, fact in facts.items()}
        for split, part in (("train", 0), ("test", 1)):
            tables[f"splits/xsub/{split}"] = np.flatnonzero(numbers["P"] % 2 == part)
        for name, table in tables.items():
            file[name] = table
        file.attrs.update(format=FORMAT, version=VERSION, dataset="ntu120", skeleton="ntu")
        file.attrs.update(
            num_class=120, max_frames=FRAMES, checksum=checksum(tables, "ntu120", 120, FRAMES)
        )


def read_some(path: Path, queue: multiprocessing.Queue, barrier: object) -> None:
    """Open the store, make a feeder of it, take a batch; report seconds and memory."""
    started = time.perf_counter()
    Store(path)
    opened = time.perf_counter() - started
    started = time.perf_counter()
    feeder = Feeder(data_path=path, split="train", benchmark="xsub", window_size=64)
    feeder.get_batch(range(BATCH))
    first = time.perf_counter() - started
    barrier.wait()  # type: ignore[attr-defined]
    queue.put((opened, first, proportional_memory()))
    barrier.wait()  # type: ignore[attr-defined]


def proportional_memory() -> int:
    """Memory of this process in bytes, shared pages divided among those who share them."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("Pss:"))
    return int(kilobytes) * 1024


def main(argv: list[str] | None = None) -> int:
    """Make the store, open it, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=4)
    args = parser.parse_args(argv)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "NTU120.h5"
        make_sparse_store(path, args.clips)
        size, blocks = path.stat().st_size, path.stat().st_blocks * 512
        print(f"{args.clips} clips, {size / 1e9:.0f} GB of which {blocks / 1e6:.0f} MB are on disk")
        for count in (1, args.processes):
            queue, barrier = context.Queue(), context.Barrier(count)
            processes = [
                context.Process(target=read_some, args=(path, queue, barrier)) for _ in range(count)
            ]
            for process in processes:
                process.start()
            results = [queue.get() for _ in processes]
            for process in processes:
                process.join()
            opened, first, memory = zip(*results, strict=True)
            print(
                f"{count} processes: open after {max(opened):.2f} s, first batch {max(first):.2f} s"
                f" later, {sum(memory) / 1e9:.2f} GB together"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
