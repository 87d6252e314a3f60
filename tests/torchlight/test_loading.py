"""Batches: the same samples a step whatever the processes, and every test sample once."""

import numpy as np
import pytest
import torch
import toy

from torchlight.contract import prepared
from torchlight.errors import UserError
from torchlight.holdout import held_out_names, subset
from torchlight.loading import BatchPlan, EvalBatches, Loader, TrainBatches, plan_batches


@pytest.mark.parametrize(
    ("batch", "total", "world", "plan"),
    [
        (16, 64, 4, (16, 1)),
        (16, 64, 1, (16, 4)),
        (16, 64, 2, (16, 2)),
        (16, None, 3, (16, 1)),
        (16, 16, 2, (8, 1)),
        (16, 64, 64, (1, 1)),
    ],
)
def test_the_global_batch_is_spread(batch, total, world, plan):
    found = plan_batches(batch, total, world)
    assert (found.micro, found.accumulate) == plan
    assert found.step_size == (total or batch * world)


@pytest.mark.parametrize(("batch", "total", "world"), [(16, 64, 3), (16, 40, 1), (16, 2, 4)])
def test_a_global_batch_that_cannot_be_spread_is_an_error(batch, total, world):
    with pytest.raises(UserError, match="global_batch_size"):
        plan_batches(batch, total, world)


def _steps(world: int, length: int = 103, epoch: int = 2, first: int = 0) -> list[list[list[int]]]:
    """Micro-batches of each step, in the order (micro, rank)."""
    plan = plan_batches(4, 16, world)
    ranks = []
    for rank in range(world):
        batches = TrainBatches(length, plan, rank, seed=5)
        batches.set_position(epoch, first)
        ranks.append(np.array(list(batches)).reshape(-1, plan.accumulate, 4))
    return np.stack(ranks, axis=2).reshape(-1, 4, 4).tolist()


def test_steps_hold_the_same_micro_batches_on_any_number_of_processes():
    assert _steps(1) == _steps(2) == _steps(4)


def test_an_epoch_is_a_permutation_less_the_incomplete_step():
    seen = np.ravel(_steps(2))
    assert len(seen) == len(set(seen.tolist())) == 96
    assert _steps(1, epoch=3) != _steps(1, epoch=2)


def test_going_on_within_an_epoch_gives_the_rest_of_it():
    assert _steps(2, first=4) == _steps(2)[4:]


def test_step_indices_are_what_the_ranks_see():
    plan = plan_batches(4, 16, 2)
    batches = TrainBatches(103, plan, 0, seed=5)
    assert batches.step_indices(2, 3) == np.ravel(_steps(2)[3]).tolist()


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_every_test_sample_is_seen_once_in_the_same_batches(world):
    per_rank = [list(EvalBatches(33, 8, rank, world)) for rank in range(world)]
    assert sorted(batch for own in per_rank for batch in own) == [
        list(range(a, min(a + 8, 33))) for a in range(0, 33, 8)
    ]
    assert [len(EvalBatches(33, 8, r, world)) for r in range(world)] == [len(b) for b in per_rank]


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_do_not_depend_on_workers_and_change_with_the_epoch(workers):
    plain = toy.Feeder(seed=3)
    batches = TrainBatches(len(plain), BatchPlan(8, 1, 1), 0, seed=1)
    loader = Loader(
        prepared("train", toy.Feeder(seed=3)), batches, workers=workers, pin_memory=False
    )
    for epoch in (0, 1, 0):
        plain.set_epoch(epoch)
        for inputs, labels, indices in loader.epoch(epoch):
            expected = [plain[int(i)] for i in indices]
            assert torch.equal(inputs, torch.tensor(np.stack([e[0] for e in expected])))
            assert labels.tolist() == [e[1] for e in expected]


class Repeated(toy.Feeder):
    """Two passes an epoch, read a batch at a time."""

    def __len__(self):
        return 2 * len(self.points)

    def __getitem__(self, index):
        inputs, labels, _ = self.get_batch([index])
        return inputs[0], int(labels[0]), index

    def get_batch(self, indices):
        rows = np.asarray(indices) % len(self.points)
        return self.points[rows], self.labels[rows], np.asarray(indices)


@pytest.mark.parametrize("kind", [toy.Feeder, Repeated])
def test_held_out_part_and_the_rest_make_up_the_split(kind):
    dataset = prepared("test", kind(split="test"))
    held = held_out_names(dataset, subjects=None, fraction=0.2, seed=1)
    assert held == held_out_names(dataset, subjects=None, fraction=0.2, seed=1)
    assert held != held_out_names(dataset, subjects=None, fraction=0.2, seed=2)
    val = subset("val", dataset, held)
    rest = subset("train", dataset, set(dataset.sample_names) - held)
    assert sorted(val.sample_names + rest.sample_names) == sorted(dataset.sample_names)
    assert len(val) + len(rest) == len(dataset)
    counts = np.bincount(val.labels)
    assert counts.max() - counts.min() <= 1  # drawn class by class
    for i in (0, len(val) - 1):
        inputs, label, index = val.get_batch([i])
        name = val.sample_names[i % len(val.sample_names)]
        original = dataset.sample_names.index(name)
        assert (label.tolist(), index.tolist()) == ([dataset.labels[original]], [i])
        assert np.array_equal(inputs[0], dataset.points[original])


def test_subjects_are_held_out_whole():
    dataset = toy.Feeder()
    held = held_out_names(dataset, subjects=[1, 3], fraction=None, seed=1)
    assert held == {
        n for n, s in zip(dataset.sample_names, dataset.subjects, strict=True) if s in (1, 3)
    }


@pytest.mark.parametrize(
    ("subjects", "fraction", "expected"),
    [([9], None, "no subject"), ([0, 1, 2, 3], None, "whole"), (None, 0.001, "--val-fraction")],
)
def test_an_impossible_holdout_is_an_error(subjects, fraction, expected):
    with pytest.raises(UserError, match=expected):
        held_out_names(toy.Feeder(), subjects=subjects, fraction=fraction, seed=1)
