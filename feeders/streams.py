"""The streams of a skeleton sequence: joint, bone, joint motion, bone motion; one or several fused.

Arrays are (..., C, T, V, M). Several streams are concatenated as input channels, in the order
given.
"""

from collections.abc import Callable, Sequence

import numpy as np

from data.errors import DataError


def bones(joints: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Return each joint minus its parent; ``parents`` is int (V,).

    The skeleton's centre is its own parent, so that its bone is zero.
    """
    return joints - np.take(joints, parents, axis=-2)


def motion(positions: np.ndarray) -> np.ndarray:
    """Return the next frame minus this one; the last frame's motion is zero."""
    steps = np.empty_like(positions)
    following, current = positions[..., 1:, :, :], positions[..., :-1, :, :]
    np.subtract(following, current, out=steps[..., :-1, :, :])
    steps[..., -1, :, :] = 0
    return steps


STREAMS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "joint": lambda joints, parents: joints,
    "bone": bones,
    "joint_motion": lambda joints, parents: motion(joints),
    "bone_motion": lambda joints, parents: motion(bones(joints, parents)),
}
"""By name: a function of joints (..., C, T, V, M) and parents (V,). A new stream is a line here."""

SPELLINGS = {"motion": "joint_motion", "bone motion": "bone_motion", "joint motion": "joint_motion"}
"""Published and short spellings."""


def stream_names(streams: str | Sequence[str]) -> tuple[str, ...]:
    """The streams asked for, in our spelling.

    Raises:
        DataError: none, one twice, or one that there is not.
    """
    given = [streams] if isinstance(streams, str) else list(streams)
    names = tuple(SPELLINGS.get(name, name) for name in given)
    unknown = [name for name in names if name not in STREAMS]
    if unknown or not names or len(set(names)) < len(names):
        fault = f"{unknown[0]!r} is none" if unknown else f"{given} are not distinct ones"
        raise DataError(f"streams: {fault} of {', '.join(STREAMS)}")
    return names


def published_streams(
    streams: str | Sequence[str] | None, *, bone: bool = False, vel: bool = False
) -> tuple[str, ...]:
    """The streams of a feeder that also takes the published ``bone`` and ``vel``.

    Raises:
        DataError: both spellings are used, or see ``stream_names``.
    """
    if streams is None:
        return (("bone_motion" if vel else "bone") if bone else "joint_motion" if vel else "joint",)
    if bone or vel:
        raise DataError(
            "streams: leave out bone and vel (or set them to False), which say it otherwise"
        )
    return stream_names(streams)


def fused(joints: np.ndarray, names: Sequence[str], parents: np.ndarray) -> np.ndarray:
    """The streams of joints (..., C, T, V, M), one after the other on the channel axis."""
    parts = [STREAMS[name](joints, parents) for name in names]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-4)
