"""What a run tells: the terminal, ``log.txt`` and TensorBoard, from rank 0 alone."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

NAME = "torchlight"


def start_logging(is_main: bool, file: Path | None) -> logging.Logger:
    """The engine's logger: to standard output, and appended to ``file``; silent off rank 0."""
    logger = logging.getLogger(NAME)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = False
    logger.setLevel(logging.INFO if is_main else logging.CRITICAL)
    if not is_main:
        logger.addHandler(logging.NullHandler())
        return logger
    terminal = logging.StreamHandler(sys.stdout)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(terminal)
    if file is not None:
        written = logging.FileHandler(file, encoding="utf-8")
        written.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(written)
    return logger


class Curves:
    """TensorBoard curves of train and val in ``folder``; does nothing off rank 0.

    ``first_step`` is where a run goes on: points at it and later, left by a run that was cut off
    after its last saved state, are dropped by TensorBoard, so that no point appears twice.
    """

    def __init__(self, folder: Path, is_main: bool, first_step: int) -> None:
        self._writers = {
            part: SummaryWriter(str(folder / part), purge_step=first_step or None)
            for part in (("train", "val") if is_main else ())
        }

    def add(self, part: str, values: Mapping[str, float], step: int) -> None:
        """Add a point at ``step`` to each named curve of ``part`` (train or val)."""
        writer = self._writers.get(part)
        if writer is not None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Let a TensorBoard that is watching see the points."""
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Write what is left and let the files go."""
        for writer in self._writers.values():
            writer.close()
