"""Each transform does what it says, and nothing with the clip it was given."""

import json

import numpy as np
import pytest

from data.errors import DataError
from data.skeletons import NTU, UCLA, bone_parents, mirror_joints
from feeders import transforms as t
from feeders.dataset import spelled_out
from feeders.streams import STREAMS, fused, published_streams, stream_table

RNG = np.random.default_rng


def clip(frames=40, persons=2, seed=0):
    return RNG(seed).normal(size=(3, frames, 25, persons)).astype(np.float32)


EVERY = [
    t.Centre(),
    t.ValidFrames(),
    t.CropResize(ratios=[0.5, 1], window=16, shortest=8),
    t.KeepRate(window=60, shift=True),
    t.KeepRate(window=20, choose=True),
    t.Persons(count=3),
    t.EvenFrames(window=16),
    t.RandomFrames(window=16),
    t.UnitBox(),
    t.UnitBox(per_axis=False),
    t.RandomRotate(degrees=[10, 20, 30], scale=[0.9, 1.1]),
    t.RandomMove(),
    t.Standardise(mean=np.float32(1), std=np.float32(2)),
    t.Mirror(skeleton="ntu", p=1),
    t.DropAxis(p=1),
    t.DropJoints(p=1),
    t.TimeWarp(),
    t.ToOrigin(),
    t.LoneTwice(),
    t.BodyScale(axes=2),
    t.UnitLength(joints=[0, 20], length=0.3),
]


