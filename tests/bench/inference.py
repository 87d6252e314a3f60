"""Inference on a batch: the plain model and the engine for processors.

    python tests/bench/inference.py [--shape ucla|ntu] [--samples 64] [--device cuda] [--memory]
        [--json FILE]

In evaluation mode under ``torch.inference_mode``. Ratios and ``share`` are as in ``train_step.py``.
"""

import sys

import common
import torch
from torch import nn


def main(argv: list[str] | None = None) -> int:
    """Measure and report."""
    arguments = sys.argv[1:] if argv is None else argv
    options = common.model_parser(__doc__).parse_args(arguments)
    common.set_up(options)
    plain, fast, x = common.build_pair(
        options.shape, device=options.device, samples=options.samples
    )

    def run(model: nn.Module, half: bool) -> None:
        with torch.inference_mode(), torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            model.eval()(x)

    names = [name for name in common.CANDIDATES[options.device] if "graphed" not in name]
    runs = common.candidates(options.only or names, plain, fast, x, run)
    common.compare_models(runs, lambda: plain.eval()(x), options, arguments, shape=options.shape)
    return 0


if __name__ == "__main__":
    sys.exit(main())
