"""CSV: a line a frame (or frame and person), or a line a joint; with a header or without."""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data.custom.arrays import LARGEST, WIDTHS, Clip, clip_of_array, rows_of, stacked, tracked
from data.errors import DataError, printable
from data.skeletons import Skeleton
from torchlight.untrusted import read_bounded

_TIMES = ("frame", "frame_id", "frame_index", "frame_number", "time", "timestamp", "index", "")
_PERSONS = ("person", "person_id", "track", "track_id", "body", "body_id", "idx", "id")
_JOINTS = ("joint", "joint_id", "landmark", "landmark_id", "keypoint", "keypoint_id")
_LABELS = ("label", "class", "action")
_SCORES = ("score", "confidence", "conf", "visibility", "likelihood", "c", "s", "v", "p")
_AXIS = "|".join(("x", "y", "z", *_SCORES))
_AXIS_LAST = re.compile(rf"(?P<joint>.*[^a-z]|.*\d|)(?P<axis>{_AXIS})")  # nose_x, 0.y, joint3z
_AXIS_FIRST = re.compile(rf"(?P<axis>{_AXIS})[ _.\-]*(?P<joint>.+)")  # x_nose, y0


def read_rows(path: Path) -> list[list[str]]:
    """The cells of a text table, whatever separates them.

    Raises:
        DataError: the file is no text, or its lines have different lengths.
    """
    try:
        text = read_bounded(path, LARGEST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: no UTF-8 text ({printable(error)})") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{path}: empty")
    mark = max(";\t,", key=lines[0].count)
    if not lines[0].count(mark):
        rows = [line.split() for line in lines]
    else:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=mark)]
    if mark == ";":  # as written where the decimal mark is a comma
        rows = [[re.sub(r"^(-?\d*),(\d+)$", r"\1.\2", cell) for cell in row] for row in rows]
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise DataError(
                f"{path}: line {number + 1} has {len(row)} cells, the first has {len(rows[0])}"
            )
    return rows


def read_table(path: Path, skeleton: Skeleton) -> Clip:
    """A clip.

    Raises:
        DataError: it is none of these joints; the message names the file, and the line.
    """
    rows = read_rows(path)
    header = [cell.lower() for cell in rows[0]]
    if all(_is_number(cell) for cell in header):
        array = _numbers(path, rows, range(len(header)), 1)
        if array.shape[1] % skeleton.num_point == 1:  # begins with the frame's number
            array = array[:, 1:]
        return clip_of_array(array, skeleton.num_point)
    cells = rows[1:]
    if not cells:
        raise DataError(f"{path}: a header and no line below it")
    time, person, joint, label = (
        next((header.index(name) for name in names if name in header), None)
        for names in (_TIMES, _PERSONS, _JOINTS, _LABELS)
    )
    times = None if time is None else _numbers(path, cells, [time], 2)[:, 0].tolist()
    persons = None if person is None else [row[person] for row in cells]
    if joint is None:
        apart = {i for i in (time, person, label) if i is not None}
        columns, scored = _columns(path, rows[0], apart, skeleton)
        poses = _numbers(path, cells, columns, 2).reshape(len(cells), skeleton.num_point, -1)
    else:
        poses, times, persons, scored = _gathered(
            path, header, cells, joint, times, persons, skeleton
        )
    clip = Clip(_placed(path, poses, times, persons), scored)
    if label is not None and len({row[label] for row in cells}) == 1:
        clip.label = cells[0][label]
    return clip


def _columns(
    path: Path, header: Sequence[str], apart: set[int], skeleton: Skeleton
) -> tuple[list[int], bool | None]:
    """The columns of each joint in the layout's order, and whether a score is the last of them."""
    points = skeleton.num_point
    places: dict[str, dict[str, int]] = {}
    for column, cell in enumerate(header):
        match = _AXIS_LAST.fullmatch(cell.lower()) or _AXIS_FIRST.fullmatch(cell.lower())
        if column not in apart and match:
            axis = "score" if match["axis"] in _SCORES else match["axis"]
            places.setdefault(_key(cell[slice(*match.span("joint"))]), {})[axis] = column
    kinds = {frozenset(axes) for axes in places.values()}
    if len(places) != points or len(kinds) != 1 or not kinds <= set(_KINDS):
        rest = [column for column in range(len(header)) if column not in apart]
        if not places and len(rest) // points in WIDTHS and len(rest) % points == 0:
            return rest, None  # names that say nothing
        raise DataError(
            f"{path}: its header names {len(places)} joints, expected {points} ({skeleton.name}), "
            "each with x, y, and z or a score: nose_x, nose_y, ..."
        )
    named = {_key(name) for name in skeleton.joint_names}
    order = [_key(name) for name in skeleton.joint_names] if named == set(places) else list(places)
    axes = _KINDS[kinds.pop()]
    return [places[joint][axis] for joint in order for axis in axes], axes[-1] == "score"


