"""What a model is and what its run would take: by formula, on real steps, and leaving no trace."""

import re

import pytest
import torch
import toy_run
from launch import run as run_processes
from torch import nn
from toy import Model

from torchlight.measures import layers, table


class Mixed(nn.Module):
    """Products of every kind: in a layer, an einsum, recurrent, of attention; a part is idle."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(3, 8))
        self.first = nn.Linear(4, 8)
        self.steps = nn.GRU(8, 8, batch_first=True)
        self.mix = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.idle = nn.Linear(2, 2)

    def forward(self, x):
        features = self.mix(self.steps(self.first(x))[0]).mean(1)
        return torch.einsum("nd,cd->nc", features, self.table), features


def test_multiply_accumulates_are_those_of_the_formula():
    model = Mixed().train()
    *parts, whole = layers(model, torch.zeros(2, 5, 4))
    found = {part.name: part for part in parts}
    rows = 2 * 5
    assert found["first"].macs == rows * 4 * 8
    assert found["steps"].macs == rows * 3 * 2 * 8 * 8
    attention = 2 * (2 * 5 * 5 * 8)  # scores and values; both heads together
    assert found["mix"].macs == rows * (4 * 8 * 8 + 2 * 8 * 16) + attention
    assert whole.macs == sum(part.macs for part in parts) + 2 * 8 * 3
    assert (found["table"].shape, found["steps"].shape) == ("(3, 8)", "(2, 5, 8) (1, 2, 8)")
    assert (found["idle"].shape, found["idle"].parameters, whole.shape) == ("", 6, "(2, 3)")
    assert whole.parameters == sum(part.parameters for part in parts)
    assert model.training
    assert all(entry.requires_grad for entry in model.parameters())
    assert not model.first._forward_hooks
    assert torch.backends.mkldnn.enabled


def test_the_table_has_columns():
    lines = table(layers(Model(), torch.zeros(1, 8)))
    assert [line.split() for line in lines][1] == ["body.0", "Linear", "(1,", "16)", "144", "128"]
    assert len(set(map(len, lines))) == 1


@pytest.mark.parametrize("flags", [["--dry-run"], ["--phase", "summary"]])
def test_a_run_is_measured_and_leaves_no_trace(flags, config_file, tmp_path, capsys):
    path = config_file(train_feeder_args={"split": "train"})
    assert toy_run.train(path, tmp_path / "w", *flags) == 0
    said = capsys.readouterr().out
    assert not (tmp_path / "w").exists()
    batch = 8 if "--dry-run" in flags else 1
    assert f"layers, for inputs ({batch}, 8):" in said
    assert "208 multiply-accumulates a sample" in said
    assert re.search(r"training: \S+ s \(of 6; the first \S+ s\) a step, \S+ samples/s", said)
    assert re.search(r"evaluation: \S+ s \(of 5; the first \S+ s\) a batch, \S+ samples/s", said)
    assert re.search(r"peak memory: \d+\.\d+ GiB of this process; before the first step: \d", said)
    assert "4 epochs of 6 steps, 2 evaluations and the report take about 0.0 hours (0:00:0" in said


def test_the_steps_are_those_of_the_run_and_what_is_there_stays(config_file, tmp_path, capsys):
    work_dir, path = tmp_path / "w", config_file(train_feeder_args={"split": "train"})
    assert toy_run.train(path, work_dir, "--num-epoch", "1", "--step") == 0
    before = {file: file.stat().st_mtime_ns for file in work_dir.rglob("*")}
    trained = float(re.search(r"rate 0.05, loss (\S+)", capsys.readouterr().out)[1])
    words = ["--dry-run", "--overwrite", "--save-score", "--weights", str(work_dir / "gone.pt")]
    assert toy_run.train(path, work_dir, *words) == 2
    assert "gone.pt" in capsys.readouterr().err
    assert toy_run.train(path, work_dir, *words[:3]) == 0
    losses = re.search("losses: (.*)", capsys.readouterr().out)[1].split()
    assert sum(map(float, losses)) / 6 == pytest.approx(trained, abs=2e-3)
    assert {file: file.stat().st_mtime_ns for file in work_dir.rglob("*")} == before


def test_what_only_tests_is_measured_in_testing(config_file, tmp_path, capsys):
    assert toy_run.train(config_file(phase="test"), tmp_path / "w", "--phase", "summary") == 0
    said = capsys.readouterr().out
    assert "evaluation: " in said
    assert "training: " not in said
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("flags", [["--dry-run"], []])
def test_a_batch_that_does_not_fit_is_one_line(config_file, tmp_path, capsys, monkeypatch, flags):
    def refuse(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    path = config_file(train_feeder_args={"split": "train"})
    monkeypatch.setattr("torch.optim.SGD.step", refuse)
    monkeypatch.setattr("torchlight.checks.check_optimizer", lambda *_: None)
    assert toy_run.train(path, tmp_path / "w", *flags) == 2
    told = capsys.readouterr().err
    assert "8 samples at a time (in evaluation 8) do not fit the memory of cpu; say a small" in told
    assert told.count("\n") == 1


@pytest.mark.slow
def test_two_processes_are_measured_together(config_file, tmp_path):
    words = [*toy_run.ALLOW, "--config", config_file(train_feeder_args={"split": "train"})]
    work_dir = ["--work-dir", str(tmp_path / "w")]
    done = run_processes(
        "main_multigpu.py", *words, *work_dir, "--dry-run", processes=2, launcher="torchrun"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("training: ") == 1
    assert not (tmp_path / "w").exists()
