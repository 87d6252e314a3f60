"""The command lines on a GPU: train in each precision, resume, evaluate as a CPU does, one-shot."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import main_multigpu
import test_oneshot as oneshot
from torchlight.fusion.reading import read_scores

pytestmark = pytest.mark.cuda
ROOT = Path(__file__).resolve().parents[2]
DEMO = {"performers": 3, "replications": 1, "window_size": 12}
MODEL = {"channels": [16, 32], "stride": [1, 1]}
SHORT = {"num_worker": 0, "step": [3], "warm_up_epoch": 0, "batch_size": 8, "save_interval": 1}


def configuration(path: Path, **values: object) -> str:
    """A small run on made-up people."""
    content = {
        "base": str(ROOT / "config" / "demo" / "koopman.yaml"),
        "train_feeder_args": {"split": "train", **DEMO},
        "test_feeder_args": {"split": "test", **DEMO},
        "model_args": {"num_person": 1, **MODEL},
        **SHORT,
        **values,
    }
    path.write_text(json.dumps(content))  # YAML, too
    return str(path)


def run(config: str, work: Path, device: str, *words: object) -> None:
    line = ["--config", config, "--work-dir", work, "--device", device, *words]
    assert main_multigpu.main([str(word) for word in line]) == 0


def weights(folder: Path) -> torch.Tensor:
    """The last weights of a run as one vector."""
    last = max(folder.glob("runs-*.pt"), key=lambda path: int(path.stem.split("-")[1]))
    entries = torch.load(last, weights_only=True)
    return torch.cat([entry.double().flatten() for entry in entries.values()])


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_training_and_evaluation(device: str, amp: str, tmp_path: Path) -> None:
    config = configuration(tmp_path / "demo.yaml", num_epoch=2, amp=amp)
    run(config, tmp_path / "w", device)
    for place in (device, "cpu"):
        words = ["--phase", "test", "--weights", tmp_path / "w" / "best.pt", "--save-score", True]
        run(config, tmp_path / place, place, *words, "--amp", "off")
    here, on_cpu = (read_scores(tmp_path / place).scores for place in (device, "cpu"))
    assert np.isfinite(here).all()
    assert np.linalg.norm(here - on_cpu) < 1e-3 * np.linalg.norm(on_cpu)


def test_a_dry_run_tells_the_memory_of_the_device(
    device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(configuration(tmp_path / "demo.yaml"), tmp_path / "w", device, "--dry-run")
    said = capsys.readouterr().out
    place = "on the device" if device == "cuda" else "of this process"
    assert re.search(rf"peak memory: \d+\.\d+ GiB {place}; before", said)
    assert re.search(r"training: \S+ s \(of \d+; .* samples/s", said)
    assert not (tmp_path / "w").exists()


def test_a_resumed_run_ends_as_one_without_a_break(device: str, tmp_path: Path) -> None:
    """To the rounding of atomic sums on the device; to the last bit on a CPU."""
    config = configuration(tmp_path / "demo.yaml", deterministic=True)
    run(config, tmp_path / "whole", device, "--num-epoch", 3)
    for epochs in (2, 3):
        run(config, tmp_path / "parts", device, "--num-epoch", epochs)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert (whole - parts).norm() < 1e-6 * whole.norm()


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_cuda_graphs_train_the_same(device: str, amp: str, tmp_path: Path) -> None:
    values = {"num_epoch": 2, "amp": amp, "averaging": "ema", "deterministic": True}
    config = configuration(tmp_path / "demo.yaml", **values)
    run(config, tmp_path / "launched", device)
    run(config, tmp_path / "replayed", device, "--cuda-graphs", True)
    launched, replayed = weights(tmp_path / "launched"), weights(tmp_path / "replayed")
    assert (launched - replayed).norm() < (1e-3 if amp != "off" else 1e-5) * launched.norm()
    log = (tmp_path / "replayed" / "log.txt").read_text()
    assert ", CUDA graphs; seed" in log
    assert ("cuda_graphs is for GPUs" in log) == (device == "cpu")


def test_one_shot(device: str, tmp_path: Path) -> None:
    novel = {"base": "feeders.feeder_demo.Feeder", "base_args": DEMO, "novel_classes": [0, 3, 6]}
    config = configuration(
        tmp_path / "oneshot.yaml",
        feeder="feeders.oneshot.Feeder",
        train_feeder_args={"split": "train", **novel},
        test_feeder_args={"split": "test", **novel},
        evaluator="model.oneshot.Evaluator",
        evaluator_args={"match": "dmd", "rcond": 0.9},
        num_epoch=1,
    )
    run(config, tmp_path / "w", device)
    tables = []
    for place in (device, "cpu"):
        line = ["--config", config, "--weights", tmp_path / "w" / "best.pt", "--device", place]
        assert oneshot.main([str(word) for word in [*line, "--work-dir", tmp_path / place]]) == 0
        tables.append((tmp_path / place / "oneshot_matchings.csv").read_text())
    assert tables[0] == tables[1]
