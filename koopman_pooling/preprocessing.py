"""From a clip in memory to what a model takes, by the preprocessing that its weights brought."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data.errors import DataError
from data.own import skeleton_of
from feeders.dataset import ArraySource, SkeletonDataset
from feeders.transforms import HOMES, ToOrigin
from torchlight.errors import UserError, printable
from torchlight.registry import with_each_built

Clip = Any
"""(T, V, C) or (M, T, V, C): an array, a tensor, or nested lists."""

_MOST_PERSONS = 20
_LARGEST = 100_000  # a window of so many frames is an hour


class Preprocessing(BaseModel):
    """What ``feeders.dataset.SkeletonDataset.preprocessing`` holds, checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    skeleton: dict[str, Any]
    channels: Annotated[str, Field(min_length=1, max_length=8)]
    kept_as: Literal["float32", "float64"]
    axes: Literal["CTVM", "TMVC"]
    transforms: list[dict[str, Any]]
    streams: list[str | dict[str, Any]]
    repeat: Annotated[int, Field(ge=1, le=1000)]
    seed: int
    dtype: Literal["float32", "float64"]


class ClipReader:
    """Makes datasets of clips that are no files.

    Args:
        content: as a card has it.
        allowed: packages that names of transforms and streams may lead into.

    Attributes:
        skeleton: whose joints. channels: C of a clip. kind: what they are: "xyz", "xy", or "xys"
            with a score. looks: how often a clip is seen.
        windows: in frames, of the transforms that have one. raw_ntu: clips are prepared as NTU
            RGB+D is.

    Raises:
        UserError: the content is none of a dataset's, or names what cannot be built.
    """

    def __init__(self, content: dict[str, Any], allowed: Iterable[str]) -> None:
        try:
            facts = Preprocessing.model_validate(content)
            self.skeleton = skeleton_of(facts.skeleton)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"preprocessing: {first_fault(error)}") from error
        parts: dict[str, Any] = {"transforms": facts.transforms, "streams": facts.streams}
        for part in [p for parts in parts.values() for p in parts if isinstance(p, dict)]:
            _check_part(f"preprocessing: {printable(part.get('name'))}", part)
        parts = with_each_built("preprocessing", parts, HOMES, ("feeders", *allowed))
        self._facts, self._parts = facts, parts
        self.kind, self.channels, self.looks = facts.channels, len(facts.channels), facts.repeat
        steps = parts["transforms"]
        self.windows = [step.window for step in steps if hasattr(step, "window")]
        self.raw_ntu = any(isinstance(step, ToOrigin) for step in steps)

    def dataset(
        self,
        clips: Sequence[Clip],
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
    ) -> SkeletonDataset:
        """The clips, in the order given, each seen ``looks`` times.

        Args:
            names: of the clips, for messages.

        Raises:
            DataError: one is no clip of this skeleton.
        """
        names = [f"clip {number}" for number in range(len(clips))] if names is None else names
        arrays = [self._clip(clip, name) for clip, name in zip(clips, names, strict=True)]
        source = ArraySource(
            self.skeleton,
            names,
            [0] * len(arrays) if labels is None else labels,
            [-1] * len(arrays),
            arrays,
            class_names,
        )
        facts = self._facts
        return SkeletonDataset(
            source, repeat=facts.repeat, seed=facts.seed, dtype=facts.dtype, **self._parts
        )

    def _clip(self, given: Clip, title: str) -> np.ndarray:
        """Joints (C, T, V, M), as the source kept them; what is no finite number is zero."""
        try:
            x = np.asarray(given.detach().cpu() if isinstance(given, torch.Tensor) else given)
        except (TypeError, ValueError) as error:
            raise DataError(f"{title}: no array of numbers ({printable(error)})") from error
        x = x[None] if x.ndim == 3 else x
        points, name = self.skeleton.num_point, self.skeleton.name
        fits = x.ndim == 4 and x.shape[2:] == (points, self.channels) and 0 not in x.shape
        if not fits or x.dtype.kind not in "iuf" or len(x) > _MOST_PERSONS:
            raise DataError(
                f"{title}: {x.dtype} {np.shape(given)}, expected numbers (frames, {points}, "
                f"{self.channels}) or (persons, frames, {points}, {self.channels}) of the "
                f"skeleton {name}"
            )
        x = x.astype(self._facts.kept_as)
        x = np.where(np.isfinite(x).all(axis=-1, keepdims=True), x, 0)
        if not x.any():
            raise DataError(f"{title}: nobody in any frame")
        if self._facts.axes == "CTVM":
            return np.ascontiguousarray(x.transpose(3, 1, 2, 0))
        return np.ascontiguousarray(x.transpose(1, 0, 2, 3)).transpose(3, 0, 2, 1)


def first_fault(error: Exception) -> str:
    """What is wrong, of what pydantic finds the first."""
    if not isinstance(error, ValidationError):
        return printable(error)
    fault = error.errors()[0]
    return printable(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}")


def _check_part(where: str, part: dict[str, Any]) -> None:
    """Refuse what cannot be built again, and what a stranger may want to be built."""
    if "unknown" in part:
        told = f"keeps no attribute {printable(part['unknown'])}, so that it does not travel"
        raise UserError(f"{where} {told}; transforms keep their arguments under their names")
    name = str(part.get("name"))
    if name.startswith("feeders.") and name.rpartition(".")[0] != HOMES["transforms"]:
        raise UserError(f"{where} is no transform")
    if any(isinstance(value, int | float) and abs(value) > _LARGEST for value in part.values()):
        raise UserError(f"{where}: has a number beyond {_LARGEST}")
