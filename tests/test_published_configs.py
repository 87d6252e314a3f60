"""The configurations of NKP and CTR-GCN, by their keys and values: all parse, data alone is absent.

Each is put together here from what the published files have in common.
"""

import itertools

import pytest
import yaml

import main_multigpu
import test_oneshot

NTU_TRAIN = {
    "split": "train", "debug": False, "random_choose": False, "random_shift": False,
    "random_move": False, "window_size": 64, "normalization": False, "random_rot": True,
    "p_interval": [0.5, 1], "vel": False, "bone": False,
}  # fmt: skip
NTU_TEST = {"split": "test", "window_size": 64, "p_interval": [0.95], "vel": False, "bone": False,
            "debug": False}  # fmt: skip
UCLA_TRAIN = {
    "data_path": "joint", "label_path": "train", "debug": False, "random_choose": True,
    "random_shift": False, "random_move": False, "window_size": 52, "normalization": False,
    "repeat": 5,
}  # fmt: skip
UCLA_TEST = {"data_path": "joint", "label_path": "val", "debug": False}
FEEDERS = {
    "feeders.feeder_ntu.Feeder": ("NTU60_CS.npz", 60, 25, 2, "graph.ntu_rgb_d.Graph"),
    "feeders.feeder_oneshot.Feeder": ("one_shot.npz", 120, 25, 2, "graph.ntu_rgb_d.Graph"),
    "feeders.feeder_ucla.Feeder": ("", 10, 20, 1, "graph.ucla.Graph"),
    "feeders.feeder_ucla_oneshot.Feeder": ("", 10, 20, 1, "graph.ucla.Graph"),
    "feeders.feeder_ucla_oneshot_test.Feeder": ("", 10, 20, 1, "graph.ucla.Graph"),
}
MODELS = ("Koopman_pooling", "Koopman_pooling_tune", "Koopman_pooling_emb", "ctrgcn_origin",
          "ctrgcn_emb", "ctrgcn")  # fmt: skip


def _configuration(feeder, model):
    file, classes, points, persons, graph = FEEDERS[feeder]
    of_ntu = {"data_path": f"./data/{file}"}
    return {
        "work_dir": "./work_dir/x",
        "feeder": feeder,
        "train_feeder_args": {**of_ntu, **NTU_TRAIN} if file else UCLA_TRAIN,
        "test_feeder_args": {**of_ntu, **NTU_TEST} if file else UCLA_TEST,
        "model": f"model.{model}.Model",
        "model_args": {
            "num_class": classes, "num_point": points, "num_person": persons, "graph": graph,
            "graph_args": {"labeling_mode": "spatial"},
        },
        "weight_decay": 0.0004, "base_lr": 0.1, "lr_decay_rate": 0.1, "step": [35, 55],
        "warm_up_epoch": 5, "device": [0] if file else 0, "batch_size": 16,
        "test_batch_size": 256, "num_epoch": 1000, "nesterov": True,
    }  # fmt: skip


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("feeder", "model"), list(itertools.product(FEEDERS, MODELS)))
def test_it_parses_and_lacks_data_alone(feeder, model, elsewhere, capsys):
    (elsewhere / "default.yaml").write_text(yaml.safe_dump(_configuration(feeder, model)))
    for main in (main_multigpu.main, test_oneshot.main):
        weights = [] if main is main_multigpu.main else ["--weights", "w.pt"]
        assert main(["--config", "default.yaml", *weights, "--device", "cpu"]) == 2
        error = capsys.readouterr().err
        absent = FEEDERS[feeder][0] or "data/NW-UCLA/all_sqe"
        assert error.startswith(f"error: data/{absent}: no such file" if FEEDERS[feeder][0]
                                else f"error: {absent}: ")  # fmt: skip
        assert error.count("\n") == 1
    assert not (elsewhere / "work_dir").exists()


def test_a_model_that_is_not_here_is_refused(elsewhere, capsys):
    content = _configuration("feeders.feeder_ntu.Feeder", "baseline")
    (elsewhere / "default.yaml").write_text(yaml.safe_dump(content))
    assert main_multigpu.main(["--config", "default.yaml", "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert '"model.baseline.Model" is not here' in error
    assert "model.ctrgcn.Model" in error


@pytest.mark.parametrize("device", [0, [0], "cuda:0", "cuda"])
def test_a_device_that_is_not_there_names_the_flag(device, elsewhere, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    content = {**_configuration("feeders.feeder_ucla.Feeder", "ctrgcn"), "device": device}
    (elsewhere / "default.yaml").write_text(yaml.safe_dump(content))
    assert main_multigpu.main(["--config", "default.yaml"]) == 2
    assert capsys.readouterr().err.endswith("no CUDA device is visible; say --device cpu\n")


def test_an_index_beyond_the_devices_is_refused(elsewhere, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    content = _configuration("feeders.feeder_ucla.Feeder", "ctrgcn")
    (elsewhere / "default.yaml").write_text(yaml.safe_dump(content))
    assert main_multigpu.main(["--config", "default.yaml", "--device", "cuda:2"]) == 2
    assert "there is no CUDA device 2, only [0, 1]; choose by --device" in capsys.readouterr().err
