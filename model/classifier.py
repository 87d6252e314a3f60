"""The classifier: CTR-GCN backbone, features pooled over the body, and a head.

Shapes: N batch, C channels, T frames, V joints, M persons, d feature width (256).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from model.ctrgcn import CHANNELS, Backbone
from model.errors import ModelError
from model.graph import resolve_graph
from model.heads import AverageHead, KoopmanHead

HEADS = ("koopman", "average")
HALVED_AT_BLOCKS = (5, 8)
"""Blocks, counted from 1, in which plain CTR-GCN halves time; Koopman keeps all frames."""


class Model(Backbone):
    """Skeleton action classifier.

    Parameters and buffers carry the names of published checkpoints, in their order.

    Args:
        num_class: number of classes.
        num_point: V; must be the graph's.
        num_person: M.
        graph: a dotted name (own or published), a class, or an object with ``A`` (3, V, V).
        graph_args: constructor arguments of the graph.
        in_channels: C.
        head: ``"koopman"`` (one operator a class) or ``"average"`` (mean over time, linear).
        freeze_koopman: K takes no gradient: the second stage.
        return_features: ``forward`` also returns the pooled features, for one-shot matching.
        drop_out: dropout probability before the linear layer of the average head.
        adaptive: learn the adjacency, starting at the graph's.
        recompute: compute the graph units' features again in the backward pass: a third less memory
            for a tenth to a quarter more time, and the same results.
        channels: output channels of the blocks; the last is d. A small model has fewer or narrower
            blocks.
        stride: stride in time of each block; by default 1, and 2 in blocks 5 and 8 under the
            average head.

    Raises:
        ModelError: arguments that do not fit together.
    """

    free_arguments: ClassVar = (
        *("graph", "graph_args"),  # where learning starts
        *("freeze_koopman", "return_features", "drop_out", "recompute"),
    )
    """What trained weights compute does not depend on these."""

    def __init__(
        self,
        num_class: int,
        num_point: int,
        num_person: int,
        graph: Any,
        graph_args: dict[str, Any] | None = None,
        in_channels: int = 3,
        *,
        head: str = "koopman",
        freeze_koopman: bool = False,
        return_features: bool = False,
        drop_out: float = 0.0,
        adaptive: bool = True,
        recompute: bool = False,
        channels: Sequence[int] = CHANNELS,
        stride: Sequence[int] | None = None,
    ) -> None:
        adjacency = resolve_graph(graph, graph_args)
        _check_arguments(num_class, num_point, num_person, in_channels, adjacency.shape[-1])
        _check_head(head, freeze_koopman, drop_out)
        super().__init__(
            adjacency,
            num_person=num_person,
            in_channels=in_channels,
            channels=channels,
            strides=default_strides(head, len(channels)) if stride is None else stride,
            adaptive=adaptive,
            recompute=recompute,
        )
        self.num_class = num_class
        self.return_features = return_features
        width = channels[-1]
        self.fc: KoopmanHead | AverageHead
        if head == "koopman":
            operators = torch.randn(num_class, width, width)
            self.K = nn.Parameter(operators, requires_grad=not freeze_koopman)
            self.fc = KoopmanHead(width, num_class)
        else:
            self.fc = AverageHead(width, num_class, drop_out=drop_out)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits (N, num_class), with ``return_features`` also the pooled (N, d, T).

        Args:
            x: (N, C, T, V, M), or (N, T, V*C) with C fastest and M = 1.

        Raises:
            ModelError: an input of another shape, or too short for the head.
        """
        features = self.pooled(x)
        if isinstance(self.fc, KoopmanHead):
            logits = self.fc(features, self.K)
        else:
            logits = self.fc(features)
        return (logits, features) if self.return_features else logits


def default_strides(head: str, blocks: int) -> tuple[int, ...]:
    """Return the stride of each block that the head was published with."""
    halved = HALVED_AT_BLOCKS if head == "average" else ()
    return tuple(2 if block in halved else 1 for block in range(1, blocks + 1))


def _check_arguments(
    num_class: int, num_point: int, num_person: int, in_channels: int, graph_points: int
) -> None:
    for name, value in (
        ("num_class", num_class),
        ("num_person", num_person),
        ("in_channels", in_channels),
    ):
        if value < 1:
            raise ModelError(f"model: {name} must be 1 or more, got {value}")
    if num_point != graph_points:
        raise ModelError(
            f"model: num_point is {num_point}, but the graph has {graph_points} joints"
        )


def _check_head(head: str, freeze_koopman: bool, drop_out: float) -> None:
    if head not in HEADS:
        raise ModelError(f"model: head {head!r} is not one of {list(HEADS)}")
    if head != "koopman" and freeze_koopman:
        raise ModelError("model: freeze_koopman is for the koopman head")
    if head != "average" and drop_out:
        raise ModelError("model: drop_out is for the average head")
    if not 0 <= drop_out < 1:
        raise ModelError(f"model: drop_out is a probability below 1, got {drop_out}")
