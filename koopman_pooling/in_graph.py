"""Preprocessing as tensor operations, so that it can be part of an exported graph.

Clips x (N, C, T, V, M) are padded to one length; ``frames`` (N,) says how many of T each has. What
is random in testing (rotations, random frames) has no place in a graph: see ``settled``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from feeders import transforms as known
from feeders.feeder_own import BodyScale

Clips = tuple[Tensor, Tensor]


def settled(transforms: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """The transforms with nothing random in them, and what became of each that had."""
    kept, notes = [], []
    for transform in transforms:
        fixed, why = transform, ""
        if isinstance(transform, known.RandomFrames):
            fixed, why = known.EvenFrames(window=transform.window), "equally spaced frames instead"
        elif isinstance(transform, known.CropResize) and len(transform.ratios) > 1:
            fixed = known.CropResize(ratios=transform.ratios[1:], window=transform.window)
            why = f"the middle {transform.ratios[1]:g} of a clip instead"
        elif isinstance(transform, known.KeepRate) and (transform.choose or transform.shift):
            fixed, why = known.KeepRate(window=transform.window), "the middle of a clip instead"
        elif isinstance(transform, _AUGMENTATIONS):
            fixed, why = None, "left out"
        kept += [fixed] if fixed else []
        notes += [f"{type(transform).__name__} is random: {why}"] if why else []
    return kept, notes


class Prepared(nn.Module):
    """A model with its preprocessing: raw joints in, what the model gives out.

    Args:
        transforms: without anything random.
        streams: names of known ones.
        parents: of each joint, (V,).

    Attributes:
        ragged: clips of a batch may differ in length, as ``frames`` says.

    Raises:
        KeyError: a transform or a stream that has no counterpart here.
    """

    parents: Tensor

    def __init__(
        self, model: nn.Module, transforms: Sequence[Any], streams: Sequence[str], parents: Any
    ) -> None:
        super().__init__()
        self.model = model
        self.steps = [(STEPS[type(transform)], transform) for transform in transforms]
        self.streams = [STREAMS[name] for name in streams]
        self.ragged = any(hasattr(transform, "window") for transform in transforms)
        self.register_buffer("parents", torch.as_tensor(parents))
        counts = [i for i, t in enumerate(transforms) if isinstance(t, known.Persons)]
        if any(isinstance(t, _MOVES_ZEROS) for i in counts for t in transforms[:i]):
            raise KeyError("Persons")  # pads with zeros after these: another result than before

    def forward(self, joints: Tensor, frames: Tensor | None = None) -> Any:
        """What the model makes of joints (N, M, T, V, C)."""
        x = joints.permute(0, 4, 2, 3, 1)
        x = torch.where(x.isfinite().all(1, keepdim=True), x, 0.0)  # as of a clip in memory
        if frames is None:
            frames = torch.full_like(x[:, 0, 0, 0, 0], x.shape[2], dtype=torch.int64)
        for step, transform in self.steps:
            x, frames = step(transform, x, frames)
        return self.model(torch.cat([stream(x, self.parents) for stream in self.streams], 1))


def bones(x: Tensor, parents: Tensor) -> Tensor:
    """Each joint minus its parent."""
    return x - x[:, :, :, parents]


def pose(x: Tensor, parents: Tensor) -> Tensor:
    """Each joint minus the skeleton's centre."""
    centre = (parents == torch.arange(len(parents))).int().argmax()
    return x - x[:, :, :, centre, None]


def motion(x: Tensor) -> Tensor:
    """The next frame minus this one; the last frame's is zero."""
    return torch.cat([x[:, :, 1:] - x[:, :, :-1], torch.zeros_like(x[:, :, :1])], 2)


STREAMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "joint": lambda x, parents: x,
    "pose": pose,
    "bone": bones,
    "joint_motion": lambda x, parents: motion(x),
    "bone_motion": lambda x, parents: motion(bones(x, parents)),
}


def _centre(of: known.Centre, x: Tensor, frames: Tensor) -> Clips:
    return x - x[:, :, :1, of.joint : of.joint + 1, :1], frames


def _to_origin(of: known.ToOrigin, x: Tensor, frames: Tensor) -> Clips:
    there = ((x != 0).any(1).any(2) & _there(x, frames)[:, 0, :, 0])[:, None, :, None]  # N1T1M
    first = there[:, 0, :, 0, 0]
    place = x[:, :, :, of.joint, 0]
    origin = place.gather(2, first.int().argmax(1)[:, None, None].expand(-1, x.shape[1], 1))
    stays = ((place == 0).all(1) & first).any(1) | ~first.any(1)
    moved = torch.where(there, x - origin[..., None, None], 0.0)
    return torch.where(stays[:, None, None, None, None], x, moved), frames


def _lone_twice(of: known.LoneTwice, x: Tensor, frames: Tensor) -> Clips:
    seen = (x[..., 1:] != 0) & _there(x, frames)
    alone = ~seen.any(dim=(1, 2, 3, 4), keepdim=True)
    return torch.where(alone, x[..., :1].expand_as(x), x), frames


