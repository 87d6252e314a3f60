"""From files to predictions: those of the test, and clear words for what cannot be read."""

import csv
import json
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax
from small_runs import train
from toy_ucla import write_ucla

import main_multigpu
from data.custom.__main__ import main as custom
from data.demo import perform, samples
from data.demo.__main__ import write_raw
from data.preparation.steps import denoise_step, read_step, transform_step
from data.splits import DATA_SETS
from koopman_pooling import load
from koopman_pooling.stream import Latency, spans_of, watch

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = ["performers=3", "replications=1"]


def predict(*words):
    return main_multigpu.main(["--phase", "predict", "--device", "cpu", *map(str, words)])


def predicted(tmp_path, *words):
    """The rows of the table, by clip."""
    out = tmp_path / "out" / "p.jsonl"
    assert predict("--out", out, "--top", "100", *words) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    return {row["clip"]: {top["label"]: top["probability"] for top in row["top"]} for row in rows}


def of_the_test(work, class_names):
    """What the test of a run gave, in the same form."""
    content = np.load(work / "epoch1_test_score.npz")
    found = softmax(content["scores"].astype(float), axis=1)
    rows = zip(content["names"].tolist(), found.tolist(), strict=True)
    return {name: dict(zip(class_names, row, strict=True)) for name, row in rows}


@pytest.fixture(scope="module")
def demo(one_thread, tmp_path_factory, root):
    """A run on the demo, whose recordings are NTU's."""
    words = ["--train-feeder-args", *FEW, "--test-feeder-args", *FEW]
    return train(root / "config/demo/koopman.yaml", tmp_path_factory.mktemp("demo") / "w", *words)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder of clips of the demo, and one that is broken."""
    folder = tmp_path_factory.mktemp("clips")
    for sample in samples(actions=3, performers=1, replications=1):
        np.save(folder / f"{sample.name}.npy", perform(sample, seed=0)[:, 0])
    (folder / "broken.csv").write_text("x,y\n1,2\n")
    return folder


def body(seed, persons=1, frames=20):
    """Joints (T, M, 17, 3) in pixels, with scores."""
    rng = np.random.default_rng(seed)
    still = rng.uniform(100, 300, (1, persons, 17, 2))
    moved = still + np.cumsum(rng.normal(0, 3, (frames, persons, 17, 2)), axis=0)
    moved += 400 * np.arange(persons)[:, None, None]
    return np.concatenate([moved, np.full((*moved.shape[:-1], 1), 0.75)], axis=-1).astype("f4")


def own_run(tmp_path, source, *words):
    given = ["--from", str(source), "--layout", "coco17", "--out", str(tmp_path / "own"), *words]
    assert custom(given) == 0
    batch = ["--batch-size", "2", "--global-batch-size", "2", "--num-epoch", "2"]
    return train(tmp_path / "own.yaml", tmp_path / "w", *batch)


def test_coco_from_files_to_predictions_on_the_same_files(tmp_path):
    """OpenPose's files, a file a frame, as they are before and after training."""
    for name in ("jump/1", "jump/2", "jump/3", "wave/1", "wave/2", "wave/3"):
        folder = tmp_path / "in" / name
        folder.mkdir(parents=True)
        for frame, people in enumerate(body(sum(name.encode()), frames=int(name[-1]) + 9)):
            told = [{"pose_keypoints_2d": person.ravel().tolist()} for person in people]
            path = folder / f"clip_{frame:012d}_keypoints.json"
            path.write_text(json.dumps({"people": told}))
    work = own_run(tmp_path, tmp_path / "in")
    found = predicted(tmp_path, "--weights", work, "--input", tmp_path / "in")
    assert len(found) == 6
    expected = of_the_test(work, ["jump", "wave"])
    assert expected
    for name, row in expected.items():
        assert found[name] == pytest.approx(row, abs=1e-9)
    whole = predicted(tmp_path, "--weights", work, "--input", tmp_path / "own.npz")
    assert all(whole[name] == pytest.approx(row) for name, row in found.items())


def test_a_pickle_from_file_to_predictions_on_the_same_file(tmp_path):
    annotations = []
    for number in range(6):
        joints = body(number, persons=2).transpose(1, 0, 2, 3)
        annotations.append({
            "frame_dir": f"clip{number}", "label": number % 2, "img_shape": (480, 640),
            "total_frames": 20, "keypoint": joints[..., :2].astype("f2"),
            "keypoint_score": joints[..., 2].astype("f2"),
        })  # fmt: skip
    names = [annotation["frame_dir"] for annotation in annotations]
    content = {"split": {"train": names[2:], "val": names[:2]}, "annotations": annotations}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    work = own_run(tmp_path, tmp_path / "a.pkl")
    found = predicted(tmp_path, "--weights", work, "--input", tmp_path / "a.pkl")
    assert list(found) == names
    expected = of_the_test(work, ["0", "1"])
    assert list(expected) == names[:2]
    for name, row in expected.items():
        assert found[name] == pytest.approx(row, abs=1e-9)


