"""The last step on coordinates: the origin moves to the first actor's spine."""

import numpy as np

from data.preparation.recording import JOINTS, SampleFault

SPINE = 1  # "joint 2" of the literature, the middle of the spine
_WIDTH = JOINTS * 3


def find_origin(joints: np.ndarray, source: str) -> np.ndarray:
    """The spine of actor 1 in the first frame in which actor 1 is anywhere but at zero.

    Args:
        joints: float32 (T, 75) or (T, 150): actor, joint, x y z; metres.
        source: the sample's name, for messages.

    Returns:
        float32 (3,).

    Raises:
        SampleFault: actor 1 is at zero in all frames.
    """
    frames = np.flatnonzero((joints[:, :_WIDTH] != 0).any(axis=1))
    if not len(frames):
        raise SampleFault(source, None, "no frame to take the origin from: all joints are zero")
    return joints[frames[0], 3 * SPINE : 3 * SPINE + 3]


def move_to_origin(joints: np.ndarray, source: str) -> np.ndarray:
    """Subtract the one origin (``find_origin``) from all frames of both actors.

    Nothing is rotated or scaled. Exact to the bit with the published scripts, two habits of
    theirs included:

    - Kept: the origin's frame is found by values, but absent actors by sums: a frame whose
      coordinates cancel can give the origin and then be set to zero itself.
    - Kept: only in two-actor samples are absent actors zero afterwards. An all-zero frame of a
      one-actor sample becomes minus the origin in every joint.

    Args, Raises: as ``find_origin``.

    Returns:
        A new array of the same shape.
    """
    actors = joints.reshape(len(joints), -1, JOINTS, 3)
    moved = actors - find_origin(joints, source)
    if actors.shape[1] == 2:
        moved[~present(joints)] = 0
    return moved.reshape(joints.shape)


def present(joints: np.ndarray) -> np.ndarray:
    """Whether each actor is there in each frame, bool (T, 1 or 2).

    Kept: absent is whose coordinates add up to zero, as those of a real pose may.
    """
    return joints.reshape(len(joints), -1, _WIDTH).sum(axis=2) != 0
