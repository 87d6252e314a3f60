"""The NW-UCLA feeder: the published values, and random numbers that depend on their place only."""

import copy
import json

import numpy as np
import pytest

from data import ucla
from data.errors import DataError
from data.skeletons import UCLA, bone_parents
from feeders.feeder_ucla import Feeder
from feeders.randomness import KeyedGenerator
from feeders.transforms import Centre, EvenFrames, UnitBox

STREAMS = ("joint", "bone", "motion", "bone motion")
LENGTHS = {"a01_s01_e00_v01": 1, "a02_s01_e00_v02": 70, "a12_s02_e01_v01": 33}
TEST_LENGTHS = {"a05_s03_e00_v03": 60, "a06_s03_e00_v03": 2}


@pytest.fixture(scope="module")
def root_folder(tmp_path_factory):
    """A small data set of random walks."""
    folder = tmp_path_factory.mktemp("all_sqe")
    rng = np.random.default_rng(5)
    for name, length in {**LENGTHS, **TEST_LENGTHS}.items():
        walk = rng.normal(size=(1, 20, 3)) + 0.1 * rng.normal(size=(length, 20, 3)).cumsum(axis=0)
        label = ucla.parse_name(name).label + 1
        content = {"file_name": name, "skeletons": walk.tolist(), "label": label}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def make(root_folder, tmp_path):
    def build(**arguments):
        return Feeder(**{"root": root_folder, "cache_dir": tmp_path / "cache", **arguments})

    return build


@pytest.mark.parametrize("stream", STREAMS)
def test_validation_equals_the_published_loader_bit_for_bit(shared, tmp_path, stream):
    golden = np.load(shared / "parity" / "ucla_feeder.npz")
    folder = tmp_path / "six"
    folder.mkdir()
    for name in golden["file_names"]:  # links: the whole set would take seconds to parse
        (folder / f"{name}.json").symlink_to(shared / f"data/NW-UCLA/all_sqe/{name}.json")
    arguments = {"root": folder, "cache_dir": tmp_path, "split": "test", "data_path": stream}
    feeder = Feeder(**arguments, dtype="float64")
    rows = [feeder.sample_names.index(name) for name in golden["file_names"]]
    x, labels, indices = feeder.get_batch(rows)
    expected = golden[stream.replace(" ", "_")]
    assert x.dtype == np.float64
    assert np.array_equal(x, expected)
    assert np.array_equal(labels, golden["labels"])
    assert indices.tolist() == rows
    single = Feeder(**arguments).get_batch(rows)[0]
    assert single.dtype == np.float32
    assert np.array_equal(single, expected.astype(np.float32))


