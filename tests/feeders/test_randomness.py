"""Random numbers depend on (seed, epoch, index) and on nothing else."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeders.randomness import KeyedGenerator


def sample_generator(seed, epoch, index):
    """A generator of its own."""
    return KeyedGenerator().at(seed, epoch, index)


integers = st.integers(-(2**63), 2**63 - 1)


@given(seed=integers, epoch=integers, index=integers)
def test_same_place_same_numbers(seed, epoch, index):
    first = sample_generator(seed, epoch, index).random(9)
    np.random.default_rng(0).random(100)
    assert np.array_equal(first, sample_generator(seed, epoch, index).random(9))


@given(seed=integers, epoch=integers, indices=st.lists(integers, max_size=6))
def test_a_moved_generator_equals_new_ones(seed, epoch, indices):
    moved = KeyedGenerator()
    for index in indices:
        new, at = sample_generator(seed, epoch, index), moved.at(seed, epoch, index)
        assert np.array_equal(at.random(7), new.random(7))
        assert at.integers(1000) == new.integers(1000)  # leaves half a word behind


def test_neighbouring_places_share_no_number():
    places = itertools.product(range(-2, 3), range(5), range(40))
    drawn = np.concatenate([sample_generator(*place).random(32) for place in places])
    assert len(np.unique(drawn)) == drawn.size


def test_numbers_are_uniform_across_indices():
    moved = KeyedGenerator()
    first = np.array([moved.at(3, 1, index).random(2) for index in range(20_000)])
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
