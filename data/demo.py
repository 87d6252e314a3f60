"""A made-up data set: people of different build doing simple actions before three cameras.

Nothing here is recorded. Samples have NTU RGB+D names (``SsssCcccPppppRrrrAaaa``), joints and
metres, so that whatever works on NTU RGB+D works on them: split rules, feeders, preprocessing of
raw files. Every sample is a function of its name and a seed.

    python -m data.demo --out data/nturgbd_raw

writes raw ``.skeleton`` files where the preprocessing looks for them.

An action id is one of eight movements in one of fifteen manners (which hand, how fast, how
large), hence 120 classes. Neighbouring clips of an action start anywhere in its cycle, at a tempo
and size that belong to the performer: a single pose tells little, its change in time much.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.demo_motion import ACTIONS, Action, Body, act, joint_positions, mirrored
from data.errors import DataError
from data.skeleton_text import write_skeleton_file
from data.splits import EXEMPLARS, NOVEL_ACTIONS, parse_name
from torchlight.files import path_argument, print_any_text

FRAME_RATE = 30.0
FRAMES = (60, 100)
MAX_ACTIONS = 120

# Tempo and size of the manners. Performers differ by a fifth at most, so manners stay apart.
_TEMPI = (1.0, 1.9, 0.55)
_SIZES = (1.0, 0.55, 1.5)

_CAMERA_YAWS = {1: 0.0, 2: np.pi / 4, 3: -np.pi / 4}
_NOISE = 0.006  # of a joint, metres; ends of limbs are tracked twice as badly
_LIMB_ENDS = (7, 11, 15, 19, 21, 22, 23, 24)

# What a random number is for; part of its seed, so that purposes share none.
_PERFORMER, _PERFORMANCE, _VIEW = range(3)


@dataclass(frozen=True)
class Sample:
    """One clip; all numbers count from 1, as in its name."""

    setup: int
    camera: int
    performer: int
    replication: int
    action: int

    @property
    def name(self) -> str:
        """The sample's NTU RGB+D name."""
        return (
            f"S{self.setup:03d}C{self.camera:03d}P{self.performer:03d}"
            f"R{self.replication:03d}A{self.action:03d}"
        )


def samples(
    *,
    actions: int | Sequence[int] = 8,
    performers: int = 20,
    cameras: int = 3,
    replications: int = 2,
) -> list[Sample]:
    """Return every combination, in the order of their names.

    A performer has one setup for the actions up to 60 (setups 1 to 17, as in NTU RGB+D 60), and
    one for those beyond (18 to 32).

    Args:
        actions: how many, or which ids.

    Raises:
        DataError: a number is out of range.
    """
    ids = range(1, actions + 1) if isinstance(actions, int) else sorted(set(actions))
    least, most = min(ids, default=0), max(ids, default=0)
    limits = {"actions": MAX_ACTIONS, "performers": 999, "cameras": 3, "replications": 999}
    wanted = {
        "actions": least if least < 1 else most,
        "performers": performers,
        "cameras": cameras,
        "replications": replications,
    }
    for what, number in wanted.items():
        if not 1 <= number <= limits[what]:
            raise DataError(f"demo: {what} {number} is not between 1 and {limits[what]}")
    combinations = (
        Sample(_setup(performer, action), camera, performer, replication, action)
        for action in ids
        for performer in range(1, performers + 1)
        for camera in range(1, cameras + 1)
        for replication in range(1, replications + 1)
    )
    return sorted(combinations, key=lambda sample: sample.name)


def exemplars() -> list[Sample]:
    """The clips that the one-shot protocol of NTU RGB+D 120 names, in the order of their names."""
    named = [parse_name(name) for name in sorted(EXEMPLARS)]
    return [Sample(n.setup, n.camera, n.subject, n.replication, n.action) for n in named]


def generate(
    wanted: Iterable[Sample], *, seed: int = 0, second_body: float = 0.0
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, joints float32 (T, M, 25, 3)) of each sample, in metres before the camera.

    T is 60 to 100. M is 1, or 2 with probability ``second_body``. Cameras see the same
    performance from different places, with noise of their own.
    """
    for sample in wanted:
        yield sample.name, perform(sample, seed=seed, second_body=second_body)


def perform(sample: Sample, *, seed: int = 0, second_body: float = 0.0) -> np.ndarray:
    """Return one sample's joints, float32 (T, M, 25, 3); see ``generate``."""
    key = (sample.performer, sample.replication, sample.action)
    random = _generator(seed, _PERFORMANCE, *key)
    frames = int(random.integers(FRAMES[0], FRAMES[1] + 1))
    facing = random.normal(0.0, 0.15)
    people = [_person(sample.performer, sample.action, frames, seed, random)]
    if random.random() < second_body:
        partner = _person(sample.performer + 1, sample.action, frames, seed, random)
        people.append(partner + np.array([random.uniform(0.8, 1.2), 0.0, 0.1]))
    world = _turn(np.stack(people, axis=1), facing)
    view = _generator(seed, _VIEW, sample.setup, sample.camera, *key)
    return _seen(world, sample, view).astype(np.float32)


