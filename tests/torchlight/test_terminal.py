"""What a mistyped word meant, wherever a name is given; and colours on terminals alone."""

import io

import pytest
import toy_run
from launch import ROOT

import eigen_normalization
import ensemble
import main_multigpu
import test_oneshot
from data.custom.__main__ import main as custom
from data.demo.__main__ import main as demo
from data.show.__main__ import main as show
from torchlight.terminal import GREEN, Parser, nearest, painted, suggested

DEMO = ["--config", "config/demo/koopman.yaml"]
ONESHOT = ["--config", "config/ucla-oneshot/koopman_oneshot_test.yaml"]
OTHER = ["--weights", "model/weights/nw-ucla-fast.pt", "--ignore-card"]


@pytest.mark.parametrize(
    ("main", "words", "meant"),
    [
        (main_multigpu.main, [*DEMO, "--lr", "1"], "--base-lr"),
        (main_multigpu.main, [*DEMO, "--num-epochs=3"], "--num-epoch"),
        (main_multigpu.main, [*DEMO, "--workdir", "x", "y"], "--work-dir"),
        (main_multigpu.main, [*DEMO, "--phase", "sumary"], "summary"),
        (main_multigpu.main, ["--config", "config/ucla/fsat.yaml"], "config/ucla/fast.yaml"),
        (main_multigpu.main, ["--config", "fast.yml"], "config/ucla/fast.yaml"),
        (main_multigpu.main, ["--config", "config/ulca/tune.yaml"], "config/ucla/tune.yaml"),
        (main_multigpu.main, [*DEMO, "--weights", "nw-ucla-fst"], "nw-ucla-fast"),
        (main_multigpu.main, [*DEMO, "--optimizer", "adamw"], "AdamW"),
        (main_multigpu.main, [*DEMO, "--amp", "bf61"], "bf16"),
        (main_multigpu.main, [*DEMO, "--model", "model.clasifier.Model"], "model.classifier.Model"),
        (main_multigpu.main, [*DEMO, "--feeder", "demo"], "feeders.feeder_demo.Feeder"),
        (
            main_multigpu.main,
            [*DEMO, "--feeder", "feeder.feeder_demo.Feeder"],
            "feeders.feeder_demo.Feeder",
        ),
        (main_multigpu.main, [*DEMO, "--test-feeder-args", "split=tset"], "test"),
        (main_multigpu.main, ["--phase", "pakage"], "package"),
        (main_multigpu.main, ["--phase", "package", "--weights", "nw-ucla-fst"], "nw-ucla-fast"),
        (test_oneshot.main, [*ONESHOT, "--weights", "x.pt", "--match", "cosin"], "cosine"),
        (test_oneshot.main, [*ONESHOT, "--weights", "nw-ucla"], "nw-ucla-fast"),
        (
            test_oneshot.main,
            [*ONESHOT, *OTHER, "--test-feeder-args", "base=feeders.feeder_ulca.Feeder"],
            "feeders.feeder_ucla.Feeder",
        ),
        (
            eigen_normalization.main,
            ["--load-path", "nw-ucla-fst", "--save-path", "x.pt"],
            "nw-ucla-fast",
        ),
        (ensemble.main, ["--dataset", "ntu120/xsbu", "--scores", "x"], "ntu120/xsub"),
        (ensemble.main, ["--datset", "NW-UCLA"], "--dataset"),
        (custom, ["--form", "x"], "--from"),
        (demo, ["--perfomers", "3"], "--performers"),
        (show, ["x.npz", "--sampel", "3"], "--sample"),
    ],
)
def test_what_was_meant_is_said_in_one_line(main, words, meant, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    try:
        status = main(words)
    except SystemExit as left:
        status = left.code
    told = capsys.readouterr().err
    assert status == 2
    assert f'(did you mean "{meant}"?)' in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1


def test_weights_that_are_gone_are_looked_for_beside(config_file, tmp_path, capsys):
    (tmp_path / "best.pt").touch()
    words = ["--weights", str(tmp_path / "bets.pt"), "--overwrite"]
    assert toy_run.train(config_file(), tmp_path / "w", *words) == 2
    assert 'bets.pt: no such weights file (did you mean "best.pt"?)' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "meant"),
    [
        ("head 'kopman' is not one of ['koopman', 'average']", "koopman"),
        ("'joint-motion' is not one of joint, bone, joint_motion", "joint_motion"),
        ("'bone-motion' is not one of 'bone', 'bone motion'", "bone motion"),
        ("'dmdd': input should be 'dmd', 'l2' or 'cosine'", "dmd"),
        ("'frist' is neither a list nor one of ('first', 'ntu')", "first"),
        ("a: 'x' is not one of b; c: input should be 'stop' or 'skip', got 'sotp'", "stop"),
    ],
)
def test_any_message_that_lists_choices_says_which_was_meant(message, meant):
    assert suggested(message) == f'{message} (did you mean "{meant}"?)'
    assert suggested(suggested(message)) == suggested(message)


@pytest.mark.parametrize("message", ["it is not one of ours", "input should be a list, got 'a'"])
def test_other_messages_stay(message):
    assert suggested(message) == message


def test_what_is_far_from_all_is_not_guessed():
    assert nearest("xyzzy", ["base_lr", "num_epoch"]) == ""
    assert nearest("lr", ["num_epoch"], {"lr": "base_lr"}) == ""


def test_unknown_flags_go_before_missing_ones(capsys):
    parser = Parser()
    parser.add_argument("--needed", required=True)
    with pytest.raises(SystemExit):
        parser.parse_args(["--neded", "1"])
    assert capsys.readouterr().err == (
        'error: --neded: unknown flag (did you mean "--needed"?) (--help lists the flags)\n'
    )


class _Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("variable", "value", "coloured"),
    [("TERM", "xterm", True), ("NO_COLOR", "1", False), ("TERM", "dumb", False)],
)
def test_colours_are_for_terminals(variable, value, coloured, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(variable, value)
    assert painted("best", GREEN, io.StringIO()) == "best"
    assert painted("best", GREEN, _Screen()) == ("\033[32mbest\033[0m" if coloured else "best")
