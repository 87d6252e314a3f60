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


# Kinect v2 (Shahroudy et al., NTU RGB+D, CVPR 2016, figure 1).
NTU = Skeleton(
    name="ntu",
    num_point=25,
    bones=(
        (0, 1),
        (1, 20),
        (2, 20),
        (3, 2),
        (4, 20),
        (5, 4),
        (6, 5),
        (7, 6),
        (8, 20),
        (9, 8),
        (10, 9),
        (11, 10),
        (12, 0),
        (13, 12),
        (14, 13),
        (15, 14),
        (16, 0),
        (17, 16),
        (18, 17),
        (19, 18),
        (21, 22),
        (22, 7),
        (23, 24),
        (24, 11),
    ),
    center=20,
    joint_names=(
        "spine base",
        "spine middle",
        "neck",
        "head",
        "left shoulder",
        "left elbow",
        "left wrist",
        "left hand",
        "right shoulder",
        "right elbow",
        "right wrist",
        "right hand",
        "left hip",
        "left knee",
        "left ankle",
        "left foot",
        "right hip",
        "right knee",
        "right ankle",
        "right foot",
        "spine top",
        "left hand tip",
        "left thumb",
        "right hand tip",
        "right thumb",
    ),
)

# Kinect v1 (Wang et al., Cross-view Action Modeling, CVPR 2014).
UCLA = Skeleton(
    name="ucla",
    num_point=20,
    bones=(
        (0, 1),
        (1, 2),
        (3, 2),
        (4, 2),
        (5, 4),
        (6, 5),
        (7, 6),
        (8, 2),
        (9, 8),
        (10, 9),
        (11, 10),
        (12, 0),
        (13, 12),
        (14, 13),
        (15, 14),
        (16, 0),
        (17, 16),
        (18, 17),
        (19, 18),
    ),
    center=2,
    joint_names=(
        "hip center",
        "spine",
        "shoulder center",
        "head",
        "left shoulder",
        "left elbow",
        "left wrist",
        "left hand",
        "right shoulder",
        "right elbow",
        "right wrist",
        "right hand",
        "left hip",
        "left knee",
        "left ankle",
        "left foot",
        "right hip",
        "right knee",
        "right ankle",
        "right foot",
    ),
)

SKELETONS = {skeleton.name: skeleton for skeleton in (NTU, UCLA)}
