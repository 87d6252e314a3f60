"""A folder whose run can be resumed, by the same recipe alone, and which a full disk spares."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from torchlight.callbacks import Run
from torchlight.card import Card, sha256_of
from torchlight.config import Config
from torchlight.errors import UserError, printable
from torchlight.files import reason, remove_leftovers
from torchlight.loading import BatchPlan, Dataset, plan_batches
from torchlight.log import warn
from torchlight.resilience.states import StateFile
from torchlight.schedule import learning_rates
from torchlight.values import flat
from torchlight.workdir import ARTEFACTS, Begun, WorkDir, starts_over

from .identity import identity_of, same_data, split_changed
from .locks import FolderLock

_SCHEDULE = ("base_lr", "step", "lr_decay_rate", "warm_up_epoch", "lr_scheduler", "num_epoch")
_SCHEDULE_ARGS = "lr_scheduler_args."
_BATCHES = ("batch_size", "global_batch_size")
_PLACES = "train_feeder_args."


class ResumableWorkDir(WorkDir):
    """A run's folder, locked from ``open`` to ``close``, with the run's state in it.

    Weights that a full disk does not take wait in memory, to be tried again with the next state.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._state = StateFile(self.path)
        self._identity: dict[str, Any] = {}
        self._lock = FolderLock(self.path)
        self._waiting: dict[str, tuple[dict[str, torch.Tensor], Card]] = {}

    def may_resume(self, config: Config) -> bool:
        """Whether there is a state."""
        return config.phase == "train" and not starts_over(config) and self._state.exists()

    def claim(self, config_file: Path) -> None:
        """Lock the folder, and remove what a killed process has left half written."""
        self._lock.acquire()
        if self._lock.note:
            self.notes.append(self._lock.note)
        remove_leftovers(self.path, [*ARTEFACTS, f"*{config_file.name}"])

    def close(self) -> None:
        """Release the lock."""
        self._lock.release()

    # -- weights and states ---------------------------------------------------------------------

    def save_weights(self, name: str, weights: Mapping[str, torch.Tensor], card: Card) -> None:
        """As of any folder; on a full disk, say so and keep a copy."""
        self._waiting.pop(name, None)
        try:
            super().save_weights(name, weights, card)
        except OSError as error:
            copy = {key: value.detach().cpu().clone() for key, value in weights.items()}
            self._waiting[name] = (copy, card)
            warn_of(name, error)

    def finish(self) -> None:
        """Write the weights that wait.

        Raises:
            OSError: they do not fit; they keep waiting.
        """
        for name in list(self._waiting):
            super().save_weights(name, *self._waiting[name])
            del self._waiting[name]

    def save(self, run: Run) -> None:
        """Write the run's state (rank 0), after the weights that it takes for granted.

        Raises:
            OSError: as of ``finish``; the states before are intact (on rank 0).
        """
        state = {
            **self._identity,
            **run.state.state_dict(),
            "callbacks": {type(c).__name__: c.state_dict() for c in run.callbacks},
            "card": run.card.model_dump(),
            "world": run.began_on,
        }
        if run.world.is_main:
            self.finish()
            self._state.save(state, 2 * run.state.global_step + (run.state.step == 0))

    def restore(self, run: Run) -> None:
        """Continue from the newest whole state.

        Raises:
            UserError: it is of another model, or no such state.
        """
        state, warnings = self._state.load()
        for warning in warnings:
            warn(f"{warning}; resuming from the state before it")
        try:
            run.state.load_state_dict(state)
            for callback in run.callbacks:
                callback.load_state_dict(state["callbacks"][type(callback).__name__])
            run.card = Card(**state["card"])
        except Exception as error:  # a state that we did not write can be wrong in any way
            raise self._unfit(error) from error
        line = f"resuming from epoch {run.state.epoch + 1}, step {run.state.step}"
        if run.began_on != run.world.size:
            line += (
                f"; began on {run.began_on} processes, {run.world.size} now: the same steps of "
                f"{run.plan.step_size} samples, results equal up to floating-point order"
            )
        run.log.info(line)

    def _unfit(self, error: Exception) -> UserError:
        return UserError(
            f"{self._state.slots[0]}: cannot be resumed ({printable(error)}); it may be of other "
            f"code; start over with --overwrite"
        )

    # -- the run to resume ----------------------------------------------------------------------

    def find(self, config: Config, train_set: Dataset | None, world: int) -> Begun | None:
        """The run whose state is here.

        Raises:
            UserError: it has taken steps that ``config`` would not take.
        """
        data = None if train_set is None else identity_of(train_set)
        weights = _weights_identity(config.weights)
        self._identity = {"recipe": config.recipe(), "data": data, "weights": weights}
        if not self._state.exists():
            return super().find(config, train_set, world)
        state, _ = self._state.load()
        try:
            return self._compare(state, config, world)
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise self._unfit(error) from error

    def _compare(self, state: Mapping[str, Any], config: Config, world: int) -> Begun | None:
        """What is resumed of the run in ``state``; None where it is as good as not begun."""
        counters, identity = state["counters"], self._identity
        taken = int(counters["global_step"])
        epochs = int(counters["epoch"]) + (int(counters["step"]) > 0)
        began = max(int(state["world"]), 1) if taken else world
        changed, notes = _differences(state, identity, epochs, began)
        told = "; ".join(f"{key}: {change}" for key, change in changed.items())
        if not changed:
            self.notes += [f"changed since: {note}" for note in notes]
            if epochs > config.num_epoch:
                self.notes.append(
                    f"num_epoch {config.num_epoch} is less than the {epochs} epochs that this "
                    f"run has begun; it ends with epoch {epochs}"
                )
            if identity["weights"] and not identity["weights"]["digest"]:
                identity["weights"] = state["weights"] or identity["weights"]
            return Begun(began, epochs)
        if not taken:
            self.notes.append(
                f"the run that was here had not taken a step; it begins anew with other settings "
                f"({told})"
            )
            for slot in self._state.slots:
                slot.unlink(missing_ok=True)
            return None
        kept = (
            "; leave them as they were: a run keeps its steps on any number of processes"
            if changed.keys() <= {*_BATCHES}
            else ""
        )
        raise UserError(
            f"{self.path}: holds a run with other settings ({told}){kept}; "
            f"{self.ways_out(config, 'that run')}"
        )


