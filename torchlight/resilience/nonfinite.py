"""Losses that are not finite: they stop the run, or their steps are skipped and counted."""

from typing import Any

import torch

from torchlight.callbacks import Callback, Run
from torchlight.errors import RunFailed
from torchlight.files import atomic_write

from .workdir import warn_of


class NonFinite(Callback):
    """Looks at every loss: after each step, or on CUDA, where that waits for the device, less often
    (with ``on_nonfinite: skip`` after each step there, too).
    """

    def __init__(self) -> None:
        self._skipped = 0
        self._first_bad: torch.Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """How many steps were skipped."""
        return {"skipped": self._skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See ``state_dict``."""
        self._skipped = state["skipped"]

    def on_start(self, run: Run) -> None:
        """Nothing is bad so far."""
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=run.world.device)

    def after_backward(self, run: Run, loss: torch.Tensor) -> bool:
        """Whether the step may be taken.

        Raises:
            RunFailed: the loss is not finite, and that stops the run.
        """
        assert self._first_bad is not None
        passed = loss.isfinite() | (self._first_bad >= 0)
        self._first_bad = torch.where(passed, self._first_bad, run.state.step)
        skips = run.config.on_nonfinite == "skip"
        if not skips:
            if run.world.device.type == "cpu":
                self.require_finite(run)
            return True
        if not self._found(run):
            return True
        self._describe(run)
        self._skipped += 1
        self._first_bad.fill_(-1)
        return False

    def after_step(self, run: Run) -> None:
        """Look before a loss is shown, and at the end of an epoch."""
        if run.state.global_step % run.config.log_interval == 0 or run.state.step == run.steps:
            self.require_finite(run)

    def on_report(self, run: Run, stem: str, found: Any) -> None:
        """Say how many steps were skipped."""
        if self._skipped and stem.startswith("best"):
            run.log.info(f"{self._skipped} steps were skipped for a loss that was not finite")

    def _found(self, run: Run) -> bool:
        return run.world.any(bool(self._first_bad is not None and self._first_bad >= 0))

    def require_finite(self, run: Run) -> None:
        """Stop the run if a loss was not finite since the last look (a collective).

        Raises:
            RunFailed: it was.
        """
        if self._found(run):
            raise RunFailed(
                f"the loss is not finite ({self._describe(run)}); the last good state is kept in "
                f"{run.folder.path}; resume with --on-nonfinite skip, or start over with a lower "
                f"--base-lr and --work-dir OTHER"
            )

    def require_finite_weights(self, run: Run) -> None:
        """A gradient can overflow under a finite loss: such weights must not replace good ones.

        Raises:
            RunFailed: there are some.
        """
        floats = (v for v in run.model.state_dict().values() if v.is_floating_point())
        if not all(bool(v.isfinite().all()) for v in floats):
            raise RunFailed(
                f"the weights are not finite after step {run.state.global_step}; the last good "
                f"state is kept in {run.folder.path}; start over with a lower --base-lr and "
                f"--work-dir OTHER"
            )

    def _describe(self, run: Run) -> str:
        """Write down the step, its samples and the rate; return the first line of it."""
        assert self._first_bad is not None
        step = run.world.largest(int(self._first_bad))
        names = run.sets["train"].sample_names
        samples = [names[i % len(names)] for i in run.batches.step_indices(run.state.epoch, step)]
        where = f"epoch {run.state.epoch + 1}, step {step + 1}, learning rate {run.rate:g}"
        run.log.info(f"loss not finite: {where}; samples: {' '.join(samples)}")
        if run.world.is_main:
            file = run.folder.path / f"nonfinite_epoch{run.state.epoch + 1}_step{step + 1}.txt"
            try:
                with atomic_write(file) as temporary:
                    temporary.write_text("\n".join([where, *samples]) + "\n", encoding="utf-8")
            except OSError as error:
                warn_of(file.name, error)
        return where
