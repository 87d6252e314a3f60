"""The error a model argument or an input of the wrong shape raises."""


class ModelError(ValueError):
    """One line: what was expected, what was given."""
