"""Inference on a batch: ours against the textbook's in float32.

    python tests/bench/inference.py [--shape ucla|ntu] [--memory] [--json FILE]

Both in evaluation mode under ``torch.inference_mode``. Ratios are textbook time over ours;
``share`` is as in ``train_step.py``.
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
    ours, theirs, x = common.build_pair(options.shape)

    def run(model: nn.Module, half: bool) -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            model.eval()(x)

    runs = common.candidates(ours, theirs, run)
    common.compare_models(runs, lambda: theirs.eval()(x), options, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
