"""From arrays and lists of persons to clips (T, M, V, C); missing is zero."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from data.errors import DataError
from data.skeletons import FLAT, Skeleton

LARGEST = 2**28  # bytes of a text file
SCORES = ("keypoint_scores", "keypoint_score", "scores", "score")  # what they are called
WIDTHS = (2, 3, 4)  # numbers of a joint: x y, x y z (or a score), x y z and a score
_AXES = ("TVC", "CTV", "MTVC", "TMVC", "CTVM")
_MOST_PERSONS = 20
_SAME = 1.0  # of a body's size: how far a person may be from where he was a frame ago


@dataclass
class Clip:
    """A clip as read.

    Attributes:
        joints: (T, M, V, C), C = 2 or 3.
        scored: whether the third number is a score; None where the file does not say.
        label: a class's name or number, where the file says it.
        order: in which order the axes of an array were taken, where it could have been another.
    """

    joints: np.ndarray
    scored: bool | None = None
    label: str | int | None = None
    order: str | None = None


@dataclass
class Found:
    """The clips of a source.

    Attributes:
        names: of the clips, distinct; of files, their paths below the folder without suffix.
        readers: one a clip.
        splits: names of clips by split, where the source says so.
        others: how many other files lie there, by suffix.
        numbered: labels are class numbers from 0.
    """

    names: list[str]
    readers: Iterable[Callable[[], Clip]]
    splits: dict[str, list[str]] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    numbered: bool = False


def clip_of_array(array: np.ndarray, points: int, axes: str | None = None) -> Clip:
    """A clip of an array of numbers.

    Of four numbers a joint the last is a score, or a visibility, which 3-D joints go without.

    Args:
        points: V. axes: their order ("CTVM"), where the array's shape leaves it open.

    Raises:
        DataError: no order fits.
    """
    if array.dtype.kind not in "iuf":
        raise DataError(f"an array of {str(array.dtype)[:40]}, expected numbers")
    if array.ndim == 2 and array.shape[1] in [points * width for width in (*WIDTHS, 6)]:
        persons = 2 if array.shape[1] == 6 * points else 1  # as x_train of NTU RGB+D has them
        array, axes = array.reshape(len(array), persons, points, -1), "TMVC"
    fitting = [order for order in ([axes] if axes else _AXES) if _fits(array, points, order)]
    if not fitting:
        wanted = f"axes {axes}" if axes else "frames, joints and coordinates"
        raise DataError(f"an array {array.shape} has not {wanted} of {points} joints")
    order = fitting[0]
    if "TMVC" in fitting and array.shape[0] > array.shape[1]:
        order = "TMVC"  # there are more frames than persons
    letters = order if "M" in order else order + "M"
    whole = array if "M" in order else array[..., None]
    joints = whole.transpose([letters.index(axis) for axis in "TMVC"])
    scored = False if joints.shape[-1] > 3 else None
    return Clip(joints[..., :3], scored, order=order if len(fitting) > 1 else None)


def _fits(array: np.ndarray, points: int, order: str) -> bool:
    size = dict(zip(order, array.shape, strict=False))
    return (
        len(order) == array.ndim
        and size["V"] == points
        and size["C"] in WIDTHS
        and size["T"] > 0
        and 0 < size.get("M", 1) <= _MOST_PERSONS
    )


def rows_of(numbers: Iterable[float]) -> tuple[dict[float, int], int]:
    """A row for each frame's number, and how many there are: a number that is left out is an empty
    frame, unless most are, or they are times."""
    known = sorted(set(numbers))
    first, last = known[0], known[-1]
    whole = all(np.isfinite(number) and number == int(number) for number in known)
    if whole and last - first <= 10 * len(known) + 100:
        return {number: int(number - first) for number in known}, int(last - first) + 1
    return {number: row for row, number in enumerate(known)}, len(known)


def tracked(frames: Sequence[Sequence[np.ndarray]], points: int, width: int) -> np.ndarray:
    """Persons (V, C) of each frame, in any order, as (T, M, V, C), a column a person.

    Each goes on in the column whose last pose is nearest, nearest pairs first, unless it is farther
    away than the body is large; others begin one of their own.
    """
    if all(len(frame) <= 1 for frame in frames):
        frames_of = {t: frame[0] for t, frame in enumerate(frames) if frame}
        return stacked([frames_of], len(frames), points, width)
    tracks: list[dict[int, np.ndarray]] = []
    last: list[np.ndarray] = []
    for time, frame in enumerate(frames):
        pairs = [
            (distance, person, track)
            for person, pose in enumerate(frame)
            for track, before in enumerate(last)
            if (distance := _distance(pose, before)) < _SAME
        ]
        taken: dict[int, int] = {}
        for _, person, track in sorted(pairs):
            if person not in taken and track not in taken.values():
                taken[person] = track
        for person, pose in enumerate(frame):
            if person not in taken:
                taken[person] = len(tracks)
                tracks.append({})
                last.append(pose)
            tracks[taken[person]][time] = last[taken[person]] = pose
    return stacked(tracks, len(frames), points, width)


def stacked(
    tracks: Sequence[dict[int, np.ndarray]], frames: int, points: int, width: int
) -> np.ndarray:
    """Poses by frame, of the persons that have most of them, as (T, M, V, C)."""
    longest = sorted(tracks, key=len, reverse=True)[:_MOST_PERSONS]
    joints = np.zeros((frames, max(len(longest), 1), points, width))
    for person, poses in enumerate(longest):
        for time, pose in poses.items():
            joints[time, person] = pose
    return joints


def _distance(pose: np.ndarray, before: np.ndarray) -> float:
    """Between two poses, over the joints that both have, in sizes of the body."""
    both = (pose[:, :2] != 0).any(axis=1) & (before[:, :2] != 0).any(axis=1)
    if not both.any():
        return np.inf
    size = np.ptp(before[both, :2], axis=0).max() or 1.0
    return float(np.linalg.norm(pose[both, :2] - before[both, :2], axis=1).mean() / size)


def ranked(joints: np.ndarray, most: int) -> np.ndarray:
    """The ``most`` persons of (T, M, V, C) that are seen in most frames, and none that never is."""
    frames = (joints[..., :2] != 0).any(axis=(2, 3)).sum(axis=0)
    order = [m for m in np.argsort(-frames, kind="stable") if frames[m]]
    return joints[:, order[:most]]


def cleaned(joints: np.ndarray) -> np.ndarray:
    """As float32, with zeros for a joint that has a coordinate which is no finite number."""
    with np.errstate(over="ignore", invalid="ignore"):
        joints = np.array(joints, dtype=np.float32)
    joints[~np.isfinite(joints).all(axis=-1)] = 0
    return joints


def channels_of(clip: Clip, skeleton: Skeleton) -> str:
    """What the 2 or 3 numbers of a joint are: "xy", "xys" with a score, or "xyz".

    Where the file does not say, a third number in [0, 1] beside joints of an image is a score.
    """
    if clip.joints.shape[-1] == 2:
        return "xy"
    third = clip.joints[..., 2]
    looks = skeleton.name in FLAT and bool(((third >= 0) & (third <= 1)).all())
    return "xys" if (looks if clip.scored is None else clip.scored) else "xyz"
