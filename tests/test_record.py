"""The record: what chooses a recipe never reads the test view, and a row reads it once."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from toy_ucla import write_ucla

sys.path.insert(0, str(Path(__file__).parent / "bench"))
import record

from main_multigpu import main
from torchlight.errors import Stopped

SMALL = (
    *("--model-args", "channels=[8,8]", "stride=[1,1]", "--num-epoch", "2", "--amp", "off"),
    *("--warm-up-epoch", "0", "--global-batch-size", "4", "--batch-size", "4"),
    *("--num-worker", "0", "--device", "cpu"),
)


def _data(root, repeat=1):
    return (
        *("--train-feeder-args", f"root={root}", f"repeat={repeat}"),
        *("--test-feeder-args", f"root={root}", "repeat=2"),
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


@pytest.mark.parametrize("kind", ["views", pytest.param("subjects", marks=pytest.mark.slow)])
def test_choosing_needs_no_file_of_the_test_view(folder, capsys, kind, monkeypatch):
    root = folder / "sequences"
    write_ucla(root, views=(1, 2), subjects=(1, 5))
    monkeypatch.setattr(record, "SUBJECTS", ((1,), (5,)))
    words = ["fast", "--seeds", "1", "--choose", kind, "--processes", "1"]
    assert record.main([*words, "--out", str(folder / "out"), *SMALL, *_data(root)]) == 0
    assert re.search(r"\| fast \|.* 1 1 \|", capsys.readouterr().out)


def test_a_row_scores_the_test_view_once_and_by_its_last_epoch(folder, capsys):
    root = folder / "sequences"
    write_ucla(root)
    out = folder / "out"
    words = ["fast", "--seeds", "3", "--processes", "1", "--out", str(out)]
    assert record.main([*words, *SMALL, *_data(root)]) == 0
    first = capsys.readouterr().out
    assert "| fast |" in first
    log = (out / "fast" / "3" / "log.txt").read_text()
    assert len(re.findall(r"test loss", log)) == 1
    assert (out / "fast" / "3" / "epoch1_test_score.npz").is_file()
    found = json.loads((out / "fast" / "3" / "result.json").read_text())
    assert 0 <= found["accuracy"] <= 100
    assert record.main([*words, *SMALL, *_data(root)]) == 0  # kept, not run again
    assert (out / "fast" / "3" / "log.txt").read_text() == log


@pytest.mark.slow
def test_a_row_adds_up_the_scores_of_others(folder, capsys, monkeypatch):
    root = folder / "sequences"
    write_ucla(root)
    monkeypatch.setitem(record.ROWS, "both", record.Row("two", members=("box-joint", "box-bone")))
    words = ["both", "--seeds", "1", "--processes", "1", "--out", str(folder / "out")]
    assert record.main([*words, *SMALL, *_data(root)]) == 0
    assert re.search(r"\| both \| two \| 1 \| [\d.]+ % ", capsys.readouterr().out)


def test_a_one_shot_row_tells_each_matching_of_its_novel_classes(folder, capsys):
    root = folder / "sequences"
    write_ucla(root)
    words = ["one-shot", "--seeds", "1", "2", "--processes", "1", "--out", str(folder / "out")]
    data = ("--train-feeder-args", f"root={root}", "base_args.repeat=1")
    small = [*SMALL, *data, "--test-feeder-args", f"root={root}"]
    assert record.main([*words, *small]) == 0
    shown = capsys.readouterr().out
    for novel in ("0 3 6 9", "1 4 7 0"):
        assert re.search(rf"\| one-shot \|[^|]*\| {novel}( \| [\d.]+ %){{3}} \|", shown)
    assert re.search(r"\| one-shot \| \| mean( \| [\d.]+ ± [\d.]+ %){3} \|", shown)
    assert record.main(["--table", "--out", str(folder / "out")]) == 0
    assert capsys.readouterr().out.strip() in shown


def test_every_class_is_novel_in_one_of_three_splits():
    for classes in (10, 24):
        splits = [record.novel_classes(classes, seed) for seed in (1, 2, 3)]
        assert set().union(*splits) == set(range(classes))
        assert len({len(set(novel)) for novel in splits}) == 1


@pytest.mark.parametrize("name", ["fast", "fast_tune"])
def test_the_fast_recipe_evaluates_at_its_end_alone(root, name):
    from torchlight.flags import parse

    config, _ = parse(["--config", str(root / "config" / "ucla" / f"{name}.yaml")], "")
    assert config.eval_interval >= config.num_epoch
    assert "views" not in config.test_feeder_args


def test_the_shipped_weights_are_found_by_name_and_fit_the_real_test_view(shared, folder):
    words = ["--config", "config/ucla/fast.yaml", "--phase", "test", "--weights", "nw-ucla-fast"]
    words += ["--work-dir", str(folder / "w"), "--num-worker", "0", "--device", "cpu"]
    root = shared / "data" / "NW-UCLA" / "all_sqe"
    assert main([*words, "--test-feeder-args", f"root={root}", "repeat=1"]) == 0
    wrong = (folder / "w" / "epoch1_test_wrong.txt").read_text().splitlines()[1:]
    assert len(wrong) < 0.1 * 464  # 6 % of the mean of ten looks, somewhat more of one
    page = folder / "w" / "report.html"
    assert page.stat().st_size < 2_000_000
    assert "Clips of the worst confusions" in page.read_text(encoding="utf-8")


def test_minutes_of_gpus_stand_apart():
    def result(seed, minutes, **more):
        facts = {"date": "2026-11-26", "commit": "0", "speed": 2 * minutes}
        return {"accuracy": 50.0, "seed": seed, "minutes": minutes, **facts, **more}

    both = result(3, 99.0, on="both")
    found = record.markdown("fast", [result(1, 20.0), result(2, 4.0, on="gpu"), both])
    assert "| 20; GPU 4 | 40; GPU 8 |" in found
    assert "| 20 | 40 |" in record.markdown("fast", [result(1, 20.0, on="cpu")])
    assert "| – | – |" in record.markdown("fast", [both])
    line = "[2026-11-26 19:13:30] python 3.12.3, torch 2.11.0, numpy 2.5.2; 1 x {}, 2 threads each"
    assert record._place(line.format("cpu")) == "cpu"
    assert record._place(line.format("cuda") + "\n" + line.format("cpu")) == "both"


def test_curves_are_told_and_drawn_stage_two_after_stage_one(folder, capsys, monkeypatch):
    line = "epoch {}/2: rate 0.1, loss 1.0 accuracy {} %{}; 1.0 s, 9 samples/s in training\n"
    for name, first in (("box", 60.0), ("box-tuned", 80.0)):
        (folder / name / "1").mkdir(parents=True)
        log = line.format(1, first, "") + line.format(
            2, first + 5, ", test loss 1.0 accuracy 71.5 %"
        )
        (folder / name / "1" / "log.txt").write_text(log)
    drawn, plot = [], Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda *a, **k: drawn.append(a[1:3]) or plot(*a, **k))
    words = ["box", "box-tuned", "--seeds", "1", "--out", str(folder)]
    assert record.main([*words, "--curves", str(folder / "curves.png")]) == 0
    told = capsys.readouterr().out
    assert "| box: epoch | 2 |\n| --- | --- |\n| top-1, in % | 71.50 |\n" in told
    assert "| training, in % | 85.00 |" in told
    assert drawn[2:] == [([4], [71.5]), ([3, 4], [80.0, 85.0])]
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        (["box", "--curves", "curves.png"], 2, "no run in it"),
        (["--curves", "curves.png"], 2, "name the rows"),
        (["--list"], 1, ""),
    ],
)
def test_what_goes_wrong_is_one_line(folder, words, status, why):
    """Of --list, that whoever reads it has left."""
    line = [sys.executable, record.__file__, *words, "--out", str(folder)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    error = process.communicate()[1]
    assert process.returncode == status
    assert "Traceback" not in error
    assert why in error


def test_a_request_to_stop_reaches_the_training(tmp_path, monkeypatch):
    """It may take its time to save its state."""
    script = tmp_path / "training.py"
    script.write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('saved')))\n"
        "print('begun', flush=True)\n"
        "time.sleep(60)\n"
    )
    said = []

    class Terminal(io.StringIO):
        def write(self, text):
            said.append(text)
            if text == "begun\n":
                raise Stopped(0, "as SIGTERM does")
            return len(text)

    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(SystemExit, match="the same command resumes it"):
        record.Recorder(tmp_path, 1)._call(str(script))
    assert said[-1] == "saved\n"
