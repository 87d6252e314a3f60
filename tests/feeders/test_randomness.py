"""Random numbers depend on (seed, epoch, index) and on nothing else."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeders.randomness import sample_generator, sample_uniforms

integers = st.integers(-(2**63), 2**63 - 1)


@given(seed=integers, epoch=integers, index=integers)
def test_same_place_same_numbers(seed, epoch, index):
    first = sample_generator(seed, epoch, index).random(9)
    np.random.default_rng(0).random(100)
    assert np.array_equal(first, sample_generator(seed, epoch, index).random(9))


@given(seed=integers, epoch=integers, indices=st.lists(integers, max_size=6))
def test_batch_equals_the_single_samples(seed, epoch, indices):
    batch = sample_uniforms(seed, epoch, indices, 7)
    assert batch.shape == (len(indices), 7)
    for row, index in zip(batch, indices, strict=True):
        assert np.array_equal(row, sample_generator(seed, epoch, index).random(7))


def test_neighbouring_places_share_no_number():
    places = itertools.product(range(-2, 3), range(5), range(40))
    drawn = np.concatenate([sample_generator(*place).random(32) for place in places])
    assert len(np.unique(drawn)) == drawn.size


def test_numbers_are_uniform_across_indices():
    first = sample_uniforms(seed=3, epoch=1, indices=range(20_000), count=2)
    counts, _ = np.histogram(first[:, 0], bins=20, range=(0, 1))
    chi_square = ((counts - 1000.0) ** 2 / 1000.0).sum()
    assert chi_square < 45.0  # 99.9 % quantile for 19 degrees of freedom is 43.8
    assert abs(np.corrcoef(first.T)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[:-1, 0], first[1:, 0])[0, 1]) < 0.03


def test_numpy_integers_are_welcome_and_floats_are_not():
    expected = sample_generator(1, 2, 3).random()
    assert sample_generator(np.int64(1), np.int32(2), np.uint8(3)).random() == expected
    with pytest.raises(TypeError):
        sample_generator(1, 2.0, 3)
