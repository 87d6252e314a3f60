"""States saved after epochs, every so often within them, and on request."""

import time

from torchlight.callbacks import Callback, Run
from torchlight.distributed import SharedError
from torchlight.errors import Stopped
from torchlight.files import reason

from .nonfinite import NonFinite
from .signals import AGAIN, Request, Signals
from .workdir import ResumableWorkDir, warn_of


class Autosave(Callback):
    """Saves the state of a run in its folder, and handles signals."""

    def __init__(self, folder: ResumableWorkDir, finite: NonFinite) -> None:
        self._folder, self._finite = folder, finite
        self._signals = Signals()
        self._saved = 0.0

    def on_start(self, run: Run) -> None:
        """Save a first state, so that whatever lies in the folder from here on can be resumed.

        Raises:
            SharedError: it cannot be written.
        """
        self._saved = time.monotonic()
        error: OSError | None = None
        if not run.resumed:
            try:
                self._folder.save(run)
            except OSError as problem:
                error = problem
        failed = run.world.broadcast(error and f"no state can be saved ({reason(error)})")
        if failed:
            raise SharedError(f"{self._folder.path}: {failed}")
        self._signals.start()

    def on_end(self, run: Run) -> None:
        """Give the signals back."""
        self._signals.stop()

    def on_save(self, run: Run) -> None:
        """Save the state after an epoch."""
        self._save(run)

    def after_step(self, run: Run) -> None:
        """Do what signals and the clock ask for, on all ranks after the same step."""
        if run.world.device.type == "cuda" and run.state.step % 10:
            return
        overdue = time.monotonic() - self._saved > 60 * run.config.save_minutes
        request = self._requested(run, Request.SAVE if overdue else Request.NONE)
        if request is not Request.NONE:
            self._finite.require_finite(run)
            self._save(run)
            self._leave(run, request)

    def during_evaluation(self, run: Run) -> None:
        """The same; a resumed run starts the evaluation again."""
        request = self._requested(run)
        if request is not Request.NONE:
            if run.state.epoch < run.config.num_epoch:  # else it is saved, and this is the report
                self._save(run)
            self._leave(run, request)

    def _requested(self, run: Run, least: Request = Request.NONE) -> Request:
        """The largest of the ranks' requests."""
        return Request(run.world.largest(max(self._signals.take(), least)))

    def _leave(self, run: Run, request: Request) -> None:
        if request.leaves:
            told = (
                f"stopped on request after step {run.state.step} of epoch {run.state.epoch + 1}; "
                f"{AGAIN} from there"
            )
            run.log.info(told)
            raise Stopped(request.status, told)

    def _save(self, run: Run) -> None:
        """Save the state, unless weights are not finite (RunFailed) or the disk is full."""
        self._saved = time.monotonic()
        with run.state.own():
            run.world.on_main(lambda: self._finite.require_finite_weights(run))
            try:
                self._folder.save(run)
            except OSError as error:
                warn_of("state", error)
