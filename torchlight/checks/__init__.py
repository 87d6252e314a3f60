"""A wing: what is compared and tried before a run, to say early what would go wrong late."""

from .fit import check_model
from .parts import check_optimizer
from .together import check_data

__all__ = ["check_data", "check_model", "check_optimizer"]
