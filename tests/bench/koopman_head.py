"""The Koopman head alone, forward and backward: blocks of classes against one whole tensor.

    python tests/bench/koopman_head.py [--num-class 120] [--frames 64] [--memory] [--json FILE]

Features are (16, 256, T). Ratios are plain time over ours.
"""

import sys
from collections.abc import Callable
from typing import Any

import common
import torch

from model.koopman import koopman_scores


def main(argv: list[str] | None = None) -> int:
    """Measure and report."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = common.parser(__doc__)
    parser.add_argument("--num-class", type=int, default=120)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--memory", action="store_true", help="also measure peak memory")
    options = parser.parse_args(arguments)
    common.set_up(options)
    runs = _runs(options.num_class, options.frames)
    if options.peak:
        runs[options.peak]()
        common.print_own_peak()
        return 0
    times = common.alternate(runs, options.rounds)
    rows: list[dict[str, Any]] = []
    for name, seconds in times.items():
        ratio = times["plain"] / seconds
        row = {"classes": options.num_class, "head": name, "seconds": seconds, "ratio": ratio}
        if options.memory:
            row["peak_gb"] = common.peak_memory(name, arguments)
        rows.append(row)
    common.report(rows, options)
    return 0


def plain_scores(x: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """Koopman scores with the whole residual tensor (N, c, d, T - 1) at once."""
    residual = torch.einsum("cde,net->ncdt", K, x[:, :, :-1]) - x[:, None, :, 1:]
    return -residual.norm(dim=2).mean(-1)


def _runs(classes: int, frames: int) -> dict[str, Callable[[], None]]:
    torch.manual_seed(0)
    x = torch.randn(16, 256, frames, requires_grad=True)
    K = torch.randn(classes, 256, 256, requires_grad=True)

    def run(score: Callable[..., torch.Tensor]) -> None:
        torch.autograd.grad(score(x, K).sum(), (x, K))

    return {
        "plain": lambda: run(plain_scores),
        "in blocks": lambda: run(koopman_scores),
    }


if __name__ == "__main__":
    sys.exit(main())
