"""One-shot from the command lines: train on auxiliary classes, match the novel ones."""

import copy
import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import main_multigpu
import test_oneshot as command
from torchlight import numerics

DEMO = {
    "base": "feeders.feeder_demo.Feeder",
    "base_args": {"performers": 4, "replications": 1, "window_size": 12},
    "novel_classes": [0, 3, 6],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(configuration, weights) of a tiny model trained for an epoch on five made-up actions."""
    folder = tmp_path_factory.mktemp("oneshot")
    config = {
        "work_dir": str(folder / "work"),
        "feeder": "feeders.oneshot.Feeder",
        "train_feeder_args": {"split": "train", **copy.deepcopy(DEMO)},
        "test_feeder_args": {"split": "test", **copy.deepcopy(DEMO)},
        "model": "model.Koopman_pooling.Model",
        "model_args": {
            "num_class": 5,
            "num_point": 25,
            "num_person": 1,
            "graph": "graph.ntu_rgb_d.Graph",
            "channels": [8, 16],
        },
        "evaluator": "model.oneshot.Evaluator",
        "evaluator_args": {"match": "dmd", "rcond": 0.9},
        "num_epoch": 1,
        "eval_interval": 1,
        "num_worker": 0,
        "device": "cpu",
        "base_lr": 0.01,
    }
    path = folder / "koopman_oneshot.yaml"
    path.write_text(yaml.safe_dump(config))
    assert main_multigpu.main(["--config", str(path)]) == 0
    return path, folder / "work" / "best.pt"


def _table(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def _words(run: tuple[Path, Path], work_dir: Path, *more: str) -> list[str]:
    return ["--config", str(run[0]), "--weights", str(run[1]), "--work-dir", str(work_dir), *more]


def test_files_agree_with_each_other_and_with_the_training_run(
    run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(_words(run, tmp_path)) == 0
    printed = capsys.readouterr().out
    header, *rows = _table(tmp_path / "oneshot_distances.csv")
    assert header == ["sample", "true", "0 wave", "3 jump", "6 pick up"]
    distances = np.array([row[2:] for row in rows], dtype=float)
    predicted = [header[2 + i] for i in distances.argmin(axis=1)]
    true = [row[1] for row in rows]
    listed = _table(tmp_path / "oneshot_predictions.csv")[1:]
    assert [row[2] for row in listed] == predicted
    accuracy = np.mean(np.array(predicted) == np.array(true))
    line = next(line for line in printed.splitlines() if "top-1" in line)
    assert line.split()[:3] == ["top-1", str(len(rows)), f"{accuracy:.2%}"]
    assert "exemplars a class: 1; dmd cut-off: 0.9" in printed
    compared = {row[0]: float(row[1]) for row in _table(tmp_path / "oneshot_matchings.csv")[1:]}
    assert list(compared) == ["dmd", "l2", "cosine"]
    assert compared["dmd"] == pytest.approx(accuracy, abs=1e-6)
    for suffix in ("confusion.csv", "confusion.png", "each_class_acc.csv", "wrong.txt"):
        trained = run[1].parent / f"best_test_{suffix}"
        assert (tmp_path / f"oneshot_{suffix}").exists()
        if suffix == "confusion.csv":  # the evaluation within training says the same
            counts = [row[1:] for row in _table(trained)[1:]]
            assert counts == [row[1:] for row in _table(tmp_path / f"oneshot_{suffix}")[1:]]


def test_result_does_not_depend_on_batch_size_or_seed(
    run: tuple[Path, Path], tmp_path: Path
) -> None:
    tables = []
    for i, more in enumerate((["--seed", "1"], ["--seed", "9", "--test-batch-size", "5"])):
        assert command.main(_words(run, tmp_path / str(i), *more)) == 0
        tables.append(_table(tmp_path / str(i) / "oneshot_distances.csv"))
    assert [row[:2] for row in tables[0]] == [row[:2] for row in tables[1]]
    first, second = (np.array([row[2:] for row in t[1:]], dtype=float) for t in tables)
    np.testing.assert_allclose(first, second, rtol=1e-5)  # float32 sums of other batches


def test_flags_choose_matching_and_shots(
    run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(_words(run, tmp_path, "--match", "cosine", "--shots", "3")) == 0
    printed = capsys.readouterr().out
    assert "exemplars a class: 3" in printed
    assert "all of cosine" in printed
    rows = _table(tmp_path / "oneshot_match-cosine_shots-3_distances.csv")[1:]
    assert len(rows) == 3 * (12 - 3)  # 4 performers, 3 cameras, less the exemplars
    assert max(float(value) for row in rows for value in row[2:]) <= 2.0  # 1 - cosine


def test_results_of_other_settings_are_kept_and_the_log_has_them_all(
    run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(_words(run, tmp_path)) == 0
    first = {path: path.read_bytes() for path in tmp_path.iterdir() if path.name != "log.txt"}
    assert command.main(_words(run, tmp_path, "--shots", "3")) == 0
    assert command.main(_words(run, tmp_path)) == 0  # the same again is no fault
    capsys.readouterr()
    weights = torch.load(run[1], weights_only=True)
    torch.save({key: value + 0 * value for key, value in weights.items()}, tmp_path / "other.pt")
    for more, said in (
        (["--weights", str(tmp_path / "other.pt")], "(sha256, weights)"),
        (["--test-feeder-args", "base_args.performers=3"], "(performers)"),
    ):
        assert command.main(_words(run, tmp_path, *more)) == 2
        error = capsys.readouterr().err
        assert "oneshot_settings.json: results of other settings" in error
        assert said in error
        assert error.count("\n") == 1
    assert {path: path.read_bytes() for path in first} == first
    (tmp_path / "oneshot_settings.json").unlink()  # as it advises
    assert command.main(_words(run, tmp_path, "--weights", str(tmp_path / "other.pt"))) == 0
    log = (tmp_path / "log.txt").read_text()
    assert log.count("exemplars a class: 1;") == 3
    assert log.count("exemplars a class: 3;") == 1
    assert log.count("top-1") == 4


def test_two_processes_write_the_same(run: tuple[Path, Path], tmp_path: Path, root: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of the two has: sums of float32 depend on it
    try:
        assert command.main(_words(run, tmp_path / "one", "--test-batch-size", "7")) == 0
    finally:
        torch.set_num_threads(threads)
    words = _words(run, tmp_path / "two", "--test-batch-size", "7")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    subprocess.run(
        [*launcher, "--nproc_per_node=2", "test_oneshot.py", *words],
        cwd=root, check=True, capture_output=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    one, two = ((tmp_path / d / "oneshot_distances.csv").read_bytes() for d in ("one", "two"))
    assert one == two


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--shots", "0"], "shots: 0"),
        (["--shots", "12"], "at least one query"),
        (["--rcond", "1.5"], "rcond must be"),
        (["--weights", "absent.pt"], "absent.pt"),
        (["--test-feeder-args", "exemplars=ntu"], "is missing from the data set"),
        (["--test-feeder-args", "exemplar=ntu"], 'did you mean "exemplars"'),
        (["--feeder", "feeders.feeder_demo.Feeder"], "takes no such argument"),
        (["--match", "dtw"], "--match: invalid choice: 'dtw' (choose from 'dmd', 'l2', 'cosine')"),
        (["--rcond", "most"], "--rcond: invalid float value: 'most'"),
        (["--shots"], "--shots: expected one argument"),
        (["--shot", "2"], 'did you mean "--shots"'),
        (["--batch-size"], "--batch-size: expected one argument"),
    ],
)
def test_mistakes_are_one_line(
    run: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    said: str,
) -> None:
    assert command.main(_words(run, tmp_path / "work", *more)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "work").exists()


def test_help_shows_the_flags_of_this_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for flag in ("--match {dmd,l2,cosine}", "--rcond RCOND", "--shots K", "--test-feeder-args"):
        assert flag in printed
    assert "\ntorchrun --nproc_per_node=4 test_oneshot.py" in printed  # lines stay lines


def test_weights_with_heads_for_other_classes_embed_the_same(
    run: tuple[Path, Path], tmp_path: Path
) -> None:
    """As published: in a checkpoint, with prefixes, a head for each of all classes."""
    weights = torch.load(run[1], weights_only=True)
    wide = {"K": torch.zeros(8, 16, 16), "fc.weight": torch.zeros(8, 16), "fc.bias": torch.zeros(8)}
    published = {f"module.net.{key}": wide.get(key, value) for key, value in weights.items()}
    torch.save({"state_dict": published}, tmp_path / "published.pt")
    assert command.main(_words(run, tmp_path / "own")) == 0
    more = ["--weights", str(tmp_path / "published.pt"), "--model"]
    more += ["model.Koopman_pooling_emb.Model"]
    assert command.main(_words(run, tmp_path / "wide", *more)) == 0
    own, other = ((tmp_path / d / "oneshot_distances.csv").read_bytes() for d in ("own", "wide"))
    assert own == other


def test_a_graph_of_the_users_own_is_built(
    run: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "own_graph.py").write_text(
        "from model import graph\n\n\nclass Own(graph.Graph):\n"
        "    def __init__(self):\n        super().__init__(skeleton='ntu')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    more = ["--model-args", "graph=own_graph.Own"]
    assert command.main(_words(run, tmp_path / "w", *more)) == 2
    assert "--allow-import own_graph" in capsys.readouterr().err
    assert command.main(_words(run, tmp_path / "w", *more, "--allow-import", "own_graph")) == 0


def test_one_shot_evaluation_needs_exemplars(
    run: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = yaml.safe_load(run[0].read_text())
    plain = {"split": "test", "performers": 4}
    config |= {"feeder": "feeders.feeder_demo.Feeder", "test_feeder_args": plain,
               "train_feeder_args": {**plain, "split": "train"},
               "work_dir": str(tmp_path / "w")}  # fmt: skip
    config["model_args"]["num_class"] = 8
    path = tmp_path / "plain.yaml"
    path.write_text(yaml.safe_dump(config))
    assert main_multigpu.main(["--config", str(path)]) == 2
    assert "exemplars" in capsys.readouterr().err
    words = ["--config", str(run[0]), "--val-fraction", "0.2", "--work-dir", str(tmp_path / "w")]
    assert main_multigpu.main(words) == 2
    assert "scores other classes" in capsys.readouterr().err


def test_a_precision_that_slows_this_processor_down_is_noted(
    run: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(numerics, "SLOW", 0.0)
    assert command.main(_words(run, tmp_path, "--amp", "bf16")) == 0
    assert "note: matrix products in bf16" in capsys.readouterr().out


def test_queries_are_matched_in_training_too_where_no_evaluator_is_named(
    run: tuple[Path, Path], tmp_path: Path
) -> None:
    content = yaml.safe_load(run[0].read_text())
    del content["evaluator"], content["evaluator_args"]
    path = tmp_path / "plain.yaml"
    path.write_text(yaml.safe_dump(content))
    assert main_multigpu.main(["--config", str(path), "--work-dir", str(tmp_path / "w")]) == 0
    tables = [folder / "best_test_confusion.csv" for folder in (run[1].parent, tmp_path / "w")]
    assert tables[0].read_bytes() == tables[1].read_bytes()
