"""The skeletons are trees, and they are the ones the published graphs were built from."""

import numpy as np
import pytest

from data.skeletons import NTU, SKELETONS, UCLA, Skeleton, bone_parents


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
def test_every_joint_reaches_the_centre(skeleton):
    parents = bone_parents(skeleton)
    assert len(skeleton.bones) == skeleton.num_point - 1
    assert len(skeleton.joint_names) == len(set(skeleton.joint_names)) == skeleton.num_point
    reached = np.arange(skeleton.num_point)
    for _ in range(skeleton.num_point):
        reached = parents[reached]
    assert (reached == skeleton.center).all()


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
def test_left_and_right_limbs_mirror_each_other(skeleton):
    names = skeleton.joint_names
    named = {(names[child], names[parent]) for child, parent in skeleton.bones}
    swap = {"left": "right", "right": "left"}

    def mirror(name: str) -> str:
        return " ".join(swap.get(word, word) for word in name.split())

    assert named == {(mirror(child), mirror(parent)) for child, parent in named}


@pytest.mark.parametrize(("skeleton", "key"), [(NTU, "ntu_rgb_d"), (UCLA, "ucla")])
def test_bones_are_the_published_inward_edges(shared, skeleton, key):
    inward = np.load(shared / "parity" / "graph.npz")[key][1]
    parent, child = np.nonzero(inward)
    assert sorted(skeleton.bones) == sorted(zip(child.tolist(), parent.tolist(), strict=True))


def test_faulty_trees_are_refused():
    with pytest.raises(ValueError, match=r"joints \[2\] have no parent"):
        bone_parents(Skeleton("odd", 3, ((1, 0),), center=0))
    with pytest.raises(ValueError, match="joint 1 has more than one parent"):
        bone_parents(Skeleton("odd", 3, ((1, 0), (1, 2), (2, 0)), center=0))
