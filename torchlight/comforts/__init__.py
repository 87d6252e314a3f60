"""A wing: what is looked up for people at a terminal: configurations, runs, flags as they type.

``cli.wing`` fetches it for ``--config list``, ``--resume last`` and ``--completion SHELL``.
"""

from .completion import completion
from .found import last_run, listed

__all__ = ["completion", "last_run", "listed"]
