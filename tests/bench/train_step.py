"""One training step (forward, loss, backward): ours against the textbook's in float32.

    python tests/bench/train_step.py [--shape ucla|ntu] [--num-class 1000] [--memory]
        [--recompute] [--json FILE]

Ratios are textbook time over ours. ``share`` is the share of the machine's matrix peak that the
step's necessary operations reach: those of the textbook's convolutions and products, not the ones
that are done twice to save memory.
"""

import sys
from collections.abc import Callable
from typing import Any

import common
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

CANDIDATES = ("textbook float32", "ours float32", "ours bfloat16", "textbook bfloat16")


def main(argv: list[str] | None = None) -> int:
    """Measure and report."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = common.parser(__doc__)
    parser.add_argument("--shape", choices=common.SHAPES, default="ucla")
    parser.add_argument("--num-class", type=int, help="instead of the benchmark's own")
    parser.add_argument("--memory", action="store_true", help="also measure peak memory")
    parser.add_argument("--recompute", action="store_true", help="ours in the memory-saving way")
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, default=CANDIDATES)
    options = parser.parse_args(arguments)
    common.set_up(options)
    steps = _steps(options.shape, options.num_class, options.recompute)
    if options.peak:
        for _ in range(2):
            steps[options.peak]()
        common.print_own_peak()
        return 0
    with FlopCounterMode(display=False) as counter:
        steps["textbook float32"]()
    times = common.alternate({name: steps[name] for name in options.only}, options.rounds)
    rows: list[dict[str, Any]] = []
    for name, seconds in times.items():
        dtype = torch.bfloat16 if name.endswith("bfloat16") else torch.float32
        rate = counter.get_total_flops() / seconds / 1e9
        row = {
            "shape": options.shape,
            "candidate": name,
            "seconds": seconds,
            "ratio": times.get("textbook float32", seconds) / seconds,
            "gflops": rate,
            "share": rate / common.matrix_peak(dtype),
        }
        if options.memory:
            row["peak_gb"] = common.peak_memory(name, arguments)
        rows.append(row)
    common.report(rows, options)
    return 0


def _steps(shape: str, num_class: int | None, recompute: bool) -> dict[str, Callable[[], None]]:
    """Return the step of each candidate."""
    ours, theirs, x = common.build_pair(shape, num_class, recompute=recompute)
    labels = torch.arange(len(x)) % common.SHAPES[shape]["num_class"]

    def step(model: nn.Module, half: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = F.cross_entropy(model(x), labels)
        loss.backward()
        model.zero_grad()

    return {
        "textbook float32": lambda: step(theirs, half=False),
        "ours float32": lambda: step(ours, half=False),
        "ours bfloat16": lambda: step(ours, half=True),
        "textbook bfloat16": lambda: step(theirs, half=True),
    }


if __name__ == "__main__":
    sys.exit(main())
