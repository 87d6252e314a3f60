"""Write joints as a raw NTU RGB+D ``.skeleton`` file.

The format is that of ``data/preparation/recording.py``. The nine fields after x, y, z are the joint
in the depth and in the colour image, an orientation quaternion w x y z, and the tracking state.
"""

import os
from pathlib import Path

import numpy as np

from torchlight.files import atomic_write

# Kinect v2: focal lengths and centres of the depth (512 x 424) and colour (1920 x 1080) images.
_DEPTH_CAMERA = (365.0, 256.5, 207.5)
_COLOUR_CAMERA = (1060.0, 961.0, 541.0)

_BODY = "{id} 0 1 1 1 1 0 0 0 2\n{joints}\n"
_JOINT = "%.7g %.7g %.7g %.7g %.7g %.7g %.7g 0 0 0 0 2\n"
_FIRST_BODY_ID = 72057594037931691


def write_skeleton_file(path: str | os.PathLike[str], joints: np.ndarray) -> None:
    """Write ``joints`` (T, M, V, 3), metres before the camera, all M bodies in every frame.

    Read back, the coordinates are the same float32 numbers to 7 digits.

    Raises:
        OSError: the file cannot be written.
    """
    frames, bodies, points, _ = joints.shape
    lines = np.concatenate([joints, *_pixels(joints)], axis=-1).reshape(frames, bodies, -1)
    headers = [_BODY.format(id=_FIRST_BODY_ID + body, joints=points) for body in range(bodies)]
    form = f"{bodies}\n" + "".join(header + _JOINT * points for header in headers)
    text = "".join(form % tuple(frame) for frame in lines.reshape(frames, -1).tolist())
    with atomic_write(path) as temporary:
        Path(temporary).write_text(f"{frames}\n{text}", encoding="ascii")


def _pixels(joints: np.ndarray) -> list[np.ndarray]:
    """Project (..., 3) into the depth and the colour image, (..., 2) each."""
    depth = joints[..., 2:]
    flipped = joints[..., :2] * np.array([1.0, -1.0], dtype=joints.dtype)
    return [
        focal * flipped / depth + np.array([u, v], dtype=joints.dtype)
        for focal, u, v in (_DEPTH_CAMERA, _COLOUR_CAMERA)
    ]
