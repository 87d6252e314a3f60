"""NTU RGB+D from raw files to arrays equals the published preprocessing, bit for bit."""

import csv

import numpy as np
import pytest

from data.preparation.align import move_to_origin
from data.preparation.bodies import collect_bodies, denoise
from data.preparation.recording import read_recording
from data.preparation.steps import denoise_step, read_step, transform_step
from data.splits import DATA_SETS
from data.store import Store


@pytest.fixture(scope="module", params=sorted(DATA_SETS))
def prepared(request, shared, tmp_path_factory):
    """A data set, its expected results, and the folder where all three steps have run."""
    dataset = DATA_SETS[request.param]
    work = tmp_path_factory.mktemp(dataset.name)
    read_step(dataset, shared / "ntu" / "public" / "raw", work / "raw", workers=2, chunk_size=5)
    denoise_step(dataset, work / "raw", work / "denoised", workers=2)
    transform_step(dataset, work / "denoised", work, npz=True)
    expected = np.load(shared / "ntu" / "public" / f"expected_{dataset.name}.npz")
    return dataset, expected, work


def identical(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def test_final_arrays_of_every_benchmark(prepared):
    dataset, expected, work = prepared
    for benchmark in dataset.benchmarks.values():
        if benchmark.published is None:
            continue
        written = np.load(work / f"{dataset.stem}_{benchmark.published}.npz")
        assert written.files == ["x_train", "y_train", "x_test", "y_test"]
        for name in written.files:
            assert identical(written[name], expected[f"{benchmark.published}_{name}"]), name


def test_row_order_in_the_store(prepared):
    dataset, expected, work = prepared
    store = Store(work / f"{dataset.stem}.h5")
    assert store.names == expected["names"].tolist()
    for name, benchmark in dataset.benchmarks.items():
        for split in ("train", "test") if benchmark.published else ():
            names = [store.names[row] for row in store.split(name, split)]
            assert names == expected[f"{benchmark.published}_names_{split}"].tolist()


def test_the_store_holds_the_same_samples(prepared):
    dataset, expected, work = prepared
    store = Store(work / f"{dataset.stem}.h5")
    for name, benchmark in dataset.benchmarks.items():
        for split in ("train", "test") if benchmark.published else ():
            rows = store.split(name, split)
            x = np.stack([store.padded(row).reshape(-1, 150) for row in rows])
            assert identical(x, expected[f"{benchmark.published}_x_{split}"])


def test_denoised_joints_frames_and_bodies(prepared, shared):
    _, expected, work = prepared
    bodies = 0
    for i, name in enumerate(expected["names"]):
        (path,) = (shared / "ntu" / "public" / "raw").glob(f"*/{name}.skeleton")
        recording = read_recording(path)
        assert recording.num_frames == expected["raw_frames_cnt"][i]
        start, end = expected["dropped_offsets"][i : i + 2]
        assert recording.dropped == expected["dropped_flat"][start:end].tolist()
        found = collect_bodies(recording)
        joints = denoise(found, recording.num_frames, name)
        start, end = expected["joints_offsets"][i : i + 2]
        shape = (expected["frames_cnt"][i], expected["joints_width"][i])
        assert identical(joints, expected["joints_flat"][start:end].reshape(shape)), name
        for body in found:
            assert (body.id, body.first, body.last, len(body.joints), body.removed_by) == tuple(
                expected[f"body_{key}"][bodies]
                for key in ("id", "first", "last", "len", "removed_by")
            )
            for key, value in (("motion", body.motion), ("motion_final", body.final_motion)):
                assert np.array_equal(value, expected[f"body_{key}"][bodies], equal_nan=True), name
            bodies += 1
    assert bodies == len(expected["body_id"])
    with open(work / "denoised" / "bodies.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["body"] for row in table] == expected["body_id"].tolist()
    motions = np.array([row["final_motion"] for row in table], dtype=np.float32)
    assert np.array_equal(motions, expected["body_motion_final"], equal_nan=True)


def test_a_missing_actor_is_zero_only_beside_another():
    joints = np.ones((3, 150), np.float32)
    joints[1, :75] = 0
    moved = move_to_origin(joints, "x")
    assert not moved[1].any()
    assert (move_to_origin(joints[:, :75], "x")[1] == -1).all()
