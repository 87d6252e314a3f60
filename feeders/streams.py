"""The four streams of a skeleton sequence: joint, bone, joint motion, bone motion.

Arrays are (..., T, V, M): time, joint and person are the last three axes, whatever leads.
"""

import numpy as np


def stream_name(as_bones: bool, as_motion: bool) -> str:
    """What a stream is called: joint, bone, joint_motion, bone_motion."""
    return ("bone" if as_bones else "joint") + ("_motion" if as_motion else "")


def bones(joints: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Return each joint minus its parent, (..., T, V, M); ``parents`` is int (V,).

    The skeleton's centre is its own parent, so that its bone is zero.
    """
    return joints - np.take(joints, parents, axis=-2)


def motion(positions: np.ndarray) -> np.ndarray:
    """Return the next frame minus this one, (..., T, V, M); the last frame's motion is zero."""
    steps = np.zeros_like(positions)
    following, current = positions[..., 1:, :, :], positions[..., :-1, :, :]
    np.subtract(following, current, out=steps[..., :-1, :, :])
    return steps
