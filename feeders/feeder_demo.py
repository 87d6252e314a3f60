"""The demo data: made in memory, nothing to download.

Performers the model has never seen are the test split, by NTU RGB+D's cross-subject rule.
Training crops each clip at random and rotates it; testing takes all of it.
"""

from collections.abc import Sequence
from typing import Any

from data.demo import ACTIONS, describe, perform, samples
from data.errors import DataError
from data.skeletons import NTU
from data.splits import NTU120
from feeders.arguments import at_least_one, one_of, refuse_unheard
from feeders.dataset import ArraySource, SkeletonDataset, Transform
from feeders.streams import published_streams
from feeders.transforms import Centre, CropResize, RandomRotate


class Feeder(SkeletonDataset):
    """One split of the demo data, x (3, 32, 25, 1).

    Args:
        split: "train" or "test"; no performer is in both.
        actions: number of classes, up to 120.
        performers: number of people, both splits together.
        replications: takes of each action by each performer; each is seen by three cameras.
        window_size: frames a clip is brought to.
        streams: one or several, fused; or the published spelling, bone and vel.
        repeat: how often each clip is seen in an epoch.
        augment: random crop and rotation; None means in the training split only.
        transforms: more of them, after these; with ``only_transforms`` instead of these.
        seed: of the augmentation.
        data_seed: of the data themselves.

    Raises:
        DataError: an argument has an impossible value.
    """

    def __init__(
        self,
        *,
        split: str,
        actions: int = len(ACTIONS),
        performers: int = 20,
        replications: int = 2,
        window_size: int = 32,
        streams: str | Sequence[str] | None = None,
        bone: bool = False,
        vel: bool = False,
        repeat: int = 1,
        augment: bool | None = None,
        transforms: Sequence[Any] = (),
        only_transforms: bool = False,
        seed: int = 0,
        data_seed: int = 0,
    ) -> None:
        one_of("split", split, ("train", "test"))
        window = at_least_one("window_size", window_size)
        training = split == "train" if augment is None else augment
        split_of = NTU120.benchmarks["xsub"].split_of
        every = samples(actions=actions, performers=performers, replications=replications)
        chosen = [sample for sample in every if split_of(sample) == split]
        if not chosen:
            raise DataError(f"performers: {performers} leave none for {split}")
        source = ArraySource(
            NTU,
            [sample.name for sample in chosen],
            [sample.label for sample in chosen],
            [sample.subject for sample in chosen],
            [perform(sample, seed=data_seed).transpose(3, 0, 2, 1) for sample in chosen],
            [describe(action) for action in range(1, actions + 1)],
        )
        crop = CropResize(ratios=[0.7, 1.0] if training else [1.0], window=window, shortest=1)
        rotate = [RandomRotate(degrees=[10, 30, 0], order="xyz")] if training else []
        decided_by: dict[str, dict[str, Any]] = {"window": {"window_size": window_size}}
        if streams is None:
            decided_by["streams"] = {"bone": bone, "vel": vel}
        own: list[Transform] = [Centre(joint=1), crop, *rotate]
        if only_transforms:
            refuse_unheard(Feeder, transforms, augment=augment or None, window_size=window_size)
            own, decided_by["window"] = [], {}
        super().__init__(
            source,
            transforms=[*own, *transforms],
            streams=published_streams(streams, bone=bone, vel=vel),
            repeat=repeat,
            seed=seed,
            decided_by=decided_by,
        )
