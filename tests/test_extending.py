"""Each thing that docs/extending.md adds, by what it says and no more, trains two epochs.

Its blocks of Python are somebody's own module, in a folder outside of the project.
"""

import json
import re
import sys

import pytest
import torch
import yaml

import main_multigpu
from torchlight.card import read_card

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {
    "feeder": "feeders.feeder_demo.Feeder",
    "train_feeder_args": {"split": "train", "performers": 3, "replications": 1, "window_size": 8},
    "test_feeder_args": {"split": "test", "performers": 3, "replications": 1, "window_size": 8},
    "model": "model.classifier.Model",
    "model_args": {"channels": [8]},
    "base_lr": 0.05,
    "num_epoch": 2,
    "eval_interval": 1,
    "num_worker": 0,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def blocks(root):
    """Title of a section to its blocks: language and text."""
    text = (root / "docs" / "extending.md").read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    block = re.compile(r"```(python|yaml)\n(.*?)```", re.DOTALL)
    return {part.splitlines()[0]: block.findall(part) for part in sections}


@pytest.fixture
def train(blocks, tmp_path, monkeypatch):
    """Train by the small configuration and what sections of the page lay over it."""
    code = "\n\n".join(text for part in blocks.values() for kind, text in part if kind == "python")
    (tmp_path / "parts.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "parts", raising=False)

    def run(*titles, less=(), **over):
        config = {key: value for key, value in SMALL.items() if key not in less}
        pages = [yaml.safe_load(blocks[title][-1][1]) for title in titles]
        for layer in (*pages, over):
            for key, value in layer.items():
                both = isinstance(value, dict) and isinstance(config.get(key), dict)
                config[key] = {**config[key], **value} if both else value
        (tmp_path / "own.yaml").write_text(json.dumps(config))
        words = ["--config", "own.yaml", "--work-dir", "w", "--allow-import", "parts"]
        assert main_multigpu.main(words) == 0
        log = (tmp_path / "w" / "log.txt").read_text()
        assert "epoch 2/2" in log
        return log, read_card(tmp_path / "w" / "best.pt")[0]

    yield run
    sys.modules.pop("parts", None)


def test_a_head(train, tmp_path):
    _, card = train("A head")
    assert card.model_args["head"] == "parts.LastFrame"
    weights = torch.load(tmp_path / "w" / "best.pt", weights_only=True)
    assert weights["fc.weight"].shape == (8, 8)
    words = ["--config", "own.yaml", "--work-dir", "w", "--allow-import", "parts"]
    assert main_multigpu.main([*words, "--phase", "test", "--weights", "w/best.pt"]) == 0


def test_a_transform(train, blocks):
    (block,) = [text for kind, text in blocks["A transform"] if kind == "yaml"][:1]
    log, _ = train(**yaml.safe_load(block))
    assert log != train_without(train)


def train_without(train):
    """What a run says that nothing is added to."""
    return train(overwrite=True)[0]


def test_a_stream(train):
    _, card = train("A stream")
    assert card.model_args["in_channels"] == 9
    assert card.data["streams"] == ["joint", "bone", "parts.Centred"]


def test_an_optimiser_a_schedule_and_averaging(train):
    log, _ = train("What it trains with", warm_up_epoch=1, averaging_args={"start_epoch": 1})
    assert "optimizer AdamW (betas [0.9, 0.99]); learning rate cosine (min_lr 1e-05)" in log
    assert "averaging ema" in log


def test_one_stream_of_ones_own_alone(train):
    alone = {"streams": "parts.Centred"}
    _, card = train(train_feeder_args=alone, test_feeder_args=alone)
    assert card.data["streams"] == ["parts.Centred"]


def test_a_logger(train, tmp_path):
    train("A logger")
    lines = (tmp_path / "w" / "numbers.txt").read_text().splitlines()
    rows = (tmp_path / "w" / "curves.csv").read_text().splitlines()[1:]
    assert [line.split()[1] for line in lines] == [row.split(",")[1] for row in rows]


def test_a_data_set_of_another_skeleton(train):
    data = ("train_feeder_args", "test_feeder_args")
    _, card = train("A data set of another skeleton", less=data)
    known = {"num_class": 3, "num_point": 5, "num_person": 1, "in_channels": 2}
    assert {key: card.model_args[key] for key in known} == known
    assert card.class_names == ["sit", "walk", "run"]
    assert card.free_args["graph_args"]["edges"] == [[1, 0], [2, 0], [3, 1], [4, 2]]


def test_all_of_it_at_once(train):
    titles = (
        "A head",
        "A stream",
        "A logger",
        "What it trains with",
        "A data set of another skeleton",
    )
    less = ("train_feeder_args", "test_feeder_args")
    own = {"transforms": [{"name": "parts.Jitter", "metres": 0.1}]}
    over = {"warm_up_epoch": 0, "averaging_args": {"start_epoch": 0}, "train_feeder_args": own}
    _, card = train(*titles, less=less, **over)
    assert card.model_args["in_channels"] == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model-args", "head=parts.LastFram"], '(did you mean "LastFrame"?)'),
        (["--model-args", "head=parts.Jitter"], "head"),
        (["--model-args", "head=parts.LastFrame", "head_args.x=1"], "head_args.x: parts.LastFrame"),
        (["--model-args", "head=os.path"], "say --allow-import os"),
        (["--train-feeder-args", "streams=[parts.Centre]"], '(did you mean "Centred"?)'),
        (["--loggers", "TensorBord"], 'no class "TensorBord" (did you mean "TensorBoard"?)'),
        (["--loggers", "CSV", "{name: parts.Lines, path: x}"], "loggers[1].path: parts.Lines"),
        (["--loggers", "parts.Jitter"], "loggers[0]: Jitter has no method start"),
    ],
)
def test_a_wrong_name_is_one_line(train, capsys, tmp_path, words, said):
    train(num_epoch=2)
    capsys.readouterr()
    words = ["--config", "own.yaml", "--work-dir", "v", "--allow-import", "parts", *words]
    assert main_multigpu.main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "v").exists()
