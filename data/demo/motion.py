"""An articulated 25-joint body and the actions it can do, as functions of time.

Body frame: x to the performer's right, y up, z to the back (he looks along -z), metres. A pose is
a dict of channels, each an array (T,): angles in radians, distances in metres. A limb segment
points down at rest; ``*_flex`` swings it forward, ``*_out`` away from the body's middle. Channels
of the right side start with ``right_``, of the left with ``left_``.

Actions are periodic: each maps a cycle's phase in [0, 1) to the channels it moves, for a
right-handed performer; all other channels stay at rest.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data.skeletons import NTU

Pose = dict[str, np.ndarray]

REST = {
    "lean": 0.03,  # of the trunk, forward
    "sway": 0.0,  # of the trunk, to the right
    "twist": 0.0,  # of the shoulders, to the left
    "lift": 0.0,  # of the lowest ankle above the floor
    "travel": 0.0,  # forward
}
for _side in ("right", "left"):
    REST |= {f"{_side}_arm_flex": 0.05, f"{_side}_arm_out": 0.15}
    REST |= {f"{_side}_forearm_flex": 0.3, f"{_side}_forearm_out": 0.1}
    REST |= {f"{_side}_thigh_flex": 0.02, f"{_side}_thigh_out": 0.05, f"{_side}_shank_flex": -0.04}

_MIRRORED = ("sway", "twist")


class Body(NamedTuple):
    """A body: about its height in metres, and ratios of its other sizes to the average's."""

    height: float
    arm: float
    leg: float
    width: float


def joint_positions(body: Body, pose: Pose) -> np.ndarray:
    """Return where the joints are, float64 (T, 25, 3), in the body frame, standing on y = 0."""
    frames = len(pose["lean"])
    joints = np.zeros((frames, NTU.num_point, 3))
    index = {name: number for number, name in enumerate(NTU.joint_names)}
    lean, sway, twist = pose["lean"], pose["sway"], pose["twist"]
    up = np.stack([np.sin(sway), np.cos(sway) * np.cos(lean), -np.cos(sway) * np.sin(lean)], axis=1)
    right = np.stack([np.cos(twist), np.zeros_like(twist), -np.sin(twist)], axis=1)

    def place(name: str, parent: str, offset: np.ndarray) -> None:
        joints[:, index[name]] = joints[:, index[parent]] + body.height * offset

    place("spine middle", "spine base", 0.17 * up)
    place("spine top", "spine middle", 0.14 * up)
    place("neck", "spine top", 0.05 * up)
    place("head", "neck", 0.08 * up)
    for side, sign in (("right", 1.0), ("left", -1.0)):
        arm = _segment(pose, f"{side}_arm", sign, right)
        forearm = _segment(pose, f"{side}_forearm", sign, right)
        place(f"{side} shoulder", "spine top", 0.10 * body.width * sign * right)
        place(f"{side} elbow", f"{side} shoulder", 0.16 * body.arm * arm)
        place(f"{side} wrist", f"{side} elbow", 0.145 * body.arm * forearm)
        place(f"{side} hand", f"{side} wrist", 0.045 * forearm)
        place(f"{side} hand tip", f"{side} hand", 0.05 * forearm)
        across = _segment(pose, f"{side}_forearm", sign, right, further_out=np.pi / 2)
        place(f"{side} thumb", f"{side} hand", 0.02 * forearm - 0.025 * across)
        thigh = _segment(pose, f"{side}_thigh", sign, np.array([1.0, 0.0, 0.0]))
        shank = _direction(pose[f"{side}_shank_flex"], pose[f"{side}_thigh_out"] * sign)
        place(f"{side} hip", "spine base", np.array([0.05 * body.width * sign, -0.02, 0.0]))
        place(f"{side} knee", f"{side} hip", 0.24 * body.leg * thigh)
        place(f"{side} ankle", f"{side} knee", 0.23 * body.leg * shank)
        place(f"{side} foot", f"{side} ankle", np.array([0.0, -0.03, -0.07]))
    ankles = joints[:, [index["right ankle"], index["left ankle"]], 1]
    shift = np.zeros((frames, 3))
    shift[:, 1] = pose["lift"] - ankles.min(axis=1)
    shift[:, 2] = -pose["travel"]
    return joints + shift[:, None]


