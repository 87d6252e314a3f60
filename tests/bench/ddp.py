"""Two processes of one thread against one process of two threads, on the same two cores.

    python tests/bench/ddp.py [--shape ucla|ntu] [--rounds 3] [--json FILE]

Both take the same steps of the whole model (forward, loss, backward, gradients exchanged by
DistributedDataParallel over gloo, SGD) on 16 samples: one process takes all of them, two take eight
each. Runs alternate (A B A B), each in new processes that report the median of their steps; printed
is the median over the rounds.
"""

import os
import statistics
import subprocess
import sys
import time
from typing import Any

import common
import torch
import torch.distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from torchlight import distributed

STEPS = 8
WAYS = {"1 process, 2 threads": (1, 2), "2 processes, 1 thread": (2, 1)}


def main(argv: list[str] | None = None) -> int:
    """Measure and report."""
    parser = common.parser(__doc__)
    parser.add_argument("--shape", choices=common.SHAPES, default="ucla")
    parser.add_argument("--amp", choices=("off", "bf16"), default="off")
    parser.set_defaults(rounds=3)
    options = parser.parse_args(argv)
    if "RANK" in os.environ:
        _work(options.shape, options.threads, options.amp == "bf16")
        distributed.stop()
        return 0
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way, (processes, threads) in WAYS.items():
            seconds[way].append(_launch(processes, threads, options.shape, options.amp))
    base = statistics.median(seconds["1 process, 2 threads"])
    rows: list[dict[str, Any]] = []
    for way, values in seconds.items():
        middle = statistics.median(values)
        rows.append({"way": way, "seconds a step": middle, "ratio": base / middle})
    common.report(rows, options)
    return 0


def _launch(processes: int, threads: int, shape: str, amp: str) -> float:
    """Median seconds a step of a launch of this script."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc_per_node={processes}", sys.argv[0]]
    command += ["--shape", shape, "--threads", str(threads), "--amp", amp]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def _work(shape: str, threads: int, half: bool) -> None:
    """Take the steps; rank 0 prints their median."""
    torch.set_num_threads(threads)
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    _, model, x = common.build_pair(shape)
    x = x.chunk(size)[rank]
    labels = torch.arange(len(x)) % common.SHAPES[shape]["num_class"]
    parallel = model
    if size > 1:
        parallel = DistributedDataParallel(
            model, forward_sync_buffers=False, gradient_as_bucket_view=True
        )
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    seconds = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = F.cross_entropy(parallel(x), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    if rank == 0:
        print(statistics.median(seconds[1:]))


if __name__ == "__main__":
    sys.exit(main())