def plain_training_sample(feeder, frames, index):
    """The recipe, step by step, with the numbers the feeder draws for ``index``."""
    drawn = KeyedGenerator().at(feeder.seed, feeder.epoch, index).random(3 + 52)
    tilt, yaw = np.deg2rad(120 * drawn[:2] - 60)
    about_x = [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
    about_y = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
    matrix = (0.5 + drawn[2]) * np.array(about_x) @ np.array(about_y)
    turned = np.stack([[matrix @ joint for joint in frame] for frame in frames - frames[0, 1]])
    points = turned.reshape(-1, 3)
    low, high = points.min(axis=0), points.max(axis=0)
    unit = (turned - low) / (high - low) * 2 - 1
    times = sorted(int(u * len(frames)) for u in drawn[3:])
    return unit[times].transpose(2, 0, 1)[..., None]


@pytest.mark.parametrize("stream", STREAMS)
def test_training_follows_the_recipe(make, root_folder, tmp_path, stream):
    feeder = make(data_path=stream, seed=3, dtype="float64", repeat=4)
    feeder.set_epoch(7)
    data = ucla.load(root_folder, tmp_path / "cache")
    frames = dict(zip(data.names, np.split(data.joints, np.cumsum(data.lengths)[:-1]), strict=True))
    for index in range(len(feeder)):
        name = feeder.sample_names[index % 3]
        expected = plain_training_sample(feeder, frames[name], index)
        if "bone" in stream:
            expected = expected - expected[:, :, bone_parents(UCLA)]
        if "motion" in stream:
            expected = np.diff(expected, axis=1, append=expected[:, -1:])
        x, label, returned = feeder[index]
        np.testing.assert_allclose(x, expected, atol=1e-12)
        assert (label, returned) == (ucla.parse_name(name).label, index)


def test_training_values_span_no_more_than_the_box(make):
    x, _, _ = make(repeat=50).get_batch(range(150))
    assert x.dtype == np.float32
    assert np.abs(x).max() <= 1 + 1e-6
    assert x.max() > 0.99


@pytest.mark.parametrize("arguments", [{}, {"augment": False}, {"data_path": "bone motion"}])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batches_equal_single_samples_bit_for_bit(make, arguments, dtype):
    feeder = make(repeat=6, dtype=dtype, **arguments)
    feeder.set_epoch(2)
    order = np.random.default_rng(0).permutation(len(feeder))
    whole, labels, indices = feeder.get_batch(order)
    assert whole.shape == (18, 3, 52, 20, 1)
    assert labels.dtype == indices.dtype == np.int64
    for row, index in enumerate(order):
        x, label, returned = feeder[int(index)]
        assert np.array_equal(x, whole[row])
        assert (label, returned) == (labels[row], index)
    pieces = [feeder.get_batch(part)[0] for part in np.array_split(order, 5)]
    assert np.array_equal(np.concatenate(pieces), whole)


def test_randomness_is_a_function_of_seed_epoch_and_index(make):
    feeder = make(repeat=2, seed=1)
    first = feeder.get_batch(range(6))[0]
    assert not np.array_equal(first[1], first[4]), "repeats of a sequence differ"
    feeder.set_epoch(1)
    second = feeder.get_batch(range(6))[0]
    assert all(not np.array_equal(a, b) for a, b in zip(first[1:3], second[1:3], strict=True))
    feeder.set_epoch(0)
    assert np.array_equal(feeder.get_batch(range(6))[0], first)
    assert not np.array_equal(make(repeat=2, seed=2).get_batch(range(6))[0], first)
    twin = copy.deepcopy(make(repeat=2, seed=1))  # as a worker process gets it
    assert np.array_equal(twin.get_batch(range(6))[0], first)


def test_a_camera_may_be_kept_for_choosing(make):
    one, two = make(views=[1]), make(views=[2], augment=False)
    assert sorted(one.sample_names + two.sample_names) == sorted(LENGTHS)
    assert {name[-1] for name in one.sample_names} == {"1"}


def test_wrong_labels_may_be_put_right(make, caplog):
    plain, right = make(), make(relabel={"a01_s01_*": "stand up", "a12_*_v01": "throw"})
    assert plain.labels.tolist() == [0, 1, 9]
    assert right.labels.tolist() == [5, 1, 8]
    assert np.array_equal(right.get_batch([0, 2])[1], [5, 8])
    assert not caplog.messages
    make(relabel={"a05_s04_*_v02": "stand up"})
    assert caplog.messages[0].endswith("has no sequence a05_s04_*_v02")


def test_streams_are_fused_as_channels(make):
    one, two = make(data_path="joint", seed=3)[1][0], make(data_path="bone motion", seed=3)[1][0]
    both = make(streams=["joint", "bone_motion"], seed=3)
    assert np.array_equal(both[1][0], np.concatenate([one, two]))
    assert both.description["streams"] == ["joint", "bone_motion"]


def test_the_whole_list_of_transforms_may_be_said(make):
    """The published list, said by name, gives the published samples and may test them."""
    published = [Centre(joint=1), UnitBox(), EvenFrames(window=52)]
    said = make(split="test", only_transforms=True, transforms=published)
    assert np.array_equal(said.get_batch(range(2))[0], make(split="test").get_batch(range(2))[0])
    assert said.description == make(split="test").description == make().description
    other = make(only_transforms=True, transforms=[Centre(joint=1), EvenFrames(window=16)])
    assert other[0][0].shape == (3, 16, 20, 1)
    assert other.description["window"] == 16
    assert other.description["preprocessing"] == ["centre"]
    uneven = make(only_transforms=True, transforms=[Centre(joint=1)])
    with pytest.raises(DataError, match=r"sample a02_s01_e00_v02 comes out as \(3, 70, 20, 1\)"):
        uneven.get_batch(range(3))


def test_splits_names_labels_and_subjects(make):
    train, test = make(), make(split="test")
    assert train.sample_names == sorted(LENGTHS)
    assert train.labels.tolist() == [0, 1, 9]
    assert train.subjects.tolist() == [1, 1, 2]
    assert test.sample_names == sorted(TEST_LENGTHS)
    assert len(make(repeat=5)) == 15
    assert len(make(debug=True)) == 3
    for test_alias in ({"label_path": "val"}, {"label_path": "x/val_label.pkl"}, {"split": "val"}):
        assert make(**test_alias).sample_names == test.sample_names
    assert make(label_path="train", split="train").sample_names == train.sample_names


def test_training_split_without_augmentation_is_deterministic(make):
    held_out = make(augment=False)
    held_out.set_epoch(0)
    first = held_out.get_batch(range(3))[0]
    held_out.set_epoch(5)
    assert np.array_equal(held_out.get_batch(range(3))[0], first)
    assert (np.abs(first).max(axis=(1, 2, 3, 4)) <= 1).all()
    assert np.array_equal(
        make(split="test", augment=True, seed=4)[0][0],
        make(split="test", augment=True, seed=4)[0][0],
    )
    assert not np.array_equal(make(split="test", augment=True)[0][0], make(split="test")[0][0])


@pytest.mark.parametrize("augment", [True, False])
def test_flat_and_single_point_sequences_give_numbers(tmp_path, augment):
    for name, value in (("a01_s01_e00_v01", 0.0), ("a02_s01_e00_v01", 0.1)):
        joints = np.zeros((3, 20, 3))
        joints[:, :, 1] = value * np.arange(20)
        content = {"skeletons": joints.tolist(), "label": int(name[2])}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    feeder = Feeder(root=tmp_path, cache_dir=tmp_path, augment=augment)
    x, _, _ = feeder.get_batch([0, 1])
    assert np.isfinite(x).all()
    assert (x[0] == 0).all()


def test_window_and_published_switches(make):
    assert make(window_size=16)[0][0].shape == (3, 16, 20, 1)
    assert make(window_size=16, augment=False)[0][0].shape == (3, 16, 20, 1)
    assert make(window_size=-1, random_choose=True, use_mmap=False)[0][0].shape[1] == 52


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "tset"}, "split: 'tset' is not one of 'train', 'test', 'val'"),
        ({"label_path": "xsub"}, "label_path: 'xsub' says neither train nor val"),
        ({"label_path": "train", "split": "test"}, "disagree"),
        ({"data_path": "velocity"}, "data_path: 'velocity' is not one of 'joint', 'bone'"),
        ({"data_path": "bone", "streams": "joint"}, "leave out data_path"),
        ({"streams": ["joint", "speed"]}, "streams: 'speed' is not one of joint"),
        ({"views": [3]}, r"views: \[3\] are not views of the train split, \[1, 2\]"),
        ({"views": []}, r"views: \[\] are not views"),
        ({"only_transforms": True}, "only_transforms: there are none"),
        (
            {"only_transforms": True, "transforms": [Centre()], "augment": True},
            "only_transforms: augment would have no effect; .* set augment: null",
        ),
        ({"repeat": 0}, "repeat: 0 is not a whole number of at least 1"),
        ({"repeat": 2.5}, "repeat: 2.5"),
        ({"window_size": 0}, "window_size: 0"),
        ({"dtype": "float16"}, "dtype: 'float16'"),
        ({"random_shift": True}, "random_shift: has no effect on NW-UCLA"),
        ({"random_move": True}, "random_move: has no effect"),
        ({"normalization": True}, "normalization: has no effect"),
        ({"root": "no/such/folder"}, "no/such/folder: cannot be listed"),
    ],
)
def test_mistakes_are_one_clear_line(make, arguments, message):
    with pytest.raises(DataError, match=message) as error:
        make(**arguments)
    assert "\n" not in str(error.value)


def test_unknown_arguments_and_indices(make):
    with pytest.raises(TypeError, match="windowsize"):
        make(windowsize=52)
    for index in (-1, 3):
        with pytest.raises(IndexError, match=r"outside \[0, 3\)"):
            make()[index]


def test_a_split_without_files_is_named(tmp_path, root_folder):
    name = "a01_s01_e00_v01"
    (tmp_path / f"{name}.json").symlink_to(root_folder / f"{name}.json")
    with pytest.raises(DataError, match=r"no sequence of the test split \(view 3\)"):
        Feeder(root=tmp_path, cache_dir=tmp_path, split="test")
