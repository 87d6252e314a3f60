"""Own skeletons in every form people have them, to a file that trains."""

import csv
import json
import os
import pickle
import re
import shlex
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

import main_multigpu
from data.custom.__main__ import main
from data.custom.arrays import tracked
from data.own import OwnClips
from data.show.__main__ import main as show
from data.skeletons import SKELETONS
from feeders.feeder_own import Feeder

CLASSES = ("jump", "wave")
FRAMES = 12


def body(seed, points=17, axes=2, persons=1, frames=FRAMES, at=300.0):
    """Joints (T, M, V, axes) of persons that move a little, apart from each other."""
    rng = np.random.default_rng(seed)
    pose = rng.uniform(-100, 100, (1, persons, points, axes))
    sway = np.cumsum(rng.normal(0, 3, (frames, persons, points, axes)), axis=0)
    apart = 400.0 * np.arange(persons)[:, None, None]
    return (pose + sway + apart + at).round(3)


def scored(joints, score=0.75):
    """Joints with a score behind x and y."""
    return np.concatenate([joints, np.full((*joints.shape[:-1], 1), score)], axis=-1)


def clips():
    """Name (class/subject_take), and a seed."""
    names = [f"{c}/p{s}_{take}" for c in CLASSES for s in range(3) for take in range(2)]
    return {name: seed for seed, name in enumerate(names)}


def write(folder, suffix, save):
    for name, seed in clips().items():
        path = folder / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, seed)
    return folder


