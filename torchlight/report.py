"""What a run comes to: the test split scored with its last and its best weights."""

import contextlib
from collections.abc import Iterator

from .callbacks import Run
from .card import read_card
from .checkpoint import apply_weights, load_weights
from .errors import RunFailed, printable
from .evaluation import Evaluation
from .files import reason
from .scores import write_scores
from .summary import peak_memory

BEST = "best.pt"
TEST_STEM = "epoch1_test"
"""Files of a test run carry the name that published tools look for."""


def report_test(run: Run) -> None:
    """Score the test split with the model as it is."""
    made, title = run.card.training, f"test of {run.config.weights}"
    if made.keys() >= {"epoch", "global_step"}:
        title += " " + printable(f"(epoch {made['epoch']}, step {made['global_step']})")
    _publish(run, run.scored("test", "test"), TEST_STEM, title)


def report(run: Run) -> None:
    """Score the test split with the last and the best weights.

    Raises:
        RunFailed: weights or reports cannot be written (on every rank).
    """
    state, folder, world = run.state, run.folder, run.world
    held_out, once = "val" in run.sets, run.config.eval_interval >= run.config.num_epoch
    chosen = "chosen on part of the training split, held out"
    if not held_out:
        chosen = "the only one evaluated" if once else "chosen on the test split"
    world.on_main(lambda: _require_weights(run))
    with state.averaged():
        title = f"last epoch ({state.epoch}, step {state.global_step}, {run.last_name})"
        last = run.scored("test", "last")
        _publish(run, last, "last_test", title)
    best = world.broadcast(load_weights(folder.path / BEST) if world.is_main else {})
    apply_weights(run.model, best, BEST)
    run.card = world.broadcast(read_card(folder.path / BEST)[0] if world.is_main else run.card)
    step = (state.best_epoch - run.config.start_epoch) * run.steps
    title = f"best epoch ({state.best_epoch}, step {step}, {BEST}, {chosen})"
    best_is_last = state.best_epoch == state.epoch
    _publish(run, last if best_is_last else run.scored("test", "best"), "best_test", title)
    if not held_out and not once and run.config.evaluator is None:
        run.log.info(
            "note: the test split chose the best epoch, as is published practice; for an "
            "honest choice train with --val-fraction 0.1 and --work-dir OTHER"
        )
    run.log.info(f"peak memory: {peak_memory(world.device)}")
    run.log.info(f"in {folder.path}: weights {BEST} and {run.last_name}, log.txt")


def _publish(run: Run, found: Evaluation | None, stem: str, title: str) -> None:
    """Log rank 0's evaluation and have it reported; write scores of tested or best weights."""

    def write() -> None:
        assert found is not None
        shown = found.topk(run.config.show_topk).items()
        top = ", ".join(f"top-{k} {100 * fraction:.2f} %" for k, fraction in shown)
        run.log.info(f"{title}: test {top} ({len(found.labels)} samples)")
        with _finishable(run, "reports"):
            for callback in run.callbacks:
                callback.on_report(run, stem, found)
            if run.config.save_score and stem != "last_test":
                path, digest = run.folder.path / f"{TEST_STEM}_score", run.config.digest()
                write_scores(path, found.names, found.scores, found.labels, digest, run.card)

    run.world.on_main(write)


def _require_weights(run: Run) -> None:
    """See that what the reports name is there, also where a run ends earlier than planned."""
    with _finishable(run, "weights"):
        run.folder.finish()
        if not (run.folder.path / run.last_name).exists():
            run.save_weights(run.last_name)
            run.folder.finish()


@contextlib.contextmanager
def _finishable(run: Run, what: str) -> Iterator[None]:
    """A disk that is full at the end fails the run, which the same command then finishes."""
    try:
        yield
    except OSError as error:
        raise RunFailed(
            f"{run.folder.path}: {what} cannot be written ({reason(error)}); make room, and run "
            f"the same command again"
        ) from error
