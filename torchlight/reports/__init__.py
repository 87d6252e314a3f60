"""A wing: what an evaluation says beyond its accuracy, as tables and pictures in the work dir.

It is plugged in by ``attach(run)``; without this folder a run trains and tests all the same.
"""

import numpy as np

from torchlight.callbacks import Callback, Run
from torchlight.evaluation import Evaluation
from torchlight.metrics import confusion

from .tables import confusion_picture, write_methods, write_report

__all__ = ["attach", "write_methods"]


class Reports(Callback):
    """Writes tables, and shows the best epoch's confusions beside the curves."""

    def on_report(self, run: Run, stem: str, found: Evaluation) -> None:
        """Write the four files that ``write_report`` names."""
        names = getattr(run.sets["test"], "class_names", None)
        paths = write_report(run.folder.path, stem, found.scores, found.labels, found.names, names)
        run.log.info(f"reports: {', '.join(path.name for path in paths)}")
        if run.config.phase == "train":
            matrix = confusion(found.scores, found.labels)
            classes = [str(name) for name in names or range(len(matrix))]
            picture = confusion_picture(matrix, classes, dpi=60).buffer_rgba()
            run.show({f"{stem.partition('_')[0]}/confusion": np.asarray(picture)[..., :3]})


def attach(run: Run) -> Run:
    """Have a run's evaluations reported."""
    run.callbacks.append(Reports())
    return run