def write_rows(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def convert(tmp_path, source, layout, *words, out="own"):
    """Run the command; the data set, or what it said."""
    given = ["--from", str(source), "--layout", str(layout), "--out", str(tmp_path / out), *words]
    assert main(given) == 0
    return OwnClips(tmp_path / f"{out}.npz")


def refused(capsys, tmp_path, source, layout, *words):
    """The one line that the command said, having written nothing."""
    out = tmp_path / "refused"
    given = ["--from", str(source), "--layout", str(layout), "--out", str(out), *words]
    assert main(given) == 2
    assert not list(tmp_path.glob("*refused*"))
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def sequence(own, name):
    return own.sequence(own.tables.names.index(name))


def header(skeleton, *axes):
    names = [name.replace(" ", "_") for name in SKELETONS[skeleton].joint_names]
    return [f"{name}_{axis}" for name in names for axis in axes]


# Forms


def wide_csv(path, seed):
    rows = scored(body(seed))[:, 0].reshape(FRAMES, -1)
    numbered = ([t, *row] for t, row in enumerate(rows))
    write_rows(path, ["frame", *header("coco17", "x", "y", "score")], *numbered)


def plain_csv(path, seed):
    write_rows(path, *scored(body(seed))[:, 0].reshape(FRAMES, -1))


def shuffled_csv(path, seed):
    """Joints in the order of their names, and all x before all y."""
    joints = scored(body(seed))[:, 0]
    names = SKELETONS["coco17"].joint_names
    order = np.argsort(names)
    heads = [f"{a}_{names[j].upper().replace(' ', '_')}" for a in ("x", "y", "conf") for j in order]
    write_rows(path, heads, *joints[:, order].transpose(0, 2, 1).reshape(FRAMES, -1))


def long_csv(path, seed):
    rows = [
        [t, names, *joint]
        for t, pose in enumerate(scored(body(seed))[:, 0])
        for names, joint in zip(SKELETONS["coco17"].joint_names, pose, strict=True)
    ]
    write_rows(path, ["frame", "joint", "x", "y", "score"], *rows)


def nested_json(path, seed):
    path.write_text(json.dumps(scored(body(seed)).tolist()))


def kinetics_json(path, seed):
    frames = [
        {
            "frame_index": t,
            "skeleton": [{"pose": pose[:, :2].ravel().tolist(), "score": pose[:, 2].tolist()}],
        }
        for t, (pose,) in enumerate(scored(body(seed)))
    ]
    path.write_text(json.dumps({"data": frames, "label": path.parent.name, "label_index": 1}))


def mmpose_json(path, seed):
    frames = [
        {
            "frame_id": t,
            "instances": [
                {"keypoints": pose[:, :2].tolist(), "keypoint_scores": pose[:, 2].tolist()}
            ],
        }
        for t, (pose,) in enumerate(scored(body(seed)))
    ]
    path.write_text(json.dumps({"meta_info": {}, "instance_info": frames}))


def alphapose_json(path, seed):
    entries = [
        {"image_id": f"{t}.jpg", "category_id": 1, "keypoints": pose.ravel().tolist(), "score": 2.9}
        for t, (pose,) in enumerate(scored(body(seed)))
    ]
    path.write_text(json.dumps(entries))


def openpose_18_in_one_file(path, seed):
    """OpenPose's order of joints, under the images' names."""
    joints = scored(body(seed))
    names = SKELETONS["coco17"].joint_names
    order = [names.index(n) if n in names else 0 for n in SKELETONS["openpose18"].joint_names]
    people = {
        f"img_{t:05d}.png": {"people": [{"pose_keypoints_2d": pose[order].ravel().tolist()}]}
        for t, (pose,) in enumerate(joints)
    }
    path.write_text(json.dumps(people))


def npy(path, seed):
    np.save(path, scored(body(seed))[:, 0].astype(np.float32))


def flat_npy(path, seed):
    np.save(path, scored(body(seed))[:, 0].reshape(FRAMES, -1))


def npz(path, seed):
    joints = scored(body(seed)).transpose(1, 0, 2, 3)
    np.savez(path, keypoint=joints[..., :2], keypoint_score=joints[..., 2])


FORMS = {
    wide_csv: ".csv",
    plain_csv: ".csv",
    shuffled_csv: ".csv",
    long_csv: ".csv",
    nested_json: ".json",
    kinetics_json: ".json",
    mmpose_json: ".json",
    alphapose_json: ".json",
    openpose_18_in_one_file: ".json",
    npy: ".npy",
    flat_npy: ".npy",
    npz: ".npz",
}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_gives_the_same_clips(tmp_path, form):
    own = convert(tmp_path, write(tmp_path / "in", FORMS[form], form), "coco17")
    tables = own.tables
    assert (tables.channels, tables.skeleton.name) == ("xys", "coco17")
    assert tables.names == sorted(clips())
    assert tables.class_names == list(CLASSES)
    for name, seed in clips().items():
        assert np.allclose(sequence(own, name), scored(body(seed)), atol=1e-3), name
        assert tables.class_names[tables.labels[tables.names.index(name)]] == name.split("/")[0]


def openpose_folder(root, joints, stem="clip", first=0):
    root.mkdir(parents=True)
    for t, people in enumerate(joints):
        found = [{"pose_keypoints_2d": pose.ravel().tolist()} for pose in people]
        path = root / f"{stem}_{t + first:012d}_keypoints.json"
        path.write_text(json.dumps({"version": 1.3, "people": found}))


def test_openpose_follows_persons_through_shuffled_frames_with_gaps(tmp_path):
    joints = scored(body(1, points=25, persons=2))
    for label in CLASSES:
        shown = [pose[:: 1 if t % 2 else -1] for t, pose in enumerate(joints)]
        shown[3] = []
        shown[5] = joints[5][:1]
        openpose_folder(tmp_path / "in" / label / "a", shown, first=7)
        openpose_folder(tmp_path / "in" / label / "b", shown, stem="b")
    own = convert(tmp_path, tmp_path / "in", "openpose25")
    assert own.tables.names == ["jump/a/clip", "jump/b", "wave/a/clip", "wave/b"]
    openpose_folder(tmp_path / "in/jump/b/more", joints, stem="b_1")
    shutil.copytree(tmp_path / "in/jump/b/more", tmp_path / "in/jump/b", dirs_exist_ok=True)
    again = convert(tmp_path, tmp_path / "in", "openpose25", out="again")
    assert np.array_equal(sequence(again, "jump/b"), sequence(own, "jump/b"))
    assert "jump/b/b_1" in again.tables.names
    found = sequence(own, "jump/b")
    expected = joints.copy()
    expected[3] = 0
    expected[5, 1] = 0
    assert np.allclose(found if np.allclose(found[1], joints[1], atol=1e-3) else found[:, ::-1],
                       expected, atol=1e-3)  # fmt: skip
    chosen = convert(tmp_path, tmp_path / "in", "coco17", out="other")
    nose, wrist = sequence(chosen, "jump/b")[0, :, [0, 9]]
    assert np.allclose(np.sort(nose[:, 0]), np.sort(joints[0, :, 0, 0]), atol=1e-3)
    left_wrist = SKELETONS["openpose25"].joint_names.index("left wrist")
    assert np.allclose(np.sort(wrist[:, 0]), np.sort(joints[0, :, left_wrist, 0]), atol=1e-3)


def test_a_person_who_joins_close_by_takes_nobodys_place():
    first = body(1)[:, 0]
    second = first + 40
    frames = [[first[0]], [second[1], first[1]], [second[2]], [first[3], second[3]]]
    joints = tracked(frames, 17, 2)
    assert joints.shape[1] == 2
    assert np.array_equal(joints[:, 0], np.where(np.arange(4)[:, None, None] == 2, 0, first[:4]))
    assert np.array_equal(joints[1:, 1], second[1:4])


@pytest.mark.parametrize("nested", [False, True], ids=["solutions", "tasks"])
def test_mediapipe_landmarks_are_3d(tmp_path, nested):
    def save(path, seed):
        joints = body(seed, 33, 3)[:, 0] / 1000
        marks = [
            [dict(zip("xyz", map(float, j), strict=True), visibility=0.9) for j in pose]
            for pose in joints
        ]
        key = "pose_landmarks" if nested else "landmarks"
        frames = [{key: [pose] if nested else pose} for pose in marks]
        frames[2] = {key: []}
        path.write_text(json.dumps({"fps": 30, "frames": frames}))

    own = convert(tmp_path, write(tmp_path / "in", ".json", save), "mediapipe33")
    assert own.tables.channels == "xyz"
    expected = (body(0, 33, 3) / 1000).astype(np.float32)
    expected[2] = 0
    assert np.allclose(sequence(own, "jump/p0_0"), expected)


def test_arrays_in_other_orders(tmp_path):
    joints = body(3, points=25, axes=3, persons=2)
    for order in ("MTVC", "TMVC", "CTVM"):
        array = joints.transpose(["TMVC".index(axis) for axis in order])
        for label in CLASSES:
            (tmp_path / order / label).mkdir(parents=True)
            for take in range(2):
                np.save(tmp_path / order / label / f"{take}.npy", array)
        words = ["--axes", "CTVM"] if order == "CTVM" else []
        own = convert(tmp_path, tmp_path / order, "kinect25", *words, out=f"own_{order}")
        assert np.allclose(own.sequence(0), joints, atol=1e-3), order


def annotations(split=True, **changes):
    found = []
    for name, seed in clips().items():
        joints = body(seed, persons=2).transpose(1, 0, 2, 3)
        found.append({
            "frame_dir": name.replace("/", "_"),
            "label": CLASSES.index(name.split("/")[0]) + 1,
            "img_shape": (1080, 1920),
            "original_shape": (1080, 1920),
            "total_frames": FRAMES,
            "keypoint": joints.astype(np.float16),
            "keypoint_score": np.full(joints.shape[:-1], 0.5, np.float16),
            **changes,
        })  # fmt: skip
    names = [a["frame_dir"] for a in found]
    splits = {"xsub_train": names[1:], "xsub_val": names[:1], "xview_train": names[::2],
              "xview_val": names[1::2]}  # fmt: skip
    return {"split": splits, "annotations": found} if split else found


def pickled(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 4])
def test_annotation_pickles_keep_scores_persons_numbers_and_splits(tmp_path, protocol):
    source = pickled(tmp_path / "a.pkl", annotations(), protocol)
    own = convert(tmp_path, source, "coco17", "--benchmark", "xview")
    tables = own.tables
    assert (tables.channels, tables.most_persons) == ("xys", 2)
    assert tables.class_names == ["0", "1", "2"]
    assert {name: len(rows) for name, rows in tables.splits.items()} == {
        "xsub_train": 11, "xsub_val": 1, "xview_train": 6, "xview_val": 6}  # fmt: skip
    expected = scored(body(0, persons=2), 0.5)
    assert np.allclose(sequence(own, "jump_p0_0"), expected, atol=1)
    written = yaml.safe_load((tmp_path / "own.yaml").read_text())
    assert written["train_feeder_args"]["split"] == "xview_train"
    assert "model_args" not in written  # the data decide


