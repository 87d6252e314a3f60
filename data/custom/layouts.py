"""Which joints: a layout by name, or a YAML file of edges."""

import difflib
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data.errors import DataError, printable
from data.skeletons import SKELETONS, Skeleton
from torchlight.untrusted import read_bounded

SPELLINGS = {"kinect20": "ucla", "kinect25": "ntu"}
_LARGEST = 2**20  # bytes of a file of edges


def find_layout(text: str) -> tuple[Skeleton, list[str]]:
    """The layout that ``--layout`` names, and what there is to say about it.

    Raises:
        DataError: no known name and no sound file of edges.
    """
    if Path(text).suffix.lower() in (".yaml", ".yml"):
        return _read_edges(Path(text))
    name = SPELLINGS.get(text.lower(), text.lower())
    if name in SKELETONS:
        return SKELETONS[name], []
    known = sorted({*SKELETONS, *SPELLINGS})
    near = difflib.get_close_matches(name, known, n=1)
    guess = f" (did you mean {near[0]!r}?)" if near else ""
    raise DataError(
        f"--layout {text!r} is none{guess}; there are {', '.join(known)}, or a YAML file with "
        "edges: [[child, parent], ...]"
    )


class _Edges(BaseModel):
    """What a YAML file of edges holds: joints by number, from 0, or by name."""

    model_config = ConfigDict(extra="forbid")

    edges: list[tuple[int | str, int | str]] = Field(min_length=1)
    joints: list[str] = []
    num_point: int | None = None
    center: int | str = 0
    name: str | None = None


def _read_edges(path: Path) -> tuple[Skeleton, list[str]]:
    try:
        given = _Edges.model_validate(yaml.safe_load(read_bounded(path, _LARGEST)))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "edges"
        raise DataError(f"{path}: {key}: {printable(first['msg'])}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: no YAML ({printable(error)})") from error
    names = given.joints
    if len(set(names)) < len(names):
        raise DataError(f"{path}: joints: two have one name")

    def number(joint: int | str) -> int:
        if isinstance(joint, int) or joint in names:
            return joint if isinstance(joint, int) else names.index(joint)
        raise DataError(f"{path}: {printable(joint)} is none of its joints")

    edges = [(number(child), number(parent)) for child, parent in given.edges]
    ends = [joint for edge in edges for joint in edge]
    points = given.num_point or len(names) or max(ends) + 1
    center = number(given.center)
    if len(names) not in (0, points):
        raise DataError(f"{path}: num_point: {points}, but it names {len(names)} joints")
    for joint in (*ends, center):
        if not 0 <= joint < points:
            hint = "; joints count from 0" if min(ends) == 1 and joint == points else ""
            raise DataError(f"{path}: joint {joint} is none of the {points}{hint}")
    bones = _tree(path, edges, points, center)
    closing = len({frozenset(edge) for edge in edges}) - len(bones)
    told = [f"{path}: {closing} edges that close a ring are no bones"] if closing else []
    return Skeleton(given.name or path.stem, points, bones, center, tuple(names)), told


def _tree(
    path: Path, edges: list[tuple[int, int]], points: int, center: int
) -> tuple[tuple[int, int], ...]:
    """Bones (child, parent) from the centre outwards, whichever way the edges point."""
    parents, frontier = {center: center}, [center]
    while frontier:
        joint = frontier.pop(0)
        for a, b in edges:
            for here, there in ((a, b), (b, a)):
                if here == joint and there not in parents:
                    parents[there] = joint
                    frontier.append(there)
    alone = sorted(set(range(points)) - set(parents))
    if alone:
        raise DataError(f"{path}: no edge joins joint {alone[0]} to the centre, {center}")
    return tuple(sorted((child, parent) for child, parent in parents.items() if child != parent))
