"""What the data know, a configuration need not say; what it says otherwise is named."""

import json

import numpy as np
import pytest
import torch
import yaml

import main_multigpu
import test_oneshot as oneshot
from torchlight.card import read_card

pytestmark = pytest.mark.usefixtures("one_thread")

DATA = {"performers": 3, "replications": 1, "window_size": 8, "actions": 4}
LEAST = {
    "feeder": "feeders.feeder_demo.Feeder",
    "train_feeder_args": {"split": "train", **DATA},
    "test_feeder_args": {"split": "test", **DATA},
    "model": "model.classifier.Model",
    "model_args": {"channels": [8]},
    "num_epoch": 1,
    "num_worker": 0,
    "device": "cpu",
    "batch_size": 4,
}
DERIVED = {"num_class": 4, "num_point": 25, "num_person": 1, "in_channels": 3}

OWN = """
import numpy as np
from torch import nn
from data.skeletons import Skeleton

class Feeder:
    def __init__(self, split, joints=5):
        self.x = np.random.default_rng(len(split)).normal(size=(12, 2, 6, joints, 1))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], i % 3

class Known(Feeder):
    skeleton = Skeleton("dog", 5, ((1, 0), (2, 0), (3, 1), (4, 2)), 0)

class Flat(Known):
    def __getitem__(self, i):
        return self.x[i].transpose(1, 2, 0, 3).reshape(6, 10), i % 3

class Gaps(Known):
    def __getitem__(self, i):
        return self.x[i], (2, 5, 9)[i % 3]

class Odd(Feeder):
    skeleton, num_class = "dog", len

class Volume(Feeder):
    def __getitem__(self, i):
        return self.x[i][..., 0], i % 3

class Net(nn.Module):
    def __init__(self, num_class, width=4):
        super().__init__()
        self.last = nn.Linear(60, num_class)

    def forward(self, x):
        return self.last(x.flatten(1))

class Wrong(Net):
    from_data = ("width",)

    @classmethod
    def arguments_of(cls, shape, dataset):
        return {"width": {}["nothing"]}

class Circle:
    def __init__(self, joints):
        one = np.roll(np.eye(joints), 1, axis=0)
        self.A = np.stack([np.eye(joints), one, one.T])
"""


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train by the least configuration with keys over it; exit status and work dir."""
    (tmp_path / "owndata.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)

    def run(*words, name="w", **keys):
        (tmp_path / "c.yaml").write_text(json.dumps({**LEAST, **keys}))  # no aliases
        words = ["--config", "c.yaml", "--work-dir", name, "--allow-import", "owndata", *words]
        return main_multigpu.main(words), tmp_path / name

    return run


def own(name, **more):
    """The keys of a data set of one's own."""
    args = {"train_feeder_args": {"split": "train"}, "test_feeder_args": {"split": "test"}}
    return {"feeder": f"owndata.{name}", **args, **more}


def saved(folder):
    """What the resolved configuration and the card of the best weights say of the model."""
    card, _ = read_card(folder / "best.pt")
    resolved = yaml.safe_load((folder / "c.yaml").read_text())["model_args"]
    return resolved, card.free_args | card.model_args


def test_the_resolved_configuration_and_the_card_have_what_the_data_decide(train):
    status, folder = train()
    assert status == 0
    graph = {"graph": "model.graph.Graph", "graph_args": {"skeleton": "ntu"}}
    for found in saved(folder):
        assert {key: found[key] for key in (*DERIVED, *graph)} == {**DERIVED, **graph}
    words = ["--phase", "test", "--weights", str(folder / "best.pt")]
    assert train(*words, name="again")[0] == 0
    assert main_multigpu.main(["--config", str(folder / "c.yaml"), "--work-dir", "v", *words]) == 0


def test_fused_streams_need_no_number_of_channels(train):
    streams = {"streams": ["joint", "bone", "joint_motion"]}
    keys = {key: {**LEAST[key], **streams} for key in ("train_feeder_args", "test_feeder_args")}
    status, folder = train(**keys)
    assert status == 0
    assert saved(folder)[0]["in_channels"] == 9
    assert train("--model-args", "in_channels=9", name="said", **keys)[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["in_channels=9"], "--model-args in_channels is 9, but the data have 3 (samples of sh"),
        (["num_point=20", "num_person=2"], "num_point is 20, but the data have 25 (samples of "),
        (["num_point=20", "num_person=2"], "; --model-args num_person is 2, but the data have 1 "),
        (["num_class=5"], "num_class is 5, but the test split has 4 class_names"),
        (["graph=model.graph.Graph", "graph_args.skeleton=ucla"], "num_point is 25, but the graph"),
        (["num_point=many"], "--model-args num_point: 'many': "),
    ],
)
def test_what_a_configuration_says_otherwise_is_named(train, capsys, words, said):
    status, folder = train("--model-args", *words)
    error = capsys.readouterr().err
    assert (status, error.count("\n"), folder.exists()) == (2, 1, False)
    assert said in error


@pytest.mark.parametrize("name", ["Known", "Flat"])
def test_a_skeleton_of_ones_own_gives_its_graph(train, name):
    status, folder = train(**own(name))
    assert status == 0
    found = saved(folder)[0]
    assert (found["num_class"], found["num_point"], found["in_channels"]) == (3, 5, 2)
    assert found["graph_args"]["edges"] == [[1, 0], [2, 0], [3, 1], [4, 2]]