def _segment(
    pose: Pose, name: str, sign: float, right: np.ndarray, further_out: float = 0.0
) -> np.ndarray:
    """Return a limb segment's unit vector (T, 3), turned with the body part it hangs from."""
    local = _direction(pose[f"{name}_flex"], (pose[f"{name}_out"] + further_out) * sign)
    backward = np.stack([-right[..., 2], np.zeros(right.shape[:-1]), right[..., 0]], axis=-1)
    vertical = np.array([0.0, 1.0, 0.0])
    return local[:, :1] * right + local[:, 1:2] * vertical + local[:, 2:] * backward


def _direction(flex: np.ndarray, out: np.ndarray) -> np.ndarray:
    return np.stack([np.sin(out), -np.cos(out) * np.cos(flex), -np.cos(out) * np.sin(flex)], axis=1)


def _ramp(phase: np.ndarray, start: float, end: float) -> np.ndarray:
    """Rise smoothly from 0 at ``start`` to 1 at ``end``."""
    share = np.clip((phase - start) / (end - start), 0, 1)
    return share * share * (3 - 2 * share)


def _hold(phase: np.ndarray, start: float, full: float, until: float, end: float) -> np.ndarray:
    """Rise from 0 at ``start`` to 1 at ``full``, stay ``until``, be back at 0 at ``end``."""
    return _ramp(phase, start, full) - _ramp(phase, until, end)


def _wave(phase: np.ndarray, reach: float) -> Pose:
    """The hand above the shoulder goes left and right."""
    swing = reach * np.sin(2 * np.pi * phase)
    return {
        "right_arm_flex": np.full_like(phase, 0.5),
        "right_arm_out": 1.1 + 0.15 * swing,
        "right_forearm_flex": np.full_like(phase, 2.9),
        "right_forearm_out": 0.1 + 0.7 * swing,
    }


def _kick(phase: np.ndarray, reach: float) -> Pose:
    """The leg swings back, then up in front while the knee opens."""
    back = _hold(phase, 0.0, 0.25, 0.25, 0.5)
    front = reach * _hold(phase, 0.3, 0.55, 0.6, 1.0)
    thigh = -0.4 * back + 1.3 * front
    return {
        "right_thigh_flex": thigh,
        "right_shank_flex": thigh - 0.9 * back - 0.3 * front,
        "left_arm_flex": 0.6 * front - 0.2 * back,
        "right_arm_flex": 0.3 * back - 0.4 * front,
        "lean": -0.15 * front,
    }


def _sit(phase: np.ndarray, reach: float) -> Pose:
    """Down onto a chair the hand feels for, stay, and up again."""
    seated = reach * _hold(phase, 0.0, 0.3, 0.7, 1.0)
    moving = _hold(phase, 0.0, 0.15, 0.2, 0.35) + _hold(phase, 0.65, 0.8, 0.85, 1.0)
    return {
        "lean": 0.05 + 0.6 * moving,
        "right_arm_flex": 0.05 - 0.8 * moving,
        **_both_legs(thigh=1.4 * seated, shank=-0.1 * seated),
    }


def _jump(phase: np.ndarray, reach: float) -> Pose:
    """Crouch, leave the floor with one arm up, land."""
    crouch = _hold(phase, 0.0, 0.3, 0.3, 0.45) + 0.7 * _hold(phase, 0.75, 0.85, 0.85, 1.0)
    flight = np.clip((phase - 0.45) / 0.3, 0, 1)
    return {
        "lift": reach * 0.35 * 4 * flight * (1 - flight),
        "lean": 0.05 + 0.5 * crouch,
        "right_arm_flex": -0.6 * crouch + 2.4 * _hold(phase, 0.35, 0.55, 0.65, 0.9),
        **_both_legs(thigh=0.9 * crouch, shank=-0.8 * crouch),
    }


def _clap(phase: np.ndarray, reach: float) -> Pose:
    """The hands meet in front of the chest, turned a little to one side."""
    apart = reach * (0.5 - 0.5 * np.cos(2 * np.pi * phase))
    pose = {"twist": np.full_like(phase, 0.35)}
    for side in ("right", "left"):
        pose |= {
            f"{side}_arm_flex": np.full_like(phase, 0.7),
            f"{side}_arm_out": 0.2 + 0.5 * apart,
            f"{side}_forearm_flex": np.full_like(phase, 1.7),
            f"{side}_forearm_out": -0.4 + 0.9 * apart,
        }
    return pose