def write_raw(
    folder: Path, wanted: Iterable[Sample], *, seed: int = 0, second_body: float = 0.0
) -> int:
    """Write samples as raw NTU RGB+D files under ``folder``; return how many.

    Setups up to 17 go to ``nturgb+d_skeletons``, others to ``nturgb+d_skeletons120``.
    """
    count = 0
    for sample in wanted:
        part = "nturgb+d_skeletons" if sample.setup <= 17 else "nturgb+d_skeletons120"
        (folder / part).mkdir(parents=True, exist_ok=True)
        joints = perform(sample, seed=seed, second_body=second_body)
        write_skeleton_file(folder / part / f"{sample.name}.skeleton", joints)
        count += 1
    return count


def describe(action: int) -> str:
    """Say what action id ``action``, from 1, is: "wave", "kick, left, fast", ..."""
    base, left, tempo, size = _manner(action)
    words = {
        "left": left,
        "fast": tempo > 1,
        "slow": tempo < 1,
        "small": size < 1,
        "large": size > 1,
    }
    return ", ".join([base.name, *(word for word, applies in words.items() if applies)])


def _manner(action: int) -> tuple[Action, bool, float, float]:
    """Return an action id's movement, whether it is left-handed, its tempo and its size."""
    manner, base = divmod(action - 1, len(ACTIONS))
    pace, left = divmod(manner, 2)
    size, tempo = divmod(pace, len(_TEMPI))
    return ACTIONS[base], bool(left), _TEMPI[tempo], _SIZES[size]


def _setup(performer: int, action: int) -> int:
    return 1 + (performer - 1) % 17 if action <= 60 else 18 + (performer - 1) % 15


def _generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def _person(
    performer: int, action: int, frames: int, seed: int, random: np.random.Generator
) -> np.ndarray:
    """Return a performer's joints (T, 25, 3) in his own frame; ``random`` is the occasion's."""
    person = _generator(seed, _PERFORMER, performer)
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
    pose = act(base, phase, size, _engaged(seconds, random))
    if base.name == "walk":
        pose["travel"] = 0.5 * tempo * (seconds - seconds[-1] / 2)
    if left:
        pose = mirrored(pose)
    for channel in sorted(pose.keys() - {"lift", "travel"}):
        pose[channel] = pose[channel] + _habit(channel, pose[channel], person, random)
        beat, start = random.uniform(0.2, 0.6), random.uniform(0, 2 * np.pi)
        pose[channel] += 0.05 * np.sin(2 * np.pi * beat * seconds + start)
    return joint_positions(body, pose)


def _habit(
    channel: str, course: np.ndarray, person: np.random.Generator, random: np.random.Generator
) -> float:
    """How a performer, and on this occasion, holds a part of the body: radians to add.

    What does not move may be held anyhow, arms above all, lest the posture give the action away.
    """
    moves = np.ptp(course) > 0.3
    spread = 0.12 if moves else 0.7 if "arm" in channel else 0.15
    return person.normal(0.0, 0.05) + random.normal(0.0, spread)


def _engaged(seconds: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """From rest into the action and back, (T,); clips may begin or end in its middle."""
    begin, end = random.uniform(-0.4, 0.4), seconds[-1] - random.uniform(-0.4, 0.4)
    ramp = np.minimum(seconds - begin, end - seconds) / 0.3
    return np.clip(ramp, 0, 1)


def _seen(world: np.ndarray, sample: Sample, random: np.random.Generator) -> np.ndarray:
    """Move the performers (T, M, 25, 3) before the camera and add its noise."""
    setup = _generator(_VIEW, sample.setup)
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


def main(argv: list[str] | None = None) -> int:
    """Write raw files; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m data.demo", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=path_argument, required=True, help="folder to write to")
    parser.add_argument("--actions", type=int, default=8, help="classes, up to 120 (default: 8)")
    parser.add_argument("--action-ids", type=int, nargs="+", metavar="ID", help="these instead")
    parser.add_argument(
        "--exemplars",
        action="store_true",
        help="also the 20 novel actions of NTU RGB+D 120's one-shot protocol, with the clips it "
        "names",
    )
    parser.add_argument("--performers", type=int, default=20, help="people (default: 20)")
    parser.add_argument("--cameras", type=int, default=3, help="views, up to 3 (default: 3)")
    parser.add_argument("--replications", type=int, default=2, help="takes (default: 2)")
    parser.add_argument(
        "--second-body", type=float, default=0.1, help="share of clips with two (default: 0.1)"
    )
    parser.add_argument("--limit", type=int, help="write only the first this many")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    print_any_text()
    actions = args.action_ids or range(1, args.actions + 1)
    try:
        wanted = samples(
            actions=[*actions, *(NOVEL_ACTIONS if args.exemplars else ())],
            performers=args.performers,
            cameras=args.cameras,
            replications=args.replications,
        )[: args.limit]
        if args.exemplars:
            wanted = sorted({*wanted, *exemplars()}, key=lambda sample: sample.name)
        count = write_raw(args.out, wanted, seed=args.seed, second_body=args.second_body)
    except (DataError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    classes = ", ".join(describe(action) for action in sorted({s.action for s in wanted}))
    print(f"wrote {count} files under {args.out}; actions: {classes}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
