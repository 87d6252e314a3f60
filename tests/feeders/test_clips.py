"""Sequences end to end: what the corners of their hulls stand for."""

import numpy as np
import pytest

from feeders.clips import corners

RANDOM = np.random.default_rng(5)
CLOUD = RANDOM.normal(size=(30, 20, 3))
SHAPES = {
    "cloud": CLOUD,
    "one frame": CLOUD[:1],
    "flat": CLOUD * [1, 0, 1],
    "flat, slanted": CLOUD @ RANDOM.normal(size=(3, 2)) @ RANDOM.normal(size=(2, 3)),
    "nearly flat": CLOUD * [1, 1e-9, 1],
    "line": CLOUD * [0, 1, 0],
    "line, slanted": CLOUD[..., :1] * [1, 2, 3],
    "point": np.full((2, 20, 3), 0.7),
    "lattice": RANDOM.integers(0, 3, size=CLOUD.shape).astype(float),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_corners_have_the_extremes_of_all_points_under_any_linear_map(dtype):
    shapes = [shape[:, :6] for shape in SHAPES.values()]
    found = corners(shapes, np.dtype(dtype))
    assert found.dtype == dtype
    maps = RANDOM.normal(size=(200, 3, 3)).astype(dtype)
    tolerance = 20 * np.finfo(dtype).eps
    for shape, few in zip(shapes, found, strict=True):
        every = maps @ shape.reshape(-1, 3).T.astype(dtype)
        np.testing.assert_allclose((maps @ few).min(2), every.min(2), atol=tolerance)
        np.testing.assert_allclose((maps @ few).max(2), every.max(2), atol=tolerance)


def test_corners_are_few():
    assert corners([CLOUD, SHAPES["flat"]], np.dtype(np.float32)).shape[2] < 100
