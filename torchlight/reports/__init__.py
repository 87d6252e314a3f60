"""A wing: what an evaluation says beyond its accuracy, as tables and pictures in the work dir.

It is plugged in by ``attach(run)``; without this folder a run trains and tests all the same.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from torchlight.callbacks import Callback, Run
from torchlight.errors import Stopped, printable
from torchlight.evaluation import Evaluation
from torchlight.log import warn

from .tables import write_methods, write_report

__all__ = ["Reports", "attach", "write_methods"]


class Reports(Callback):
    """Writes tables and the page, and shows the best epoch's confusions beside the curves.

    Attributes:
        sections: what an application adds to the page; see ``torchlight.reports.page``.
    """

    def __init__(self) -> None:
        self.sections: dict[str, Any] = {}

    def on_report(self, run: Run, stem: str, found: Evaluation) -> None:
        """Write the four files that ``write_report`` names, and at the end the page."""
        folder, names = run.folder.path, getattr(run.sets["test"], "class_names", None)
        paths = write_report(folder, stem, found.scores, found.labels, found.names, names)
        run.log.info(f"reports: {', '.join(path.name for path in paths)}")
        if run.config.phase == "train":
            with Image.open(folder / f"{stem}_confusion.png") as picture:
                pixels = np.asarray(picture.convert("RGB"))
            run.show({f"{stem.partition('_')[0]}/confusion": pixels})
        self._page(run, stem, found, [str(n) for n in names or range(found.scores.shape[1])])

    def _page(self, run: Run, stem: str, found: Evaluation, classes: Sequence[str]) -> None:
        """The page and what it needs: of a training once, when all is known. No run fails by it."""
        try:
            from .page import write_embedding, write_page

            started, predicted = time.monotonic(), found.scores.argmax(axis=1)
            if stem != ("last_test" if "val" in run.sets else "best_test"):
                samples = zip(found.names, found.labels, predicted, strict=True)
                rows = [[name, classes[true], classes[taken]] for name, true, taken in samples]
                write_embedding(run.folder.path, stem, found.scores, rows)
            if stem != "last_test":
                page = write_page(run.folder.path, self.sections)
                run.log.info(f"page: {page.name} ({time.monotonic() - started:.1f} s)")
        except Stopped:
            raise
        except Exception as error:
            warn(f"no page ({type(error).__name__}: {printable(error)})")


def attach(run: Run) -> Run:
    """Have a run's evaluations reported."""
    run.callbacks.append(Reports())
    return run
