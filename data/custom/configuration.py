"""The configuration that trains on own skeletons."""

from pathlib import Path
from typing import Any

import yaml

from data.own import Tables
from torchlight.files import atomic_write

_WINDOW = 64
_BATCH = 16

_HEAD = """\
# Own skeletons: python main_multigpu.py --config {path}
# For a small model, minutes on two cores: --model-args channels=[16,32,64] stride=[1,1,1]
"""


def configuration(store: Path, tables: Tables, splits: tuple[str, str]) -> dict[str, Any]:
    """The published training, on these data.

    Args:
        store: the file. splits: for training and for testing.
    """
    usual = float(sorted(tables.frames)[len(tables.frames) // 2])
    window = _WINDOW if usual > _WINDOW * 0.75 else max(16, 8 * round(usual / 8))
    data = {"data_path": str(store.absolute()), "window_size": window}
    train: dict[str, Any] = {**data, "split": splits[0], "p_interval": [0.5, 1]}
    if tables.channels == "xyz":
        train["random_rot"] = True
    batch = max(1, min(_BATCH, len(tables.splits[splits[0]]) // 2))
    return {
        "work_dir": f"./work_dir/{store.stem}",
        "feeder": "feeders.feeder_own.Feeder",
        "train_feeder_args": train,
        "test_feeder_args": {**data, "split": splits[1], "p_interval": [0.95]},
        "model": "model.classifier.Model",
        "base_lr": 0.1,
        "warm_up_epoch": 5,
        "num_epoch": 65,
        "step": [35, 55],
        "weight_decay": 0.0004,
        "nesterov": True,
        "batch_size": batch,
        "global_batch_size": batch,
    }


def write_configuration(path: Path, content: dict[str, Any]) -> list[str]:
    """Write it; one of this name that says something else is kept as ``.yaml.old``."""
    text = _HEAD.format(path=path) + yaml.safe_dump(content, sort_keys=False)
    kept = []
    if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
        path.replace(f"{path}.old")
        kept = [f"{path} said something else: kept as {path}.old"]
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return kept
