"""The Koopman head alone, forward and backward: blocks of classes against one whole tensor.

    python tests/bench/koopman_head.py [--num-class 120] [--frames 64] [--device cuda] [--memory]
        [--json FILE]

Features are (16, 256, T). Ratios are plain time over ours.
"""

import sys
from collections.abc import Callable

import common
import torch

from model.koopman import koopman_scores


def main(argv: list[str] | None = None) -> int:
    """Measure and report."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = common.device_parser(__doc__)
    parser.add_argument("--num-class", type=int, default=120)
    parser.add_argument("--frames", type=int, default=64)
    options = parser.parse_args(arguments)
    common.set_up(options)
    runs = _runs(options.num_class, options.frames, options.device)
    common.compare_models(runs, runs["plain"], options, arguments, classes=options.num_class)
    return 0


def plain_scores(x: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """Koopman scores with the whole residual tensor (N, c, d, T - 1) at once."""
    residual = torch.einsum("cde,net->ncdt", K, x[:, :, :-1]) - x[:, None, :, 1:]
    return -residual.norm(dim=2).mean(-1)


def _runs(classes: int, frames: int, device: str) -> dict[str, Callable[[], None]]:
    torch.manual_seed(0)
    x = torch.randn(common.SAMPLES, 256, frames, device=device, requires_grad=True)
    K = torch.randn(classes, 256, 256, device=device, requires_grad=True)

    def run(score: Callable[..., torch.Tensor]) -> None:
        torch.autograd.grad(score(x, K).sum(), (x, K))

    return {
        "plain": lambda: run(plain_scores),
        "in blocks": lambda: run(koopman_scores),
    }


if __name__ == "__main__":
    sys.exit(main())
