"""A wing: what a model is and what a run would take, measured and said; nothing is written.

It is plugged in by ``measure(run)``, for ``--phase summary`` and ``--dry-run``.
"""

from .parts import layers, table
from .run import measure

__all__ = ["layers", "measure", "table"]
