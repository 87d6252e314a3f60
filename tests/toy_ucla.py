"""A made-up NW-UCLA: files of its form and names, with random joints."""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

ACTIONS = (1, 2, 3, 4, 5, 6, 8, 9, 11, 12)


def write_ucla(
    folder: Path,
    actions: Sequence[int] = ACTIONS,
    views: Sequence[int] = (1, 2, 3),
    subjects: Sequence[int] = (1,),
) -> None:
    """Write one sequence of each action, view and subject to ``folder``."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for action, view, subject in product(actions, views, subjects):
        name = f"a{action:02d}_s{subject:02d}_e00_v{view:02d}"
        frames = random.normal(size=(5, 20, 3)).round(4).tolist()
        label = ACTIONS.index(action) + 1
        content = {"file_name": name, "skeletons": frames, "label": label}
        (folder / f"{name}.json").write_text(json.dumps(content))