def test_splits_that_do_not_fit_the_annotations_are_told(tmp_path, capsys):
    content = annotations()
    content["split"] = {"train1": [*content["split"]["xsub_train"][:-2], "gone"],
                        "test1": content["split"]["xsub_val"]}  # fmt: skip
    convert(tmp_path, pickled(tmp_path / "a.pkl", content), "coco17")
    said = capsys.readouterr().out
    assert "splits list 1 clips that are not here" in said
    assert "2 clips are in no split" in said


def test_a_bare_list_of_annotations_gets_a_split(tmp_path):
    own = convert(tmp_path, pickled(tmp_path / "a.pkl", annotations(split=False)), "coco17")
    assert set(own.tables.splits) == {"train", "test"}


def test_a_pickle_runs_nothing(tmp_path, capsys):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "gone off"),)

    for content in (Bomb(), annotations(keypoint=Bomb()), {"annotations": []}, [{"label": 1}], 3):
        source = pickled(tmp_path / "a.pkl", content)
        assert "a.pkl" in refused(capsys, tmp_path, source, "coco17")
    for changes in ({"keypoint": "far.pkl"}, {"keypoint_score": np.zeros((1, 2, 3))}):
        source = pickled(tmp_path / "a.pkl", annotations(**changes))
        assert "jump_p0_0: keypoint" in refused(capsys, tmp_path, source, "coco17")
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04nonsense")
    refused(capsys, tmp_path, tmp_path / "a.pkl", "coco17")
    assert not (tmp_path / "gone off").exists()