_KINDS = {
    frozenset(given): taken
    for given, taken in (
        (("x", "y"), ("x", "y")),
        (("x", "y", "score"), ("x", "y", "score")),
        (("x", "y", "z"), ("x", "y", "z")),
        (("x", "y", "z", "score"), ("x", "y", "z")),
    )
}


def _key(name: str) -> str:
    """A joint's name as its words in order: LEFT_WRIST, wristLeft and "left wrist" are one."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(sorted(re.findall(r"[a-z]+|\d+", spaced.lower())))


def _gathered(
    path: Path,
    header: Sequence[str],
    cells: Sequence[Sequence[str]],
    joint: int,
    times: list | None,
    persons: list | None,
    skeleton: Skeleton,
) -> tuple[np.ndarray, list, list | None, bool]:
    """Lines of a joint each as poses (n, V, C), with frame and person of each."""
    if times is None:
        raise DataError(f"{path}: a line a joint, but no column frame")
    given = {"score" if name in _SCORES else name: i for i, name in enumerate(header)}
    axes = _KINDS.get(frozenset(given) & {"x", "y", "z", "score"})
    if axes is None:
        raise DataError(f"{path}: no columns x and y")
    numbers = _joint_numbers(path, [row[joint] for row in cells], skeleton)
    values = _numbers(path, cells, [given[axis] for axis in axes], 2)
    keys = list(zip(times, persons or [""] * len(times), strict=True))
    poses: dict[tuple, np.ndarray] = {}
    for line, (key, number) in enumerate(zip(keys, numbers, strict=True)):
        pose = poses.setdefault(key, np.full((skeleton.num_point, len(axes)), np.nan))
        if not np.isnan(pose[number]).all():
            raise DataError(f"{path}: line {line + 2}: this joint comes twice in a frame")
        pose[number] = values[line]
    who = [key[1] for key in poses] if persons else None
    return np.stack(list(poses.values())), [key[0] for key in poses], who, axes[-1] == "score"


def _joint_numbers(path: Path, names: Sequence[str], skeleton: Skeleton) -> list[int]:
    """Joints that lines name, by number from 0 or 1, or by name."""
    known = {_key(name): i for i, name in enumerate(skeleton.joint_names)}
    if all(_key(name) in known for name in set(names)):
        return [known[_key(name)] for name in names]
    for name in names:
        if not name.isdecimal() or int(name) > skeleton.num_point:
            raise DataError(f"{path}: joint {printable(name)} is none of {skeleton.name}")
    numbers = [int(name) for name in names]
    from_one = min(numbers) == 1 and max(numbers) == skeleton.num_point
    if max(numbers) - from_one >= skeleton.num_point:
        raise DataError(f"{path}: joint {max(numbers)}, but {skeleton.num_point} joints from 0")
    return [number - from_one for number in numbers]


def _placed(path: Path, poses: np.ndarray, times: list | None, persons: list | None) -> np.ndarray:
    """Poses (n, V, C) by frame and person, as (T, M, V, C)."""
    if times is None and persons is None:
        return poses[:, None]
    if times is None:
        raise DataError(f"{path}: a column of persons, but none of frames")
    row_of, count = rows_of(times)
    if persons is None:
        frames: list[list[np.ndarray]] = [[] for _ in range(count)]
        for time, pose in zip(times, poses, strict=True):
            frames[row_of[time]].append(pose)
        return tracked(frames, *poses.shape[1:])
    tracks: dict[str, dict[int, np.ndarray]] = {person: {} for person in persons}
    for time, person, pose in zip(times, persons, poses, strict=True):
        tracks[person][row_of[time]] = pose
    return stacked(list(tracks.values()), count, *poses.shape[1:])


def _numbers(
    path: Path, rows: Sequence[Sequence[str]], columns: Iterable[int], first_line: int
) -> np.ndarray:
    """Cells as float64; empty ones are missing."""
    chosen = list(columns)
    try:
        return np.array([[row[i] or "nan" for i in chosen] for row in rows], dtype=np.float64)
    except ValueError:
        for line, row in enumerate(rows):
            wrong = [row[i] for i in chosen if row[i] and not _is_number(row[i])]
            if wrong:
                raise DataError(
                    f"{path}: line {line + first_line}: {printable(wrong[0])} is no number"
                ) from None
        raise


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True
