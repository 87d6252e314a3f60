"""NW-UCLA sequences as tensors (C, T, V, M): three coordinates, 52 frames, 20 joints, one person.

Testing is deterministic. Training turns, scales and re-times each sequence at random; the numbers
drawn depend on (seed, epoch, index) alone.

Every sequence is moved to the unit box: per axis, its smallest and largest coordinate over all
frames and joints become -1 and 1. This is an affine map, and so is the random turn before it, so
training composes the two and applies them once, to the frames drawn.
"""

import os

import numpy as np

from data import ucla
from data.errors import DataError
from data.skeletons import UCLA, bone_parents
from feeders.base import BatchFeeder, at_least_one, one_of
from feeders.clips import Clips, corners, turns
from feeders.randomness import sample_uniforms
from feeders.streams import bones, motion, stream_name

WINDOW = 52
DEBUG_SAMPLES = 100
MAX_ANGLE = np.deg2rad(60.0)
SCALES = (0.5, 1.5)

_ORIGIN_JOINT = 1  # the spine, "joint 2" in the literature's count
_STREAMS = {
    "joint": (False, False),
    "bone": (True, False),
    "motion": (False, True),
    "bone motion": (True, True),
}  # (as bones, as motion); bone motion is the motion of the bones


class Feeder(BatchFeeder):
    """One split of NW-UCLA.

    Samples are in order of their names.

    Args:
        data_path: the stream, "joint", "bone", "motion" or "bone motion" (this benchmark's
            published configurations name it so).
        label_path: the split as published configurations give it, a text with "train" or "val"
            in it.
        split: "train" (views 1 and 2; the default) or "test" (view 3; "val" means the same).
        root: folder of the JSON files.
        cache_dir: where the parsed files are kept; None is the user's cache folder.
        repeat: how often each sequence is seen in an epoch.
        window_size: number of frames; -1 means 52.
        augment: random rotation, scale and frames; None means in the training split only.
        debug: only the first 100 samples.
        random_choose, use_mmap: accepted as published. Augmentation always draws its frames at
            random, and the data are always shared through the cache.
        random_shift, random_move, normalization: refused if True; the published feeder has no
            such thing for this benchmark, and silence would mislead.
        seed: of all random numbers.
        dtype: "float32", or "float64" for comparisons.

    Attributes:
        class_names: what the actions are.

    Raises:
        DataError: an argument has an impossible value, or the data are missing or malformed.
    """

    def __init__(
        self,
        *,
        data_path: str = "joint",
        label_path: str | None = None,
        split: str | None = None,
        root: str | os.PathLike[str] = ucla.DEFAULT_ROOT,
        cache_dir: str | os.PathLike[str] | None = None,
        repeat: int = 1,
        window_size: int = -1,
        augment: bool | None = None,
        debug: bool = False,
        random_choose: bool = False,
        random_shift: bool = False,
        random_move: bool = False,
        normalization: bool = False,
        use_mmap: bool = True,
        seed: int = 0,
        dtype: str = "float32",
    ) -> None:
        _refuse(random_shift=random_shift, random_move=random_move, normalization=normalization)
        split = resolve_split(split, label_path)
        self.augment = split == "train" if augment is None else augment
        self.window_size = WINDOW if window_size == -1 else at_least_one("window_size", window_size)
        self._dtype = np.dtype(one_of("dtype", dtype, ("float32", "float64")))
        self._as_bones, self._as_motion = _STREAMS[one_of("data_path", data_path, list(_STREAMS))]

        names, sequences = _select(ucla.load(root, cache_dir), split, debug)
        if not names:
            views = " and ".join(str(view) for view in ucla.VIEWS[split])
            raise DataError(f"{root}: no sequence of the {split} split (view {views})")
        parsed = [ucla.parse_name(name) for name in names]
        super().__init__(
            sample_names=names,
            labels=[sample.label for sample in parsed],
            subjects=[sample.subject for sample in parsed],
            repeat=repeat,
            seed=seed,
        )
        stream = stream_name(self._as_bones, self._as_motion)
        self.describe("streams", [stream], data_path=data_path)
        self.describe("skeleton", "ucla")
        self.describe("window", self.window_size, window_size=window_size)
        self.describe("preprocessing", ["centre", "unit_box"])
        self.class_names = list(ucla.CLASS_NAMES)
        self._prepare(sequences)

    def _sequences(self, indices: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return self._augmented(indices, rows) if self.augment else self._deterministic[rows]

    def _prepare(self, sequences: list[np.ndarray]) -> None:
        """Do once whatever does not depend on random numbers."""
        parents = bone_parents(UCLA)
        centred = [frames - frames[0, _ORIGIN_JOINT] for frames in sequences]
        if not self.augment:
            x = np.stack([_evenly_spaced(frames, self.window_size) for frames in centred])
            x = bones(x, parents) if self._as_bones else x
            self._deterministic = (motion(x) if self._as_motion else x).astype(self._dtype)
            return
        self._corners = corners(centred, self._dtype)
        if self._as_bones:
            centred = [bones(frames, parents) for frames in centred]
        self._clips = Clips(centred, self._dtype)

    def _augmented(self, indices: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the randomly turned, scaled and re-timed samples, (N, 3, T, V, 1)."""
        uniforms = sample_uniforms(self.seed, self.epoch, indices.tolist(), 3 + self.window_size)
        maps = self._maps_to_unit_box(_random_turns(uniforms[:, :3]).astype(self._dtype), rows)
        times = uniforms[:, 3:] * self._clips.lengths[rows, None]
        drawn = np.sort(times.astype(np.int64), axis=1)

        points = np.empty((len(rows), 4, self.window_size, UCLA.num_point), dtype=self._dtype)
        self._clips.gather(rows, drawn, out=points[:, :3])
        # Carries the shift, of which bones, being differences, know nothing.
        points[:, 3] = 0 if self._as_bones else 1
        x = np.matmul(maps, points.reshape(len(rows), 4, -1))
        x = x.reshape(len(rows), 3, self.window_size, UCLA.num_point, 1)
        return motion(x) if self._as_motion else x

    def _maps_to_unit_box(self, linear: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return for each sample ``linear`` (N, 3, 3) followed by the map to [-1, 1], (N, 3, 4).

        The columns are a matrix and a shift. The box is that of all the sequence's frames, not
        of the drawn ones. An axis without extent, a single point, goes to 0.
        """
        turned = np.matmul(linear, self._corners[rows])
        low, high = turned.min(axis=2), turned.max(axis=2)
        extent = high - low
        factor = np.where(extent > 0, 2 / np.where(extent > 0, extent, 1), 0)
        shift = -factor * (low + high) / 2
        return np.concatenate([factor[:, :, None] * linear, shift[:, :, None]], axis=2)


def _random_turns(uniforms: np.ndarray) -> np.ndarray:
    """Return a scale times a rotation, (N, 3, 3), from three uniform numbers (N, 3).

    The scale is part of the published recipe; the map to the unit box undoes it.
    """
    tilt, yaw = ((2 * uniforms[:, :2] - 1) * MAX_ANGLE).T
    smallest, largest = SCALES
    scales = smallest + (largest - smallest) * uniforms[:, 2]
    return scales[:, None, None] * turns(tilt, yaw)


def _evenly_spaced(frames: np.ndarray, window: int) -> np.ndarray:
    """Map (T, V, 3) to the unit box and pick ``window`` equally spaced frames, (3, window, V, 1).

    The operations and their order are those of the published feeder, to the last bit.
    """
    low, high = frames.min(axis=(0, 1)), frames.max(axis=(0, 1))
    extent = high - low
    unit = np.where(extent > 0, (frames - low) / np.where(extent > 0, extent, 1), 0.5)
    picked = np.linspace(0, len(frames) - 1, window).astype(np.int64)
    return (unit * 2 - 1)[picked].transpose(2, 0, 1)[..., None]


def _select(data: ucla.Sequences, split: str, debug: bool) -> tuple[list[str], list[np.ndarray]]:
    """Return names and frames (T, V, 3) of the split's sequences."""
    frames = np.split(data.joints, np.cumsum(data.lengths)[:-1])
    chosen = [i for i, name in enumerate(data.names) if ucla.in_split(name, split)]
    if debug:
        chosen = chosen[:DEBUG_SAMPLES]
    return [data.names[i] for i in chosen], [frames[i] for i in chosen]


def resolve_split(split: str | None, label_path: str | None) -> str:
    """Return "train" or "test" from either argument; where both are given they must agree."""
    named = None if split is None else one_of("split", split, ("train", "test", "val"))
    if label_path is not None:
        found = [word for word in ("val", "test", "train") if word in label_path]
        if not found:
            raise DataError(f"label_path: {label_path!r} says neither train nor val")
        if named is not None and (named == "train") != (found[0] == "train"):
            raise DataError(f"split {named!r} and label_path {label_path!r} disagree")
        named = found[0]
    return "test" if named in ("test", "val") else "train"


def _refuse(**switches: bool) -> None:
    """Refuse what the published feeder takes and ignores."""
    for name, value in switches.items():
        if value:
            raise DataError(f"{name}: has no effect on NW-UCLA; leave it out or set it to False")
