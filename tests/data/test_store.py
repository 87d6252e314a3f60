"""The store gives back what was written, and refuses what is damaged."""

import errno
import fcntl
import multiprocessing
import os
import pickle

import h5py
import numpy as np
import pytest

from data.errors import DataError
from data.splits import NTU120, parse_name
from data.store import Store, write_store

NAMES = ["S001C003P008R001A001", "S002C001P003R001A002", "S018C002P043R002A110"]
SHAPES = [(4, 1), (6, 2), (3, 1)]


@pytest.fixture
def sequences():
    random = np.random.default_rng(0)
    return [random.normal(size=(t, a, 25, 3)).astype(np.float32) for t, a in SHAPES]


@pytest.fixture
def path(tmp_path, sequences):
    frames, actors = np.array(SHAPES).T
    samples = [parse_name(name) for name in NAMES]
    copied = np.array([True, False, False])
    write_store(tmp_path / "s.h5", NTU120, samples, frames, actors, copied, iter(sequences))
    return tmp_path / "s.h5"


def test_round_trip(path, sequences):
    store = Store(path)
    assert store.names == NAMES
    assert store.labels.tolist() == [0, 1, 109]
    assert store.subjects.tolist() == [8, 3, 43]
    assert store.setups.tolist() == [1, 2, 18]
    assert store.cameras.tolist() == [3, 1, 2]
    assert (store.num_class, store.max_frames, store.dataset) == (120, 6, "ntu120")
    assert store.frames.tolist() == [4, 6, 3]
    for number, sequence in enumerate(sequences):
        assert store.sequence(number).tobytes() == sequence.tobytes()
    assert store.split("oneshot", "exemplar").tolist() == [0]
    assert store.split("xset", "train").tolist() == [1, 2]


def test_a_lone_actor_is_copied_only_where_it_says_so(path, sequences):
    padded = Store(path).padded(0)
    assert padded.shape == (6, 2, 25, 3)
    assert np.array_equal(padded[:4, 1], sequences[0][:, 0])
    assert not padded[4:].any()
    assert not Store(path).padded(2)[:, 1].any()


def _first_value(store):
    return float(store.sequence(0)[0, 0, 0, 0])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_used_in_other_processes(path, sequences, method):
    store = Store(path)
    assert len(pickle.dumps(store)) < 500
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert set(pool.map(_first_value, [store] * 4)) == {float(sequences[0][0, 0, 0, 0])}


def test_the_same_content_gives_the_same_file(path, tmp_path, sequences):
    frames, actors = np.array(SHAPES).T
    samples = [parse_name(name) for name in NAMES]
    copied = np.array([True, False, False])
    write_store(tmp_path / "t.h5", NTU120, samples, frames, actors, copied, iter(sequences))
    assert (tmp_path / "t.h5").read_bytes() == path.read_bytes()


def test_a_wrong_sequence_leaves_no_file(tmp_path, sequences):
    frames, actors = np.array(SHAPES).T
    samples = [parse_name(name) for name in NAMES]
    for wrong in (sequences[::-1], sequences[:2]):
        with pytest.raises(ValueError, match=r"announced|shorter"):
            write_store(tmp_path / "w.h5", NTU120, samples, frames, actors, actors > 9, iter(wrong))
    assert not list(tmp_path.glob("*w.h5*"))


def _replace(name, value):
    def damage(file):
        del file[name]
        file[name] = value

    return damage


def _chunk(file):
    joints = file["joints"][:]
    del file["joints"]
    file.create_dataset("joints", data=joints, chunks=(1, 25, 3), compression="gzip")


@pytest.mark.parametrize(
    "damage",
    [
        _chunk,
        _replace("joints", np.zeros((4, 20, 3), "f4")),
        _replace("joints", np.zeros((19, 25, 3), "f8")),
        _replace("joints", np.zeros((18, 25, 3), "f4")),
        _replace("offsets", np.array([0, 4, 16, 18])),
        _replace("offsets", np.array([0.0, 4, 16, 19])),
        _replace("actors", np.array([1, 3, 1], "u1")),
        _replace("offsets", np.array([0, 5, 16, 19])),  # 11 rows of 2 actors
        _replace("labels", np.array([0, 1, 120])),
        _replace("labels", np.array([0, 1])),
        _replace("splits/xsub/train", np.array([3])),
        _replace("splits/xsub", np.array([3])),
        lambda file: file.__delitem__("names"),
        lambda file: file.attrs.__setitem__("version", 99),
        lambda file: file.attrs.__setitem__("format", "other"),
        lambda file: file.attrs.__setitem__("num_class", "many"),
        lambda file: (
            file.__delitem__("offsets"),
            file.create_dataset("offsets", (10**12,), "i8", chunks=(1024,)),
        ),
    ],
)
def test_damaged_stores_are_named(path, damage):
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(DataError, match=r"s\.h5") as caught:
        Store(path)
    assert "\n" not in str(caught.value)


def test_truncated_at_any_length(path):
    whole = path.read_bytes()
    for length in range(0, len(whole), 997):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"s\.h5"):
            Store(path)


def test_no_lock_is_asked_for(path, sequences):
    with open(path, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # HDF5's own lock would be refused
        assert Store(path).sequence(0).tobytes() == sequences[0].tobytes()


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOLCK, "unable to lock file, errno = 37"),
        (errno.EACCES, "unable to open file"),
        (errno.EIO, "file read failed"),
    ],
)
def test_what_the_drive_refuses_is_no_damage(path, monkeypatch, number, said):
    def refuse(*args, **more):
        raise OSError(number, f"Unable to synchronously open file ({said})")

    monkeypatch.setattr(h5py, "File", refuse)
    with pytest.raises(DataError, match=os.strerror(number)) as caught:
        Store(path)
    assert "damaged" not in str(caught.value)
    assert ("HDF5_USE_FILE_LOCKING=FALSE" in str(caught.value)) == (number == errno.ENOLCK)


def test_unknown_benchmark_and_split(path):
    with pytest.raises(DataError, match="oneshot, xset, xsub"):
        Store(path).split("xview", "train")
    with pytest.raises(DataError, match="'val'"):
        Store(path).split("xsub", "val")
    with pytest.raises(DataError, match="no such file"):
        Store(path.with_name("none.h5"))
