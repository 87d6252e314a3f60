"""A wing: what is looked up for people at a terminal: configurations, runs, flags as they type.

``cli.wing`` fetches it for ``--config list``, ``--resume last`` and ``--completion SHELL``.
"""

from .found import last_run, listed
from .shells import completion

__all__ = ["completion", "last_run", "listed"]