@pytest.mark.parametrize("whole", [False, True])
def test_published_arrays(tmp_path, whole):
    joints = np.zeros((6, FRAMES + 5, 2, 25, 3), np.float32)
    joints[:, :FRAMES, :1] = [body(seed, 25, 3) for seed in range(6)]
    joints[3, :FRAMES] = body(9, 25, 3, persons=2)
    x = joints.transpose(0, 4, 1, 3, 2) if whole else joints.reshape(6, FRAMES + 5, -1)
    y = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    np.savez(tmp_path / "a.npz", x_train=x[:3], y_train=y[:3], x_test=x[3:], y_test=y[3:])
    own = convert(tmp_path, tmp_path / "a.npz", "ntu")
    assert own.tables.frames.tolist() == [FRAMES] * 6
    assert own.tables.persons.tolist() == [1, 1, 1, 2, 1, 1]
    assert np.allclose(sequence(own, "test_0"), joints[3, :FRAMES])
    assert own.tables.splits["test"].tolist() == [3, 4, 5]


def test_recordings(tmp_path):
    from data.demo.raw import write_skeleton_file

    for action in (1, 2):
        for subject in (1, 2):
            name = f"S001C001P{subject:03d}R001A{action:03d}.skeleton"
            joints = body(action, 25, 3, at=2000.0) / 1000
            write_skeleton_file(tmp_path / name, joints.astype(np.float32))
    own = convert(tmp_path, tmp_path, "ntu", "--split", "subject", "--test", "2")
    assert own.tables.class_names == ["1", "2"]
    assert own.tables.subjects.tolist() == [1, 1, 2, 2]
    assert own.tables.splits["test"].tolist() == [2, 3]


# Layouts


