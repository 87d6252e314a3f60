"""What the benchmarks share: models of equal weights, alternating timing, memory, matrix peak.

Timings alternate between the candidates (A B A B), so that a busy machine hurts all alike, and are
reported as medians. Peak memory is that of a process of its own. The peak of matrix products is
measured in the same run, as a product of two 2048 x 2048 matrices.
"""

import argparse
import copy
import ctypes
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (1, 2)]

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from model.classifier import Model  # noqa: E402
from model.cpu import accelerate  # noqa: E402
from torchlight.graphs import capture  # noqa: E402

SAMPLES = 16
SHAPES: dict[str, dict[str, Any]] = {
    "ucla": {"shape": (3, 52, 20, 1), "num_class": 10, "graph": "graph.ucla.Graph"},
    "ntu": {"shape": (3, 64, 25, 2), "num_class": 120, "graph": "graph.ntu_rgb_d.Graph"},
}

CANDIDATES = {
    "cpu": ("plain float32", "engine float32", "engine bfloat16", "plain bfloat16"),
    "cuda": (
        *("plain float32", "plain bfloat16", "graphed float32", "graphed bfloat16"),
        *("compiled float32", "compiled bfloat16"),
    ),
}
"""What the benchmarks of whole models compare: the engine is for processors, CUDA graphs are for
steps of training."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the options that every benchmark has."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--rounds", type=int, default=5, help="rounds of each candidate (5)")
    result.add_argument("--threads", type=int, default=torch.get_num_threads())
    result.add_argument("--keep-freed-memory", action="store_true", help="see keep_freed_memory")
    result.add_argument("--json", type=Path, help="also write the results here")
    return result


def device_parser(description: str | None) -> argparse.ArgumentParser:
    """Return the options of the benchmarks that also run on a GPU."""
    result = parser(description)
    result.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    result.add_argument("--tf32", action="store_true", help="TF32 in float32 products, on CUDA")
    result.add_argument("--memory", action="store_true", help="peak memory, on CUDA always shown")
    result.add_argument("--peak", help=argparse.SUPPRESS)  # run one candidate, print its memory
    return result


def model_parser(description: str | None) -> argparse.ArgumentParser:
    """Return the options that the benchmarks of whole models have besides."""
    result = device_parser(description)
    result.add_argument("--shape", choices=SHAPES, default="ucla")
    result.add_argument("--samples", type=int, default=SAMPLES, help=f"of a batch ({SAMPLES})")
    names = sorted({name for names in CANDIDATES.values() for name in names})
    result.add_argument("--only", nargs="+", choices=names, help="of what is compared")
    return result


def set_up(options: argparse.Namespace) -> None:
    """Apply the common options to this process."""
    torch.set_num_threads(options.threads)
    tf32 = getattr(options, "tf32", False)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    if options.keep_freed_memory:
        keep_freed_memory()


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of returning it to the system, where there is glibc.

    Large tensors are otherwise mapped anew for each operation, and every page of them faults.
    """
    m_trim_threshold, m_mmap_max = -1, -4
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def build_pair(
    name: str,
    num_class: int | None = None,
    device: str = "cpu",
    samples: int = SAMPLES,
    **options: Any,
) -> tuple[nn.Module, nn.Module, Tensor]:
    """Return the plain model (with ``options``), the same on the engine, and an input."""
    facts = SHAPES[name]
    channels, _, joints, persons = facts["shape"]
    torch.manual_seed(0)
    classes = num_class or facts["num_class"]
    plain = Model(classes, joints, persons, facts["graph"], in_channels=channels, **options)
    fast = accelerate(copy.deepcopy(plain))
    return plain.to(device), fast, torch.randn(samples, *facts["shape"]).to(device)


def alternate(candidates: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median wall time of each candidate in seconds, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, run in candidates.items():
            synchronize()
            start = time.perf_counter()
            run()
            synchronize()
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def synchronize() -> None:
    """Wait for a GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def candidates(
    names: Iterable[str],
    plain: nn.Module,
    fast: nn.Module,
    x: Tensor,
    run: Callable[[nn.Module, bool], None],
) -> dict[str, Callable[[], None]]:
    """Return the run of each of ``names``: of a model, in bfloat16 or in float32.

    Args:
        names: some of the ``CANDIDATES`` of the device.
        x: the input, for what is captured from it: each gets a copy of the model.
    """
    models = {"plain": plain, "engine": fast, "compiled": torch.compile(plain)}
    found = {}
    for name in names:
        kind, dtype = name.split()
        half = torch.bfloat16 if dtype == "bfloat16" else None
        model = models.get(kind) or copy.deepcopy(plain)
        if kind == "graphed":
            capture(model, x, half, accumulates=False)
        found[name] = partial(run, model, half is not None)
    return found


def compare_models(
    runs: dict[str, Callable[[], None]],
    necessary: Callable[[], Any],
    options: argparse.Namespace,
    arguments: list[str],
    **facts: Any,
) -> None:
    """Measure and report what each of several ways to do the same takes, for a batch.

    Args:
        runs: one run of each; ratios are the first one's time over the others'.
        necessary: the operations that are necessary, to be counted, with gradients allowed (the
            counter fails in ``torch.inference_mode``).
        options: of ``device_parser``.
        arguments: what they were parsed from.
        facts: what else each line says.
    """
    if options.peak:
        for _ in range(2):
            runs[options.peak]()
        print_own_peak()
        return
    times = alternate(runs, options.rounds)
    # Counted last: what a pass with gradients leaves to the allocator would change the times.
    with FlopCounterMode(display=False) as counter:
        necessary()
    rows: list[dict[str, Any]] = []
    for name, seconds in times.items():
        dtype = torch.bfloat16 if name.endswith("bfloat16") else torch.float32
        rate = counter.get_total_flops() / seconds / 1e9
        row = {
            **facts,
            "candidate": name,
            "seconds": seconds,
            "samples_per_second": getattr(options, "samples", SAMPLES) / seconds,
            "ratio": times.get(next(iter(runs)), seconds) / seconds,
            "gflops": rate,
            "share": rate / matrix_peak(dtype, options.device),
        }
        if options.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            runs[name]()
            row["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        elif options.memory:
            row["peak_gb"] = peak_memory(name, arguments)
        rows.append(row)
    report(rows, options)


def matrix_peak(dtype: torch.dtype, device: str = "cpu") -> float:
    """Return the rate of matrix products of this process in GFLOP/s, best of five."""
    size = 2048 if device == "cpu" else 8192
    matrix = torch.randn(size, size).to(device, dtype)
    best = float("inf")
    for _ in range(6):
        synchronize()
        start = time.perf_counter()
        torch.mm(matrix, matrix)
        synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def peak_memory(candidate: str, arguments: list[str]) -> float:
    """Run this script again for one candidate and return its peak resident memory in GB."""
    command = [sys.executable, sys.argv[0], *arguments, "--peak", candidate]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output.split()[-1])


def print_own_peak() -> None:
    """Print this process's peak resident memory in GB, for ``peak_memory``.

    Linux alone: ``getrusage`` would count the parent's memory from before the program started.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    print(int(kilobytes) / 1e6)


def report(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Print one line a result, and write all as JSON where asked."""
    for row in rows:
        print("  ".join(f"{key} {_short(value)}" for key, value in row.items()))
    if options.json:
        machine = {"threads": options.threads, "torch": torch.__version__}
        options.json.write_text(json.dumps({**machine, "results": rows}, indent=1) + "\n")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