def test_edges_in_the_configuration_do_as_well(train, capsys):
    status, folder = train(**own("Feeder"))
    assert status == 2
    advice = "graph_args: {edges: [[child, parent], ...]}"
    assert advice in capsys.readouterr().err
    edges = {"channels": [8], "graph_args": {"edges": [[1, 0], [2, 0], [3, 1], [4, 2]]}}
    status, folder = train(**own("Feeder", model_args=edges))
    assert status == 0
    words = ["--phase", "test", "--weights", str(folder / "best.pt")]  # whose card knows the graph
    assert train(*words, name="again", **own("Feeder"))[0] == 0


def test_a_graph_and_a_model_of_ones_own(train, capsys):
    circle = {"channels": [8], "graph": "owndata.Circle", "graph_args": {"joints": 5}}
    status, folder = train(**own("Feeder", model_args=circle))
    assert (status, saved(folder)[0]["graph"]) == (0, "owndata.Circle")
    status, folder = train(name="net", **own("Odd", model="owndata.Net", model_args={}))
    assert (status, saved(folder)[0]) == (0, {"num_class": 3})
    assert train(name="x", **own("Odd", model="owndata.Wrong", model_args={}))[0] == 2
    assert "error: model: owndata.Wrong: KeyError: 'nothing' (" in capsys.readouterr().err


def test_samples_of_another_shape_say_nothing(train, capsys):
    assert train(**own("Volume"))[0] == 2
    error = capsys.readouterr().err
    assert "model_args.num_point: model.classifier.Model needs it, and the data (samples" in error
    assert error.count("\n") == 1


def test_null_leaves_to_the_data_what_a_base_says(train, tmp_path):
    base = {"model_args": {"num_point": 20, "num_class": 3, "in_channels": 9, "graph": "x.Y"}}
    (tmp_path / "base.yaml").write_text(json.dumps(base))
    none = dict.fromkeys(("num_point", "num_class", "in_channels", "graph"))
    status, folder = train(base="base.yaml", model_args={"channels": [8], **none})
    assert (status, saved(folder)[0]["in_channels"]) == (0, 3)


def test_labels_with_gaps_come_with_advice_that_works(train, capsys):
    assert train(**own("Gaps"))[0] == 2
    error = capsys.readouterr().err
    assert "to number these 3 classes from 0 say --classes 2 5 9; to keep the labels say" in error
    status, folder = train("--classes", "2", "5", "9", **own("Gaps"))
    assert (status, saved(folder)[0]["num_class"]) == (0, 3)
    assert train("--model-args", "num_class=10", name="all", **own("Gaps"))[0] == 0


def test_a_head_of_another_kind_is_not_taken_from_weights_unasked(train, capsys):
    _, folder = train("--model-args", "head=average")
    words = ["--phase", "test", "--weights", str(folder / "best.pt")]
    assert train(*words, name="again")[0] == 2
    assert "say --model-args head=average, or take other weights" in capsys.readouterr().err
    assert train(*words, "--model-args", "head=average", name="again")[0] == 0


def test_weights_may_be_of_other_classes_than_the_data_they_go_on_with(train):
    _, folder = train()
    fewer = {key: {**LEAST[key], "actions": 3} for key in ("train_feeder_args", "test_feeder_args")}
    words = ["--weights", str(folder / "best.pt"), "--ignore-weights", "K", "fc"]
    status, fresh = train(*words, name="fresh", **fewer)
    assert (status, saved(fresh)[0]["num_class"]) == (0, 3)


def test_one_shot_takes_the_number_of_classes_from_the_weights(train, tmp_path):
    base = {"base": "feeders.feeder_demo.Feeder", "base_args": DATA, "novel_classes": [0, 3]}
    keys = {f"{s}_feeder_args": {"split": s, **base} for s in ("train", "test")}
    status, folder = train(**{**keys, "feeder": "feeders.oneshot.Feeder"})
    assert (status, saved(folder)[0]["num_class"]) == (0, 2)
    weights = tmp_path / "bare.pt"  # without a card
    torch.save(torch.load(folder / "best.pt", weights_only=True), weights)
    for file in (folder / "best.pt", weights):
        assert (
            oneshot.main(["--config", "c.yaml", "--weights", str(file), "--work-dir", file.stem])
            == 0
        )
    matched = ["--phase", "test", "--weights", str(folder / "best.pt"), "--work-dir", "m"]
    assert main_multigpu.main(["--config", "c.yaml", *matched]) == 0


def test_classes_that_the_test_split_lacks_are_the_weights(train, tmp_path):
    y = np.arange(12) % 4
    x = np.random.default_rng(0).normal(size=(12, 6, 150)).astype("f4")
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    data = {"data_path": "d.npz", "window_size": 8}
    keys = {"feeder": "feeders.feeder_ntu.Feeder", "train_feeder_args": data}
    keys["test_feeder_args"] = {**data, "split": "test"}
    status, folder = train(**keys)
    assert (status, saved(folder)[0]["num_class"], saved(folder)[0]["num_person"]) == (0, 4, 2)
    words = ["--phase", "test", "--weights", str(folder / "best.pt")]
    assert train(*words, name="again", **keys)[0] == 0
    wide = np.eye(9)[y]  # one-hot of more classes than there are samples of
    np.savez(tmp_path / "d.npz", x_train=x, y_train=wide, x_test=x, y_test=wide)
    assert train(*words, name="wide", **keys)[0] == 0
    status, fresh = train(name="fresh", **keys)
    assert (status, saved(fresh)[0]["num_class"]) == (0, 9)