@pytest.mark.parametrize("edges", [
    {"edges": [[1, 0], [2, 1], [3, 1], [0, 2]], "center": 1},
    {"joints": ["a", "b", "c", "d"], "edges": [["a", "b"], ["c", "b"], ["b", "d"]], "center": "b"},
])  # fmt: skip
@pytest.mark.parametrize("axes", [2, 3])
def test_joints_of_ones_own(tmp_path, edges, axes):
    (tmp_path / "hand.yaml").write_text(yaml.safe_dump(edges))
    source = write(tmp_path / "in", ".npy", lambda p, s: np.save(p, body(s, 4, axes)[:, 0]))
    own = convert(tmp_path, source, tmp_path / "hand.yaml")
    assert own.tables.skeleton.bones == ((0, 1), (2, 1), (3, 1))
    assert own.tables.channels == ("xyz" if axes == 3 else "xy")
    dataset = Feeder(data_path=tmp_path / "own.npz", window_size=8, streams=["joint", "bone"])
    assert dataset[0][0].shape == (2 * axes, 8, 4, 1)
    assert not dataset[0][0][axes:, :, 1].any()  # the centre has no bone


@pytest.mark.parametrize(("content", "words"), [
    ("edges: [[1, 0], [3, 2]]", "joins joint 2"),
    ("edges: [[1, 2], [2, 3]]\nnum_point: 3", "joints count from 0"),
    ("edges: [[0, 1, 2]]", "edges"),
    ("edges: 3", "edges"),
    ("bones: []", "edges"),
    ("edges: [[1, 0]]\ncentre: 0", "centre"),
    ("edges: [[1, 0]]\ncenter: 9", "joint 9"),
    ("edges: [", "no YAML"),
])  # fmt: skip
def test_edges_that_are_wrong(tmp_path, capsys, content, words):
    (tmp_path / "e.yaml").write_text(content)
    error = refused(capsys, tmp_path, tmp_path, tmp_path / "e.yaml")
    assert words in error
    assert "e.yaml" in error


def test_unknown_layouts_are_told_the_nearest(tmp_path, capsys):
    assert "did you mean 'coco17'" in refused(capsys, tmp_path, tmp_path, "coco-17")
    assert "no such file" in refused(capsys, tmp_path, tmp_path / "none", "coco17")
    assert "none.yaml: No such file" in refused(capsys, tmp_path, tmp_path, "none.yaml")


# Labels and splits


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "in", ".npy", npy)


def test_a_table_gives_labels_subjects_cameras_and_splits(tmp_path):
    source = tmp_path / "flat"
    source.mkdir()
    lines = []
    for name, seed in clips().items():
        npy(source / f"c{seed}.npy", seed)
        subject = re.search(r"p(\d)", name)[1]
        part = "test" if seed % 5 == 0 else "train"
        lines.append([f"c{seed}.mp4", name.split("/")[0], f"P{subject}", seed % 2, part])
    table = write_rows(tmp_path / "t.csv", ["Name", "Label", "subject", "camera", "split"], *lines)
    own = convert(tmp_path, source, "coco17", "--labels", str(table))
    assert [own.tables.names[i] for i in own.tables.splits["test"]] == ["c0", "c10", "c5"]
    by_camera = convert(tmp_path, source, "coco17", "--labels", str(table), "--split", "camera",
                        "--test", "1", out="camera")  # fmt: skip
    assert all(int(by_camera.tables.names[i][1:]) % 2 for i in by_camera.tables.splits["test"])
    short = write_rows(tmp_path / "short.csv", *[row[:2] for row in lines])
    assert convert(tmp_path, source, "coco17", "--labels", str(short), out="s").tables.class_names


def test_a_table_that_lacks_a_clip(tmp_path, capsys, folder):
    table = write_rows(tmp_path / "t.csv", ["name", "label"], ["p0_0", "x"])
    assert "no line for the clip" in refused(
        capsys, tmp_path, folder, "coco17", "--labels", str(table)
    )


def test_subjects_come_from_names_and_never_stand_on_both_sides(tmp_path, folder):
    words = ["--names", r"p(?P<subject>\d)_", "--split", "subject"]
    own = convert(tmp_path, folder, "coco17", *words)
    train, test = (set(own.tables.subjects[own.tables.splits[s]]) for s in ("train", "test"))
    assert train
    assert test
    assert not train & test
    chosen = convert(tmp_path, folder, "coco17", *words, "--test", "0", "2", out="two")
    assert set(chosen.tables.subjects[chosen.tables.splits["test"]]) == {0, 2}


