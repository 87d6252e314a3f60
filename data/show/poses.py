"""Clips as they are looked at: right, up and away, whatever axis the sensor calls what."""

from dataclasses import dataclass, replace

import numpy as np

from data.skeletons import Skeleton

_TOP = ("head", "nose", "neck", "left eye", "right eye")
_BOTTOM = ("left ankle", "right ankle", "left foot", "right foot", "left knee", "right knee")
VIEWS = {"front": (0, 1), "side": (2, 1)}  # axes across and up


@dataclass(frozen=True)
class Poses:
    """A clip to be drawn.

    Attributes:
        points: float64 (T, M, V, 2 or 3): to the right, up, and away where the clip is 3-D, all
            within [-1/2, 1/2] but for stray joints.
        seen: bool (T, M, V).
        skeleton: whose joints.
        title: a line of text.
    """

    points: np.ndarray
    seen: np.ndarray
    skeleton: Skeleton
    title: str = ""

    @property
    def views(self) -> list[str]:
        """The views there are."""
        return list(VIEWS) if self.points.shape[-1] == 3 else ["front"]

    def at(self, frames: np.ndarray) -> "Poses":
        """Some of the frames."""
        return replace(self, points=self.points[frames], seen=self.seen[frames])


def poses(joints: np.ndarray, skeleton: Skeleton, *, axes: int, title: str = "") -> Poses:
    """Joints (T, M, V, C), of which ``axes`` (2 or 3) channels are coordinates, to be drawn.

    What is up is told by heads and feet, where joints have names: a camera's y points down, a
    sensor's up, and motion capture has z. Without names y is up in 3-D, and down in images.
    """
    points = np.asarray(joints[..., :axes], dtype=np.float64)
    seen = (points != 0).any(axis=-1)
    up, sign = _upward(points, seen, skeleton)
    turned = [points[..., 0], sign * points[..., up], points[..., 3 - up] if axes == 3 else None]
    stacked = np.stack([axis for axis in turned if axis is not None], axis=-1)
    return Poses(_fitted(stacked, seen), seen, skeleton, title)


def _upward(points: np.ndarray, seen: np.ndarray, skeleton: Skeleton) -> tuple[int, float]:
    """The axis that is vertical, and 1 or -1 as it points up or down."""
    solid = points.shape[-1] == 3
    number = {name: joint for joint, name in enumerate(skeleton.joint_names)}
    top = [number[name] for name in _TOP if name in number]
    bottom = [number[name] for name in _BOTTOM if name in number]
    if not (seen[..., top].any() and seen[..., bottom].any()):
        return 1, 1.0 if solid else -1.0
    high = points[:, :, top][seen[..., top]].mean(axis=0)
    way = high - points[:, :, bottom][seen[..., bottom]].mean(axis=0)
    vertical = 2 if solid and abs(way[2]) > 2 * abs(way[1]) else 1
    return vertical, 1.0 if way[vertical] >= 0 else -1.0


def _fitted(points: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Points in a box of side 1, joints that stray far aside."""
    shown = points[seen]
    if not len(shown):
        return points
    low, middle, high = np.percentile(shown, [5, 50, 95], axis=0)
    near = (np.abs(shown - middle) <= 3 * (high - low).max()).all(axis=1)
    low, high = shown[near].min(axis=0), shown[near].max(axis=0)
    return (points - (low + high) / 2) / ((high - low).max() or 1.0)
