"""Both stages of a tiny Koopman model with the normalisation between, as a chain of commands."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from chaos.forked import Main
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import eigen_normalization
import main_multigpu
from torchlight.checkpoint import load_weights
from torchlight.fusion.reading import read_scores
from torchlight.resilience.states import StateFile

logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of each purge
FEEDER = {"actions": 4, "performers": 4, "replications": 1, "window_size": 12}
CONFIG = {
    "feeder": "feeders.feeder_demo.Feeder",
    "train_feeder_args": {"split": "train", **FEEDER},
    "test_feeder_args": {"split": "test", **FEEDER},
    "model": "model.classifier.Model",
    "model_args": {
        "num_class": 4,
        "num_point": 25,
        "num_person": 1,
        "graph": "model.graph.Graph",
        "graph_args": {"skeleton": "ntu"},
        "channels": [8, 16],
    },
    "base_lr": 0.05,
    "step": [2],
    "nesterov": True,
    "batch_size": 4,
    "global_batch_size": 8,
    "test_batch_size": 8,
    "num_epoch": 3,
    "eval_interval": 1,
    "save_interval": 2,
    "log_interval": 2,
    "save_minutes": 0.0005,
    "save_score": True,
    "num_worker": 0,
    "device": "cpu",
    "rank_timeout_s": 5,
    "timeout_minutes": 0.3,
}


@dataclass(frozen=True)
class Stage:
    """One command of the chain, and whether it runs on all ranks."""

    name: str
    main: Main
    words: list[str]
    trains: bool


def stages(folder: Path) -> list[Stage]:
    """The chain's commands, with everything they read and write in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    tune = {**CONFIG, "base_lr": 0.01}
    tune["model_args"] = {**CONFIG["model_args"], "freeze_koopman": True}  # type: ignore[dict-item]
    for name, values in (("koopman", CONFIG), ("tune", tune)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    first, second = folder / "first", folder / "second"
    normalized = first / "normalized.pt"
    paths = ["--load-path", str(first / "best.pt"), "--save-path", str(normalized), "--overwrite"]
    return [
        Stage("koopman", main_multigpu.main, _train(folder / "koopman.yaml", first), True),
        Stage("eigen", eigen_normalization.main, [*paths, "--rank", "8"], False),
        Stage(
            "tune",
            main_multigpu.main,
            [*_train(folder / "tune.yaml", second), "--weights", str(normalized)],
            True,
        ),
    ]


def _train(config: Path, work: Path) -> list[str]:
    return ["--config", str(config), "--work-dir", str(work)]


def differences(one: Path, two: Path) -> list[str]:
    """What differs between two finished chains: to the last bit, but for paths and times."""
    found = []
    for stage in ("first", "second"):
        left, right = one / stage, two / stage
        names = [sorted(path.name for path in folder.glob("*.pt")) for folder in (left, right)]
        found += [f"{stage}: files {names}"] if names[0] != names[1] else []
        for name in set(names[0]) & set(names[1]):
            if not _same(load_weights(left / name), load_weights(right / name)):
                found.append(f"{stage}: {name}")
        states = [StateFile(folder).load()[0] for folder in (left, right)]
        for key in states[0].keys() - {"recipe"}:
            if not _same(states[0][key], states[1][key]):
                found.append(f"{stage}: state, {key}")
        scores = [read_scores(folder / "epoch1_test_score.npz") for folder in (left, right)]
        if not np.array_equal(scores[0].scores, scores[1].scores):
            found.append(f"{stage}: scores")
        if curves(left) != curves(right):
            found.append(f"{stage}: curves")
        for name in ("best_test_confusion.csv", "last_test_wrong.txt"):
            if (left / name).read_bytes() != (right / name).read_bytes():
                found.append(f"{stage}: {name}")
    return found


def leftovers(folder: Path) -> list[str]:
    """Temporary files."""
    return sorted(str(path) for path in folder.rglob("*.tmp"))


def curves(work: Path) -> dict[str, list[tuple[int, float]]]:
    """Every curve's (step, value), as TensorBoard shows them."""
    found = {}
    for part in ("train", "val"):
        events = EventAccumulator(str(work / "runs" / part)).Reload()
        for tag in events.Tags()["scalars"]:
            found[f"{part}/{tag}"] = [(e.step, e.value) for e in events.Scalars(tag)]
    return found


def _same(a: Any, b: Any) -> bool:
    if torch.is_tensor(a):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return a == b