@pytest.mark.parametrize("name", [pytest.param("NTU60", marks=pytest.mark.slow), "NTU120"])
def test_raw_recordings_become_what_the_store_holds(tmp_path, root, name):
    dataset = next(d for d in DATA_SETS.values() if d.stem == name)
    chosen = samples(actions=2, performers=8, replications=1, cameras=1)
    write_raw(tmp_path / "raw", chosen[::2])
    write_raw(tmp_path / "raw", chosen[1::2], second_body=1.0)
    read_step(dataset, tmp_path / "raw", tmp_path / "1")
    denoise_step(dataset, tmp_path / "1", tmp_path / "2")
    transform_step(dataset, tmp_path / "2", tmp_path)
    store = tmp_path / f"{name}.h5"
    own = [f"data_path={store}", "benchmark=xsub", "window_size=16"]
    config = root / "config/nturgbd-cross-subject/koopman.yaml"
    small = ["--batch-size", "2", "--global-batch-size", "2", "--model-args", "num_class=4"]
    feeders = ["--train-feeder-args", *own, "--test-feeder-args", *own]
    work = train(config, tmp_path / "w", *small, *feeders)
    expected = of_the_test(work, list("0123"))
    assert expected
    for source in (tmp_path / "raw", store):
        rows = predicted(tmp_path, "--weights", work, "--input", source)
        found = {name.rpartition("/")[2]: row for name, row in rows.items()}
        assert len(found) == len(chosen)
        for sample, row in expected.items():
            assert found[sample] == pytest.approx(row, abs=1e-9), source


def test_files_of_ucla(tmp_path, capsys):
    write_ucla(tmp_path / "raw", actions=(1, 2), views=(3,))
    found = predicted(tmp_path, "--weights", "nw-ucla-fast", "--input", tmp_path / "raw")
    assert list(found) == ["a01_s01_e00_v03", "a02_s01_e00_v03"]
    one = tmp_path / "raw/a01_s01_e00_v03.json"
    capsys.readouterr()
    assert predict("--weights", "nw-ucla-fast", "--input", one, "--top", "2") == 0
    told = capsys.readouterr()
    assert told.out.startswith("a01_s01_e00_v03: ")
    assert told.out.count("%") == 2
    assert told.err == ""