def test_random_splits_are_reproducible_and_hold_every_class(tmp_path, folder):
    words = ["--split", "random", "--test-ratio", "0.3"]
    first, again = (convert(tmp_path, folder, "coco17", *words, out=out) for out in ("a", "b"))
    assert first.path.read_bytes() == again.path.read_bytes()
    other = convert(tmp_path, folder, "coco17", *words, "--seed", "5", out="c")
    assert first.tables.splits["test"].tolist() != other.tables.splits["test"].tolist()
    assert set(first.tables.labels[first.tables.splits["test"]]) == {0, 1}


def test_lists_and_split_folders(tmp_path, folder):
    (tmp_path / "list.txt").write_text("jump/p0_0\nwave/p1_1\n")
    own = convert(tmp_path, folder, "coco17", "--split", "list", "--test",
                  str(tmp_path / "list.txt"))  # fmt: skip
    assert [own.tables.names[i] for i in own.tables.splits["test"]] == ["jump/p0_0", "wave/p1_1"]
    (tmp_path / "parted").mkdir()
    for split in ("train", "val"):
        write(tmp_path / "parted" / split, ".npy", npy)
    parted = convert(tmp_path, tmp_path / "parted", "coco17", out="parted_out")
    assert parted.tables.class_names == list(CLASSES)
    assert {name: len(rows) for name, rows in parted.tables.splits.items()} == {
        "train": 12, "val": 12}  # fmt: skip


@pytest.mark.parametrize(("words", "told"), [
    (["--split", "subject"], "column subject"),
    (["--split", "source"], "has none"),
    (["--split", "list"], "--test FILE"),
    (["--names", "(", "--split", "subject"], "--names"),
    (["--names", "abc"], "no group"),
    (["--names", r"p(?P<subject>\d)", "--test", "9"], "no such subject"),
    (["--split", "random", "--test", "p0"], "no meaning"),
    (["--test-ratio", "1.5"], "between 0 and 1"),
    (["--axes", "TVX"], "letters"),
])  # fmt: skip
def test_what_cannot_be_split_is_told(tmp_path, capsys, folder, words, told):
    assert told in refused(capsys, tmp_path, folder, "coco17", *words)


# Faults and oddities


@pytest.mark.parametrize(("suffix", "content", "told"), [
    (".csv", b"a,b\n1,2\n", "expected 17"),
    (".csv", b"", "empty"),
    (".csv", b"\xff\xfe\x00", "UTF-8"),
    (".csv", b"1,2\n1\n", "line 2"),
    (".json", b"{", "JSON"),
    (".json", b"[]", "no frames"),
    (".json", b'{"a": 1}', "forms"),
    (".json", b'[[[1, 2, 3]]]', "17 joints"),
    (".json", b'[{"people": []}]', "nobody"),
    (".npy", b"not numpy", "npy"),
    (".npz", b"PK", "npz"),
    (".skeleton", b"1\n", "ntu"),
])  # fmt: skip
def test_files_that_are_broken_are_named_and_can_be_left_out(
    tmp_path, capsys, folder, suffix, content, told
):
    (folder / "jump" / f"zz{suffix}").write_bytes(content)
    error = refused(capsys, tmp_path, folder, "coco17")
    assert told in error
    assert "jump/zz" in error
    assert "--skip-broken" in error
    own = convert(tmp_path, folder, "coco17", "--skip-broken")
    assert own.tables.names == sorted(clips())
    assert "left out: " in capsys.readouterr().out


def test_an_interruption_leaves_nothing(tmp_path, capsys, folder, monkeypatch):
    def interrupted(path, tables, blocks):
        raise KeyboardInterrupt

    monkeypatch.setattr("data.custom.__main__.write_own", interrupted)
    given = ["--from", str(folder), "--layout", "coco17", "--out", str(tmp_path / "out/own")]
    assert main(given) == 130
    assert capsys.readouterr().err.startswith("stopped")
    assert not list((tmp_path / "out").iterdir())


