"""The folder of a run: its resolved configuration, its weights, and never those of another run."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .card import Card
from .checkpoint import save_weights
from .config import RESOLVED, Config
from .errors import UserError
from .files import reason
from .loading import Dataset

_WEIGHTS = ("runs-*.pt", "best.pt")
ARTEFACTS = (
    "resume.*.state",
    *_WEIGHTS,
    "runs-*.json",
    "best.json",
    "log.txt",
    "curves.csv",
    "nonfinite_*.txt",
    "runs/events.out.tfevents.*",
    "runs/*/events.out.tfevents.*",
    *(f"*_{kind}" for kind in ("each_class_acc.csv", "confusion.csv", "confusion.png")),
    *(f"*_{kind}" for kind in ("wrong.txt", "embedding.csv", "score.pkl", "score.npz")),
    "report.html",
)
"""What a run writes, and all that ``--overwrite`` deletes (and the configuration's copy)."""


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
    """A run's folder, which ``open`` (on rank 0) claims.

    Attributes:
        notes: what the log should say of how the folder was found.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.notes: list[str] = []

    def may_resume(self, config: Config) -> bool:
        """Whether a run lies here that ``config`` could resume (nothing is written)."""
        return False

    def open(
        self, config: Config, config_file: str | Path, train_set: Dataset | None, world: int
    ) -> Begun | None:
        """Save the resolved configuration in the folder; return the run to resume, if any.

        A test run leaves a configuration that is there already as it is, and so does any run that
        was started by it.

        Args:
            train_set: None in a test.
            world: processes now.

        Raises:
            UserError: not writable, or holding another run.
        """
        file = Path(config_file)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.claim(file)
            if config.phase == "test":
                if not os.path.lexists(self.path / file.name):
                    config.save(self.path / file.name)
                return None
            if starts_over(config):
                self._clear(config)
            begun = self.find(config, train_set, world)
            self._save(config.with_epochs(begun.epochs) if begun else config, file)
            return begun
        except OSError as error:
            raise UserError(f"{self.path}: work_dir cannot be written ({reason(error)})") from error

    def claim(self, config_file: Path) -> None:
        """Keep other runs out."""

    def find(self, config: Config, train_set: Dataset | None, world: int) -> Begun | None:
        """The run to resume.

        Raises:
            UserError: what is there cannot be resumed.
        """
        others = sorted(p.name for pattern in _WEIGHTS for p in self.path.glob(pattern))
        if others:
            raise UserError(
                f"{self.path}: holds weights ({others[0]}) but no state to resume from; "
                f"{self.ways_out(config, 'them')}"
            )
        return None

    def restore(self, run: Any) -> None:
        """Give a run the state that was found (on every rank)."""

    def save_weights(self, name: str, weights: Mapping[str, torch.Tensor], card: Card) -> None:
        """Write ``weights`` as ``name`` and their card beside them."""
        save_weights(self.path / name, weights, card)

    def finish(self) -> None:
        """Write what is still to be written."""

    def close(self) -> None:
        """Let another run in."""

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

    def _clear(self, config: Config) -> None:
        if self._would_delete(config.weights):
            raise UserError(
                f"{config.weights}: --overwrite would delete the weights to start from; "
                f"{self.ways_out(config, '')}"
            )
        for path in self._artefacts():
            path.unlink()

    def _artefacts(self) -> list[Path]:
        return [path for pattern in ARTEFACTS for path in self.path.glob(pattern)]

    def _would_delete(self, weights: str | None) -> bool:
        there = weights is not None and Path(weights).exists()
        return there and any(path.samefile(str(weights)) for path in self._artefacts())

    def ways_out(self, config: Config, what: str) -> str:
        """What to do where ``what`` is in the way."""
        if self._would_delete(config.weights):
            return f"say --work-dir OTHER, or move {config.weights} out of it first"
        return f"say --work-dir OTHER, or --overwrite to delete {what}"


def starts_over(config: Config) -> bool:
    """Whether to delete what is there: not again where a launcher starts lost processes again."""
    return config.overwrite and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0


def _may_replace(copy: Path, file: Path) -> bool:
    """Whether ``copy`` is a resolved configuration of a run, and not the file that began this."""
    if not copy.is_file() or (file.exists() and copy.samefile(file)):
        return False
    with open(copy, "rb") as stream:
        return stream.read(len(RESOLVED)) == RESOLVED.encode()


def check_settings(path: Path, settings: Mapping[str, object]) -> str:
    """What results will be of, as text to ``path``; those of other settings are not overwritten.

    Raises:
        UserError: names the settings that differ from those in ``path``.
    """
    text = json.dumps(settings, indent=2, sort_keys=True)
    there = path.read_text(encoding="utf-8", errors="replace") if path.exists() else text
    changed = set(there.splitlines()) ^ set(text.splitlines())
    if changed:
        keys = sorted({line.split('"')[1] for line in changed if '"' in line})
        raise UserError(
            f"{path}: results of other settings are there ({', '.join(keys)}); say "
            f"--work-dir OTHER, or remove this file to replace them"
        )
    return text
