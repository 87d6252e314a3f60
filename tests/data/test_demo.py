"""The demo data: bodies that stay whole, samples that depend on their name and seed alone."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from data import demo
from data.demo.__main__ import main
from data.demo.motion import ACTIONS, REST, Body, act, joint_positions, mirrored
from data.errors import DataError
from data.skeletons import NTU
from data.splits import EXEMPLARS, NOVEL_ACTIONS, parse_name

BODY = Body(height=1.7, arm=1.0, leg=1.0, width=1.0)
LEFT = [i for i, name in enumerate(NTU.joint_names) if name.startswith("left")]
RIGHT = [i for i, name in enumerate(NTU.joint_names) if name.startswith("right")]


def performed(action, cycles=1.0, frames=400):
    phase = np.linspace(0, cycles, frames)
    return act(action, phase, 1.0, np.ones(frames))


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_actions_move_a_rigid_skeleton_smoothly_through_a_cycle(action):
    joints = joint_positions(BODY, performed(action))
    child, parent = np.array(NTU.bones).T
    bones = np.linalg.norm(joints[:, child] - joints[:, parent], axis=-1)
    assert np.ptp(bones, axis=0).max() < 1e-12
    assert np.abs(np.diff(joints, axis=0)).max() < 0.1, "no jump within the cycle"
    np.testing.assert_allclose(joints[0], joints[-1], atol=1e-9)
    assert np.ptp(joints, axis=0).max() > 0.2, "something moves"
    ankles = joints[:, [14, 18], 1].min(axis=1)
    assert (ankles >= -1e-12).all()
    assert ankles.min() < 1e-12


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_actions_know_their_channels_and_mirror(action):
    phase = np.linspace(0, 1, 20)
    assert action.move(phase, 1.0).keys() <= REST.keys()
    pose = performed(action)
    joints, seen = joint_positions(BODY, pose), joint_positions(BODY, mirrored(pose))
    swapped = np.arange(25)
    swapped[LEFT + RIGHT] = RIGHT + LEFT
    np.testing.assert_allclose(seen[:, swapped] * [-1, 1, 1], joints, atol=1e-12)
    assert not np.allclose(seen, joints, atol=0.05), "left-handed is another class"


def test_nobody_engaged_is_rest():
    phase = np.linspace(0, 1, 5)
    poses = [act(action, phase, 1.0, np.zeros(5)) for action in ACTIONS]
    assert all(np.allclose(pose[channel], REST[channel]) for pose in poses for channel in REST)


def test_samples_have_ntu_names_in_order():
    wanted = demo.samples(actions=61, performers=4, cameras=3, replications=1)
    names = [sample.name for sample in wanted]
    assert names == sorted(set(names))
    assert len(names) == 61 * 4 * 3
    for sample in wanted:
        parsed = parse_name(sample.name)
        assert (parsed.setup, parsed.subject, parsed.action) == (
            sample.setup,
            sample.subject,
            sample.action,
        )
        assert (sample.setup <= 17) == (sample.action <= 60)


@pytest.mark.parametrize(
    ("numbers", "wrong"),
    [
        ({"actions": 121}, "actions 121"),
        ({"actions": 0}, "actions 0"),
        ({"actions": [7, 121]}, "actions 121"),
        ({"actions": [0, 7]}, "actions 0"),
        ({"actions": []}, "actions 0"),
        ({"performers": 1000}, "performers 1000"),
        ({"cameras": 4}, "cameras 4"),
    ],
)
def test_impossible_numbers_are_refused(numbers, wrong):
    with pytest.raises(DataError, match=f"{wrong} is not between"):
        demo.samples(**numbers)


def test_clips_look_like_ntu():
    wanted = demo.samples(performers=2)
    clips = {sample.name: demo.perform(sample, second_body=0.3, seed=4) for sample in wanted}
    lengths = {len(joints) for joints in clips.values()}
    assert min(lengths) >= 60
    assert max(lengths) <= 100
    assert len(lengths) > 10
    assert {joints.shape[1] for joints in clips.values()} == {1, 2}
    for joints in clips.values():
        assert joints.dtype == np.float32
        assert joints.shape[2:] == (25, 3)
        assert 1.0 < joints[..., 2].min() < joints[..., 2].max() < 6.0
        heights = joints[:, 0, 3, 1] - joints[:, 0, [14, 18], 1].min(axis=1)
        assert heights.max() < 2.2


def test_a_sample_depends_on_its_name_and_the_seed_only():
    wanted = demo.samples(actions=2, performers=2)
    forward = {sample.name: demo.perform(sample) for sample in wanted}
    backward = {sample.name: demo.perform(sample) for sample in reversed(wanted)}
    assert all(np.array_equal(forward[name], backward[name]) for name in forward)
    other = {sample.name: demo.perform(sample, seed=1) for sample in wanted}
    assert not any(np.array_equal(forward[name], other[name]) for name in forward)
    flat = {joints.tobytes() for joints in forward.values()}
    assert len(flat) == len(forward), "no two samples alike"


def test_the_same_in_every_process(root):
    code = (
        "import hashlib; from data import demo;"
        "clips = map(demo.perform, demo.samples(performers=1, replications=1));"
        "print(hashlib.sha256(b''.join(clip.tobytes() for clip in clips)).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1", "2")
    }
    assert len(digests) == 1


def test_cameras_see_one_performance():
    names = [f"S001C00{camera}P001R001A002" for camera in (1, 2, 3)]
    views = [demo.perform(parse_name(name))[:, 0] for name in names]
    for first, second in itertools.combinations(views, 2):
        centred = [view - view.mean(axis=(0, 1)) for view in (first, second)]
        a, b = (view.reshape(-1, 3) for view in centred)
        u, _, vt = np.linalg.svd(a.T @ b)
        assert np.abs(a @ u @ vt - b).mean() < 0.02, "a rotation apart, up to noise"
        assert np.abs(a - b).mean() > 0.05


def test_120_classes_have_120_descriptions():
    assert len({demo.describe(action) for action in range(1, 121)}) == 120
    assert demo.describe(1) == "wave"
    assert demo.describe(10) == "kick, left"


def test_raw_files_hold_the_joints(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--actions", "61", "--performers", "1", "--cameras",
                      "1", "--replications", "1", "--second-body", "0.5"]) == 0  # fmt: skip
    assert "wrote 61 files" in capsys.readouterr().out
    folders = {"nturgb+d_skeletons": 60, "nturgb+d_skeletons120": 1}
    assert {p.name: len(list(p.iterdir())) for p in tmp_path.iterdir()} == folders
    for sample in demo.samples(actions=3, performers=1, cameras=1, replications=1):
        path = tmp_path / "nturgb+d_skeletons" / f"{sample.name}.skeleton"
        expected = demo.perform(sample, second_body=0.5)
        lines = [line.split() for line in path.read_text().splitlines()]
        frames, bodies = expected.shape[:2]
        assert [len(line) for line in lines] == [
            1,
            *([1, *([10, 1, *[12] * 25] * bodies)] * frames),
        ]
        joints = np.array([line for line in lines if len(line) == 12], dtype=np.float64)
        found = joints.reshape(frames, bodies, 25, 12)
        np.testing.assert_allclose(found[..., :3], expected, rtol=1e-6)
        np.testing.assert_allclose(
            (found[..., 3] - 256.5) * found[..., 2], 365 * found[..., 0], atol=1e-2
        )


def test_command_line_mistakes_are_one_line(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "new"), "--actions", "500"]) == 2
    assert capsys.readouterr().err == "demo: actions 500 is not between 1 and 120\n"
    assert not (tmp_path / "new").exists()


def test_the_command_writes_given_actions_and_the_one_shot_exemplars(tmp_path):
    words = ["--performers", "2", "--cameras", "1", "--replications", "1", "--exemplars"]
    assert main(["--out", str(tmp_path), *words, "--action-ids", "62", "7"]) == 0
    written = {path.stem for path in tmp_path.rglob("*.skeleton")}
    assert {"S018C001P001R001A062", "S019C001P002R001A062"} < written
    assert written > EXEMPLARS
    actions = [int(name[-3:]) for name in written - EXEMPLARS]  # two of each: there are queries
    assert sorted(actions) == sorted([*NOVEL_ACTIONS, 62] * 2)
