"""Curves: classes that a configuration names under ``loggers``, each of three methods.

``start`` begins, or resumes, the curves of a run; ``log`` adds points by name: numbers, and
pictures (H, W, 3) uint8; ``close`` ends. A run that is resumed starts from its last saved state,
and so logs steps again that a killed run has logged before.
"""

import contextlib
import csv
import hashlib
import io
import os
import shlex
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml

from .callbacks import Callback, Run
from .config import Config
from .errors import UserError
from .evaluation import Evaluation
from .files import atomic_write, reason
from .log import warn
from .registry import built


class Logger(Protocol):
    """Shows how a run goes."""

    def start(self, config: Mapping[str, Any], folder: Path, step: int) -> None:
        """Begin the curves of the run in the work dir ``folder``; drop points from ``step`` on."""

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Add points at ``step``, all or (OSError, to be tried again) none."""

    def close(self) -> None:
        """The run has ended."""


class CSV:
    """``curves.csv``: a row ``step,name,value`` for each number."""

    def start(self, config: Mapping[str, Any], folder: Path, step: int) -> None:
        """Begin the table, or drop the rows from ``step`` on (and one that was cut off)."""
        self._path = folder / "curves.csv"
        rows = []
        if self._path.exists():
            with open(self._path, newline="", encoding="utf-8", errors="replace") as file:
                rows = [row for row in csv.reader(file) if len(row) == 3 and row[0].isdigit()]
        with atomic_write(self._path) as temporary:
            kept = [row for row in rows if int(row[0]) < step]
            temporary.write_bytes(_csv([("step", "name", "value"), *kept]))

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Append a row for each number."""
        rows = [(step, k, f"{v:.9g}") for k, v in values.items() if not isinstance(v, np.ndarray)]
        _append(self._path, _csv(rows))

    def close(self) -> None:
        """Nothing is open."""