def test_what_is_odd_is_told(tmp_path, capsys):
    def save(path, seed):
        joints = scored(body(seed, frames=20))
        joints[:, 0, 4] = 0
        joints[:, 0, 5, :2] = 7
        if seed == 1:
            joints[10, 0, 8, :2] += 900
        if seed == 2:
            joints[4:7] = 0
        if seed == 3:
            joints[2, 0, 0, 0] = np.nan
        np.save(path, joints[: 3 if seed == 4 else None, 0])

    source = write(tmp_path / "in", ".npy", save)
    for take in range(40):
        save(source / "wave" / f"p8_{take}.npy", 100 + take)
    save(source / "jump" / "p9_0.npy", 200)
    save(source / "wave" / "p0_9.npy", 200)
    (tmp_path / "list.txt").write_text("jump/p9_0\nwave/p0_0\n")
    convert(tmp_path, source, "coco17", "--names", r"p(?P<subject>\d)_", "--split", "list",
            "--test", str(tmp_path / "list.txt"))  # fmt: skip
    said = capsys.readouterr().out
    for words in (
        "missing in every frame: 4 right ear",
        "never move: 5 left shoulder",
        "3 frames of zeros in 1 clips: jump/p1_0",
        "jump/p0_1 (frame 10)",
        "very short clips: jump/p2_0",
        "same clip in train and test: jump/p9_0",
        "subjects in both train and test: 0",
        "imbalance: 47 clips of wave, 7 of jump",
    ):
        assert words in said, words
    assert (tmp_path / "own.txt").read_text() in said
    assert (tmp_path / "own.png").read_bytes().startswith(b"\x89PNG")


def test_persons_beyond_those_kept_are_told(tmp_path, capsys):
    def save(path, seed):
        np.save(path, body(seed, 25, 3, persons=3).transpose(1, 0, 2, 3))

    source = write(tmp_path / "in", ".npy", save)
    own = convert(tmp_path, source, "ntu")
    assert own.tables.most_persons == 2
    assert "12 clips have more persons" in capsys.readouterr().out
    assert convert(tmp_path, source, "ntu", "--persons", "3", out="b").tables.most_persons == 3


def test_a_changed_configuration_is_kept(tmp_path, capsys, folder):
    convert(tmp_path, folder, "coco17")
    (tmp_path / "own.yaml").write_text("mine: 1\n")
    convert(tmp_path, folder, "coco17")
    assert (tmp_path / "own.yaml.old").read_text() == "mine: 1\n"
    assert "own.yaml.old" in capsys.readouterr().out


def test_the_written_configuration_trains_and_tests(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    convert(tmp_path, folder, "coco17", out="mine")
    small = [
        "--num-worker",
        "0",
        "--device",
        "cpu",
        "--model-args",
        "channels=[8,8]",
        "stride=[1,1]",
    ]
    words = ["--config", "mine.yaml", "--work-dir", "w", *small]
    assert (
        main_multigpu.main([*words, "--num-epoch", "1", "--step", "1", "--warm-up-epoch", "0"]) == 0
    )
    assert main_multigpu.main([*words, "--phase", "test", "--weights", "w/best.pt"]) == 0


# The worked example


def test_the_documented_example_runs_as_it_stands(tmp_path, monkeypatch, root):
    text = (root / "docs/own-data.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```bash\n(python -m data.custom.*?)```", text, re.DOTALL)
    commands = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
    assert [words[:3] for words in commands] == [
        ["python", "-m", "data.custom"],
        ["python", "main_multigpu.py", "--config"],
        ["python", "-m", "data.show"],
    ]
    monkeypatch.chdir(tmp_path)
    for label in ("jump", "wave"):
        for subject in (1, 2, 3):
            for take in range(3):
                path = tmp_path / f"recordings/{label}/p{subject}_{take}.csv"
                wide_csv(path, 10 * subject + take)
    assert main(commands[0][3:]) == 0
    small = ["--num-epoch", "1", "--step", "1", "--warm-up-epoch", "0", "--num-worker", "0"]
    small += ["--device", "cpu", "--model-args", "channels=[8,8]", "stride=[1,1]"]
    assert main_multigpu.main([*commands[1][2:], *small]) == 0
    assert show(commands[2][3:]) == 0
    with Image.open("mine/wave.gif") as image:
        assert image.n_frames == FRAMES
    subjects = OwnClips("mine/poses.npz").tables.subjects
    assert set(subjects[OwnClips("mine/poses.npz").split("test")]) == {3}
