"""A wing: runs that survive kills, signals, lost ranks, losses of NaN and full disks.

It is plugged in by ``watched(world)`` and ``attach(run)``; without this folder a run trains, tests
and saves its weights all the same.
"""

from torchlight.callbacks import Run

from .autosave import Autosave
from .nonfinite import NonFinite
from .watch import watched
from .workdir import ResumableWorkDir

__all__ = ["attach", "watched"]


def attach(run: Run) -> Run:
    """Let a run be resumed, and stop it before it saves what is not finite."""
    finite = NonFinite()
    run.folder = folder = ResumableWorkDir(run.folder.path)
    run.callbacks = [finite, *run.callbacks, Autosave(folder, finite)]
    return run
