"""A split scored: each sample once, or by the mean of the several times it is shown."""

import numpy as np
import torch
from torch import nn

from torchlight.config import Config
from torchlight.contract import prepared
from torchlight.distributed import World
from torchlight.evaluation import SplitScorer


class Shown:
    """Three samples, each shown ``times`` times, the second time with other inputs."""

    labels = (0, 1, 1)
    sample_names = ("a", "b", "c")

    def __init__(self, times):
        self.x = torch.randn(times, 3, 2, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.x) * 3

    def __getitem__(self, i):
        return self.x[i // 3, i % 3], self.labels[i % 3], i


def _scores(dataset, batch_size):
    config = Config(feeder="a.B", model="a.C", test_batch_size=batch_size, num_worker=0)
    scorer = SplitScorer(prepared("test", dataset), config, World(0, 1, torch.device("cpu")))
    return scorer(nn.Identity(), "test")


def test_a_sample_that_is_shown_several_times_has_the_mean_of_its_scores():
    dataset = Shown(4)
    found = _scores(dataset, 5)
    assert found.names == ["a", "b", "c"]
    assert found.labels.tolist() == [0, 1, 1]
    np.testing.assert_allclose(found.scores, dataset.x.mean(0), atol=1e-6)


def test_a_sample_that_is_shown_once_keeps_its_scores():
    dataset = Shown(1)
    np.testing.assert_array_equal(_scores(dataset, 2).scores, dataset.x[0])
