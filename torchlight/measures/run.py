"""Steps of a run, taken for their time and memory alone: the run's own loop, broken off."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from ..callbacks import Callback, Run
from ..loading import read
from ..numerics import fitting_memory
from ..summary import duration, peak_memory
from ..trainer import Trainer
from ..workdir import WorkDir
from .parts import layers, table

MOST, LONG_ENOUGH_S = 11, 10.0
"""Steps taken at most, and seconds after which no more are begun; two are taken in any case."""


def measure(run: Trainer, *, batch: bool) -> int:
    """Say what a model is and what its run would take, and leave no trace; return exit status 0.

    Args:
        run: it has not begun.
        batch: list the layers for a batch, not for one sample.
    """
    config, clock, trains = run.config, _Clock(), run.config.phase == "train"
    run.folder, run.callbacks = _NoFolder(config.work_dir), [clock]
    run.config = config.but(print_log=False, save_score=False)
    with fitting_memory(config, run.world.device):
        rows = _layers(run, batch) if run.world.is_main else []
        before = peak_memory(run.world.device)
        training = clock.timed(run.fit) if trains else None
        score = (lambda: run.scored(run.chooser, "evaluation")) if trains else run.test
        scoring = clock.timed(score)
    scored = len(run.sets[run.chooser if trains else "test"])
    rate = scoring.rate(config.test_batch_size * run.world.size, scored)
    if training is not None:
        speed = training.rate(run.plan.step_size, run.steps * run.plan.step_size)
        rows.append(f"training: {training} a step, {speed:.4g} samples/s")
        rows.append(f"losses: {' '.join(f'{loss:.4g}' for loss in clock.losses)}")
    rows.append(f"evaluation: {scoring} a batch, {rate:.4g} samples/s")
    rows.append(f"peak memory: {peak_memory(run.world.device)}; before the first step: {before}")
    if training is not None:
        rows.append(_estimate(run, training.each, rate))
    for line in (*rows, f"nothing was written; {config.work_dir} is as it was"):
        run.log.info(line)
    return 0


class Pace(NamedTuple):
    """Seconds of the first of ``number`` steps or batches, and of each further one."""

    first: float
    each: float
    number: int

    def __str__(self) -> str:
        return f"{self.each:.3g} s (of {self.number}; the first {self.first:.3g} s)"

    def rate(self, size: int, total: int) -> float:
        """Samples a second, of ``size`` at a time; of ``total`` the last may be fewer."""
        first = size if self.number > 1 else 0
        return (min(self.number * size, total) - first) / (self.each * max(self.number - 1, 1))


class _Enough(Exception):
    """What was to be timed is."""


class _NoFolder(WorkDir):
    """The work dir of a run that leaves no trace: nothing is locked, resumed or written."""

    def open(self, *_: Any) -> None:
        """There is nothing to resume."""


class _Clock(Callback):
    """Breaks a run off when enough steps of training, or batches of evaluation, are timed."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self.losses: list[float] = []

    def timed(self, action: Callable[[], Any]) -> Pace:
        """How long the steps or batches of ``action`` take."""
        self._times.clear()
        try:
            action()
            self._times.append(time.perf_counter())  # the end of the last batch there is
        except _Enough:
            pass
        start, first, *_, last = self._times + self._times[-1:]
        count = len(self._times) - 1
        each = (last - first) / (count - 1) if count > 1 else first - start
        return Pace(first - start, each, count)

    def on_start(self, run: Run) -> None:
        """The first step begins."""
        self._times.append(time.perf_counter())

    def after_step(self, run: Run) -> None:
        """A step of training ends, perhaps the epoch's last."""
        self.losses.append(float(run.loss))
        self._tick(run, last=run.state.step == run.steps)

    def during_evaluation(self, run: Run) -> None:
        """A batch begins, and so the one before ends."""
        self._tick(run)

    def _tick(self, run: Run, *, last: bool = False) -> None:
        if run.world.device.type == "cuda":
            torch.cuda.synchronize(run.world.device)
        self._times.append(time.perf_counter())
        count, long = len(self._times) - 1, self._times[-1] - self._times[0] > LONG_ENOUGH_S
        if last or run.world.any(count >= (2 if long else MOST)):
            raise _Enough


def _layers(run: Trainer, batch: bool) -> list[str]:
    """The table of layers, of what goes through the model in training where it trains."""
    config, trains = run.config, run.config.phase == "train"
    samples = run.sets["train" if trains else "test"]
    micro = min(config.batch_size, config.global_batch_size or config.batch_size)
    size = min(micro if trains else config.test_batch_size, len(samples)) if batch else 1
    inputs = read(samples, list(range(size)))[0].to(run.world.device)
    found = layers(run.model, inputs)
    trained = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    kept = [*run.model.parameters(), *run.model.buffers()]
    size_mb = sum(entry.numel() * entry.element_size() for entry in kept) / 1e6
    return [
        f"layers, for inputs {tuple(inputs.shape)}:",
        *table(found),
        f"model: {found[-1].parameters:,} parameters ({trained:,} trained), {size_mb:.4g} MB; "
        f"{found[-1].macs // size:,} multiply-accumulates a sample",
    ]


def _estimate(run: Trainer, step_s: float, rate: float) -> str:
    """How long the whole training takes, by what was measured."""
    config = run.config
    epochs = range(config.start_epoch + 1, config.num_epoch + 1)
    due = sum(e % config.eval_interval == 0 or e == config.num_epoch for e in epochs)
    last = 2 * len(run.sets["test"])  # with the last and the best weights
    seconds = len(epochs) * run.steps * step_s
    seconds += (due * len(run.sets[run.chooser]) + last) / rate
    return (
        f"estimate: {len(epochs)} epochs of {run.steps} steps, {due} evaluations and the report "
        f"take about {seconds / 3600:.1f} hours ({duration(seconds)})"
    )
