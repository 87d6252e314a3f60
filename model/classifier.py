"""The classifier: CTR-GCN backbone, features pooled over the body, and a head.

Shapes: N batch, C channels, T frames, V joints, M persons, d feature width (256).
"""

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from data.skeletons import Skeleton
from model.ctrgcn import CHANNELS, Backbone
from model.errors import ModelError
from model.graph import graph_arguments, resolve_graph
from model.heads import HEADS
from model.published import imported_class


class Model(Backbone):
    """Skeleton action classifier.

    Parameters and buffers carry the names of published checkpoints, in their order.

    Args:
        num_class: number of classes.
        num_point: V; must be the graph's.
        num_person: M.
        graph: a dotted name (own or published), a class, or an object with ``A`` (3, V, V).
        graph_args: constructor arguments of the graph, such as its skeleton or its edges.
        in_channels: C.
        head: a name in ``model.heads.HEADS``, a class, or its dotted name.
        freeze_koopman, init, scale: of the Koopman head, see there.
        drop_out: of the average head.
        return_features: ``forward`` also returns the pooled features, for one-shot matching.
        adaptive: learn the adjacency, starting at the graph's.
        recompute: compute the graph units' features again in the backward pass: a third less memory
            for a tenth to a quarter more time, and the same results.
        channels: output channels of the blocks; the last is d. A small model has fewer or narrower
            blocks.
        stride: stride in time of each block; by default 1, and 2 in blocks 5 and 8 under the
            average head.
        head_args: arguments of a head of one's own.

    Raises:
        ModelError: arguments that do not fit together.
    """

    free_arguments: ClassVar = (
        *("graph", "graph_args", "init"),  # where learning starts
        *("freeze_koopman", "return_features", "drop_out", "recompute"),
    )
    """What trained weights compute does not depend on these."""

    parts: ClassVar = {"graph": 0, "head": 2}
    """Arguments that name a class, and how many of that class's first arguments are set here."""

    from_data: ClassVar = ("num_point", "num_person", "in_channels", "graph", "graph_args")
    """Arguments that ``arguments_of`` may know."""

    def __init__(
        self,
        num_class: int,
        num_point: int,
        num_person: int,
        graph: Any = "model.graph.Graph",
        graph_args: dict[str, Any] | None = None,
        in_channels: int = 3,
        *,
        head: Any = "koopman",
        freeze_koopman: bool = False,
        init: str = "normal",
        scale: str = "none",
        drop_out: float = 0.0,
        return_features: bool = False,
        adaptive: bool = True,
        recompute: bool = False,
        channels: Sequence[int] = CHANNELS,
        stride: Sequence[int] | None = None,
        head_args: dict[str, Any] | None = None,
    ) -> None:
        adjacency = resolve_graph(graph, graph_args)
        sizes = {"num_class": num_class, "num_person": num_person, "in_channels": in_channels}
        for name, value in sizes.items():
            if value < 1:
                raise ModelError(f"model: {name} must be 1 or more, got {value}")
        if num_point != adjacency.shape[-1]:
            raise ModelError(
                f"model: num_point is {num_point}, but the graph has {adjacency.shape[-1]} joints"
            )
        head_class = _head_class(head)
        short = {"freeze_koopman": freeze_koopman, "init": init, "scale": scale}
        own = _head_arguments(head_class, {**short, "drop_out": drop_out}, head_args or {})
        super().__init__(
            adjacency,
            num_person=num_person,
            in_channels=in_channels,
            channels=channels,
            strides=_default_strides(head_class, len(channels)) if stride is None else stride,
            adaptive=adaptive,
            recompute=recompute,
        )
        self.num_class = num_class
        self.return_features = return_features
        self.fc: Any = head_class(channels[-1], num_class, **own)
        for name in getattr(self.fc, "at_root", ()):
            parameter = getattr(self.fc, name)
            delattr(self.fc, name)
            self.register_parameter(name, parameter)

    @classmethod
    def arguments_of(cls, shape: Sequence[int], dataset: Any) -> dict[str, Any]:
        """Return the arguments that follow from the data.

        Args:
            shape: of a sample, (C, T, V, M), or (T, V*C) of a dataset that has a ``skeleton``.
            dataset: its ``skeleton`` (a ``data.skeletons.Skeleton``) gives the graph.
        """
        skeleton = getattr(dataset, "skeleton", None)
        skeleton = skeleton if isinstance(skeleton, Skeleton) else None
        found: dict[str, Any] = {}
        if len(shape) == 2 and skeleton is not None:
            shape = (shape[1] // skeleton.num_point, shape[0], skeleton.num_point, 1)
        if len(shape) == 4:
            found = {"in_channels": shape[0], "num_point": shape[2], "num_person": shape[3]}
        if skeleton is not None:
            found |= {"graph": "model.graph.Graph", "graph_args": graph_arguments(skeleton)}
        return found

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits (N, num_class), with ``return_features`` also the pooled (N, d, T).

        Args:
            x: (N, C, T, V, M), or (N, T, V*C) with C fastest and M = 1.

        Raises:
            ModelError: an input of another shape, or too short for the head.
        """
        features = self.pooled(x)
        at_root = {name: getattr(self, name) for name in getattr(self.fc, "at_root", ())}
        logits = self.fc(features, **at_root)
        return (logits, features) if self.return_features else logits


def _head_class(head: Any) -> type[nn.Module]:
    """Return the class of a head given by name, by dotted name or as a class."""
    if isinstance(head, str) and "." in head:
        head = imported_class("head", head)
    if isinstance(head, str) and head in HEADS:
        return HEADS[head]
    if isinstance(head, type) and issubclass(head, nn.Module):
        return head
    raise ModelError(f"model: head {head!r} is not one of {list(HEADS)}")


def _head_arguments(
    head: type[nn.Module], short: dict[str, Any], given: dict[str, Any]
) -> dict[str, Any]:
    """Return the head's arguments: those of the classifier that it takes, and ``head_args``."""
    known = inspect.signature(head).parameters
    defaults = inspect.signature(Model).parameters
    for name in [name for name in short if name not in known]:
        if short.pop(name) != defaults[name].default:
            raise ModelError(f"model: {name} is no argument of the head {head.__name__}")
    for name in given:
        if name not in known or name in ("width", "num_class"):
            raise ModelError(f"model: head_args: {head.__name__} takes no argument {name!r}")
    return {**short, **given}


def _default_strides(head: type[nn.Module], blocks: int) -> tuple[int, ...]:
    """Return the stride of each block that the head was published with."""
    halved = getattr(head, "halved_at_blocks", ())
    return tuple(2 if block in halved else 1 for block in range(1, blocks + 1))
