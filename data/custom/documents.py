"""JSON of many kinds to clips: nested lists, OpenPose, AlphaPose, MediaPipe, mmpose, ST-GCN's.

A document holds frames, a frame persons, a person joints. At each level people have their own keys;
the tables below list them.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.custom.arrays import LARGEST, SCORES, WIDTHS, Clip, clip_of_array, rows_of, tracked
from data.errors import DataError, printable
from data.skeletons import SKELETONS, Skeleton
from torchlight.untrusted import read_bounded

_FRAMES = (
    *("skeletons", "frames", "data", "instance_info", "annotations", "predictions", "results"),
    *("keypoints", "joints", "landmarks", "poses", "sequence"),
)
_PEOPLE = ("people", "instances", "persons", "bodies", "skeleton", "skeletons")
_ONE = (
    *("pose_keypoints_3d", "pose_keypoints_2d", "keypoints", "keypoint", "pose", "joints"),
    *("landmarks", "pose_world_landmarks", "poseWorldLandmarks", "pose_landmarks", "poseLandmarks"),
)
_SCORE = ("score", "confidence", "visibility")  # in a joint
_TOOLS = {"openpose": ("openpose25", "openpose18"), "alphapose": ("halpe26", "coco17", "coco133")}
"""Whose joints a tool writes: of these the layout that has as many."""
_FORMS = "docs/own-data.md has the forms that are read"


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: it is no JSON.
    """
    try:
        return json.loads(read_bounded(path, LARGEST))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: no valid JSON ({printable(error)})") from error


def read_document(path: Path, skeleton: Skeleton, axes: str | None = None) -> Clip:
    """A clip in one file.

    Raises:
        DataError: it is none of the forms; the message names the file, and the frame.
    """
    document = read_json(path)
    found = _frames_in(document)
    try:
        array = _as_array(found)
        if array is not None:
            clip = clip_of_array(array, skeleton.num_point, axes)
        else:
            clip = _followed(_frames(found), skeleton)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    said = [document.get(key) for key in ("label", "action", "class")] if _is_dict(document) else []
    clip.label = next((word for word in said if isinstance(word, str | int)), None)
    return clip


def read_frame_files(paths: Sequence[Path], skeleton: Skeleton) -> Clip:
    """A clip of one file a frame; a number that is left out is an empty frame.

    Raises:
        DataError: as ``read_document``.
    """
    frames = {int(re.findall(r"\d+", path.stem)[-1]): path for path in paths}
    try:
        people = _by_number({number: _people(read_json(path)) for number, path in frames.items()})
        return _followed(people, skeleton)
    except DataError as error:
        told = str(error)
        raise DataError(told if told.startswith("/") else f"{paths[0].parent}: {told}") from error
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _is_dict(found: Any) -> bool:
    return isinstance(found, dict)


def _depth(found: Any) -> int:
    """How deep lists lie in lists; an object counts as a list of numbers."""
    if isinstance(found, list):
        return 1 + (_depth(found[0]) if found else 0)
    return int(_is_dict(found))


def _frames_in(document: Any) -> Any:
    """The part of a document that holds its frames."""
    while _is_dict(document):
        held = [key for key in _FRAMES if isinstance(document.get(key), list | dict)]
        if not held:
            return document
        document = document[held[0]]
    return document


def _as_array(found: Any) -> np.ndarray | None:
    """Nested lists of numbers as an array, or None."""
    try:
        array = np.array(found)
    except ValueError:  # of different lengths
        return None
    return array if array.dtype.kind in "iuf" and array.ndim >= 2 else None


def _frames(found: Any) -> list[list]:
    """The persons of each frame."""
    if _is_dict(found):  # a frame under each number or image name
        numbers = {key: re.findall(r"\d+", key) for key in found}
        if not found or not all(numbers.values()):
            raise DataError(f"{printable(', '.join(found) or 'nothing')} in it; {_FORMS}")
        return _by_number({int(numbers[key][-1]): _people(found[key]) for key in found})
    if not isinstance(found, list) or not found:
        raise DataError(f"no frames; {_FORMS}")
    if not (_is_dict(found[0]) and "image_id" in found[0]):
        return [_people(frame) for frame in found]
    images: dict[str, list] = {}  # AlphaPose: an entry a person and image, none where nobody is
    for entry in found:
        if not _is_dict(entry) or "keypoints" not in entry or "image_id" not in entry:
            raise DataError("an entry without image_id and keypoints")
        images.setdefault(str(entry["image_id"]), []).append({"alphapose": entry["keypoints"]})
    return _frames(images) if all(map(re.compile(r"\d").search, images)) else list(images.values())