def _walk(phase: np.ndarray, reach: float) -> Pose:
    """A gait; one arm swings, the other keeps still as if it carried something."""
    angle = 2 * np.pi * phase
    pose = {
        "right_arm_flex": -0.5 * reach * np.sin(angle),
        "left_forearm_flex": np.full_like(phase, 1.5),
        "sway": 0.04 * np.cos(angle),
    }
    for side, stride in (("right", np.sin(angle)), ("left", -np.sin(angle))):
        lifted = np.clip(np.cos(angle) * (1 if side == "right" else -1), 0, None)
        thigh = reach * (0.45 * stride + 0.3 * lifted)
        pose |= {f"{side}_thigh_flex": thigh, f"{side}_shank_flex": thigh - 0.9 * reach * lifted}
    return pose


def _pick_up(phase: np.ndarray, reach: float) -> Pose:
    """Bend, reach for the floor with one hand, come up with it before the belly."""
    bent = _hold(phase, 0.0, 0.35, 0.45, 0.75)
    holding = _hold(phase, 0.55, 0.75, 0.9, 1.0)
    return {
        "lean": 0.03 + 1.1 * reach * bent,
        "twist": 0.3 * bent,
        "right_arm_flex": 0.05 + 0.9 * bent,
        "right_forearm_flex": 0.3 + 0.7 * bent + 1.2 * holding,
        **_both_legs(thigh=0.8 * reach * bent, shank=-0.6 * reach * bent),
    }


def _throw(phase: np.ndarray, reach: float) -> Pose:
    """Draw the arm back over the shoulder, then hurl it forward and down."""
    drawn = _hold(phase, 0.0, 0.45, 0.55, 0.65)
    follow = _hold(phase, 0.57, 0.68, 0.72, 1.0)
    return {
        "twist": reach * (-0.5 * drawn + 0.5 * follow),
        "lean": -0.1 * drawn + 0.3 * reach * follow,
        "right_arm_flex": 0.05 + 2.0 * drawn + 0.9 * follow,
        "right_arm_out": 0.15 + 0.7 * drawn,
        "right_forearm_flex": 0.3 + 3.3 * drawn + 0.7 * follow,
        "left_thigh_flex": 0.3 * reach * follow,
    }


def _both_legs(thigh: np.ndarray, shank: np.ndarray) -> Pose:
    return {
        f"{side}_{part}_flex": angle
        for side in ("right", "left")
        for part, angle in (("thigh", thigh), ("shank", shank))
    }


class Action(NamedTuple):
    """A verb, its cycles a second, and how phase (T,) and reach give channels (T,)."""

    name: str
    rate: float
    move: Callable[[np.ndarray, float], Pose]


ACTIONS = (
    Action("wave", 1.2, _wave),
    Action("kick", 0.7, _kick),
    Action("sit", 0.4, _sit),
    Action("jump", 0.7, _jump),
    Action("clap", 1.4, _clap),
    Action("walk", 0.9, _walk),
    Action("pick up", 0.4, _pick_up),
    Action("throw", 0.6, _throw),
)


def act(action: Action, phase: np.ndarray, reach: float, engaged: np.ndarray) -> Pose:
    """Return all channels of ``action`` at ``phase`` (T,), counted in cycles.

    ``reach`` is the size of the movement, 1 being ordinary; ``engaged`` (T,) leads from rest, 0,
    to the action, 1.
    """
    pose = {channel: np.full_like(phase, rest) for channel, rest in REST.items()}
    pose |= action.move(phase % 1.0, reach)
    return {channel: rest + engaged * (pose[channel] - rest) for channel, rest in REST.items()}


def mirrored(pose: Pose) -> Pose:
    """Return the pose as a mirror shows it: left and right exchanged."""
    swapped = {}
    for channel, values in pose.items():
        side, _, rest = channel.partition("_")
        other = {"right": f"left_{rest}", "left": f"right_{rest}"}.get(side, channel)
        swapped[other] = -values if channel in _MIRRORED else values
    return swapped
