"""The facts of each skeleton: joints, bones, centre. The graph and the bone stream both read them.

Joint numbers count from 0 (the sensors' manuals and the literature count from 1).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Skeleton:
    """A body as a tree of joints.

    Attributes:
        name: the short name configurations use.
        num_point: number of joints V.
        bones: (child, parent) pairs, every bone once, pointing towards ``center``.
        center: the root of the tree; in the bone stream it is its own partner.
        joint_names: one name a joint, in order.
    """

    name: str
    num_point: int
    bones: tuple[tuple[int, int], ...]
    center: int
    joint_names: tuple[str, ...] = ()


def bone_parents(skeleton: Skeleton) -> np.ndarray:
    """Return the parent of every joint, int64 (V,); the centre is its own parent.

    The bone stream is ``x - x[parents]``, the centre's bone being zero.

    Raises:
        ValueError: a joint other than the centre has no parent or more than one.
    """
    parents = np.full(skeleton.num_point, -1, dtype=np.int64)
    parents[skeleton.center] = skeleton.center
    for child, parent in skeleton.bones:
        if parents[child] != -1:
            raise ValueError(f"skeleton {skeleton.name}: joint {child} has more than one parent")
        parents[child] = parent
    if (parents < 0).any():
        orphans = np.flatnonzero(parents < 0).tolist()
        raise ValueError(f"skeleton {skeleton.name}: joints {orphans} have no parent")
    return parents


def mirror_joints(skeleton: Skeleton) -> np.ndarray:
    """Return for every joint the one that a mirror shows in its place, int64 (V,).

    Left and right are told apart by the joints' names.
    """
    number = {name: joint for joint, name in enumerate(skeleton.joint_names)}
    other = {"left": "right", "right": "left"}
    mirrored = np.arange(skeleton.num_point)
    for name, joint in number.items():
        side, _, rest = name.partition(" ")
        mirrored[joint] = number.get(f"{other.get(side, side)} {rest}", joint)
    return mirrored


def _skeleton(name: str, joint_names: str, parents: str, center: int) -> Skeleton:
    """A skeleton from its joints' names and their parents, both in joint order."""
    names = tuple(joint.strip() for joint in joint_names.split(","))
    pairs = enumerate(map(int, parents.split()))
    bones = tuple((child, parent) for child, parent in pairs if child != center)
    return Skeleton(name, len(names), bones, center, names)


# Kinect v2 (Shahroudy et al., NTU RGB+D, CVPR 2016, figure 1).
NTU = _skeleton(
    "ntu",
    """spine base, spine middle, neck, head,
    left shoulder, left elbow, left wrist, left hand,
    right shoulder, right elbow, right wrist, right hand,
    left hip, left knee, left ankle, left foot, right hip, right knee, right ankle, right foot,
    spine top, left hand tip, left thumb, right hand tip, right thumb""",
    "1 20 20 2  20 4 5 6  20 8 9 10  0 12 13 14  0 16 17 18  20 22 7 24 11",
    center=20,
)

# Kinect v1 (Wang et al., Cross-view Action Modeling, CVPR 2014).
UCLA = _skeleton(
    "ucla",
    """hip center, spine, shoulder center, head,
    left shoulder, left elbow, left wrist, left hand,
    right shoulder, right elbow, right wrist, right hand,
    left hip, left knee, left ankle, left foot, right hip, right knee, right ankle, right foot""",
    "1 2 2 2  2 4 5 6  2 8 9 10  0 12 13 14  0 16 17 18",
    center=2,
)

SKELETONS = {skeleton.name: skeleton for skeleton in (NTU, UCLA)}