@pytest.mark.parametrize("transform", EVERY, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("layout", ["plain", "stored"])
def test_the_clip_given_stays_and_its_type_is_kept(transform, layout):
    x = clip()
    if layout == "stored":  # as a store's memory map gives it: read only, coordinates last
        x = np.ascontiguousarray(x.transpose(1, 3, 2, 0)).transpose(3, 0, 2, 1)
    x.flags.writeable = False
    before = x.copy()
    result = transform(x, RNG(1))
    assert result.dtype == np.float32
    assert result.ndim == 4
    assert np.array_equal(result, transform(x, RNG(1)))
    assert np.array_equal(x, before)


def test_every_transform_of_the_module_is_tried():
    classes = {v for v in vars(t).values() if isinstance(v, type) and "__call__" in vars(v)}
    assert {type(transform) for transform in EVERY} == classes


def test_what_a_transform_is_built_of_is_told_by_its_attributes():
    for transform in EVERY:
        told = json.loads(json.dumps(spelled_out(transform)))
        assert told.pop("name") == f"feeders.transforms.{type(transform).__name__}"
        again = type(transform)(**told)
        assert np.array_equal(again(clip(), RNG(1)), transform(clip(), RNG(1)))


def test_raw_clips_become_as_ntu_is_prepared():
    raw = clip()
    raw[:, :3] = raw[:, 5:8, :, 1] = 0  # nobody is there at first, then one is absent
    moved = t.ToOrigin()(raw, RNG(0))
    assert (moved[:, 3, 1, 0] == 0).all()
    assert not moved[:, :3].any()
    assert not moved[:, 5:8, :, 1].any()
    np.testing.assert_allclose(
        np.diff(moved[:, 8:], axis=1), np.diff(raw[:, 8:], axis=1), atol=1e-5
    )
    assert t.ToOrigin()(moved, RNG(0)) is moved
    assert t.LoneTwice()(raw[..., :1], RNG(0)).shape == raw.shape
    assert t.LoneTwice()(raw, RNG(0)) is raw


def test_centre_and_unit_box():
    x = t.Centre(joint=3)(clip(), RNG(0))
    assert (x[:, 0, 3, 0] == 0).all()
    box = t.UnitBox()(x, RNG(0)).reshape(3, -1)
    np.testing.assert_allclose(box.min(axis=1), -1, atol=1e-6)
    np.testing.assert_allclose(box.max(axis=1), 1, atol=1e-6)
    x[0] *= 5
    even = t.UnitBox(per_axis=False)(x, RNG(0)).reshape(3, -1)
    np.testing.assert_allclose(
        np.ptp(even, axis=1) / np.ptp(x.reshape(3, -1), axis=1), 2 / np.ptp(x[0]), rtol=1e-5
    )
    np.testing.assert_allclose((even.min(axis=1) + even.max(axis=1)) / 2, 0, atol=1e-6)


def test_a_body_has_one_size_however_it_stands_walks_and_turns():
    x = clip()
    x[:, 7, :, 0] = 0  # he is not there
    unit = t.UnitLength(joints=[0, 20], length=0.3)
    scaled = unit(x, RNG(0))
    trunk = np.linalg.norm(scaled[:, :, 0, 0] - scaled[:, :, 20, 0], axis=0)
    assert trunk[trunk > 0].mean() == pytest.approx(0.3, rel=1e-5)
    assert np.array_equal(scaled == 0, x == 0)
    np.testing.assert_allclose(unit(2.5 * x, RNG(0)), scaled, rtol=1e-5)
    turn = t.RandomRotate(degrees=[60, 60, 60])
    np.testing.assert_allclose(
        unit(turn(x, RNG(1)), RNG(0)), turn(scaled, RNG(1)), rtol=1e-4, atol=1e-5
    )
    walk = np.linspace(0, 50, x.shape[1], dtype=np.float32)[:, None, None]
    walked = unit(np.where(x == 0, x, x + walk), RNG(0))[:, 8:]
    np.testing.assert_allclose(np.ptp(walked, axis=2), np.ptp(scaled[:, 8:], axis=2), rtol=1e-3)
    nobody = np.zeros_like(x)
    assert np.array_equal(unit(nobody, RNG(0)), nobody)
    for wrong in ({"joints": [1]}, {"joints": [2, 2]}, {"joints": [0, 1], "length": 0}):
        with pytest.raises(DataError, match="UnitLength"):
            t.UnitLength(**wrong)


def test_rotations_are_rotations_within_their_angles():
    rotate = t.RandomRotate(degrees=[20, 20, 20])
    turns = np.stack([rotate.matrix(RNG(seed)) for seed in range(200)])
    np.testing.assert_allclose(
        turns @ turns.transpose(0, 2, 1), np.eye(3)[None].repeat(200, 0), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(turns), 1)
    angles = np.degrees(np.arccos((np.trace(turns, axis1=1, axis2=2) - 1) / 2))
    assert 20 < angles.max() < 20 * np.sqrt(3)


def test_the_order_of_rotations():
    a, b, c = 0.3, -0.7, 1.1
    about_x, about_y, about_z = t.rotation(a, 0, 0), t.rotation(0, b, 0), t.rotation(0, 0, c)
    np.testing.assert_allclose(about_x @ [0, 1, 0], [0, np.cos(a), np.sin(a)])
    np.testing.assert_allclose(about_y @ [0, 0, 1], [np.sin(b), 0, np.cos(b)])
    np.testing.assert_allclose(about_z @ [1, 0, 0], [np.cos(c), np.sin(c), 0])
    np.testing.assert_allclose(t.rotation(a, b, c), about_z @ about_y @ about_x)
    drawn = np.deg2rad(30) * (2 * RNG(4).random(3) - 1)
    parts = [t.rotation(*np.eye(3)[axis] * drawn[axis]) for axis in range(3)]
    backwards = t.RandomRotate(degrees=[30, 30, 30], order="xyz").matrix(RNG(4))
    np.testing.assert_allclose(backwards, parts[0] @ parts[1] @ parts[2])


@pytest.mark.parametrize("valid", [1, 40, 64, 65, 300])
def test_random_crops_fit(valid):
    crop, random = t.CropResize(ratios=[0.5, 1.0]), RNG(0)
    starts, lengths = zip(*(crop.choose(valid, random) for _ in range(500)), strict=True)
    assert min(starts) == 0
    assert max(s + n for s, n in zip(starts, lengths, strict=True)) == valid
    assert set(lengths) <= set(range(min(64, valid), valid + 1))
    assert valid < 300 or (min(lengths) < 160 and max(lengths) > 290)


def test_mirroring_twice_changes_nothing_and_once_exchanges_sides():
    mirror, x = t.Mirror(skeleton="ntu", p=1), clip()
    once = mirror(x, RNG(0))
    left, right = NTU.joint_names.index("left hand"), NTU.joint_names.index("right hand")
    assert np.array_equal(once[1, :, left], x[1, :, right])
    assert np.array_equal(once[0, :, left], -x[0, :, right])
    assert np.array_equal(mirror(once, RNG(0)), x)
    assert t.Mirror(skeleton="ntu", p=0)(x, RNG(0)) is x
    for skeleton in (NTU, UCLA):
        pairs = mirror_joints(skeleton)
        assert np.array_equal(pairs[pairs], np.arange(skeleton.num_point))
        assert (pairs == np.arange(skeleton.num_point)).sum() < 7
    with pytest.raises(DataError, match="skeleton 'dog'"):
        t.Mirror(skeleton="dog")


def test_what_is_dropped():
    x = clip()
    axes = {
        int(np.flatnonzero(~t.DropAxis(p=1)(x, RNG(s)).any(axis=(1, 2, 3)))[0]) for s in range(30)
    }
    assert axes == {0, 1, 2}
    dropped = t.DropJoints(p=1, joints=(5, 5), frames=(10, 10))(x, RNG(0))
    gone = (dropped == 0).all(axis=(0, 3))
    assert gone.any(axis=0).sum() == 5
    assert gone.any(axis=1).sum() == 10


def test_a_warped_clip_keeps_its_ends_and_its_order():
    ramp = np.broadcast_to(np.arange(50, dtype=np.float32)[None, :, None, None], (3, 50, 25, 1))
    for seed in range(20):
        time = t.TimeWarp()(ramp, RNG(seed))[0, :, 0, 0]
        assert time[0] == 0
        assert abs(time[-1] - 49) < 1e-3
        assert (np.diff(time) >= 0).all()
    assert np.abs(time - ramp[0, :, 0, 0]).max() > 0.5


def test_persons():
    x = clip(persons=1)
    assert not t.Persons(count=2)(x, RNG(0))[..., 1].any()
    assert t.Persons(count=1)(clip(), RNG(0)).shape[-1] == 1


def test_streams_fuse_on_channels_in_the_order_given():
    parents = np.array([0, 0, 1])
    x = RNG(0).normal(size=(2, 3, 8, 3, 1))
    both = fused(x, stream_table(("bone", "joint_motion")), parents)
    assert both.shape == (2, 6, 8, 3, 1)
    assert np.array_equal(both[:, :3], STREAMS["bone"](x, parents))
    assert np.array_equal(both[:, 3:], STREAMS["joint_motion"](x, parents))
    assert (
        list(stream_table("bone motion")) == list(stream_table(["bone_motion"])) == ["bone_motion"]
    )
    assert published_streams(None, bone=True, vel=True) == "bone_motion"
    for wrong in ([], ["joint", "joint"], ["speed"]):
        with pytest.raises(DataError, match="streams"):
            stream_table(wrong)
    with pytest.raises(DataError, match="leave out bone and vel"):
        published_streams("joint", bone=True)


def test_the_pose_does_not_know_where_the_body_goes():
    parents = bone_parents(UCLA)
    x = RNG(0).normal(size=(3, 8, 20, 2))
    posed = STREAMS["pose"](x, parents)
    assert not posed[:, :, UCLA.center].any()
    np.testing.assert_allclose(STREAMS["bone"](posed, parents), STREAMS["bone"](x, parents))
    walked = x + RNG(1).normal(size=(3, 8, 1, 2))
    np.testing.assert_allclose(STREAMS["pose"](walked, parents), posed)


def test_one_person_shown_twice_is_like_two():
    view = np.broadcast_to(clip(persons=1), (3, 40, 25, 2))
    for transform in (t.CropResize(window=16), t.RandomMove(), t.ValidFrames()):
        assert np.array_equal(transform(view, RNG(2)), transform(view.copy(), RNG(2)))
