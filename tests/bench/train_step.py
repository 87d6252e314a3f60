"""One training step (forward, loss, backward): the plain model and the engine for processors.

    python tests/bench/train_step.py [--shape ucla|ntu] [--samples 64] [--num-class 1000]
        [--memory] [--device cuda] [--tf32] [--recompute] [--json FILE]

Ratios are the first one's time (the plain model's, in float32) over each one's. ``share`` is the
share of the machine's matrix peak that the step's necessary operations reach: those of the plain
model, not the ones that are done twice to save memory.
"""

import sys

import common
import torch
from torch import nn
from torch.nn import functional as F


def main(argv: list[str] | None = None) -> int:
    """Measure and report."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = common.model_parser(__doc__)
    parser.add_argument("--num-class", type=int, help="instead of the benchmark's own")
    parser.add_argument("--recompute", action="store_true", help="in the memory-saving way")
    options = parser.parse_args(arguments)
    common.set_up(options)
    plain, fast, x = common.build_pair(
        options.shape,
        options.num_class,
        options.device,
        options.samples,
        recompute=options.recompute,
    )
    labels = torch.arange(len(x), device=x.device) % common.SHAPES[options.shape]["num_class"]

    def step(model: nn.Module, half: bool) -> None:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            loss = F.cross_entropy(model(x), labels)
        loss.backward()
        model.zero_grad()

    names = options.only or common.CANDIDATES[options.device]
    steps = common.candidates(names, plain, fast, x, step)
    common.compare_models(
        steps, lambda: step(plain, False), options, arguments, shape=options.shape
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
