"""The folder of a run: who may write there, what is there already, what it is called."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .checkpoint import StateFile
from .config import Config
from .errors import UserError, printable
from .files import reason, remove_leftovers
from .locks import FolderLock, Locked

ARTEFACTS = (
    "resume.*.state",
    "runs-*.pt",
    "best.pt",
    "log.txt",
    "nonfinite_*.txt",
    "runs/*/events.out.tfevents.*",
    *(f"*_{kind}" for kind in ("each_class_acc.csv", "confusion.csv", "confusion.png")),
    *(f"*_{kind}" for kind in ("wrong.txt", "score.pkl", "score.npz")),
)
"""What a run writes, and all that ``--overwrite`` deletes (and the configuration's copy)."""


class WorkDir:
    """A run's folder, locked for as long as this object lives (rank 0 makes one)."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.state = StateFile(self.path)
        self._lock = FolderLock(self.path)

    @property
    def note(self) -> str | None:
        """What to say of a lock that does not keep everybody out."""
        return self._lock.note

    def open(self, config: Config, config_name: str) -> bool:
        """Lock the folder, save the resolved configuration there; return whether to resume.

        A training run is resumed where a state of the same recipe lies. A test run leaves a
        configuration that is there already as it is.

        Raises:
            UserError: locked by another run, not writable, or holding another run.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            remove_leftovers(self.path, [*ARTEFACTS, config_name])
            return self._settle(config, self.path / config_name)
        except Locked as error:
            raise UserError(f"{self.path}: {error}; or say --work-dir OTHER") from error
        except OSError as error:
            self.close()
            raise UserError(f"{self.path}: work_dir cannot be written ({reason(error)})") from error
        except UserError:
            self.close()
            raise

    def _settle(self, config: Config, copy: Path) -> bool:
        if config.phase == "test":
            if not copy.exists():
                config.save(copy)
            return False
        if config.overwrite:
            self._clear()
        resume = self._resumable(config)
        config.save(copy)
        return resume

    def close(self) -> None:
        """Let another run in (where this one is in)."""
        self._lock.release()

    def _resumable(self, config: Config) -> bool:
        if self.state.exists():
            state, _ = self.state.load()
            recipe = state.get("recipe")
            if not isinstance(recipe, dict):
                raise UserError(f"{self.state.slots[0]}: holds no run; start over with --overwrite")
            changed = _changed(recipe, config.recipe())
            if changed:
                raise UserError(
                    f"{self.path}: holds a run with other settings ({printable(changed)}); "
                    f"say --work-dir OTHER, or --overwrite to delete that run"
                )
            return True
        strangers = sorted(path.name for path in self.path.glob("*.pt"))
        if strangers:
            raise UserError(
                f"{self.path}: holds weights ({strangers[0]}) but no state to resume from; "
                f"say --work-dir OTHER, or --overwrite to delete them"
            )
        return False

    def _clear(self) -> None:
        for pattern in ARTEFACTS:
            for path in self.path.glob(pattern):
                path.unlink()


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The settings that differ, as ``key: old -> new``."""
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    shown = [f"{key}: {old.get(key)!r:.60} -> {new.get(key)!r:.60}" for key in keys[:3]]
    return ", ".join([*shown, *(["..."] if len(keys) > 3 else [])])
