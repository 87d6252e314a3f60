"""Skeleton action recognition in one line: ``load("nw-ucla-fast").predict(clip)``.

    from koopman_pooling import load

docs/python.md has more. ``koopman_pooling.rooms`` says how it goes with modules of other people.
"""

from typing import TYPE_CHECKING, Any

from koopman_pooling.rooms import settle

if TYPE_CHECKING:
    from koopman_pooling.loading import load
    from koopman_pooling.recogniser import Prediction, Recogniser

__all__ = ["Prediction", "Recogniser", "load"]

settle()


def __getattr__(name: str) -> Any:
    """What is imported when it is asked for, so that importing the package costs nothing."""
    if name == "load":
        from koopman_pooling.loading import load

        return load
    if name in ("Prediction", "Recogniser"):
        from koopman_pooling import recogniser

        return getattr(recogniser, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