def _unit_box(of: known.UnitBox, x: Tensor, frames: Tensor) -> Clips:
    there = _there(x, frames)
    low = torch.where(there, x, torch.inf).amin((2, 3, 4), keepdim=True)
    high = torch.where(there, x, -torch.inf).amax((2, 3, 4), keepdim=True)
    extent = high - low
    if not of.per_axis:
        largest = extent.amax(1, keepdim=True)
        low, extent = (low + high - largest) / 2, largest.expand_as(extent)
    has_extent = (extent > 0).to(x.dtype)
    return (x - low) / (extent / 2 + (1 - has_extent)) - has_extent, frames


def _body_scale(of: BodyScale, x: Tensor, frames: Tensor) -> Clips:
    points = x[:, : of.axes].double()
    there = (points != 0).any(1, keepdim=True) & _there(x, frames)
    count = there.sum((1, 2, 3, 4), keepdim=True).clamp(min=1)
    mean = torch.where(there, points, 0.0).sum((2, 3, 4), keepdim=True) / count
    moved = torch.where(there, points - mean, 0.0)
    spread = (moved.square().sum((1, 2, 3, 4), keepdim=True) / (of.axes * count)).sqrt()
    scaled = moved / torch.where(spread > 0, spread, 1.0)
    return torch.cat([scaled.to(x.dtype), x[:, of.axes :]], 1), frames


def _unit_length(of: known.UnitLength, x: Tensor, frames: Tensor) -> Clips:
    first, second = of.joints
    apart = (x[:, :, :, first, 0] - x[:, :, :, second, 0]).double().norm(dim=1)  # (N, T)
    there = (apart > 0) & _there(x, frames)[:, 0, :, 0, 0]
    mean = torch.where(there, apart, 0.0).sum(1) / there.sum(1).clamp(min=1)
    factor = torch.where(mean > 0, of.length / mean.clamp(min=1e-30), 1.0)
    return (x * factor[:, None, None, None, None]).to(x.dtype), frames


def _standardise(of: known.Standardise, x: Tensor, frames: Tensor) -> Clips:
    return (x - torch.as_tensor(of.mean)) / torch.as_tensor(of.std), frames


def _valid_frames(of: known.ValidFrames, x: Tensor, frames: Tensor) -> Clips:
    there = torch.arange(x.shape[2]) < frames[:, None]
    return x, ((x[:, :3].sum((1, 3, 4)) != 0) & there).sum(1).clamp(min=1)


def _crop_resize(of: known.CropResize, x: Tensor, frames: Tensor) -> Clips:
    start = ((1 - of.ratios[0]) * frames.double() / 2).long()[:, None]
    length = frames[:, None] - 2 * start
    scale = length.double() / of.window
    position = ((torch.arange(of.window).double() + 0.5) * scale - 0.5).clamp(min=0)
    before = torch.minimum(position.long(), length - 1)
    after = torch.minimum(before + 1, length - 1)
    weight = (position - before).to(x.dtype)[:, None, :, None, None]
    resized = _picked(x, start + before) * (1 - weight) + _picked(x, start + after) * weight
    return resized, torch.full_like(frames, of.window)


def _even_frames(of: known.EvenFrames, x: Tensor, frames: Tensor) -> Clips:
    place, last, most = torch.arange(of.window), frames[:, None] - 1, max(of.window - 1, 1)
    at = torch.where(place == most, last, (place * (last.double() / most)).long())
    return _picked(x, at), torch.full_like(frames, of.window)


def _keep_rate(of: known.KeepRate, x: Tensor, frames: Tensor) -> Clips:
    length = frames[:, None]
    at = torch.arange(of.window) + ((length - of.window) // 2).clamp(min=0)
    there = (at < length)[:, None, :, None, None]
    picked = torch.where(there, _picked(x, torch.minimum(at, length - 1)), 0.0)
    return picked, torch.full_like(frames, of.window)


def _persons(of: known.Persons, x: Tensor, frames: Tensor) -> Clips:
    """A graph is given as many persons as the model takes, absent ones as zeros."""
    return x, frames


def _there(x: Tensor, frames: Tensor) -> Tensor:
    """Whether a frame is one of the clip's own, (N, 1, T, 1, 1)."""
    return (torch.arange(x.shape[2]) < frames[:, None])[:, None, :, None, None]


def _picked(x: Tensor, at: Tensor) -> Tensor:
    """The frames ``at`` (N, W) of x."""
    return x.gather(2, at[:, None, :, None, None].expand(-1, x.shape[1], -1, *x.shape[3:]))


STEPS: dict[type, Callable[[Any, Tensor, Tensor], Clips]] = {
    known.ToOrigin: _to_origin,
    known.LoneTwice: _lone_twice,
    known.Centre: _centre,
    known.UnitBox: _unit_box,
    known.UnitLength: _unit_length,
    known.Standardise: _standardise,
    known.ValidFrames: _valid_frames,
    known.CropResize: _crop_resize,
    known.EvenFrames: _even_frames,
    known.KeepRate: _keep_rate,
    known.Persons: _persons,
    BodyScale: _body_scale,
}
_MOVES_ZEROS = (known.Centre, known.UnitBox, known.Standardise)
_AUGMENTATIONS = (
    *(known.RandomRotate, known.RandomMove, known.Mirror),
    *(known.DropAxis, known.DropJoints, known.TimeWarp),
)
