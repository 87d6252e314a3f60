"""The last step on coordinates: the origin moves to the first actor's spine."""

import numpy as np

from data.recording import JOINTS, SampleFault

SPINE = 1  # "joint 2" of the literature, the middle of the spine
_WIDTH = JOINTS * 3


def move_to_origin(joints: np.ndarray, source: str) -> np.ndarray:
    """Subtract the spine of actor 1 in the first frame in which actor 1 is anywhere but at zero.

    All frames and both actors use that one origin; nothing is rotated or scaled. Exact to the
    bit with the published scripts, two habits included:

    - the origin's frame is found by values, but absent actors by sums: a frame whose coordinates
      cancel can give the origin and then be set to zero itself;
    - only in two-actor samples (150 wide) are absent actors zero afterwards. An all-zero frame
      of a one-actor sample becomes minus the origin in every joint.

    Args:
        joints: float32 (T, 75) or (T, 150): actor, joint, x y z; metres.
        source: the sample's name, for messages.

    Returns:
        A new array of the same shape.

    Raises:
        SampleFault: actor 1 is at zero in all frames.
    """
    present = np.flatnonzero((joints[:, :_WIDTH] != 0).any(axis=1))
    if not len(present):
        raise SampleFault(source, None, "all joints of all frames are zero: there is no origin")
    origin = joints[present[0], 3 * SPINE : 3 * SPINE + 3]
    actors = joints.reshape(len(joints), -1, JOINTS, 3)
    moved = actors - origin
    if actors.shape[1] == 2:
        absent = joints.reshape(len(joints), 2, _WIDTH).sum(axis=2) == 0
        moved[absent] = 0
    return moved.reshape(joints.shape)
