"""The streams of a skeleton sequence: joint, pose, bone and their motion; one or several fused.

Arrays are (..., C, T, V, M). Several streams are concatenated as input channels, in the order
given.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from data.errors import DataError

Stream = Callable[[np.ndarray, np.ndarray], np.ndarray]
Streams = str | Sequence[str | Stream]


def joints(joints: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """The joints themselves; ``parents`` is int (V,), here and below."""
    return joints


def pose(joints: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Each joint minus the skeleton's centre in the same frame: without where the body goes."""
    centre = np.flatnonzero(parents == np.arange(len(parents)))
    return joints - np.take(joints, centre, axis=-2)


def bones(joints: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Each joint minus its parent. The skeleton's centre is its own, so that its bone is zero."""
    return joints - np.take(joints, parents, axis=-2)


def joint_motion(joints: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """The next frame minus this one; the last frame's motion is zero."""
    steps = np.empty_like(joints)
    following, current = joints[..., 1:, :, :], joints[..., :-1, :, :]
    np.subtract(following, current, out=steps[..., :-1, :, :])
    steps[..., -1, :, :] = 0
    return steps


def bone_motion(joints: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """The motion of the bones."""
    return joint_motion(bones(joints, parents), parents)


STREAMS: dict[str, Stream] = {
    "joint": joints,
    "pose": pose,
    "bone": bones,
    "joint_motion": joint_motion,
    "bone_motion": bone_motion,
}
"""By name. A new stream is a line here, or a class of one's own with such a ``__call__``."""

SPELLINGS = {"motion": "joint_motion", "bone motion": "bone_motion", "joint motion": "joint_motion"}
"""Published and short spellings."""

PUBLISHED = ("joint", "bone", "motion", "bone motion")
"""What NW-UCLA's published configurations call ``data_path``."""


def stream_table(streams: Streams | Mapping[str, Stream]) -> Mapping[str, Stream]:
    """The streams asked for, by name in our spelling.

    Raises:
        DataError: none, one twice, or one that there is not.
    """
    if isinstance(streams, Mapping):
        return streams
    given = [streams] if isinstance(streams, str) else list(streams)
    table: dict[str, Stream] = {}
    for stream in given:
        if isinstance(stream, str):
            name = SPELLINGS.get(stream, stream)
            if name not in STREAMS:
                raise DataError(f"streams: {name!r} is not one of {', '.join(STREAMS)}")
            table[name] = STREAMS[name]
        else:
            table[f"{type(stream).__module__}.{type(stream).__qualname__}"] = stream
    if not table or len(table) < len(given):
        raise DataError(f"streams: {given} are not distinct ones of {', '.join(STREAMS)}")
    return table


def published_streams(streams: Streams | None, *, bone: bool = False, vel: bool = False) -> Streams:
    """The streams of a feeder that also takes the published ``bone`` and ``vel``.

    Raises:
        DataError: both spellings are used.
    """
    if streams is None:
        return ("bone_motion" if vel else "bone") if bone else "joint_motion" if vel else "joint"
    if bone or vel:
        raise DataError(
            "streams: leave out bone and vel (or set them to False), which say it otherwise"
        )
    return streams


def instead(arguments: Mapping[str, Any], streams: Sequence[str]) -> dict[str, Any]:
    """What has to be laid over a feeder's ``arguments`` for ``streams``, whatever they say.

    Raises:
        DataError: as ``stream_table``.
    """
    changes: dict[str, Any] = {"streams": list(stream_table(streams))}
    if arguments.get("data_path") in PUBLISHED:
        changes["data_path"] = None
    return changes | {name: False for name in ("bone", "vel") if arguments.get(name)}


def fused(joints: np.ndarray, streams: Mapping[str, Stream], parents: np.ndarray) -> np.ndarray:
    """The streams of joints (..., C, T, V, M), one after the other on the channel axis."""
    parts = [stream(joints, parents) for stream in streams.values()]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-4)
