"""The training command on NW-UCLA's files: mistakes in the data, and a run on the real set."""

import json
import os
import re
import signal

import pytest
import torch
import yaml
from launch import ENVIRONMENT, start
from test_main_training import train
from toy_ucla import write_ucla

from model.cpu import training
from model.cpu.threads import call_on_chunks
from torchlight.checkpoint import load_weights
from torchlight.fusion.reading import read_scores

SMALL = {"channels": [8, 8]}
MODEL = {
    "num_class": 10,
    "num_point": 20,
    "num_person": 1,
    "graph": "graph.ucla.Graph",
    "graph_args": {"labeling_mode": "spatial"},
}


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """A folder of sequences, two a class and view, and a configuration that reads it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "sequences"
    write_ucla(root)
    config = {
        "feeder": "feeders.feeder_ucla.Feeder",
        "train_feeder_args": {"label_path": "train", "root": str(root), "window_size": 8},
        "test_feeder_args": {"label_path": "val", "root": str(root), "window_size": 8},
        "model": "model.Koopman_pooling.Model",
        "model_args": {**MODEL, **SMALL},
        "base_lr": 0.01,
        "num_epoch": 1,
        "batch_size": 4,
        "num_worker": 0,
        "device": "cpu",
    }
    path = tmp_path / "ucla.yaml"
    path.write_text(yaml.safe_dump(config))
    return root, str(path)


def test_the_made_up_set_trains(made_up, tmp_path):
    assert train(made_up[1], tmp_path / "w") == 0


def _edit(root, name, change):
    path = root / f"{name}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda root: (root / "a01_s01_e00_v01.json").write_text(""), "a01_s01_e00_v01.json"),
        (
            lambda root: _edit(root, "a02_s01_e00_v02", lambda c: c["skeletons"][2].pop()),
            r"a02_s01_e00_v02\.json: frame 2 has 19 joints, expected 20",
        ),
        (
            lambda root: _edit(
                root, "a03_s01_e00_v03", lambda c: c["skeletons"][1][4].__setitem__(0, float("nan"))
            ),
            r"a03_s01_e00_v03\.json",
        ),
        (lambda root: [p.unlink() for p in root.glob("*.json")], "sequences"),
    ],
)
def test_damaged_data_is_named_in_one_line_and_nothing_is_written(
    made_up, tmp_path, capsys, damage, expected
):
    root, path = made_up
    damage(root)
    assert train(path, tmp_path / "w") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(expected, error)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--train-feeder-args", "root=/nowhere"], "/nowhere"),
        (["--model-args", "num_class=9"], "num_class is 9"),
        (["--model-args", "num_point=25"], "25"),
        (["--model-args", "graph=graph.ucla.Grph"], 'error: --model-args graph: "graph.ucla.Grph"'),
        (["--model-args", "graph_args.a=1"], "error: --model-args graph_args.a: "),
        (["--val-subjects", "3"], "error: --val-subjects: no subject"),
        (["--model-args", "graph=os.path"], "--allow-import os"),
        (["--batch-size", "64"], "64"),
    ],
)
def test_mistakes_of_the_configuration(made_up, tmp_path, capsys, words, expected):
    assert train(made_up[1], tmp_path / "w", *words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert expected in error
    assert not (tmp_path / "w").exists()


def test_weights_of_another_model_are_refused(made_up, tmp_path, capsys):
    train(made_up[1], tmp_path / "a")
    words = ["--weights", str(tmp_path / "a" / "best.pt"), "--model-args", "channels=[16, 16]"]
    assert train(made_up[1], tmp_path / "b", *words) == 2
    assert "weights of another model" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_an_interrupted_run_in_shares_goes_on_to_the_same_end(
    made_up, tmp_path, monkeypatch, number
):
    # The batches of other tests are small and stay whole; these go through two threads.
    words = ["--config", made_up[1], "--train-feeder-args", "window_size=64"]
    words += [
        "--test-feeder-args",
        "window_size=64",
        "--num-epoch",
        "3",
        "--save-minutes",
        "0.0005",
    ]
    monkeypatch.setitem(ENVIRONMENT, "OMP_NUM_THREADS", "2")
    counts = set()

    def call_and_count(function, shares, parameters):
        counts.add(len(shares))
        return call_on_chunks(function, shares, parameters)

    monkeypatch.setattr(training, "call_on_chunks", call_and_count)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert train(made_up[1], tmp_path / "whole", *words[2:]) == 0
        process = start("main_multigpu.py", *words, "--work-dir", tmp_path / "cut")
        for line in process.stdout:
            if line.startswith("epoch 1/"):
                break
        os.kill(process.pid, number)
        process.communicate(timeout=60)
        assert train(made_up[1], tmp_path / "cut", *words[2:]) == 0
    finally:
        torch.set_num_threads(threads)
    assert 2 in counts
    assert "resuming from epoch" in (tmp_path / "cut" / "log.txt").read_text()
    for name in ("best.pt", "runs-3-15.pt"):
        left, right = (load_weights(tmp_path / work / name) for work in ("whole", "cut"))
        assert all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.slow
def test_both_stages_on_the_real_set(shared, root, tmp_path, monkeypatch):
    """Stage one, normalisation, stage two and a test run, with the published configurations."""
    import eigen_normalization

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = f"root={shared / 'data' / 'NW-UCLA' / 'all_sqe'}"
    small = ["--model-args", "channels=[8, 16]", "--device", "cpu", "--num-worker", "0"]
    feeders = ["--train-feeder-args", data, "repeat=1", "--test-feeder-args", data]
    words = [*small, *feeders, "--num-epoch", "1"]
    koopman, tune = tmp_path / "koopman", tmp_path / "tune"
    assert train(str(root / "config/ucla/koopman.yaml"), koopman, *words) == 0
    normalized = str(tmp_path / "normalized.pt")
    line = ["--load-path", str(koopman / "runs-1-63.pt"), "--save-path", normalized]
    assert eigen_normalization.main([*line, "--num-class", "10", "--rank", "4"]) == 0
    words += ["--weights", normalized, "--save-score", "True"]
    assert train(str(root / "config/ucla/tune.yaml"), tune, *words) == 0
    table = read_scores(tune)
    assert table.scores.shape == (464, 10)
    assert all(name.endswith("v03") for name in table.names)
    before = torch.load(normalized, weights_only=True)["K"]
    after = torch.load(tune / "runs-1-63.pt", weights_only=True)["K"]
    assert torch.equal(before, after)  # frozen
