"""Pictures of skeletons."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from toy_ucla import write_ucla

from data import demo
from data.custom.__main__ import main as convert
from data.demo.raw import write_skeleton_file
from data.show.__main__ import main
from data.show.poses import poses
from data.skeletons import COCO17, NTU, SKELETONS


def acted(**wanted):
    (sample,) = demo.samples(actions=[2], performers=1, cameras=1, replications=1)
    return demo.perform(sample, **wanted)


@pytest.fixture
def files(tmp_path):
    """A clip of each kind, and what the command needs beside its name."""
    write_skeleton_file(tmp_path / "S001C001P001R001A008.skeleton", acted(second_body=1.0))
    write_ucla(tmp_path / "ucla")
    (tmp_path / "in" / "kick").mkdir(parents=True)
    for take in range(3):
        np.save(tmp_path / "in" / "kick" / f"{take}.npy", acted(seed=take).transpose(1, 0, 2, 3))
    given = ["--from", str(tmp_path / "in"), "--layout", "ntu", "--out", str(tmp_path / "own")]
    given += ["--names", "(?P<subject>.)$", "--labels", str(tmp_path / "t.csv")]
    (tmp_path / "t.csv").write_text("name,label\n0,kick\n1,kick\n2,kick\n")
    assert convert(given) == 0
    return {
        "skeleton": [tmp_path / "S001C001P001R001A008.skeleton"],
        "ucla": [sorted((tmp_path / "ucla").glob("*.json"))[0]],
        "own": [tmp_path / "own.npz", "--sample", "kick/1"],
        "array": [tmp_path / "in" / "kick" / "0.npy", "--layout", "kinect25", "--numbers"],
    }


@pytest.mark.parametrize("kind", ["skeleton", "ucla", "own", "array"])
@pytest.mark.parametrize("ending", ["png", "gif", "html"])
def test_every_kind_of_clip_in_every_kind_of_picture(files, tmp_path, kind, ending):
    out = tmp_path / f"picture.{ending}"
    assert main([*map(str, files[kind]), "--out", str(out), "--title", "a <b> & c"]) == 0
    if ending == "html":
        text = out.read_text()
        assert "<title>a &lt;b&gt; &amp; c</title>" in text
        assert not re.search(r"https?://|src=|href=", text)
        clip = json.loads(re.search(r"const clip = (.*);\n", text)[1])
        assert len(clip["frames"][0][0]) in (20, 25)
        return
    with Image.open(out) as image:
        assert image.format == ending.upper()
        drawn = np.asarray(image.convert("RGB")).astype(int)
        assert np.ptp(drawn, axis=2).max() > 80  # there is something in colour
        edges = np.concatenate([drawn[:3].ravel(), drawn[-3:].ravel(), drawn[:, :3].ravel()])
        assert edges.min() > 200  # and nothing is cut
        if ending == "gif":
            assert image.n_frames > 2


def test_bodies_stand_upright_whatever_the_axes_are():
    joints = acted()
    head, foot = (NTU.joint_names.index(name) for name in ("head", "left foot"))
    turned = {
        "y up": joints,
        "y down": joints * np.array([1, -1, 1], np.float32),
        "z up": joints[..., [0, 2, 1]],
    }
    for name, clip in turned.items():
        made = poses(clip, NTU, axes=3)
        assert (made.points[:, 0, head, 1] > made.points[:, 0, foot, 1] + 0.3).all(), name
        assert np.abs(made.points).max() <= 0.5 + 1e-9
    image = np.random.default_rng(0).random((5, 1, 17, 2)) + np.arange(17)[:, None] * [0, 9]
    assert poses(image, COCO17, axes=2).points[0, 0, 0, 1] > 0.2  # the nose


def test_links_are_drawn_for_every_layout(tmp_path):
    rng = np.random.default_rng(0)
    for name, skeleton in SKELETONS.items():
        np.save(tmp_path / "a.npy", rng.normal(size=(3, skeleton.num_point, skeleton.num_point)))
        given = [str(tmp_path / "a.npy"), "--links", "9", "--layout", name]
        assert main([*given, "--out", str(tmp_path / f"{name}.png")]) == 0
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


@pytest.mark.parametrize(("words", "told"), [
    (["none.skeleton"], "no such file"),
    (["a.npy"], "--layout"),
    (["a.npy", "--layout", "coco71"], "coco17"),
    (["a.npy", "--layout", "coco17"], "17 joints"),
    (["a.npy", "--layout", "ntu", "--out", "a.bmp"], ".png"),
    (["a.npy", "--layout", "ntu", "--out", "none/a.png"], "No such file"),
    (["a.npy", "--layout", "ntu", "--frames", "0"], "--frames"),
    (["a.npy", "--links", "3"], "expected weights"),
    (["own.npz"], "--sample"),
    (["own.npz", "--sample", "x"], "kick/0"),
    (["broken.h5"], "broken.h5"),
])  # fmt: skip
def test_mistakes_are_told_in_a_line(files, tmp_path, capsys, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", acted()[:, 0])
    (tmp_path / "broken.h5").write_bytes(b"x")
    before = set(tmp_path.iterdir())
    capsys.readouterr()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert set(tmp_path.iterdir()) == before