def warn_of(what: str, error: OSError) -> None:
    """A full disk is said, and training continues: ``what`` is tried again when next due."""
    warn(
        f"{what} not written ({reason(error)}); training continues, and the last state that was "
        f"saved is intact"
    )


def _weights_identity(path: str | None) -> dict[str, str | None] | None:
    """Where start weights lie, and the SHA-256 of what is there (None: they are gone)."""
    if path is None:
        return None
    file = Path(path)
    digest = sha256_of(file) if file.is_file() else None
    return {"path": os.path.abspath(path), "digest": digest}


def _differences(
    state: Mapping[str, Any], now: Mapping[str, Any], epochs: int, world: int
) -> tuple[dict[str, str], list[str]]:
    """How a run differs from the one in ``state``: what forbids to go on, and what does not.

    Args:
        epochs: begun so far; the schedule may change after them.
        world: processes with which the run began.
    """
    before = Config.with_defaults(state["recipe"])
    old, new = flat(before), flat(now["recipe"])
    found = {
        key: f"{_shown(old.get(key))} -> {_shown(new.get(key))}"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    }
    harmless: dict[str, str] = {}
    rates = [k for k in found if k in _SCHEDULE or k.startswith(_SCHEDULE_ARGS)]
    if rates and _rates(before, epochs) == _rates(now["recipe"], epochs):
        harmless |= dict.fromkeys(rates, "the same rates up to here")
    if found.keys() & {*_BATCHES} and _steps(old, world) == _steps(new, world):
        harmless |= dict.fromkeys(_BATCHES, "the same steps")
    if same_data(state.get("data"), now["data"]):
        places = [k for k in found if k.startswith(_PLACES) and _is_place(old.get(k), new.get(k))]
        harmless |= dict.fromkeys(places, "the same samples")
    elif split_changed(state.get("data"), now["data"]):
        found["train split"] = (
            f"{state['data']['samples']} samples -> {now['data']['samples']} others"
        )
    if _same_weights(state["weights"], now["weights"]):
        harmless["weights"] = "the same weights"
    else:
        found.setdefault("weights", f"{_shown(new['weights'])} holds others than it began with")
    notes = [
        f"{key}: {change} ({harmless[key]})" for key, change in found.items() if key in harmless
    ]
    return {key: change for key, change in found.items() if key not in harmless}, notes


def _shown(value: Any) -> str:
    return "not set" if value is None else printable(repr(value))


def _rates(recipe: Mapping[str, Any], epochs: int) -> list[float]:
    try:
        return learning_rates(recipe, epochs)
    except UserError as error:  # a recipe that was saved can be wrong in any way
        raise ValueError(str(error)) from error


def _steps(recipe: Mapping[str, Any], world: int) -> BatchPlan | None:
    try:
        return plan_batches(recipe["batch_size"], recipe["global_batch_size"], world)
    except UserError:
        return None


def _is_place(*values: Any) -> bool:
    """Whether such values of a setting (None: its default) name places in the file system."""
    words = [w for v in values for w in (v if isinstance(v, list) else [v]) if w is not None]
    return all(isinstance(word, str) for word in words) and any(
        os.sep in word or os.path.exists(word) for word in words
    )


def _same_weights(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> bool:
    """Whether start weights are the same; those that are gone are known by their place."""
    if old is None or new is None:
        return old is new
    key = "path" if new["digest"] is None else "digest"
    return old[key] == new[key]
