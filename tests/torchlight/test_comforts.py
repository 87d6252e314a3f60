"""What is looked up for people: configurations, the newest run, what a shell completes."""

import os
import re
import subprocess
import sys

import pytest
import toy_run
import yaml
from launch import ROOT
from toy import Feeder

import eigen_normalization
import ensemble
import main_multigpu
import test_oneshot
from torchlight.log import start_logging


@pytest.fixture(scope="module", autouse=True)
def no_reports():
    """Tables, pictures and pages take most of the time of a run so small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchlight.reports.attach", lambda run: run)
        yield


SCRIPTS = {
    "main_multigpu.py": main_multigpu,
    "test_oneshot.py": test_oneshot,
    "eigen_normalization.py": eigen_normalization,
    "ensemble.py": ensemble,
}


def test_configurations_are_listed(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as left:
        main_multigpu.main(["--config", "list"])
    lines = capsys.readouterr().out.splitlines()
    assert left.value.code == 0
    told = dict(re.split(r"\s\s+", line, maxsplit=1) for line in lines)
    assert told["config/ucla/fast.yaml"] == "NW-UCLA in 24 minutes on one core."
    assert told.keys() == {str(p.relative_to(ROOT)) for p in ROOT.glob("config/[!_]*/*.yaml")}
    assert all(what.endswith((".", ").")) for what in told.values())


@pytest.fixture(scope="module")
def runs(tmp_path_factory, no_reports):
    """A folder with a configuration, two runs of it, and a newer one of another."""
    folder = tmp_path_factory.mktemp("runs")
    said = {**toy_run.CONFIG, "model_args": {"drop_out": 0.2}, "work_dir": "./work_dir/toy/own"}
    (folder / "toy.yaml").write_text(yaml.safe_dump({**said, "num_epoch": 2, "step": [1]}))
    variants = {"one": [], "two": ["--seed", "7"], "other": ["--model-args", "drop_out=0.5"]}
    for number, (name, words) in enumerate(variants.items()):
        own = folder / "work_dir" / "far" / name
        assert toy_run.train(str(folder / "toy.yaml"), own, *words) == 0
        for state in own.glob("resume.*.state"):
            os.utime(state, (number, number))
    return folder


RESUME = [*toy_run.ALLOW, "--config", "toy.yaml", "--resume", "last"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--work-dir", "nowhere"], "toy.yaml with a state to resume from in nowhere or below"),
        (["--overwrite"], "and not with --overwrite"),
        (["--model-args", "drop_out=0.9"], "no run of"),
        (["--phase", "summary"], "and not with --phase summary"),
    ],
)
def test_what_cannot_be_resumed_is_one_line(runs, words, said, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    assert main_multigpu.main([*RESUME, *words]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_the_newest_run_of_a_configuration_is_resumed_as_it_was_begun(runs, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    assert main_multigpu.main([*RESUME, "--num-epoch", "4"]) == 0
    said = capsys.readouterr().out
    folder = runs / "work_dir" / "far" / "two"
    assert "note: --resume last: work_dir/far/two, saved at 1970-01-01" in said
    assert "resuming from epoch 3, step 0" in said
    assert list(folder.glob("runs-4-*.pt"))
    assert "seed: 7\n" in (folder / "toy.yaml").read_text()
    assert not list(folder.glob("resolved_*"))
    assert not (runs / "work_dir" / "toy").exists()
    assert main_multigpu.main([*RESUME, "--model-args", "drop_out=0.5"]) == 0
    assert "--resume last: work_dir/far/other" in capsys.readouterr().out
    assert main_multigpu.main([*RESUME, "--work-dir", "work_dir/far/one"]) == 0
    assert "--resume last: work_dir/far/one" in capsys.readouterr().out


COMPLETE = r"""
complete_last() {
  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
  "$(complete -p "$1" | sed -E 's/.*-F ([^ ]+).*/\1/')" 2>/dev/null
  echo "${COMPREPLY[*]}"
}
"""


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["main_multigpu.py", "--ph"], "--phase"),
        (["python", "main_multigpu.py", "--phase", "su"], "summary"),
        (["python", "./main_multigpu.py", "--config", "config/ucla/f"], "config/ucla/fast.yaml"),
        (["torchrun", "--nproc_per_node=2", "main_multigpu.py", "--resume", ""], "last"),
        (["python", "main_multigpu.py", "--seed", "3", "--amp", "b"], "bf16"),
        (["python", "main_multigpu.py", "--phase", "predict", "--inp"], "--input"),
        (["python", "main_multigpu.py", "--phase", "pre"], "predict"),
        (["python", "main_multigpu.py", "--see"], "--seeds"),
        (["python", "test_oneshot.py", "--match", "c"], "cosine"),
        (["python", "ensemble.py", "--dataset", "NW"], "NW-UCLA"),
        (["python", "eigen_normalization.py", "--split"], "--split-pairs"),
        (["python", "other.py", "--"], ""),
    ],
    ids=" ".join,
)
def test_bash_completes(words, found, scripts_for_bash):
    line = " ".join(f"'{word}'" for word in words)
    done = subprocess.run(
        ["bash", "--norc", "-c", f". {scripts_for_bash}; {COMPLETE} complete_last {line}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found in done.stdout.split() if found else not done.stdout.strip()


@pytest.fixture(scope="module")
def scripts_for_bash(tmp_path_factory):
    """What the four scripts print, in one file."""
    pytest.importorskip("shtab", reason="the extra [completion] is not installed")
    path = tmp_path_factory.mktemp("bash") / "completion"
    with pytest.MonkeyPatch.context() as patch, open(path, "w") as file:
        patch.chdir(ROOT)
        patch.setattr(sys, "stdout", file)
        for name, script in SCRIPTS.items():
            patch.setattr(sys, "argv", [name])
            with pytest.raises(SystemExit):
                script.main(["--completion", "bash"])
    return path


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script(shell, capsys, monkeypatch):
    pytest.importorskip("shtab", reason="the extra [completion] is not installed")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["main_multigpu.py"])
    with pytest.raises(SystemExit) as left:
        main_multigpu.main(["--completion", shell])
    said = capsys.readouterr().out
    assert left.value.code == 0
    assert "config/ucla/fast.yaml" in said
    assert "dry-run" in said


def test_a_missing_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert ensemble.main(["--completion", "bash"]) == 2
    assert capsys.readouterr().err == (
        'error: --completion needs the package shtab: pip install ".[completion]" (or shtab)\n'
    )


def test_a_bar_shows_loss_and_rate_on_a_terminal_alone(config_file, tmp_path, capfd, monkeypatch):
    path = config_file(num_epoch=1, step=[])
    assert toy_run.train(path, tmp_path / "quiet") == 0
    assert capfd.readouterr().err == ""
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(Feeder, "__getitem__", _slowly(Feeder.__getitem__))
    assert toy_run.train(path, tmp_path / "shown") == 0
    assert re.search(r"epoch 1/1: .*loss=\d+\.\d+, rate=0.05", capfd.readouterr().err)


def _slowly(read):
    def get(self, index):
        if self.train:
            import time

            time.sleep(0.005)
        return read(self, index)

    return get


def test_a_new_best_is_green_on_a_terminal_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for terminal in (False, True):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal, raising=False)
        start_logging(True, tmp_path / "log.txt").info("accuracy 3 % (best so far); 1 s")
    plain, green = capsys.readouterr().out.splitlines()
    assert plain == "accuracy 3 % (best so far); 1 s"
    assert green == "accuracy 3 % \033[32m(best so far)\033[0m; 1 s"
    assert "\033" not in (tmp_path / "log.txt").read_text()