def _by_number(frames: dict[int, list]) -> list[list]:
    """Frames in their order."""
    row_of, count = rows_of(frames)
    people_of = {row_of[number]: people for number, people in frames.items()}
    return [people_of.get(row, []) for row in range(count)]


def _people(frame: Any) -> list:
    """The persons of one frame, each as it stands there."""
    if not frame:
        return []
    if _is_dict(frame):
        people = [frame[key] for key in _PEOPLE if isinstance(frame.get(key), list)]
        if people:
            return people[0]
        if "alphapose" in frame or not any(key in frame for key in _ONE):
            raise DataError(f"a frame of {printable(', '.join(frame))}; {_FORMS}")
        one = next((frame[key] for key in _ONE if frame.get(key)), None)
        if one is not None and isinstance(one, list) and _depth(one) == 3:
            return one  # MediaPipe's tasks: a list of poses
        return [] if one is None else [frame]
    if not isinstance(frame, list):
        raise DataError(f"a frame that is {printable(frame)}; {_FORMS}")
    if _is_dict(frame[0]):
        return [frame] if "x" in frame[0] else frame
    return frame if _depth(frame) == 3 else [frame]


def _followed(frames: list[list], skeleton: Skeleton) -> Clip:
    """A clip of the persons in each frame."""
    poses: list[list[np.ndarray]] = []
    scored: bool | None = None
    for number, people in enumerate(frames):
        poses.append([])
        for person in people:
            try:
                pose, scored = _pose(person, skeleton)
            except (ValueError, TypeError, KeyError) as error:
                raise DataError(f"frame {number}: {printable(error)}") from error
            poses[-1].append(pose)
    widths = {pose.shape[1] for frame in poses for pose in frame}
    if len(widths) != 1:
        raise DataError("joints of 2 numbers and of 3" if widths else "nobody in any frame")
    return Clip(tracked(poses, skeleton.num_point, widths.pop()), scored)


def _pose(person: Any, skeleton: Skeleton) -> tuple[np.ndarray, bool | None]:
    """One person's joints (V, 2 or 3), and whether the third number is a score."""
    scores, tool, scored = None, None, None
    if _is_dict(person):
        key = next((key for key in ("alphapose", *_ONE) if person.get(key)), None)
        if key is None:
            raise DataError(f"a person of {printable(', '.join(person))}; {_FORMS}")
        scores = next((person[k] for k in SCORES if isinstance(person.get(k), list)), None)
        if key == "alphapose" or key.startswith("pose_keypoints"):
            tool = "alphapose" if key == "alphapose" else "openpose"
            scored = not key.endswith("3d")
        person = person[key]
    if isinstance(person, list) and person and _is_dict(person[0]):
        last = next((key for key in ("z", *_SCORE) if key in person[0]), None)
        scored = None if last is None else last != "z"
        person = [[joint[key] for key in ("x", "y", last) if key] for joint in person]
    numbers = np.array(person, dtype=np.float64).reshape(-1)
    if scores is not None:
        numbers = np.column_stack([numbers.reshape(len(scores), -1)[:, :2], scores]).reshape(-1)
        scored = True
    return _joints(numbers, skeleton, tool, 4 if scored is False else 3), scored


def _joints(numbers: np.ndarray, skeleton: Skeleton, tool: str | None, width: int) -> np.ndarray:
    """Joints (V, 2 or 3) from a flat list; a tool's by name, where the layout is another.

    Args:
        width: numbers of a joint, as the tool writes them.
    """
    layouts = [SKELETONS[name] for name in _TOOLS.get(tool or "", ())]
    written = next((s for s in layouts if s.num_point * width == len(numbers)), skeleton)
    if written.name != skeleton.name and skeleton.name in SKELETONS:
        places = {name: joint for joint, name in enumerate(written.joint_names)}
        if not set(skeleton.joint_names) <= set(places):
            raise DataError(f"its joints are those of --layout {written.name}")
        return numbers.reshape(-1, width)[[places[name] for name in skeleton.joint_names], :3]
    points = skeleton.num_point
    if len(numbers) % points or len(numbers) // points not in WIDTHS:
        raise DataError(f"{len(numbers)} numbers are no {points} joints of {skeleton.name}")
    return numbers.reshape(points, -1)[:, :3]
