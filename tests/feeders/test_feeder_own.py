"""The feeder of own skeletons."""

import pickle
import zipfile

import numpy as np
import pytest

from data.errors import DataError
from data.own import OwnClips, Tables, write_own
from data.skeletons import COCO17
from feeders.feeder_own import BodyScale, Feeder


@pytest.fixture
def path(tmp_path):
    """Three clips of one and two persons, of 4, 6 and 8 frames."""
    rng = np.random.default_rng(0)
    frames, persons = np.array([4, 6, 8]), np.array([1, 2, 1])
    joints = rng.uniform(1, 9, (int((frames * persons).sum()), 17, 3)).astype(np.float32)
    joints[:, 3] = 0
    tables = Tables(
        COCO17,
        "xys",
        np.concatenate([[0], np.cumsum(frames * persons)]),
        persons,
        ["a", "b", "c"],
        np.array([0, 1, 0]),
        np.array([1, -1, 2]),
        ["walk", "run"],
        {"train": np.array([0, 1]), "test": np.array([2]), "none": np.array([], np.int64)},
    )
    write_own(tmp_path / "a.npz", tables, [joints[:5], joints[5:]])
    return tmp_path / "a.npz"


def test_samples_and_facts(path):
    dataset = Feeder(data_path=path, split="train", window_size=5)
    assert len(dataset) == 2
    assert dataset[1][0].shape == (3, 5, 17, 2)
    assert dataset.sample_names == ["a", "b"]
    assert list(dataset.class_names) == ["walk", "run"]
    assert dataset.subjects.tolist() == [1, -1]
    assert Feeder(data_path=path, split="test", window_size=5, persons=1)[0][0].shape[-1] == 1
    copy = pickle.loads(pickle.dumps(OwnClips(path)))
    assert np.array_equal(copy.sequence(1), OwnClips(path).sequence(1))


def test_the_scale_is_of_no_account_and_missing_joints_stay_missing():
    rng = np.random.default_rng(1)
    x = rng.uniform(1, 9, (3, 6, 17, 1)).astype(np.float32)
    x[:, :, 3] = 0
    scaled = BodyScale(axes=2)(x, rng)
    large = x * np.array([100, 100, 1], np.float32)[:, None, None, None]
    assert np.allclose(BodyScale(axes=2)(large, rng), scaled, atol=1e-5)
    assert not scaled[:, :, 3].any()
    assert np.array_equal(scaled[2], x[2])
    there = np.delete(scaled[:2], 3, axis=2)
    assert np.allclose(there.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    assert there.std() == pytest.approx(1, abs=1e-5)
    nobody = np.zeros((3, 6, 17, 1), np.float32)
    assert np.array_equal(BodyScale(axes=2)(nobody, rng), nobody)


def test_mistakes_are_named(path, tmp_path):
    for arguments, words in (
        ({"split": "val"}, "no split 'val'; it has none, test, train"),
        ({"split": "none"}, "no split 'none'"),
        ({"random_rot": True}, "2-D"),
        ({"data_path": tmp_path / "b.npz"}, "python -m data.custom"),
        ({"only_transforms": True, "transforms": [BodyScale(axes=2)], "scale": False}, "scale"),
    ):
        with pytest.raises(DataError, match=words):
            Feeder(**{"data_path": path, **arguments})


def test_damaged_files_are_named(path, tmp_path):
    whole = dict(np.load(path))
    for name, value in (
        ("offsets", whole["offsets"][:-1]),
        ("labels", whole["labels"] + 7),
        ("joints", whole["joints"][:-1]),
        ("split_train", np.array([99])),
        ("facts", np.array("{}")),
        ("facts", np.array(str(whole["facts"]).replace("[1, 0]", "[1, 99]"))),
        ("persons", whole["persons"].astype(float)),
    ):
        np.savez(tmp_path / "b.npz", **{**whole, name: value})
        with pytest.raises(DataError, match=r"b\.npz"):
            OwnClips(tmp_path / "b.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("facts.npy", b"x")
    with pytest.raises(DataError, match=r"b\.npz"):
        OwnClips(tmp_path / "b.npz")
