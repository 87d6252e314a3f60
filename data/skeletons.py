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


# Lin et al., Microsoft COCO, ECCV 2014.
_COCO_JOINTS = """nose, left eye, right eye, left ear, right ear,
    left shoulder, right shoulder, left elbow, right elbow, left wrist, right wrist,
    left hip, right hip, left knee, right knee, left ankle, right ankle"""
_COCO_PARENTS = "0 0 0 1 2  0 0 5 6 7 8  5 6 11 12 13 14"
COCO17 = _skeleton("coco17", _COCO_JOINTS, _COCO_PARENTS, center=0)

# Fang et al., AlphaPose, PAMI 2022.
HALPE26 = _skeleton(
    "halpe26",
    f"""{_COCO_JOINTS}, head, neck, hip,
    left big toe, right big toe, left small toe, right small toe, left heel, right heel""",
    "17 0 0 1 2  18 18 5 6 7 8  19 19 11 12 13 14  18 18 18  15 16 20 21 15 16",
    center=18,
)

# Cao et al., OpenPose, PAMI 2021: its older and its newer body.
_HEAD_AND_ARMS = """nose, neck, right shoulder, right elbow, right wrist,
    left shoulder, left elbow, left wrist"""
_LEGS_AND_FACE = """right hip, right knee, right ankle, left hip, left knee, left ankle,
    right eye, left eye, right ear, left ear"""
OPENPOSE18 = _skeleton(
    "openpose18",
    f"{_HEAD_AND_ARMS}, {_LEGS_AND_FACE}",
    "1 1 1 2 3  1 5 6  1 8 9 1 11 12  0 0 14 15",
    center=1,
)
OPENPOSE25 = _skeleton(
    "openpose25",
    f"""{_HEAD_AND_ARMS}, mid hip, {_LEGS_AND_FACE},
    left big toe, left small toe, left heel, right big toe, right small toe, right heel""",
    "1 1 1 2 3  1 5 6  1 8 9 10 8 12 13  0 0 15 16  14 19 14 11 22 11",
    center=1,
)

# Bazarevsky et al., BlazePose, 2020; MediaPipe's pose landmarks.
MEDIAPIPE33 = _skeleton(
    "mediapipe33",
    """nose, left eye inner, left eye, left eye outer, right eye inner, right eye, right eye outer,
    left ear, right ear, left mouth, right mouth,
    left shoulder, right shoulder, left elbow, right elbow, left wrist, right wrist,
    left pinky, right pinky, left index, right index, left thumb, right thumb,
    left hip, right hip, left knee, right knee, left ankle, right ankle,
    left heel, right heel, left foot index, right foot index""",
    """0 0 1 2 0 4 5  3 6 0 0  0 0 11 12 13 14  15 16 15 16 15 16
    11 12 23 24 25 26  27 28 29 30""",
    center=0,
)


def _face_names() -> str:
    """68 landmarks; of those on the right the mirror images bear their numbers."""
    left_of = {i: 16 - i for i in range(8)} | {17 + i: 26 - i for i in range(5)}
    left_of |= {31: 35, 32: 34, 36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46}
    left_of |= {48: 54, 49: 53, 50: 52, 59: 55, 58: 56, 60: 64, 61: 63, 67: 65}
    names = [f"face {i}" for i in range(68)]
    for right, left in left_of.items():
        names[right], names[left] = f"right face {right}", f"left face {right}"
    return ", ".join(names)


def _hand_names(side: str) -> str:
    fingers = ("thumb", "index finger", "middle finger", "ring finger", "little finger")
    return ", ".join([f"{side} hand", *(f"{side} {f} {i}" for f in fingers for i in range(1, 5))])


# Jin et al., Whole-Body Human Pose Estimation in the Wild, ECCV 2020: body, feet, face, hands.
COCO133 = _skeleton(
    "coco133",
    f"""{_COCO_JOINTS},
    left big toe, left small toe, left heel, right big toe, right small toe, right heel,
    {_face_names()}, {_hand_names("left")}, {_hand_names("right")}""",
    f"""{_COCO_PARENTS}  15 17 15 16 20 16
    24 25 26 27 28 29 30 31 0 31 32 33 34 35 36 37 38  41 42 43 44 0 0 45 46 47 48
    0 50 51 52 55 56 53 56 57  60 61 62 0 62 63 0 65 66 67 70 65
    72 73 74 56 74 75 76 79 80 74 80 81  84 85 74 85 86 89 80 89
    9 91 92 93 94 91 96 97 98 91 100 101 102 91 104 105 106 91 108 109 110
    10 112 113 114 115 112 117 118 119 112 121 122 123 112 125 126 127 112 129 130 131""",
    center=0,
)

_ALL = (NTU, UCLA, COCO17, COCO133, MEDIAPIPE33, OPENPOSE18, OPENPOSE25, HALPE26)
SKELETONS = {skeleton.name: skeleton for skeleton in _ALL}
FLAT = frozenset({"coco17", "coco133", "openpose18", "openpose25", "halpe26"})
"""Of joints found in images: x, y and a score."""
