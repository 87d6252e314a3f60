"""The demo feeder: unseen performers test, clips are whole, randomness keeps its place."""

import numpy as np
import pytest

from data import demo
from data.errors import DataError
from data.skeletons import NTU, bone_parents
from feeders.feeder_demo import Feeder
from feeders.transforms import resize

SMALL = {"actions": 3, "performers": 3, "replications": 1, "window_size": 12}


@pytest.fixture(scope="module")
def train():
    return Feeder(split="train", repeat=2, seed=5, **SMALL)


@pytest.fixture(scope="module")
def test_set():
    return Feeder(split="test", **SMALL)


def test_performers_are_in_one_split(train, test_set):
    assert set(train.subjects.tolist()) == {1, 2}
    assert set(test_set.subjects.tolist()) == {3}
    assert len(train) == 2 * 2 * 3 * 3
    assert len(test_set) == 1 * 3 * 3
    assert train.class_names == ["wave", "kick", "sit"]
    assert not set(train.sample_names) & set(test_set.sample_names)


def test_test_clips_are_the_generated_ones(test_set):
    x, labels, _ = test_set.get_batch(range(len(test_set)))
    assert x.shape == (9, 3, 12, 25, 1)
    assert x.dtype == np.float32
    clips = {sample.name: demo.perform(sample)[:, 0] for sample in demo.samples(performers=3)}
    for name, label, seen in zip(test_set.sample_names, labels, x, strict=True):
        clip = (clips[name] - clips[name][0, 1]).transpose(2, 0, 1)[..., None]
        assert np.array_equal(seen, resize(clip, 12))
        assert label == int(name[-3:]) - 1


def test_training_turns_without_deforming(train):
    still = Feeder(split="train", augment=False, **SMALL)
    child, parent = np.array([bone for bone in NTU.bones if max(bone) < 20]).T  # not the fingers

    def lengths(x):
        return np.linalg.norm(x[:, :, :, child] - x[:, :, :, parent], axis=1).mean(axis=(1, 3))

    turned, plain = train.get_batch(range(18))[0], still.get_batch(range(18))[0]
    assert np.abs(turned - plain).mean() > 0.02
    np.testing.assert_allclose(
        lengths(turned), lengths(plain), atol=0.03
    )  # up to the joints' noise


def test_batches_equal_single_samples_and_places_decide(train):
    train.set_epoch(3)
    order = np.random.default_rng(1).permutation(len(train))
    whole = train.get_batch(order)[0]
    for row, index in enumerate(order):
        assert np.array_equal(train[int(index)][0], whole[row])
    train.set_epoch(4)
    assert not np.array_equal(train.get_batch(order)[0], whole)
    train.set_epoch(3)
    twin = Feeder(split="train", repeat=2, seed=5, **SMALL)
    twin.set_epoch(3)
    assert np.array_equal(train.get_batch(order)[0], twin.get_batch(order)[0])


@pytest.mark.parametrize(("bone", "vel"), [(True, False), (False, True), (True, True)])
def test_streams(test_set, bone, vel):
    expected = test_set[4][0]
    if bone:
        expected = expected - expected[:, :, bone_parents(NTU)]
    if vel:
        expected = np.diff(expected, axis=1, append=expected[:, -1:])
    assert np.array_equal(Feeder(split="test", bone=bone, vel=vel, **SMALL)[4][0], expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "val"}, "split: 'val' is not one of 'train', 'test'"),
        ({"split": "train", "actions": 200}, "actions 200 is not between 1 and 120"),
        ({"split": "train", "window_size": 0}, "window_size: 0"),
        ({"split": "test", "performers": 2}, "performers: 2 leave none for test"),
    ],
)
def test_mistakes_are_one_clear_line(arguments, message):
    with pytest.raises(DataError, match=message):
        Feeder(**arguments)
