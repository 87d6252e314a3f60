"""What happens to a clip between the source and the model: one small class a transform.

A transform maps a clip (C, T, V, M) and a random generator to a clip. The generator belongs to
the sample: its numbers depend on (seed, epoch, index) alone, and a transform draws its numbers
from it in the order of the list. In a configuration a transform is a line,

    transforms: [Centre, {name: CropResize, ratios: [0.5, 1], window: 64}, my_package.Mine]

Any class with ``__call__(self, x, rng)`` serves. Arguments are keywords, and kept as attributes of
the same names, so that they can travel with the weights. One with an attribute ``preprocessing``, a
list of words, is no augmentation: training and testing must agree in it.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from data.errors import DataError
from data.skeletons import SKELETONS, mirror_joints
from feeders.arguments import one_of

HOMES = {"transforms": "feeders.transforms", "streams": None}
"""Lists of names in a feeder's arguments; the module that a name without a dot is of, if it is one
of a class."""


class Centre:
    """Move the clip so that ``joint`` is at the origin in the first frame (of the first person)."""

    def __init__(self, *, joint: int = 1) -> None:
        self.joint = joint
        self.preprocessing = ["centre" if joint == 1 else f"centre on joint {joint}"]

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return x - x[:, :1, self.joint : self.joint + 1, :1]


class ToOrigin:
    """Move ``joint`` of the first person to the origin, as it is in the first frame he is in.

    As NTU RGB+D is prepared. Who is absent stays at zero, and a clip that has the joint there in
    some frame stays as it is.
    """

    def __init__(self, *, joint: int = 1) -> None:
        self.joint = joint

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        there = (x != 0).any(axis=(0, 2))
        frames = np.flatnonzero(there[:, 0])
        place = x[:, frames, self.joint, 0]
        if not len(frames) or (place == 0).all(axis=0).any():
            return x
        return np.where(there[:, None], x - place[:, :1, None, None], 0).astype(x.dtype)


class LoneTwice:
    """Show a lone person twice, as NTU RGB+D 120 is prepared."""

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.broadcast_to(x, (*x.shape[:3], 2)) if x.shape[-1] == 1 else x


class ValidFrames:
    """Keep as many frames, from the first, as do not add up to zero.

    As published for NTU RGB+D: a gap shortens what is used at the end, and coordinates that cancel
    count as missing. The float32 additions run over coordinates, persons, joints. A clip with
    nobody in it keeps one frame.
    """

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return x[:, : max(count_valid(x), 1)]


class CropResize:
    """Crop a part of the frames and stretch or squeeze it to ``window`` frames, linearly.

    Args:
        ratios: of the frames kept: one number for a crop in the middle, two for a random crop with
            a ratio between them and a random place.
        window: T of the result.
        shortest: frames a random crop keeps at least (64, as published for NTU RGB+D).

    Raises:
        DataError: the ratios are not one or two rising numbers in (0, 1].
    """

    def __init__(
        self, *, ratios: float | Sequence[float] = (1.0,), window: int = 64, shortest: int = 64
    ) -> None:
        self.ratios = checked_ratios("ratios", ratios)
        self.window, self.shortest = window, shortest

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        start, length = self.choose(x.shape[1], rng)
        return resize(x[:, start : start + length], self.window)

    def choose(self, valid: int, rng: np.random.Generator) -> tuple[int, int]:
        """Start and length of the crop of a clip of ``valid`` frames."""
        if len(self.ratios) == 1:
            start = int((1 - self.ratios[0]) * valid / 2)
            return start, valid - 2 * start
        low, high = self.ratios
        u, v = rng.random(2)
        length = min(max(int(valid * (low + (high - low) * u)), self.shortest), valid)
        return start_of(v, valid - length), length


class Persons:
    """Make the clip one of ``count`` persons: those it lacks are zero, more are left out."""

    def __init__(self, *, count: int) -> None:
        self.count = count

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        have = x.shape[-1]
        if have >= self.count:
            return x[..., : self.count]
        padded = np.zeros((*x.shape[:-1], self.count), dtype=x.dtype)
        padded[..., :have] = x
        return padded


class KeepRate:
    """Keep the frame rate: put the clip into ``window`` frames, zeros before and after it.

    Args:
        choose: of a longer clip take a random stretch, instead of the middle.
        shift: put a shorter clip at a random place, instead of the beginning.
    """

    def __init__(self, *, window: int, choose: bool = False, shift: bool = False) -> None:
        self.window, self.choose, self.shift = window, choose, shift

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        room = self.window - x.shape[1]
        if room <= 0:
            start = start_of(rng.random(), -room) if self.choose else -room // 2
            return x[:, start : start + self.window]
        start = start_of(rng.random(), room) if self.shift or self.choose else 0
        placed = np.zeros((x.shape[0], self.window, *x.shape[2:]), dtype=x.dtype)
        placed[:, start : start + x.shape[1]] = x
        return placed


class EvenFrames:
    """Pick ``window`` equally spaced frames, first and last among them."""

    def __init__(self, *, window: int) -> None:
        self.window = window

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return x[:, np.linspace(0, x.shape[1] - 1, self.window).astype(np.int64)]


class RandomFrames:
    """Pick ``window`` frames at random, repeats allowed, in their order."""

    def __init__(self, *, window: int) -> None:
        self.window = window

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        frames = (rng.random(self.window) * x.shape[1]).astype(np.int64)
        frames.sort()
        return x.take(frames, axis=1)


class UnitBox:
    """Move and scale the clip into [-1, 1], over all its frames and joints.

    Args:
        per_axis: each axis by its own extent, as published for NW-UCLA; else all by the largest,
            which leaves the body's proportions as they are.
    """

    def __init__(self, *, per_axis: bool = True) -> None:
        self.per_axis = per_axis
        self.preprocessing = ["centre", "unit_box" if per_axis else "unit_box_in_proportion"]

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        flat = x.reshape(len(x), -1)
        low, high = flat.min(axis=1, keepdims=True), flat.max(axis=1, keepdims=True)
        extent = high - low
        if not self.per_axis:
            low = (low + high - extent.max()) / 2
            extent = np.full_like(extent, extent.max())
        # To the last bit what 2 (x - low) / extent - 1 gives; an axis without extent goes to 0.
        has_extent = (extent > 0).astype(x.dtype)
        unit = flat - low
        unit /= extent / 2 + (1 - has_extent)
        unit -= has_extent
        return unit.reshape(x.shape)


class BodyScale:
    """Move the clip's mean to the origin and its standard deviation to one, in proportion.

    Over the joints that are there: those at zero are missing and stay there. Pixels, metres and
    ratios of an image's width then look alike. A score keeps its values.

    Args:
        axes: how many of the channels are coordinates.
    """

    def __init__(self, *, axes: int) -> None:
        self.axes = axes
        self.preprocessing = ["body_scale"]

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        there = (x[: self.axes] != 0).any(axis=0)
        if not there.any():
            return x
        points = x[: self.axes, there].astype(np.float64)
        moved = points - points.mean(axis=1, keepdims=True)
        spread = moved.std()
        scaled = x.astype(np.float32)
        scaled[: self.axes, there] = moved / (spread if spread > 0 else 1)
        return scaled


class UnitLength:
    """Scale the clip so that two joints are ``length`` apart, in the mean of its frames.

    Of the first person, in the frames that have them apart; a clip without stays as it is. Between
    the ends of the trunk this gives bodies one size, however far they walk and however the clip is
    turned; a box (UnitBox) makes those small who walk far across the image.

    Args:
        joints: the two.
        length: their distance; a third for the trunk of a person of height 1 or so.
    """

    def __init__(self, *, joints: Sequence[int], length: float = 1.0) -> None:
        if len(joints) != 2 or joints[0] == joints[1] or length <= 0:
            raise DataError(f"UnitLength: {joints!r} and {length!r} are no two joints and a length")
        self.joints, self.length = joints, length
        told = f"{joints[0]} to {joints[1]} is {length:g}"
        self.preprocessing = [f"unit_length of joint {told}"]

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        first, second = self.joints
        apart = np.linalg.norm((x[:, :, first, 0] - x[:, :, second, 0]).astype(np.float64), axis=0)
        there = apart > 0
        if not there.any():
            return x
        return (x * (self.length / apart[there].mean())).astype(x.dtype)


class RandomRotate:
    """Turn the clip about the origin by random angles, and scale it by a random factor.

    Args:
        degrees: largest angle about x, y and z; 0 leaves an axis out.
        order: "zyx" for R_z R_y R_x, "xyz" for R_x R_y R_z.
        scale: bounds of the factor; None for none.

    Raises:
        DataError: not three angles, or another order.
    """

    def __init__(
        self,
        *,
        degrees: Sequence[float],
        order: str = "zyx",
        scale: Sequence[float] | None = None,
    ) -> None:
        if len(degrees) != 3:
            raise DataError(f"degrees: {degrees!r} are not three, about x, y and z")
        self.degrees, self.scale = degrees, scale
        self.radians = [math.radians(angle) for angle in degrees]
        self.order = one_of("order", order, ("zyx", "xyz"))

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.matmul(self.matrix(rng).astype(x.dtype), x.reshape(3, -1)).reshape(x.shape)

    def matrix(self, rng: np.random.Generator) -> np.ndarray:
        """The rotation times the factor, float64 (3, 3); angles are drawn in the order x, y, z."""
        a, b, c = ((2 * rng.random() - 1) * most if most else 0.0 for most in self.radians)
        # R_x(a) R_y(b) R_z(c) is the transpose of R_z(-c) R_y(-b) R_x(-a).
        turned = rotation(-a, -b, -c).T if self.order == "xyz" else rotation(a, b, c)
        if self.scale is None:
            return turned
        low, high = self.scale
        return turned * (low + (high - low) * rng.random())


class RandomMove:
    """Turn, scale and shift the clip in the image plane, changing linearly with time.

    Angle, scale and shift at the first and the last frame are drawn from the published lists; zero
    (absent) persons are moved like the others.
    """

    ANGLES = np.deg2rad([-10.0, -5.0, 0.0, 5.0, 10.0])
    SCALES = np.array([0.9, 1.0, 1.1])
    SHIFTS = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        u = rng.random(8)
        lists = (self.ANGLES, self.SCALES, self.SHIFTS, self.SHIFTS)
        ramps = [_ramp(values, u[2 * i : 2 * i + 2], x.shape[1]) for i, values in enumerate(lists)]
        angle, scale, right, up = (ramp.astype(x.dtype)[:, None, None] for ramp in ramps)
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        moved = x.copy()
        moved[0] = cos * x[0] - sin * x[1] + right
        moved[1] = sin * x[0] + cos * x[1] + up
        return moved


class Standardise:
    """Subtract a mean and divide by a deviation, arrays that broadcast over (C, T, V, M)."""

    preprocessing = ("standardise",)

    def __init__(self, *, mean: Any, std: Any) -> None:
        self.mean, self.std = np.asarray(mean, np.float32), np.asarray(std, np.float32)

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return (x - self.mean) / self.std


class Mirror:
    """With probability ``p``, exchange left and right and turn the x axis round.

    Args:
        skeleton: whose left and right joints ("ntu", "ucla", ...).
    """

    def __init__(self, *, skeleton: str, p: float = 0.5) -> None:
        if skeleton not in SKELETONS:
            raise DataError(f"Mirror: skeleton {skeleton!r} is not one of {sorted(SKELETONS)}")
        self.skeleton, self.p = skeleton, p
        self.joints = mirror_joints(SKELETONS[skeleton])

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() >= self.p:
            return x
        mirrored = x[:, :, self.joints]
        mirrored[0] *= -1
        return mirrored


class DropAxis:
    """With probability ``p``, set one random coordinate to zero (SkateFormer, ECCV 2024)."""

    def __init__(self, *, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        u, v = rng.random(2)
        if u >= self.p:
            return x
        dropped = x.copy()
        dropped[int(v * len(x))] = 0
        return dropped


class DropJoints:
    """With probability ``p``, hide some random joints over a random stretch of frames.

    Args:
        joints: bounds of their number. frames: bounds of the stretch's length.
    """

    def __init__(
        self, *, p: float = 0.5, joints: Sequence[int] = (4, 12), frames: Sequence[int] = (16, 32)
    ) -> None:
        self.p, self.joints, self.frames = p, joints, frames

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() >= self.p:
            return x
        most = (x.shape[2], x.shape[1])
        bounds = (self.joints, self.frames)
        count, length = (
            min(int(rng.integers(low, high + 1)), limit)
            for (low, high), limit in zip(bounds, most, strict=True)
        )
        hidden = rng.permutation(x.shape[2])[:count]
        start = int(rng.integers(0, x.shape[1] - length + 1))
        dropped = x.copy()
        dropped[:, start : start + length, hidden] = 0
        return dropped


class TimeWarp:
    """Run the clip at a smoothly changing speed, its length and both ends staying.

    Args:
        strength: how far the middle may be moved, as a ratio of the clip's length.
    """

    def __init__(self, *, strength: float = 0.15) -> None:
        self.strength = strength

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        time = np.linspace(0.0, 1.0, x.shape[1])
        bend = (2 * rng.random(2) - 1) * self.strength
        warped = time + bend[0] * np.sin(np.pi * time) + bend[1] / 2 * np.sin(2 * np.pi * time)
        position = np.clip(warped, 0.0, 1.0) * (x.shape[1] - 1)
        before = np.minimum(position.astype(np.int64), max(x.shape[1] - 2, 0))
        weight = (position - before).astype(x.dtype)[:, None, None]
        after = np.minimum(before + 1, x.shape[1] - 1)
        return x[:, before] * (1 - weight) + x[:, after] * weight


def count_valid(x: np.ndarray) -> int:
    """The number of frames of x (C, T, V, M) whose coordinates do not add up to zero."""
    if x.strides[-1] == 0:  # one person shown twice
        x = x[..., :1]
    per_joint = x[0] + x[1] + x[2]
    per_frame = per_joint.sum(axis=-1) if per_joint.shape[-1] > 1 else per_joint[..., 0]
    return int(np.count_nonzero(np.ascontiguousarray(per_frame).sum(axis=1)))


def resize(x: np.ndarray, window: int) -> np.ndarray:
    """Stretch or squeeze x (C, T, V, M) to ``window`` frames, linearly.

    Half-pixel centres, clamped at both ends, no anti-aliasing: frame i of the result lies at
    (i + 1/2) T / window - 1/2.
    """
    if x.shape[-1] > 1 and x.strides[-1] == 0:  # one person shown twice: computed once
        lone = resize(x[..., :1], window)
        return np.broadcast_to(lone, (*lone.shape[:-1], x.shape[-1]))
    length = x.shape[1]
    position = np.maximum((np.arange(window) + 0.5) * (length / window) - 0.5, 0)
    before = np.minimum(position.astype(np.int64), length - 1)
    after = np.minimum(before + 1, length - 1)
    weight = (position - before).astype(np.float32)[:, None, None]
    return x[:, before] * (1 - weight).astype(x.dtype) + x[:, after] * weight.astype(x.dtype)


def rotation(a: float, b: float, c: float) -> np.ndarray:
    """R_z(c) R_y(b) R_x(a), angles in radians, float64 (3, 3)."""
    ca, cb, cc, sa, sb, sc = *map(math.cos, (a, b, c)), *map(math.sin, (a, b, c))
    return np.array(
        [
            [cb * cc, sa * sb * cc - ca * sc, ca * sb * cc + sa * sc],
            [cb * sc, sa * sb * sc + ca * cc, ca * sb * sc - sa * cc],
            [-sb, sa * cb, ca * cb],
        ]
    )


def start_of(u: float, room: int) -> int:
    """A start from 0 to ``room``, all alike likely for u uniform in [0, 1)."""
    return int(u * (room + 1))


def checked_ratios(name: str, ratios: float | Sequence[float]) -> tuple[float, ...]:
    """``ratios`` as one or two rising numbers in (0, 1].

    Raises:
        DataError: it is something else; the message names the argument.
    """
    given = ratios if isinstance(ratios, Sequence) else [ratios]
    numbers = not any(isinstance(p, bool) or not isinstance(p, (int, float)) for p in given)
    if not numbers or len(given) not in (1, 2) or not 0 < given[0] <= given[-1] <= 1:
        raise DataError(f"{name}: {ratios!r} is not one or two rising numbers in (0, 1]")
    return tuple(float(p) for p in given)


def _ramp(candidates: np.ndarray, u: np.ndarray, frames: int) -> np.ndarray:
    """From one drawn candidate to another, (frames,); u is (2,)."""
    first, last = candidates[(u * len(candidates)).astype(np.int64)]
    return first + (last - first) * np.linspace(0, 1, frames)