def test_tables_are_of_three_kinds(demo, clips, tmp_path, capsys):
    for suffix in ("csv", "json", "jsonl"):
        words = ["--weights", demo, "--input", clips, "--top", "2"]
        assert predict(*words, "--out", tmp_path / f"p.{suffix}") == 0
    told = capsys.readouterr().err
    assert told.count("left out: ") == 3
    assert "broken.csv" in told
    assert "1 of 10 clips" in told
    rows = json.loads((tmp_path / "p.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    with open(tmp_path / "p.csv", newline="") as file:
        flat = list(csv.DictReader(file))
    assert rows == lines
    assert [row["clip"] for row in rows] == [row["clip"] for row in flat]
    assert [row["top"][1]["label"] for row in rows] == [row["label_2"] for row in flat]
    assert list(flat[0]) == ["clip", "label", "probability", "label_2", "probability_2"]


@pytest.mark.parametrize("kind", ["png", pytest.param("gif", marks=pytest.mark.slow), "html"])
def test_pictures_bear_the_label(demo, clips, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    shutil.copy(sorted(clips.glob("*.npy"))[0], tmp_path / "one.npy")
    assert predict("--weights", demo, "--input", "one.npy", "--picture", kind) == 0
    (path,) = (tmp_path / "predictions").iterdir()
    assert path.name == f"one.{kind}"
    if kind == "html":
        label = load(demo, device="cpu").predict(np.load(tmp_path / "one.npy")).label
        assert label in path.read_text()
    else:
        assert Image.open(path).size[0] > 200


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--input", "none.npy"], "none.npy: no such file"),
        (["--input", "broken.csv"], "broken"),
        (["--input", "empty"], "no clip in it"),
        (["--input", "flat.npy"], "its joints"),
        (["--input", "small.npy"], "25 joints"),
        (["--input", "nobody.npy"], "nobody in any frame"),
        (["--input", "."], "(and 3 more)"),
        (["--input", "note.txt"], "none of"),
        (["--input", "x.npy", "--out", "p.xlsx"], "--out p.xlsx: give it one of the endings"),
        (["--input", "x.npy", "--top", "0"], "--top 0"),
        (["--input", "x.npy", "--top", "many"], "--top"),
        (["--input", "x.npy", "--window", "9"], "--window: is of --stream"),
        (["--input", "x.npy", "--stream", "--hop", "-1"], "--hop -1"),
        (["--input", "x.npy", "--stream", "--threshold", "7"], "--threshold 7"),
        (["--input", "x.npy", "--device", "abacus"], "device abacus"),
        (["--input", "x.npy", "--weights", "nothing.pt"], "nothing.pt: no such weights"),
        ([], "--input"),
    ],
)
def test_what_is_wrong_is_one_line(demo, tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.csv").write_text("x,y\n1,2\n")
    (tmp_path / "note.txt").write_text("see you")
    np.save(tmp_path / "flat.npy", np.ones((5, 25, 2)))
    np.save(tmp_path / "small.npy", np.ones((5, 20, 3)))
    np.save(tmp_path / "nobody.npy", np.zeros((5, 25, 3)))
    weights = [] if "--weights" in words else ["--weights", str(demo)]
    assert predict(*weights, *words) == 2
    error = capsys.readouterr().err.splitlines()
    assert told in error[-1]
    assert error[-1].startswith("error: ")
    assert len([line for line in error if not line.startswith("left out")]) == 1
    assert not list(tmp_path.glob("p.*"))


def test_of_more_persons_those_seen_most_are_left(demo, tmp_path, capsys):
    sample = samples(actions=1, performers=1, replications=1)[0]
    alone = perform(sample, seed=0)[:, 0]
    short = np.where(np.arange(len(alone))[:, None, None] < 5, alone + 1, 0)
    np.save(tmp_path / "two.npy", np.stack([short, alone]))
    found = predicted(tmp_path, "--weights", demo, "--input", tmp_path / "two.npy")
    assert "1 clips have more persons" in capsys.readouterr().err
    expected = dict(load(demo, device="cpu").predict(alone).top(8))
    assert found["two"] == pytest.approx(expected, abs=1e-6)


def test_a_long_recording_is_cut_into_actions(demo, tmp_path, capsys):
    parts = [perform(s, seed=0)[:, 0] for s in samples(actions=2, performers=1, replications=1)[:2]]
    long = np.concatenate([*parts, np.zeros((60, 25, 3)), parts[0]])
    np.save(tmp_path / "long.npy", long)
    words = ["--weights", demo, "--input", tmp_path / "long.npy", "--stream", "--rate", "30"]
    words += ["--window", "16", "--hop", "4", "--picture", "--out", tmp_path / "p.csv"]
    assert predict(*words) == 0
    told = capsys.readouterr().out
    assert "latency of a window of 16 frames: median" in told
    with open(tmp_path / "p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["start"] == "0"
    assert int(rows[-1]["end"]) == len(long)
    assert all(float(row["end_s"]) == int(row["end"]) / 30 for row in rows)
    empty = range(len(parts[0]) + len(parts[1]) + 16, len(parts[0]) + len(parts[1]) + 44)
    assert not any(int(r["start"]) < empty[-1] and int(r["end"]) > empty[0] for r in rows)
    assert len(list(tmp_path.glob("long_*.png"))) == len(rows)


def test_frames_are_the_mean_of_their_windows(demo):
    recogniser, clip = (
        load(demo, device="cpu"),
        np.random.default_rng(0).normal(size=(1, 20, 25, 3)),
    )
    seen = watch(recogniser, clip, 8, 6, Latency())
    windows = [recogniser.predict(clip[:, s : s + 8]).probabilities for s in (0, 6, 12)]
    assert np.allclose(seen[0], windows[0])
    assert np.allclose(seen[7], (windows[0] + windows[1]) / 2)
    assert np.allclose(seen[19], windows[2])
    whole = watch(recogniser, clip[:, :5], 8, 6, Latency())
    assert np.allclose(whole, recogniser.predict(clip[:, :5]).probabilities)


def test_spans():
    rows = {
        "a": [0.8, 0.2, 0.0],
        "b": [0.1, 0.6, 0.3],
        "-": [0.0, 0.0, 0.0],
        "c": [0.25, 0.35, 0.4],
    }
    probabilities = np.array([rows[letter] for letter in "aaaaacbbbbb---bbbb"])
    spans = spans_of(probabilities, ["a", "b", "c"], 2)
    assert [(s.start, s.end, s.label) for s in spans] == [(0, 5, "a"), (5, 11, "b"), (14, 18, "b")]
    assert spans[1].probability == pytest.approx((0.35 + 5 * 0.6) / 6)
    assert [s.label for s in spans_of(probabilities, ["a", "b", "c"], 2, 0.65)] == ["a"]
    assert len(spans_of(probabilities, ["a", "b", "c"], 1)) == 4
    assert spans_of(probabilities[11:14], ["a", "b", "c"], 2) == []


def test_help_tells_the_phases_and_their_flags(capsys):
    for words, told in (
        [["--help"], "--phase predict"],
        [["--phase", "predict", "--help"], "--hop"],
    ):
        with pytest.raises(SystemExit) as left:
            main_multigpu.main(words)
        assert left.value.code == 0
        assert told in capsys.readouterr().out
