"""A made-up data set: people of different build doing simple actions before three cameras.

Nothing here is recorded. Samples have NTU RGB+D names (``SsssCcccPpppRrrrAaaa``), joints and
metres, so that whatever works on NTU RGB+D works on them: split rules, feeders, preprocessing of
raw files. Every sample is a function of its name and a seed.

    python -m data.demo --out data/nturgbd_raw

writes raw ``.skeleton`` files where the preprocessing looks for them.

An action id is one of eight movements in one of fifteen manners (which hand, how fast, how
large), hence 120 classes. Neighbouring clips of an action start anywhere in its cycle, at a tempo
and size that belong to the performer: a single pose tells little, its change in time much.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np

from data.demo.motion import ACTIONS, Action, Body, act, joint_positions, mirrored
from data.errors import DataError
from data.splits import SampleName, parse_name

FRAME_RATE = 30.0
FRAMES = (60, 100)

# Tempo and size of the manners. Performers differ by a fifth at most, so manners stay apart.
_TEMPI = (1.0, 1.9, 0.55)
_SIZES = (1.0, 0.55, 1.5)

_CAMERA_YAWS = {1: 0.0, 2: np.pi / 4, 3: -np.pi / 4}
_NOISE = 0.006  # of a joint, metres; ends of limbs are tracked twice as badly
_LIMB_ENDS = (7, 11, 15, 19, 21, 22, 23, 24)

# What a random number is for; part of its seed, so that purposes share none.
_PERFORMER, _PERFORMANCE, _VIEW = range(3)


def samples(
    *,
    actions: int | Sequence[int] = 8,
    performers: int = 20,
    cameras: int = 3,
    replications: int = 2,
) -> list[SampleName]:
    """Every combination, in the order of their names.

    A performer has one setup for the actions up to 60 (setups 1 to 17, as in NTU RGB+D 60), and
    one for those beyond (18 to 32).

    Args:
        actions: how many, or which ids.

    Raises:
        DataError: a number is out of range.
    """
    ids = range(1, actions + 1) if isinstance(actions, int) else sorted(set(actions))
    most = {"performers": (performers, 999), "cameras": (cameras, 3)}
    most |= {"replications": (replications, 999)}
    wanted = [("actions", number, 120) for number in (min(ids, default=0), max(ids, default=0))]
    for what, number, limit in wanted + [(what, *pair) for what, pair in most.items()]:
        if not 1 <= number <= limit:
            raise DataError(f"demo: {what} {number} is not between 1 and {limit}")
    counts = (range(1, count + 1) for count in (performers, cameras, replications))
    names = []
    for action, performer, camera, take in product(ids, *counts):
        setup = 1 + (performer - 1) % 17 if action <= 60 else 18 + (performer - 1) % 15
        names.append(f"S{setup:03d}C{camera:03d}P{performer:03d}R{take:03d}A{action:03d}")
    return [parse_name(name) for name in sorted(names)]


def perform(sample: SampleName, *, seed: int = 0, second_body: float = 0.0) -> np.ndarray:
    """One sample's joints, float32 (T, M, 25, 3), metres before the camera.

    T is 60 to 100. M is 1, or 2 with probability ``second_body``. Cameras see the same
    performance from different places, with noise of their own.
    """
    key = (sample.subject, sample.replication, sample.action)
    random = np.random.default_rng((seed, _PERFORMANCE, *key))
    frames = int(random.integers(FRAMES[0], FRAMES[1] + 1))
    facing = random.normal(0.0, 0.15)
    people = [_person(sample.subject, sample.action, frames, seed, random)]
    if random.random() < second_body:
        partner = _person(sample.subject + 1, sample.action, frames, seed, random)
        people.append(partner + np.array([random.uniform(0.8, 1.2), 0.0, 0.1]))
    world = _turn(np.stack(people, axis=1), facing)
    view = np.random.default_rng((seed, _VIEW, sample.setup, sample.camera, *key))
    return _seen(world, sample, view).astype(np.float32)


def describe(action: int) -> str:
    """What action id ``action``, from 1, is: "wave", "kick, left, fast", ..."""
    base, left, tempo, size = _manner(action)
    words = {"left": left, "fast": tempo > 1, "slow": tempo < 1, "small": size < 1}
    words["large"] = size > 1
    return ", ".join([base.name, *(word for word, applies in words.items() if applies)])


def _manner(action: int) -> tuple[Action, bool, float, float]:
    """An action id's movement, whether it is left-handed, its tempo and its size."""
    manner, base = divmod(action - 1, len(ACTIONS))
    pace, left = divmod(manner, 2)
    size, tempo = divmod(pace, len(_TEMPI))
    return ACTIONS[base], bool(left), _TEMPI[tempo], _SIZES[size]


def _person(
    performer: int, action: int, frames: int, seed: int, random: np.random.Generator
) -> np.ndarray:
    """A performer's joints (T, 25, 3) in his own frame; ``random`` is the occasion's."""
    person = np.random.default_rng((seed, _PERFORMER, performer))
    body = Body(
        height=float(np.clip(person.normal(1.70, 0.09), 1.45, 2.0)),
        arm=person.normal(1.0, 0.04),
        leg=person.normal(1.0, 0.04),
        width=person.normal(1.0, 0.06),
    )
    base, left, tempo, size = _manner(action)
    tempo *= person.uniform(0.87, 1.15) * random.uniform(0.93, 1.07)
    size *= person.uniform(0.87, 1.15) * random.uniform(0.93, 1.07)

    seconds = np.arange(frames) / FRAME_RATE
    phase = random.random() + base.rate * tempo * seconds
    # From rest into the action and back; clips may begin or end in its middle.
    begin, end = random.uniform(-0.4, 0.4), seconds[-1] - random.uniform(-0.4, 0.4)
    engaged = np.clip(np.minimum(seconds - begin, end - seconds) / 0.3, 0, 1)
    pose = act(base, phase, size, engaged)
    if base.name == "walk":
        pose["travel"] = 0.5 * tempo * (seconds - seconds[-1] / 2)
    if left:
        pose = mirrored(pose)
    for channel in sorted(pose.keys() - {"lift", "travel"}):
        # What does not move may be held anyhow, arms above all, lest the posture tell the action.
        moves = np.ptp(pose[channel]) > 0.3
        spread = 0.12 if moves else 0.7 if "arm" in channel else 0.15
        pose[channel] = pose[channel] + (person.normal(0.0, 0.05) + random.normal(0.0, spread))
        beat, start = random.uniform(0.2, 0.6), random.uniform(0, 2 * np.pi)
        pose[channel] += 0.05 * np.sin(2 * np.pi * beat * seconds + start)
    return joint_positions(body, pose)


def _seen(world: np.ndarray, sample: SampleName, random: np.random.Generator) -> np.ndarray:
    """Move the performers (T, M, 25, 3) before the camera and add its noise."""
    setup = np.random.default_rng((_VIEW, sample.setup))
    height, distance = setup.uniform(0.8, 1.3), setup.uniform(2.8, 4.0)
    place = np.array([random.normal(0, 0.15), -height, distance + random.normal(0, 0.1)])
    yaw = _CAMERA_YAWS[sample.camera] + random.normal(0, 0.05)
    seen = _turn(world, yaw) + place
    spread = np.full((world.shape[2], 1), _NOISE)
    spread[list(_LIMB_ENDS)] *= 2
    return seen + spread * random.standard_normal(seen.shape)


def _turn(points: np.ndarray, yaw: float) -> np.ndarray:
    """Rotate (..., 3) about the vertical."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return points @ np.array([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])
