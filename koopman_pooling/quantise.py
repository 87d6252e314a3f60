"""An ONNX file in 8 bits by onnxruntime's own tools, and what that costs and gives, measured.

Static, weights a channel: ranges of activations come from training clips. Dynamic quantisation,
which needs no clips, was a quarter as fast as float32 here: convolutions are then done in integers
one image at a time.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from koopman_pooling.clips import Feed
from koopman_pooling.export import Run, session

CALIBRATION = 128  # training clips
BATCH = 32
SECONDS = 1.0
"""How long a file runs in each of the turns that speed is measured in."""


def quantise(source: Path, target: Path, feed: Feed) -> None:
    """Write the int8 counterpart of an exported file: convolutions and matrix products."""
    from onnxruntime import quantization as tools

    class Reader(tools.CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = _batches(feed, feed.train, CALIBRATION)

        def get_next(self) -> Any:
            return next(self.batches, None)

    with tempfile.TemporaryDirectory() as folder:
        folded = Path(folder) / "folded.onnx"
        tools.quant_pre_process(source, folded, skip_symbolic_shape=True)
        tools.quantize_static(
            folded,
            target,
            Reader(),
            op_types_to_quantize=["Conv", "MatMul"],
            per_channel=True,
            activation_type=tools.QuantType.QUInt8,  # signed is far slower on x86
            weight_type=tools.QuantType.QInt8,
        )


def compare(exact: Path, small: Path, feed: Feed) -> list[str]:
    """Lines of a table: accuracy on the whole test split, and speed, of both files."""
    runs = {"float32": session(exact), "int8": session(small)}
    labels = np.asarray(feed.test.labels)
    eager = np.concatenate([feed.eager(rows)[0] for rows in _rows(len(labels))])
    logits = {name: _scores(run, feed, len(labels)) for name, run in runs.items()}
    right = {name: (found.argmax(1) == labels).mean() for name, found in logits.items()}
    worst = np.abs(logits["float32"] - eager).max() / np.abs(eager).max()
    rates = {size: _rates(list(runs.values()), feed, size) for size in (1, BATCH)}
    lines = [f"{'':9}{'MB':>6}{'top-1':>10}{'batch 1':>12}{f'batch {BATCH}':>12}"]
    for i, (name, path) in enumerate(zip(runs, (exact, small), strict=True)):
        speeds = "".join(f"{rate[i]:>10.0f}/s" for rate in rates.values())
        lines.append(f"{name:9}{path.stat().st_size / 1e6:>6.1f}{right[name]:>10.2%}{speeds}")
    same = (logits["int8"].argmax(1) == logits["float32"].argmax(1)).mean()
    ratios = {size: b / a for size, (a, b) in rates.items()}
    told = ", ".join(
        f"{ratio:.2f} times as fast at batch {size}{' (slower)' if ratio < 1 else ''}"
        for size, ratio in ratios.items()
    )
    return [
        *lines,
        f"int8 against float32: {100 * (right['int8'] - right['float32']):+.2f} points of top-1, "
        f"the same class for {same:.1%} of {len(labels)} test clips; {told}",
        f"float32 against the model in PyTorch: {worst:.1e} of the largest logit at most, top-1 "
        f"{(eager.argmax(1) == labels).mean():.2%}; {torch.get_num_threads()} threads",
    ]


def _rows(count: int) -> list[range]:
    return [range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]


def _batches(feed: Feed, dataset: Any, count: int) -> Iterator[dict[str, np.ndarray]]:
    """Inputs of ``count`` clips, spread over the dataset."""
    n = len(dataset.sample_names)
    chosen = np.unique(np.linspace(0, n - 1, min(n, count)).astype(int)).tolist()
    return (feed.batch([chosen[i] for i in rows], dataset) for rows in _rows(len(chosen)))


def _scores(run: Run, feed: Feed, count: int) -> np.ndarray:
    return np.concatenate([run(feed.batch(rows))[0] for rows in _rows(count)])


def _rates(runs: Sequence[Run], feed: Feed, size: int) -> list[float]:
    """Samples a second of each run: the better of two turns, taken in the order A B A B."""
    n = len(feed.test.sample_names)
    inputs = feed.batch([row % n for row in range(size)])
    turns = [[_rate(run, inputs, size) for run in runs] for _ in range(2)]
    return [max(rates) for rates in zip(*turns, strict=True)]


def _rate(run: Run, inputs: dict[str, np.ndarray], size: int) -> float:
    run(inputs)
    start, count = time.perf_counter(), 0
    while time.perf_counter() < start + SECONDS:
        run(inputs)
        count += size
    return count / (time.perf_counter() - start)
