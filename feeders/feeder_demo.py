"""The demo data as tensors (C, T, V, M): made in memory, nothing to download.

Performers the model has never seen are the test split, by NTU RGB+D's cross-subject rule.
Preprocessing is NTU RGB+D's too: the origin is the spine in the first frame. Training turns each
clip about the vertical and crops it at random; testing takes all of it.
"""

import numpy as np

from data import demo
from data.errors import DataError
from data.skeletons import NTU, bone_parents
from data.splits import NTU120, parse_name
from feeders.base import BatchFeeder, at_least_one, one_of
from feeders.clips import Clips, turns
from feeders.randomness import sample_uniforms
from feeders.streams import bones, motion, stream_name

MAX_YAW = np.deg2rad(30.0)
MAX_TILT = np.deg2rad(10.0)
SHORTEST_CROP = 0.7

_ORIGIN_JOINT = 1  # the middle of the spine


class Feeder(BatchFeeder):
    """One split of the demo data.

    Args:
        split: "train" or "test"; no performer is in both.
        actions: number of classes, up to 120.
        performers: number of people, both splits together.
        replications: takes of each action by each performer; each is seen by three cameras.
        window_size: frames a clip is brought to.
        bone, vel: give bones for joints, differences in time for positions.
        repeat: how often each clip is seen in an epoch.
        augment: random rotation and crop; None means in the training split only.
        seed: of the augmentation.
        data_seed: of the data themselves.

    Attributes:
        class_names: what the actions are.

    Raises:
        DataError: an argument has an impossible value.
    """

    def __init__(
        self,
        *,
        split: str,
        actions: int = len(demo.ACTIONS),
        performers: int = 20,
        replications: int = 2,
        window_size: int = 32,
        bone: bool = False,
        vel: bool = False,
        repeat: int = 1,
        augment: bool | None = None,
        seed: int = 0,
        data_seed: int = 0,
    ) -> None:
        one_of("split", split, ("train", "test"))
        self.augment = split == "train" if augment is None else augment
        self.window_size = at_least_one("window_size", window_size)
        self.bone, self.vel = bone, vel
        chosen = _chosen(split, actions=actions, performers=performers, replications=replications)
        super().__init__(
            sample_names=[sample.name for sample in chosen],
            labels=[sample.action - 1 for sample in chosen],
            subjects=[sample.performer for sample in chosen],
            repeat=repeat,
            seed=seed,
        )
        self.describe("streams", [stream_name(bone, vel)], bone=bone, vel=vel)
        self.describe("skeleton", "ntu")
        self.describe("window", window_size, window_size=window_size)
        self.describe("preprocessing", ["centre"])
        self.class_names = [demo.describe(action) for action in range(1, actions + 1)]
        sequences = [joints[:, 0] for _, joints in demo.generate(chosen, seed=data_seed)]
        centred = [frames - frames[0, _ORIGIN_JOINT] for frames in sequences]
        self._clips = Clips(centred, np.dtype(np.float32))

    def _sequences(self, indices: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Crop, resample and turn; testing is the same with the whole clip and no turn."""
        crops = np.tile([0.0, 1.0], (len(rows), 1))
        if self.augment:
            uniforms = sample_uniforms(self.seed, self.epoch, indices.tolist(), 4)
            crops = _random_crops(uniforms[:, 2:])
        frames = _resampled(crops, self._clips.lengths[rows], self.window_size)
        joints = np.empty((len(rows), 3, self.window_size, NTU.num_point), dtype=np.float32)
        self._clips.gather(rows, frames, out=joints)
        if self.augment:
            tilt, yaw = (2 * uniforms[:, :2] - 1).T * np.array([[MAX_TILT], [MAX_YAW]])
            columns = joints.reshape(len(rows), 3, -1)
            joints = np.matmul(turns(tilt, yaw).astype(np.float32), columns).reshape(joints.shape)
        return self._stream(joints[..., None])

    def _stream(self, joints: np.ndarray) -> np.ndarray:
        """Turn joints (N, 3, T, V, 1) into the stream asked for."""
        if self.bone:
            joints = bones(joints, bone_parents(NTU))
        return motion(joints) if self.vel else joints


def _chosen(split: str, **numbers: int) -> list[demo.Sample]:
    """The split's samples, in the order of their names."""
    split_of = NTU120.benchmarks["xsub"].split_of
    every = demo.samples(**numbers)
    chosen = [sample for sample in every if split_of(parse_name(sample.name)) == split]
    if not chosen:
        raise DataError(f"demo: performers {numbers['performers']} leave none for {split}")
    return chosen


def _random_crops(uniforms: np.ndarray) -> np.ndarray:
    """Return begin and end of crops as shares of the clip, (N, 2), from uniform numbers (N, 2)."""
    length = SHORTEST_CROP + (1 - SHORTEST_CROP) * uniforms[:, 0]
    begin = (1 - length) * uniforms[:, 1]
    return np.stack([begin, begin + length], axis=1)


def _resampled(crops: np.ndarray, lengths: np.ndarray, window: int) -> np.ndarray:
    """Return ``window`` equally spaced frame numbers within each crop, int64 (N, window)."""
    share = np.linspace(0.0, 1.0, window)
    places = crops[:, :1] + (crops[:, 1:] - crops[:, :1]) * share
    return np.rint(places * (lengths[:, None] - 1)).astype(np.int64)
