"""The folder of a run: who may write there, what is there already, what it is called."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .card import sha256_of
from .checkpoint import StateFile
from .config import RESOLVED, Config
from .errors import UserError, printable
from .files import reason, remove_leftovers
from .loading import BatchPlan, Identity, plan_batches, same_data, split_changed
from .locks import FolderLock, Locked
from .schedule import learning_rates

_WEIGHTS = ("runs-*.pt", "best.pt")
ARTEFACTS = (
    "resume.*.state",
    *_WEIGHTS,
    "runs-*.json",
    "best.json",
    "log.txt",
    "nonfinite_*.txt",
    "runs/*/events.out.tfevents.*",
    *(f"*_{kind}" for kind in ("each_class_acc.csv", "confusion.csv", "confusion.png")),
    *(f"*_{kind}" for kind in ("wrong.txt", "score.pkl", "score.npz")),
)
"""What a run writes, and all that ``--overwrite`` deletes (and the configuration's copy)."""

_SCHEDULE = ("base_lr", "step", "lr_decay_rate", "warm_up_epoch", "lr_scheduler", "num_epoch")
_SCHEDULE_ARGS = "lr_scheduler_args."
_BATCHES = ("batch_size", "global_batch_size")
_PLACES = "train_feeder_args."


@dataclass(frozen=True)
class Begun:
    """What is settled of a resumed run.

    Attributes:
        world: processes that it began with; they decide its steps.
        epochs: how many it has begun; it cannot end before the last of them.
    """

    world: int
    epochs: int


class WorkDir:
    """A run's folder, locked for as long as this object lives (rank 0 makes one).

    Attributes:
        identity: part of a state that says which run it is of; known once the folder is open.
        notes: what the log should say of how the folder was found.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.state = StateFile(self.path)
        self.identity: dict[str, Any] = {}
        self.notes: list[str] = []
        self._lock = FolderLock(self.path)

    def may_hold(self, config: Config) -> bool:
        """Whether a run lies here that ``config`` could resume (nothing is written)."""
        return config.phase == "train" and not _starts_over(config) and self.state.exists()

    def open(
        self,
        config: Config,
        config_file: str | Path,
        data: Identity | None = None,
        world: int = 1,
    ) -> Begun | None:
        """Lock the folder, save the resolved configuration there; return the run to resume.

        A training run is resumed where a state of the same recipe lies. A test run leaves a
        configuration that is there already as it is, and so does any run that was started by it.

        Args:
            data: of the training split.
            world: processes now.

        Raises:
            UserError: locked by another run, not writable, or holding another run.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            if self._lock.note:
                self.notes.append(self._lock.note)
            remove_leftovers(self.path, [*ARTEFACTS, f"*{Path(config_file).name}"])
            return self._settle(config, Path(config_file), data, world)
        except Locked as error:
            raise UserError(f"{self.path}: {error}; or say --work-dir OTHER") from error
        except OSError as error:
            self.close()
            raise UserError(f"{self.path}: work_dir cannot be written ({reason(error)})") from error
        except UserError:
            self.close()
            raise

    def _settle(
        self, config: Config, file: Path, data: Identity | None, world: int
    ) -> Begun | None:
        if config.phase == "test":
            if not os.path.lexists(self.path / file.name):
                config.save(self.path / file.name)
            return None
        if _starts_over(config):
            self._clear(config)
        self.identity = {
            "recipe": config.recipe(),
            "data": data,
            "weights": _weights_identity(config.weights),
        }
        begun = self._begun(config, world)
        self._save(config.with_epochs(begun.epochs) if begun else config, file)
        return begun

    def _save(self, config: Config, file: Path) -> None:
        """Save the resolved configuration under ``file``'s name, or beside what is not ours."""
        own = copy = self.path / file.name
        if copy.is_file() and copy.read_bytes() == config.as_yaml().encode():
            return
        while os.path.lexists(copy) and not _may_replace(copy, file):
            copy = copy.with_name(f"resolved_{copy.name}")
        config.save(copy)
        if copy != own:
            self.notes.append(f"{own} stays as it is; the resolved configuration is {copy}")

    def close(self) -> None:
        """Let another run in (where this one is in)."""
        self._lock.release()

    def _begun(self, config: Config, world: int) -> Begun | None:
        if not self.state.exists():
            others = sorted(p.name for pattern in _WEIGHTS for p in self.path.glob(pattern))
            if others:
                raise UserError(
                    f"{self.path}: holds weights ({others[0]}) but no state to resume from; "
                    f"{self._ways_out(config, 'them')}"
                )
            return None
        state, _ = self.state.load()
        if not isinstance(state.get("recipe"), dict):
            raise UserError(f"{self.state.slots[0]}: holds no run; start over with --overwrite")
        try:
            return self._compare(state, config, world)
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.state.slots[0]}: cannot be resumed ({printable(error)}); "
                f"start over with --overwrite"
            ) from error

    def _compare(self, state: Mapping[str, Any], config: Config, world: int) -> Begun | None:
        """What goes on of the run in ``state``; None where it is as good as not begun.

        Raises:
            UserError: it has taken steps that ``config`` would not take.
        """
        position = state["position"]
        taken = int(position["global_step"])
        epochs = int(position["epoch"]) + (int(position["step"]) > 0)
        began = max(int(state["world"]), 1) if taken else world
        changed, notes = _differences(state, self.identity, epochs, began)
        told = "; ".join(f"{key}: {change}" for key, change in changed.items())
        if not changed:
            self.notes += [f"changed since: {note}" for note in notes]
            if epochs > config.num_epoch:
                self.notes.append(
                    f"num_epoch {config.num_epoch} is less than the {epochs} epochs that this "
                    f"run has begun; it ends with epoch {epochs}"
                )
            if self.identity["weights"] and not self.identity["weights"]["digest"]:
                self.identity["weights"] = state.get("weights") or self.identity["weights"]
            return Begun(began, epochs)
        if not taken:
            self.notes.append(
                f"the run that was here had not taken a step; it begins anew with other settings "
                f"({told})"
            )
            for slot in self.state.slots:
                slot.unlink(missing_ok=True)
            return None
        kept = (
            "; leave them as they were: a run keeps its steps on any number of processes"
            if changed.keys() <= {*_BATCHES}
            else ""
        )
        raise UserError(
            f"{self.path}: holds a run with other settings ({told}){kept}; "
            f"{self._ways_out(config, 'that run')}"
        )

    def _clear(self, config: Config) -> None:
        if self._would_delete(config.weights):
            raise UserError(
                f"{config.weights}: --overwrite would delete the weights to start from; "
                f"{self._ways_out(config, '')}"
            )
        for path in self._artefacts():
            path.unlink()

    def _artefacts(self) -> list[Path]:
        return [path for pattern in ARTEFACTS for path in self.path.glob(pattern)]

    def _would_delete(self, weights: str | None) -> bool:
        there = weights is not None and Path(weights).exists()
        return there and any(path.samefile(str(weights)) for path in self._artefacts())

    def _ways_out(self, config: Config, what: str) -> str:
        if self._would_delete(config.weights):
            return f"say --work-dir OTHER, or move {config.weights} out of it first"
        return f"say --work-dir OTHER, or --overwrite to delete {what}"


def _starts_over(config: Config) -> bool:
    """Whether to delete what is there: not again where a launcher starts lost processes again."""
    return config.overwrite and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0


def _may_replace(copy: Path, file: Path) -> bool:
    """Whether ``copy`` is a resolved configuration of a run, and not the file that began this."""
    if not copy.is_file() or (file.exists() and copy.samefile(file)):
        return False
    with open(copy, "rb") as stream:
        return stream.read(len(RESOLVED)) == RESOLVED.encode()


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
    old, new = _flat(before), _flat(now["recipe"])
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
    if "weights" in state and _same_weights(state["weights"], now["weights"]):
        harmless["weights"] = "the same weights"
    elif "weights" in state:
        found.setdefault("weights", f"{_shown(new['weights'])} holds others than it began with")
    notes = [
        f"{key}: {change} ({harmless[key]})" for key, change in found.items() if key in harmless
    ]
    return {key: change for key, change in found.items() if key not in harmless}, notes


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings as one mapping of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        inner = isinstance(value, Mapping)
        flat |= _flat(value, f"{above}{key}.") if inner else {f"{above}{key}": value}
    return flat


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
