"""The error a data file or a data argument of the user's raises."""

from torchlight.terminal import printable

__all__ = ["DataError", "printable"]


class DataError(ValueError):
    """One line: what is wrong, in which file (line, key), what to do."""
