"""A dataset and a model that have nothing to do with skeletons, for testing the engine.

They are also somebody's own dotted names: ``toy.Feeder`` and ``toy.Model``, let in by
``--allow-import toy``.
"""

import os
import time

import numpy as np
import torch
from torch import Tensor, nn

CLASSES = 5


class Feeder:
    """Noisy points around one centre a class; an odd number of them by default.

    Training points get noise that is a function of (seed, epoch, index) alone.
    """

    def __init__(
        self,
        split: str = "train",
        size: int | None = None,
        seed: int = 0,
        bad: int = -1,
        pause: float = 0,
        augment: bool | None = None,
        hang_rank: int = -1,
        fail_rank: int = -1,
    ) -> None:
        self.train = split == "train"
        self.augment = self.train if augment is None else augment
        size = size or (101 if self.train else 33)
        generator = np.random.default_rng([7, int(self.train)])
        self.labels = np.arange(size) % CLASSES
        centres = np.random.default_rng(3).normal(size=(CLASSES, 8))
        self.points = (centres[self.labels] + generator.normal(size=(size, 8))).astype(np.float32)
        if bad >= 0 and self.train:
            self.points[bad] = np.nan
        self.sample_names = [f"{split}_{i}" for i in range(size)]
        self.subjects = np.arange(size) % 4
        self.seed, self.epoch, self.pause = seed, 0, pause
        self.hang_rank, self.fail_rank = hang_rank, fail_rank

    def set_epoch(self, epoch: int) -> None:
        """Choose the noise of ``epoch``."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, int]:
        time.sleep(self.pause)
        if self.train and self.epoch == 1:
            self._break_down()
        point = self.points[index]
        if self.augment:
            noise = np.random.default_rng([self.seed, self.epoch, index]).normal(size=8)
            point = point + 0.1 * noise.astype(np.float32)
        return point, int(self.labels[index]), index

    def _break_down(self) -> None:
        """What ``hang_rank`` and ``fail_rank`` ask for, of the rank this is."""
        rank = int(os.environ.get("RANK", "0"))
        if rank == self.hang_rank:
            time.sleep(1000)
        if rank == self.fail_rank:
            raise OSError("the reading head is worn out")


class Stored(Feeder):
    """The same task with its points in a file, ``path`` (``.npy``, (n, 8)), one sample a row."""

    def __init__(self, path: str, split: str = "train", seed: int = 0) -> None:
        points = np.load(path)
        super().__init__(split, size=len(points), seed=seed)
        self.points = points


class Model(nn.Module):
    """Linear layers with batch norm and dropout."""

    def __init__(self, num_class: int = CLASSES, drop_out: float = 0.2) -> None:
        super().__init__()
        self.num_class = num_class
        self.body = nn.Sequential(
            nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(drop_out)
        )
        self.head = nn.Linear(16, num_class)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_class) of x (N, 8)."""
        return self.head(self.body(x))


class Hinge(nn.Module):
    """A loss of one's own."""

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over the batch."""
        return nn.functional.multi_margin_loss(logits, labels, margin=self.margin)


class Learnt(Hinge):
    """A loss with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


class Frozen(Model):
    """Its head stays as it is initialised."""

    def __init__(self) -> None:
        super().__init__()
        self.head.requires_grad_(False)
