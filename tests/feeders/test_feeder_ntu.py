"""The NTU feeder equals the published one, from the store as from the npz."""

import pickle

import numpy as np
import pytest

from data.errors import DataError
from data.preparation.steps import write_published
from data.splits import NTU120, parse_name
from data.store import write_store
from feeders.feeder_ntu import Feeder
from feeders.transforms import (
    CropResize,
    Persons,
    RandomRotate,
    UnitBox,
    ValidFrames,
    count_valid,
    resize,
)

TRAINING = {"p_interval": [0.5, 1], "random_rot": True}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small store of NTU 120 and its published twins."""
    folder = tmp_path_factory.mktemp("store")
    random = np.random.default_rng(0)
    names = [
        f"S{s:03d}C001P{p:03d}R001A{a:03d}" for s in (1, 2) for p in (3, 8) for a in (1, 2, 60)
    ]
    frames = random.integers(20, 120, len(names))
    actors = np.array([1, 2, 1] * 4)
    sequences = [
        random.normal(size=(t, a, 25, 3)).astype(np.float32)
        for t, a in zip(frames, actors, strict=True)
    ]
    sequences[0][5] = 0
    samples = [parse_name(name) for name in names]
    copied = np.array([True, False, False] * 4)
    write_store(folder / "NTU120.h5", NTU120, samples, frames, actors, copied, sequences)
    write_published(folder / "NTU120.h5", folder)
    return folder


def store_feeder(files, **arguments):
    return Feeder(data_path=files / "NTU120.h5", **{"benchmark": "xsub", **arguments})


@pytest.mark.parametrize("stream", ["joint", "bone", "vel", "bone_vel"])
def test_equals_the_published_test_path(shared, stream):
    expected = np.load(shared / "parity" / "ntu_feeder.npz")
    feeder = Feeder(
        data_path=shared / "parity" / "ntu_synth.npz",
        split="test",
        p_interval=[0.95],
        bone="bone" in stream,
        vel="vel" in stream,
    )
    x, labels, indices = feeder.get_batch(range(6))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, expected[stream], rtol=0, atol=1e-6)
    assert labels.tolist() == expected["labels"].tolist()
    assert indices.tolist() == list(range(6))
    assert feeder.sample_names == expected["sample_name"].tolist()


def test_the_whole_list_of_transforms_may_be_said(files):
    crop, turn = CropResize(ratios=[0.5, 1]), RandomRotate(degrees=[np.rad2deg(0.3)] * 3)
    published = [ValidFrames(), crop, Persons(count=2), turn]
    said = store_feeder(files, only_transforms=True, transforms=published)
    plain = store_feeder(files, **TRAINING)
    assert np.array_equal(said.get_batch(range(4))[0], plain.get_batch(range(4))[0])
    assert said.description == plain.description
    boxed = store_feeder(files, transforms=[UnitBox(per_axis=False)])
    assert boxed.description["preprocessing"] == ["centre", "unit_box_in_proportion"]
    lone = store_feeder(files, split="test", only_transforms=True, transforms=[CropResize()])
    with pytest.raises(DataError, match=r"others as .*number of persons \(Persons\)"):
        lone.get_batch(range(len(lone)))
    would = r"p_interval, random_rot would .* set p_interval: \[1.0\], random_rot: false"
    with pytest.raises(DataError, match=would):
        store_feeder(files, only_transforms=True, transforms=published, **TRAINING)


def synthetic(shared, split):
    """The golden sequences as clips (3, T, 25, 2)."""
    x = np.load(shared / "parity" / "ntu_synth.npz")[f"x_{split}"]
    return x.reshape(len(x), -1, 2, 25, 3).transpose(0, 4, 1, 3, 2)


def test_valid_frames_and_crops(shared):
    expected = np.load(shared / "parity" / "ntu_feeder.npz")
    valid = [count_valid(clip) for clip in synthetic(shared, "test")]
    assert valid == expected["valid_frames"].tolist()
    centre = CropResize(ratios=0.95)
    crops = [centre.choose(count, np.random.default_rng(0)) for count in valid]
    assert crops == list(zip(expected["crop_start"], expected["crop_length"], strict=True))


def test_resize_equals_the_recorded_crops(shared):
    expected = np.load(shared / "parity" / "ntu_crop.npz")
    clips = synthetic(shared, "train")
    for i, row in enumerate(expected["train_index"]):
        start, length = expected["crop_start"][i], expected["crop_length"][i]
        resized = resize(clips[row][:, start : start + length], 64)
        np.testing.assert_allclose(resized, expected["resized"][i], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        {"p_interval": [0.95]},
        {**TRAINING, "bone": True, "vel": True},
        {"random_choose": True, "window_size": 40},
        {"random_shift": True, "random_move": True, "window_size": -1},
        {"normalization": True, "use_mmap": False},
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("benchmark", "published"), [("xsub", "CSub"), ("xset", "CSet")])
def test_the_store_gives_the_same_samples_as_the_npz(files, arguments, split, benchmark, published):
    ours = store_feeder(files, benchmark=benchmark, split=split, **arguments)
    theirs = Feeder(data_path=files / f"NTU120_{published}.npz", split=split, **arguments)
    for epoch in (0, 3):
        ours.set_epoch(epoch)
        theirs.set_epoch(epoch)
        x, labels, _ = ours.get_batch(range(len(ours)))
        assert x.tobytes() == theirs.get_batch(range(len(theirs)))[0].tobytes()
        assert labels.tolist() == theirs.labels.tolist()
        single = np.stack([ours[i][0] for i in range(len(ours))])
        assert x.tobytes() == single.tobytes()
        again = pickle.loads(pickle.dumps(ours))
        assert x.tobytes() == again.get_batch(range(len(ours)))[0].tobytes()


@pytest.mark.parametrize(
    "switch", ["random_rot", "random_choose", "random_shift", "random_move", "normalization"]
)
def test_every_switch_has_an_effect(files, switch):
    plain = store_feeder(files, window_size=128)
    switched = store_feeder(files, window_size=128, **{switch: True})
    assert not np.array_equal(plain[0][0], switched[0][0])
    first = switched[0][0]
    switched.set_epoch(1)
    assert np.array_equal(first, switched[0][0]) == (switch == "normalization")


def test_random_choose_takes_successive_frames(files):
    feeder = store_feeder(files, random_choose=True, window_size=15)
    whole = store_feeder(files, window_size=-1)
    starts = set()
    for epoch in range(20):
        feeder.set_epoch(epoch)
        x, sequence = feeder[1][0], whole[1][0]
        matches = [
            s for s in range(sequence.shape[1] - 14) if np.array_equal(x, sequence[:, s : s + 15])
        ]
        assert len(matches) == 1
        starts |= set(matches)
    assert len(starts) > 3


def test_random_shift_moves_the_frames_and_keeps_them(files):
    feeder = store_feeder(files, random_shift=True, window_size=150)
    whole = store_feeder(files, window_size=-1)
    sequence = whole[1][0]
    sequence = sequence[:, np.abs(sequence).sum(axis=(0, 2, 3)) > 0]
    starts = set()
    for epoch in range(10):
        feeder.set_epoch(epoch)
        x = feeder[1][0]
        real = np.flatnonzero(np.abs(x).sum(axis=(0, 2, 3)))
        assert np.array_equal(x[:, real[0] : real[-1] + 1], sequence)
        starts.add(int(real[0]))
    assert len(starts) > 3


def test_normalization_is_that_of_the_whole_padded_training_array(files):
    x = np.load(files / "NTU120_CSub.npz")["x_train"].astype(np.float64)
    data = x.reshape(len(x), -1, 2, 25, 3)
    mean, std = data.mean(axis=(0, 1, 2)), data.std(axis=(0, 1, 2))
    for split in ("train", "test"):
        plain = store_feeder(files, split=split)[0][0]
        scaled = store_feeder(files, split=split, normalization=True)[0][0]
        expected = (plain - mean.T[:, None, :, None]) / std.T[:, None, :, None]
        np.testing.assert_allclose(scaled, expected, atol=1e-5)


def test_names_labels_subjects(files):
    feeder = store_feeder(files, benchmark="oneshot", split="train")
    assert set(feeder.labels.tolist()) == {1, 59}
    feeder = store_feeder(files, split="test")
    assert feeder.sample_names[0] == "S001C001P003R001A001"
    assert set(feeder.subjects.tolist()) == {3}
    assert Feeder(data_path=files / "NTU120_CSub.npz").subjects.tolist() == [-1] * 6


def test_a_sample_without_anybody_gives_zeros(tmp_path):
    x = np.zeros((2, 30, 150), np.float32)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=np.eye(60)[:2])
    assert not Feeder(data_path=tmp_path / "a.npz", **TRAINING)[1][0].any()


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("data/ntu/NTU60_CS.npz", "cd data/ntu && python get_raw_skes_data.py ; .*--npz"),
        ("data/ntu120/NTU120.h5", "cd data/ntu120 && .* python seq_transformation.py$"),
    ],
)
def test_missing_data_names_the_command(name, command):
    with pytest.raises(DataError, match=command) as caught:
        Feeder(data_path="/nowhere/" + name, benchmark=None)
    assert name in str(caught.value)


def test_impossible_arguments(files):
    with pytest.raises(DataError, match="oneshot, xset, xsub"):
        store_feeder(files, benchmark=None)
    with pytest.raises(DataError, match="xview"):
        store_feeder(files, benchmark="xview")
    with pytest.raises(DataError, match="leave it out"):
        Feeder(data_path=files / "NTU120_CSub.npz", benchmark="xsub")
    for wrong in ([], [0.5, 0.4], [0.0], [0.5, 1.5], [1, 1, 1], "x", [True]):
        with pytest.raises(DataError, match="p_interval"):
            store_feeder(files, p_interval=wrong)
    with pytest.raises(DataError, match="window_size"):
        store_feeder(files, window_size=0)
    with pytest.raises(TypeError):
        store_feeder(files, windowsize=64)


@pytest.mark.parametrize(
    "arrays",
    [
        {"x_train": np.zeros((2, 30, 76), "f4"), "y_train": np.eye(2)},
        {"x_train": np.zeros((2, 30, 150), "i4"), "y_train": np.eye(2)},
        {"x_train": np.zeros((2, 150), "f4"), "y_train": np.eye(2)},
        {"x_train": np.zeros((2, 30, 150), "f4"), "y_train": np.eye(3)},
        {"x_train": np.zeros((2, 30, 150), "f4"), "y_train": np.zeros((2, 60))},
        {"x_train": np.zeros((2, 30, 150), "f4")},
        {"x_train": np.zeros((0, 30, 150), "f4"), "y_train": np.zeros((0, 60))},
    ],
)
def test_wrong_arrays_are_named(tmp_path, arrays):
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(DataError, match=r"wrong\.npz"):
        Feeder(data_path=tmp_path / "wrong.npz")


def test_arrays_of_one_person_and_of_five_axes_are_the_same_samples(tmp_path):
    x = np.zeros((5, 30, 2, 25, 3), np.float32)
    x[:, :, 0] = np.random.default_rng(0).normal(size=(5, 30, 25, 3))
    forms = {
        "published": x.reshape(5, 30, 150),
        "one person": x[:, :, 0].reshape(5, 30, 75),
        "five axes": x.transpose(0, 4, 1, 3, 2),
        "five axes, one person": x[:, :, :1].transpose(0, 4, 1, 3, 2),
    }
    batches = {}
    for form, array in forms.items():
        np.savez(tmp_path / f"{form}.npz", x_test=array, y_test=np.eye(5))
        feeder = Feeder(data_path=tmp_path / f"{form}.npz", split="test", window_size=16)
        batches[form] = feeder.get_batch(range(5))[0]
    for form, batch in batches.items():
        assert np.array_equal(batch, batches["published"]), form


def test_what_is_neither_store_nor_npz_is_not_called_damaged(tmp_path):
    np.save(tmp_path / "train_data.npy", np.zeros((2, 3, 4, 25, 2)))
    with pytest.raises(DataError, match=r"train_data\.npy: neither a store \(\.h5\) nor an \.npz"):
        Feeder(data_path=tmp_path / "train_data.npy", split="test", benchmark="xsub")


def test_actions_have_names_where_all_of_them_are_there(files, tmp_path):
    assert not hasattr(store_feeder(files), "class_names")
    np.savez(tmp_path / "all.npz", x_train=np.ones((60, 4, 150), "f4"), y_train=np.eye(60))
    names = Feeder(data_path=tmp_path / "all.npz").class_names
    assert (len(names), names[0], names[59]) == (60, "drink water", "walking apart")