class TensorBoard:
    """An events file in ``runs``, with the configuration as text."""

    def start(self, config: Mapping[str, Any], folder: Path, step: int) -> None:
        """Begin a file; TensorBoard reads those of a folder in the order of their names."""
        # Imported here: it takes a second. SummaryWriter writes in a thread, where a full disk is
        # a traceback, and what it did not take is lost.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter
        from torch.utils.tensorboard import summary

        self._event, self._writer, self._summary = Event, RecordWriter, summary
        folder = folder / "runs"
        folder.mkdir(parents=True, exist_ok=True)
        there = [path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*")]
        second = max([int(time.time()), *(int(word) + 1 for word in there if word.isdigit())])
        host = socket.gethostname()
        self._path = folder / f"events.out.tfevents.{second:010d}.{host}.{os.getpid()}"
        text = yaml.safe_dump(dict(config), sort_keys=False).replace("\n", "\n    ")
        started = SessionLog(status=SessionLog.START)  # drops the points of earlier files
        self._write(
            Event(file_version="brain.Event:2"),
            Event(session_log=started, step=step),
            Event(summary=summary.text("configuration", f"    {text}")),
        )

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Add a point to each curve, or a picture."""
        self._write(
            *(self._event(summary=self._made(name, v), step=step) for name, v in values.items())
        )

    def _made(self, name: str, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return self._summary.image(name, value, dataformats="HWC")
        return self._summary.scalar(name, value)

    def _write(self, *events: Any) -> None:
        records = io.BytesIO()
        for event in events:
            event.wall_time = time.time()
            self._writer(records).write(event.SerializeToString())
        _append(self._path, records.getvalue())

    def close(self) -> None:
        """Nothing is open."""


class WandB:
    """Weights & Biases, where it is installed; arguments are those of ``wandb.init``."""

    def __init__(self, **options: Any) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError("loggers: WandB needs the package wandb: pip install wandb") from error
        self._wandb, self._options = wandb, options

    def start(self, config: Mapping[str, Any], folder: Path, step: int) -> None:
        """Begin or resume the run, known by its work dir."""
        digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
        given = {"id": f"{folder.name}-{digest}", "resume": "allow", **self._options}
        self._run = self._wandb.init(dir=str(folder), config=dict(config), **given)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Add points and pictures; it passes over steps it has already."""
        shown = {
            k: self._wandb.Image(v) if isinstance(v, np.ndarray) else v for k, v in values.items()
        }
        self._run.log(shown, step=step)

    def close(self) -> None:
        """Send the rest."""
        self._run.finish()


def make_loggers(config: Config, allowed: Iterable[str]) -> list[Logger]:
    """The loggers of a configuration; a plain name is a class of this module."""
    made = []
    for number, item in enumerate(config.loggers if config.phase == "train" else []):
        where = f"loggers[{number}]"
        logger = built(where, item, __name__, {*allowed, "torchlight"})
        for method in ("start", "log", "close"):
            if not callable(getattr(logger, method, None)):
                raise UserError(f"{where}: {type(logger).__name__} has no method {method}")
        made.append(logger)
    return made


class Curves(Callback):
    """Tells the loggers, on rank 0, how a run goes, by step and by epoch."""

    def __init__(self, loggers: Iterable[Logger]) -> None:
        self._loggers = list(loggers)
        self._waiting: list[list[Callable[[], Any]]] = [[] for _ in self._loggers]
        self._since = (0, 0.0)
        self._logged: dict[str, float] = {}

    def on_start(self, run: Run) -> None:
        """Begin, or resume from the saved state: later points of a killed run are dropped."""
        config, step = run.config.model_dump(mode="json", exclude_none=True), run.state.global_step
        self._tell(run, lambda logger: logger.start(config, run.folder.path, step))
        self.on_log(run, self._logged)
        self._since = (step, time.monotonic())

    def after_step(self, run: Run) -> None:
        """Log every ``log_interval`` steps."""
        step, now = run.state.global_step, time.monotonic()
        self._logged = {}
        if step % run.config.log_interval == 0:
            samples = (step - self._since[0]) * run.plan.step_size
            self._logged = {
                "step/loss": float(run.loss),
                "step/gradient_norm": float(run.gradient_norm),
                "step/learning_rate": run.rate,
                "step/samples_per_second": samples / max(now - self._since[1], 1e-9),
            }
            self._since = (step, now)
            self.on_log(run, self._logged)

    def on_save(self, run: Run) -> None:
        """Have the state tell what is logged only after it is saved."""
        self._logged = {**self._logged, **run.measured}

    def on_log(self, run: Run, values: dict[str, Any]) -> None:
        """Hand the values on."""
        step = run.state.global_step
        if values:
            self._tell(run, lambda logger: logger.log(values, step))

    def on_report(self, run: Run, stem: str, found: Evaluation) -> None:
        """Say how to look at the curves."""
        if stem.startswith("best") and any(isinstance(own, TensorBoard) for own in self._loggers):
            run.log.info(f"curves: tensorboard --logdir {shlex.quote(str(run.folder.path))}")

    def on_end(self, run: Run) -> None:
        """Close what has been started."""
        for logger, waiting in zip(self._loggers, self._waiting, strict=True):
            if not waiting:
                with contextlib.suppress(Exception):
                    logger.close()

    def state_dict(self) -> dict[str, Any]:
        """The points of the step at which a state is saved."""
        return {"logged": self._logged}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Log them again."""
        self._logged = state["logged"]

    def _tell(self, run: Run, what: Callable[[Any], Any]) -> None:
        """Call the loggers; what a full disk does not take is tried again with the next points."""
        for logger, waiting in zip(self._loggers, self._waiting, strict=True):
            if not run.world.is_main:
                return
            waiting.append(partial(what, logger))
            try:
                while waiting:
                    waiting[0]()
                    del waiting[0]
            except OSError as error:
                warn(
                    f"curves not written ({reason(error)}); training continues, and they are "
                    f"written with later ones"
                )


def _csv(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _append(path: Path, content: bytes) -> None:
    """Append all of ``content``, or (OSError) nothing; a nearly full disk takes a part first."""
    with open(path, "ab", buffering=0) as file:
        length, left = file.seek(0, io.SEEK_END), memoryview(content)
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            file.truncate(length)
            raise
