"""A made-up NW-UCLA: files of its form and names, with random joints."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ACTIONS = (1, 2, 3, 4, 5, 6, 8, 9, 11, 12)


def write_ucla(
    folder: Path, actions: Sequence[int] = ACTIONS, views: Sequence[int] = (1, 2, 3)
) -> None:
    """Write one sequence of each action and view to ``folder``."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for action in actions:
        for view in views:
            name = f"a{action:02d}_s01_e00_v{view:02d}"
            frames = random.normal(size=(5, 20, 3)).round(4).tolist()
            label = ACTIONS.index(action) + 1
            content = {"file_name": name, "skeletons": frames, "label": label}
            (folder / f"{name}.json").write_text(json.dumps(content))
