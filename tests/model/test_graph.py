"""Graphs: published adjacency, a person's own skeleton, and what is refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data.skeletons import NTU, UCLA
from model.errors import ModelError
from model.graph import Graph, resolve_graph
from model.published import ALIASES

TRIANGLE = {"edges": [[1, 0], [2, 0]], "num_point": 3}


@pytest.mark.parametrize("name", ["graph.ntu_rgb_d.Graph", "graph.ucla.Graph"])
def test_published_adjacency(shared: Path, name: str) -> None:
    golden = np.load(shared / "parity" / "graph.npz")[name.split(".")[1]]
    np.testing.assert_array_equal(resolve_graph(name, {"labeling_mode": "spatial"}), golden)
    own, arguments = ALIASES[name]
    np.testing.assert_array_equal(resolve_graph(own, arguments), golden)


@pytest.mark.parametrize("skeleton", [NTU, UCLA])
def test_an_edge_list_gives_the_same_graph_as_the_name(skeleton: Any) -> None:
    own = Graph(
        edges=[list(bone) for bone in skeleton.bones],
        num_point=skeleton.num_point,
        center=skeleton.center,
    )
    np.testing.assert_array_equal(own.A, Graph(skeleton.name).A)
    assert own.num_point == Graph(skeleton.name).num_point


def test_a_small_graph_by_hand() -> None:
    self_links, inward, outward = Graph(**TRIANGLE).A
    np.testing.assert_array_equal(self_links, np.eye(3))
    np.testing.assert_array_equal(inward, [[0, 1, 1], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(outward, [[0, 0, 0], [0.5, 0, 0], [0.5, 0, 0]])


def test_class_object_and_own_name_resolve() -> None:
    expected = Graph("ucla").A
    np.testing.assert_array_equal(resolve_graph(Graph, {"skeleton": "ucla"}), expected)
    np.testing.assert_array_equal(resolve_graph(SimpleNamespace(A=expected)), expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "say either graph_args: .skeleton: NAME. or"),
        ({"skeleton": "ntu", **TRIANGLE}, "say either graph_args: .skeleton: NAME. or"),
        ({"skeleton": "kinetics"}, r"'kinetics' is not one of \['coco133', 'coco17', "),
        ({"skeleton": "ntu", "num_point": 20}, "has 25 joints, not 20"),
        ({"skeleton": "ntu", "labeling_mode": "uniform"}, "labeling_mode 'uniform'"),
        ({"edges": [[1, 0], [3, 0]], "num_point": 3}, r"edge \[3, 0\] leaves the joints 0..2"),
        ({"edges": [[1, 0], [-1, 0]], "num_point": 3}, r"edge \[-1, 0\] leaves"),
        ({"edges": [[1, 0], [2, 2]], "num_point": 3}, "joins a joint to itself"),
        ({"edges": [[1, 0], [0, 1], [2, 0]], "num_point": 3}, "more than once"),
        ({"edges": [[1, 0], [3, 2]], "num_point": 4}, r"joints \[2, 3\]"),
        ({"edges": [[1, 0, 2]], "num_point": 3}, "pairs"),
        ({"edges": [[0.5, 1]], "num_point": 3}, "pairs"),
        ({"edges": [], "num_point": 3}, "pairs"),
        ({**TRIANGLE, "center": 3}, "center 3"),
    ],
)
def test_refused_graphs(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words) as error:
        Graph(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("graph", "arguments", "words"),
    [
        ("graph.nowhere.Graph", {}, "cannot be imported"),
        ("Graph", {}, "cannot be imported"),
        ("graph.ucla.Graph", {"label_mode": "spatial"}, "label_mode"),
        (Graph("ucla"), {"labeling_mode": "spatial"}, "already built"),
        (SimpleNamespace(A=np.eye(3)), {}, r"expected A of shape \(3, V, V\)"),
        (SimpleNamespace(), {}, "expected A"),
        (None, {}, "expected A"),
    ],
)
def test_unresolved_graphs(graph: Any, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        resolve_graph(graph, arguments)
