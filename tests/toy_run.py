"""The training command on the toy task, in this process, and what two runs have in common."""

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import main_multigpu
from torchlight.card import read_card
from torchlight.fusion.reading import read_scores
from torchlight.reports import Reports, tables

CONFIG = {
    "feeder": "toy.Feeder",
    "test_feeder_args": {"split": "test"},
    "model": "toy.Model",
    "num_epoch": 4,
    "step": [3],
    "base_lr": 0.05,
    "batch_size": 8,
    "global_batch_size": 16,
    "test_batch_size": 8,
    "eval_interval": 2,
    "save_interval": 2,
    "num_worker": 0,
    "device": "cpu",
    "save_score": True,
}
ALLOW = ["--allow-import", "toy"]  # a flag: no file may let its own names in


def without_pictures(patch):
    """Spare short runs what takes most of their time: their pictures, and their pages."""
    patch.setattr(tables, "confusion_picture", lambda *_: FigureCanvasAgg(Figure()))
    patch.setattr(Reports, "_page", lambda *_: None)


def train(path, work_dir, *words):
    """Run the command in this process."""
    return main_multigpu.main([*ALLOW, "--config", path, "--work-dir", str(work_dir), *words])


def weights(folder):
    """The last weights of a run, by key."""
    (path,) = folder.glob("runs-4-*.pt")
    return torch.load(path, weights_only=True)


def assert_same_run(a, b):
    """Two work dirs end with the same weights, cards and scores, to the last bit."""
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)
    assert (a / "best.pt").read_bytes() == (b / "best.pt").read_bytes()
    for name in ("best.pt", *(path.name for path in a.glob("runs-4-*.pt"))):
        (one, faults), (two, others) = (read_card(folder / name) for folder in (a, b))
        assert not faults + others
        assert one.trained(digest="") == two.trained(digest="")  # of flags such as a pause, too
    left, right = (read_scores(folder / "epoch1_test_score.npz") for folder in (a, b))
    assert np.array_equal(left.scores, right.scores)
