"""The joints' graph as the three adjacency matrices that CTR-GCN starts from."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data.skeletons import SKELETONS, Skeleton
from model.errors import ModelError
from model.published import ALIASES, imported_class


class Graph:
    """Self links, inward and outward bones of a skeleton.

    Either ``skeleton`` names one that is known here, or ``edges`` describe one.

    Args:
        skeleton: ``"ntu"`` (V = 25) or ``"ucla"`` (V = 20).
        edges: (child, parent) pairs of joints, counted from 0, pointing towards the centre.
        num_point: number of joints V; of edges one more than the last they name.
        center: the centre joint; only checked here (the bone stream of a feeder needs it).
        labeling_mode: ``"spatial"``, the one partition there is; published files name it.

    Attributes:
        A: float64 (3, V, V): identity; A[1][parent, child] and A[2][child, parent] are one for
            each bone, columns divided by their sums (Chen et al., ICCV 2021, section 3.1).
        num_point: V.

    Raises:
        ModelError: unknown name, or edges that make no connected graph of V joints.
    """

    def __init__(
        self,
        skeleton: str | None = None,
        *,
        edges: Sequence[Sequence[int]] | None = None,
        num_point: int | None = None,
        center: int | None = None,
        labeling_mode: str = "spatial",
    ) -> None:
        if labeling_mode != "spatial":
            raise ModelError(f"graph: labeling_mode {labeling_mode!r} is unknown; use 'spatial'")
        if (skeleton is None) == (edges is None):
            raise ModelError(
                "graph: say either graph_args: {skeleton: NAME} or, of the data's own skeleton, "
                "graph_args: {edges: [[child, parent], ...]}"
            )
        if skeleton is not None:
            if skeleton not in SKELETONS:
                raise ModelError(f"graph: skeleton {skeleton!r} is not one of {sorted(SKELETONS)}")
            facts = SKELETONS[skeleton]
            if num_point not in (None, facts.num_point):
                raise ModelError(
                    f"graph: skeleton {skeleton!r} has {facts.num_point} joints, not {num_point}"
                )
            self.num_point = facts.num_point
            bones = _checked_bones(_pairs(facts.bones), facts.num_point, facts.center)
        else:
            bones = _pairs(edges)
            self.num_point = 1 + int(bones.max()) if num_point is None else num_point
            bones = _checked_bones(bones, self.num_point, center)
        self.A = spatial_adjacency(bones, self.num_point)


def graph_arguments(skeleton: Skeleton) -> dict[str, Any]:
    """Return the arguments of the ``Graph`` of a skeleton, as a configuration has them."""
    if SKELETONS.get(skeleton.name) == skeleton:
        return {"skeleton": skeleton.name}
    edges = [list(bone) for bone in skeleton.bones]
    return {"edges": edges, "num_point": skeleton.num_point, "center": skeleton.center}


def spatial_adjacency(bones: np.ndarray, num_point: int) -> np.ndarray:
    """Return float64 (3, V, V): self, inward, outward, the last two normalised by column sum."""
    child, parent = bones.T
    inward = np.zeros((num_point, num_point))
    inward[parent, child] = 1
    return np.stack([np.eye(num_point), _columns_to_one(inward), _columns_to_one(inward.T)])


def resolve_graph(graph: Any, graph_args: dict[str, Any] | None = None) -> np.ndarray:
    """Return the adjacency (3, V, V) of a graph given by name, by class or as an object.

    Args:
        graph: a dotted name within ``model`` (published ones through ``ALIASES``), a class, or
            anything with ``A``.
        graph_args: constructor arguments, for a name or a class.

    Raises:
        ModelError: the name cannot be imported, the arguments do not fit, or ``A`` is no stack of
            three square matrices.
    """
    extra: dict[str, Any] = {}
    if isinstance(graph, str):
        name, extra = ALIASES.get(graph, (graph, {}))
        graph = imported_class("graph", name)
    if isinstance(graph, type):
        try:
            graph = graph(**{**extra, **(graph_args or {})})
        except TypeError as error:
            raise ModelError(f"graph_args {graph_args}: {error}") from error
    elif graph_args:
        raise ModelError(f"graph_args {graph_args} given with a graph that is already built")
    adjacency = np.asarray(getattr(graph, "A", None), dtype=np.float64)
    if adjacency.ndim != 3 or adjacency.shape[0] != 3 or adjacency.shape[1] != adjacency.shape[2]:
        raise ModelError(f"graph: expected A of shape (3, V, V), got {adjacency.shape}")
    return adjacency


def _columns_to_one(matrix: np.ndarray) -> np.ndarray:
    """Divide each column by its sum; a column of zeros stays."""
    sums = matrix.sum(axis=0)
    return matrix / np.where(sums > 0, sums, 1)


def _pairs(edges: Any) -> np.ndarray:
    """Return edges as int64 (B, 2)."""
    bones = np.asarray(edges)
    if bones.ndim != 2 or bones.shape[1] != 2 or not np.issubdtype(bones.dtype, np.integer):
        raise ModelError(f"graph: edges must be [child, parent] pairs of integers, got {edges}")
    return bones


def _checked_bones(bones: np.ndarray, num_point: int, center: int | None) -> np.ndarray:
    """Return the bones (B, 2), or say what is wrong with them."""
    for child, parent in bones.tolist():
        if not (0 <= child < num_point and 0 <= parent < num_point):
            raise ModelError(
                f"graph: edge [{child}, {parent}] leaves the joints 0..{num_point - 1}"
            )
        if child == parent:
            raise ModelError(f"graph: edge [{child}, {parent}] joins a joint to itself")
    pairs = {frozenset(bone) for bone in bones.tolist()}
    if len(pairs) != len(bones):
        raise ModelError("graph: edges hold the same bone more than once")
    if center is not None and not 0 <= center < num_point:
        raise ModelError(f"graph: center {center} is not one of the joints 0..{num_point - 1}")
    unreached = sorted(set(range(num_point)) - _reachable(bones, 0 if center is None else center))
    if unreached:
        raise ModelError(f"graph: no edge leads from the rest to joints {unreached}")
    return bones


def _reachable(bones: np.ndarray, start: int) -> set[int]:
    """Return the joints that bones connect to ``start``, in either direction."""
    neighbours: dict[int, set[int]] = {}
    for child, parent in bones.tolist():
        neighbours.setdefault(child, set()).add(parent)
        neighbours.setdefault(parent, set()).add(child)
    reached, frontier = {start}, [start]
    while frontier:
        fresh = neighbours.get(frontier.pop(), set()) - reached
        reached |= fresh
        frontier.extend(fresh)
    return reached
