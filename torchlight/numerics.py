"""How torch computes: seed, determinism, precision; and a word where a precision does not pay."""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

import torch

from .card import Card
from .config import Config
from .errors import UserError

SLOW = 2.0
"""A note is due where products take this many times as long as in float32."""
SIZE = 256
"""Rows of the matrices multiplied to find out: some hundredths of a second at the slowest."""


def prepare_torch(config: Config) -> None:
    """Global choices of torch: seed, TF32, determinism."""
    torch.manual_seed(config.seed)
    torch.backends.cuda.matmul.allow_tf32 = config.tf32
    torch.backends.cudnn.allow_tf32 = config.tf32
    torch.backends.cudnn.benchmark = False  # it chooses by timing, and so never twice the same
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def precision_of(config: Config | Card, device: torch.device) -> Any:
    """A fresh autocast context of the ``amp`` of a configuration, or of weights."""
    dtype = half_type(config)
    return torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()


@contextlib.contextmanager
def fitting_memory(config: Config, device: torch.device) -> Iterator[None]:
    """Say what helps where a batch does not fit the memory of the device.

    Raises:
        UserError: it does not.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{config.batch_size} samples at a time (in evaluation {config.test_batch_size}) do "
            f"not fit the memory of {device}; say a smaller --batch-size or --test-batch-size "
            "(with --global-batch-size a step stays the same)"
        ) from error


def precision_notes(config: Config, device: torch.device) -> list[str]:
    """Say if ``amp`` slows this processor down instead of speeding it up.

    Not every processor multiplies 16-bit numbers in hardware, and torch is slow on others. The list
    of those that do grows every year, so products are timed instead of looked up.
    """
    dtype = half_type(config)
    if dtype is None or device.type != "cpu":
        return []
    half, single = _product_time(dtype), _product_time(torch.float32)
    if half < SLOW * single:
        return []
    return [
        f"note: matrix products in {config.amp} take {half / single:.0f} times as long as in "
        "float32 on this processor; a run of its own with --amp off is faster"
    ]


def half_type(config: Config | Card) -> torch.dtype | None:
    """The 16-bit type of ``amp``, if any."""
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[config.amp]


def _product_time(dtype: torch.dtype) -> float:
    """Seconds of a matrix product, best of three after one to warm up."""
    matrix = torch.ones(SIZE, SIZE, dtype=dtype)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        torch.mm(matrix, matrix)
        times.append(time.perf_counter() - start)
    return min(times[1:])
