"""Inference on a batch: ours against the textbook's in float32.

    python tests/bench/inference.py [--shape ucla|ntu] [--json FILE]

Both in evaluation mode under ``torch.inference_mode``; ratios are textbook time over ours.
"""

import sys
from collections.abc import Callable
from typing import Any

import common
import torch
from torch import nn


def main(argv: list[str] | None = None) -> int:
    """Measure and report."""
    parser = common.parser(__doc__)
    parser.add_argument("--shape", choices=common.SHAPES, default="ucla")
    options = parser.parse_args(argv)
    common.set_up(options)
    runs = _runs(options.shape)
    times = common.alternate(runs, options.rounds)
    base = times["textbook float32"]
    rows: list[dict[str, Any]] = [
        {"shape": options.shape, "candidate": name, "seconds": seconds, "ratio": base / seconds}
        for name, seconds in times.items()
    ]
    common.report(rows, options)
    return 0


def _runs(shape: str) -> dict[str, Callable[[], None]]:
    """Return one evaluation of the batch for each candidate."""
    ours, theirs, x = common.build_pair(shape)

    def run(model: nn.Module, half: bool) -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            model.eval()(x)

    return {
        "textbook float32": lambda: run(theirs, half=False),
        "ours float32": lambda: run(ours, half=False),
        "ours bfloat16": lambda: run(ours, half=True),
        "textbook bfloat16": lambda: run(theirs, half=True),
    }


if __name__ == "__main__":
    sys.exit(main())
