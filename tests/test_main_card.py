"""Weights say what they are, and every command that takes them listens."""

import copy
import shutil

import pytest
import yaml

import eigen_normalization
import ensemble
import main_multigpu
import test_oneshot as oneshot
from torchlight.card import card_path, read_card, sha256_of

pytestmark = pytest.mark.usefixtures("one_thread")

DEMO = {"performers": 4, "replications": 1, "window_size": 12}
CONFIG = {
    "feeder": "feeders.feeder_demo.Feeder",
    "train_feeder_args": {"split": "train", **DEMO},
    "test_feeder_args": {"split": "test", **DEMO},
    "model": "model.Koopman_pooling.Model",
    "model_args": {
        "num_class": 8,
        "num_point": 25,
        "num_person": 1,
        "graph": "graph.ntu_rgb_d.Graph",
        "channels": [40],
    },
    "num_epoch": 1,
    "eval_interval": 1,
    "num_worker": 0,
    "device": "cpu",
    "base_lr": 0.01,
    "save_score": True,
}
BONE = ["--train-feeder-args", "bone=True", "--test-feeder-args", "bone=True"]


@pytest.fixture(scope="module")
def runs(one_thread, tmp_path_factory):
    """A folder with a configuration, and a run of joints and one of bones by it."""
    folder = tmp_path_factory.mktemp("card")
    (folder / "demo.yaml").write_text(yaml.safe_dump(CONFIG))
    narrow = ["--model-args", "channels=[48]"]
    assert command(folder, folder / "joint") == 0
    assert command(folder, folder / "bone", *BONE, *narrow) == 0
    return folder


def command(folder, work, *words):
    """The training command, in this process."""
    return main_multigpu.main(
        ["--config", str(folder / "demo.yaml"), "--work-dir", str(work), *map(str, words)]
    )


def test_weights(folder, work, weights, *words):
    """The training command's other phase."""
    return command(folder, work, "--phase", "test", "--weights", weights, *words)


test_weights.__test__ = False


def test_each_file_of_weights_has_a_card_of_its_own(runs):
    files = sorted((runs / "bone").glob("*.pt"))
    assert len(files) == 2
    for file in files:
        card, notes = read_card(file)
        assert notes == []
        assert card.sha256 == sha256_of(file)
        assert card.model == "model.classifier.Model"
        assert card.model_args["channels"] == [48]
        assert card.model_args["head"] == "koopman"
        assert card.data["streams"] == ["bone"]
        assert (card.data["skeleton"], card.data["window"]) == ("ntu", 12)
        assert len(card.class_names) == 8
        facts = card.training
        assert (facts["epoch"], facts["recipe"], facts["frozen"]) == (1, "demo.yaml", [])
        assert facts["accuracy_on"] == "test"


def test_weights_are_tested_without_repeating_the_model(runs, tmp_path, capsys):
    same = ["--test-feeder-args", "bone=True"]
    assert test_weights(runs, tmp_path, runs / "bone" / "best.pt", *same) == 0
    assert "note: model_args.channels: 48, not 40" in (tmp_path / "log.txt").read_text()
    kept = yaml.safe_load((tmp_path / "demo.yaml").read_text())
    assert kept["model_args"]["channels"] == [48]


def test_another_stream_is_refused_and_the_advice_works(runs, tmp_path, capsys):
    weights = runs / "bone" / "best.pt"
    assert test_weights(runs, tmp_path / "w", weights) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "streams bone, not joint; say --test-feeder-args bone=True vel=False," in error
    assert not (tmp_path / "w").exists()
    advice = ["--test-feeder-args", "bone=True", "vel=False"]
    assert test_weights(runs, tmp_path / "w", weights, *advice) == 0
    assert test_weights(runs, tmp_path / "v", weights, "--ignore-card") == 2
    assert "weights of another model" in capsys.readouterr().err  # nothing is taken over either
    own = ["--ignore-card", "--model-args", "channels=[48]"]
    assert test_weights(runs, tmp_path / "v", weights, *own) == 0
    assert "ignore_card" not in (tmp_path / "v" / "demo.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["window_size=16"], "window 12, not 16; say --test-feeder-args window_size=12"),
        (["vel=True"], "streams joint, not joint_motion"),
        (["vel=True", "window_size=16"], "joint_motion; window 12, not 16"),
        (["actions=6"], "classes "),
    ],
)
def test_whatever_else_must_agree_is_compared(runs, tmp_path, capsys, words, expected):
    more = ["--test-feeder-args", *words]
    assert test_weights(runs, tmp_path / "w", runs / "joint" / "best.pt", *more) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["bone=True", "window_size=16", "actions=6"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_training_and_testing_on_different_data_is_a_fault(runs, tmp_path, capsys, part, flag):
    assert command(runs, tmp_path / "w", f"--{part}-feeder-args", flag) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "train_feeder_args and test_feeder_args do not go together" in error
    if flag == "bone=True":
        other = "test" if part == "train" else "train"
        assert f"--{other}-feeder-args bone=True vel=False" in error
    assert not (tmp_path / "w").exists()


def test_a_held_out_part_is_described_too(runs, tmp_path, capsys):
    words = ["--val-fraction", "0.2", "--train-feeder-args", "bone=True"]
    assert command(runs, tmp_path / "w", *words) == 2
    assert "do not go together" in capsys.readouterr().err


def test_a_flag_that_contradicts_the_weights_is_refused(runs, tmp_path, capsys):
    words = ["--model-args", "stride=[2]"]
    assert test_weights(runs, tmp_path / "w", runs / "joint" / "best.pt", *words) == 2
    error = capsys.readouterr().err
    assert "leave --model-args stride out" in error
    more = [*words, "--ignore-card"]
    assert test_weights(runs, tmp_path / "w", runs / "joint" / "best.pt", *more) == 0


def test_another_head_is_refused_and_a_name_for_it_works(runs, tmp_path, capsys):
    words = ["--model", "model.ctrgcn_origin.Model"]
    weights = runs / "joint" / "best.pt"
    assert test_weights(runs, tmp_path / "w", weights, *words) == 2
    assert "say --model model.Koopman_pooling.Model" in capsys.readouterr().err


def test_what_weights_leave_free_is_the_configurations(runs, tmp_path):
    words = ["--model-args", "recompute=True", "return_features=True"]
    assert test_weights(runs, tmp_path / "w", runs / "joint" / "best.pt", *words) == 0


def test_arguments_that_a_configuration_leaves_out_come_from_the_weights(runs, tmp_path):
    bare = {**CONFIG, "model_args": {}}
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(bare))
    assert test_weights(tmp_path, tmp_path / "w", runs / "joint" / "best.pt") == 0


def test_the_second_stage_and_normalisation(runs, tmp_path, capsys):
    source, normal = runs / "bone" / "best.pt", tmp_path / "normal.pt"
    words = ["--load-path", str(source), "--save-path", str(normal)]
    assert eigen_normalization.main(words) == 0
    assert "note" not in capsys.readouterr().out
    card, _ = read_card(normal)
    assert card.normalised == {"K": {"rank": 32, "power": 0.25, "split_pairs": False}}
    assert card.data["streams"] == ["bone"]

    again = ["--load-path", str(normal), "--save-path", str(tmp_path / "twice.pt")]
    assert eigen_normalization.main(again) == 2
    assert "normalised already (rank 32, power 0.25" in capsys.readouterr().err
    assert not (tmp_path / "twice.pt").exists()
    assert eigen_normalization.main([*again, "--overwrite"]) == 2
    assert eigen_normalization.main([*again, "--ignore-card"]) == 0

    stage_two = ["--weights", normal, "--model", "model.Koopman_pooling_tune.Model"]
    assert command(runs, tmp_path / "tune", *stage_two) == 2
    flags = "--train-feeder-args bone=True vel=False --test-feeder-args bone=True vel=False"
    assert flags in capsys.readouterr().err
    assert command(runs, tmp_path / "tune", *stage_two, *flags.split()) == 0
    tuned, _ = read_card(tmp_path / "tune" / "best.pt")
    assert tuned.normalised == card.normalised  # for they were frozen
    assert tuned.training["frozen"] == ["K"]
    assert tuned.training["weights_sha256"] == card.sha256
    trained_on = ["--weights", normal, *flags.split()]
    assert command(runs, tmp_path / "free", *trained_on) == 0
    assert read_card(tmp_path / "free" / "best.pt")[0].normalised == {}


def test_weights_without_a_card_work_as_before_with_a_note(runs, tmp_path, capsys):
    bare = tmp_path / "runs-1-2.pt"
    shutil.copy(runs / "joint" / "best.pt", bare)
    assert test_weights(runs, tmp_path / "w", bare, "--test-feeder-args", "bone=True") == 0
    log = (tmp_path / "w" / "log.txt").read_text()
    assert log.count("note: ") == 1
    assert "runs-1-2.pt has no card (runs-1-2.json)" in log
    words = ["--load-path", str(bare), "--save-path", str(tmp_path / "n.pt")]
    assert eigen_normalization.main(words) == 0
    assert "has no card" in capsys.readouterr().out
    words = ["--load-path", str(tmp_path / "n.pt"), "--save-path", str(tmp_path / "nn.pt")]
    assert eigen_normalization.main(words) == 2  # that it is normalised is known nevertheless


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "the checksum differs"),
        (b"not JSON", "is no card of weights"),
        (b'{"accuracy": 0.5}', "is no card of weights"),
        (b"[" * 100_000, "is no card of weights"),
        (b'{"format": 2}', "is no card of weights"),
        (b" " * (2 << 20), "cannot be read"),
    ],
)
def test_a_card_that_is_not_of_these_weights_is_said_and_passed_over(
    runs, tmp_path, content, expected
):
    weights = tmp_path / "best.pt"
    shutil.copy(runs / "joint" / "best.pt", weights)
    other = (runs / "bone" / "best.json").read_bytes()
    card_path(weights).write_bytes(other if content is None else content)
    assert test_weights(runs, tmp_path / "w", weights) == 0
    assert expected in (tmp_path / "w" / "log.txt").read_text()


def test_scores_say_whose_they_are_and_an_ensemble_listens(runs, tmp_path, capsys):
    scores = {}
    for name, weights, words in (
        ("joint", "joint/best.pt", []),
        ("again", "joint/best.pt", ["--model-args", "recompute=True"]),
        ("bone", "bone/best.pt", ["--test-feeder-args", "bone=True"]),
    ):
        assert test_weights(runs, tmp_path / name, runs / weights, *words) == 0
        scores[name] = str(tmp_path / name)
    assert command(runs, tmp_path / "seed", "--seed", "2") == 0
    scores["seed"] = str(tmp_path / "seed")
    capsys.readouterr()
    assert ensemble.main(["--scores", scores["joint"], scores["bone"]]) == 0
    assert capsys.readouterr().err == ""
    assert ensemble.main(["--joint-dir1", scores["joint"], "--bone-dir1", scores["again"]]) == 0
    error = capsys.readouterr().err
    assert f"Koopman joint {scores['joint']} and Koopman bone {scores['again']} have the" in error
    assert ensemble.main(["--scores", scores["joint"], scores["seed"], scores["bone"]]) == 0
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "the same stream of the same model" in error


def test_a_run_that_is_overwritten_takes_its_cards_along(runs, tmp_path):
    assert command(runs, tmp_path / "w") == 0
    assert command(runs, tmp_path / "w", "--num-epoch", "2", *BONE, "--overwrite") == 0
    for card in (tmp_path / "w").glob("*.json"):
        assert read_card(card.with_suffix(".pt"))[0].data["streams"] == ["bone"]
        assert card.with_suffix(".pt").exists()


def test_one_shot_takes_the_model_and_refuses_other_data(tmp_path, capsys):
    base = {
        "base": "feeders.feeder_demo.Feeder",
        "base_args": dict(DEMO),
        "novel_classes": [0, 3, 6],
    }
    config = copy.deepcopy(CONFIG) | {
        "feeder": "feeders.oneshot.Feeder",
        "train_feeder_args": {"split": "train", **copy.deepcopy(base)},
        "test_feeder_args": {"split": "test", **copy.deepcopy(base)},
        "evaluator": "model.oneshot.Evaluator",
        "save_score": False,
    }
    config["model_args"]["num_class"] = 5
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(config))
    assert command(tmp_path, tmp_path / "train", "--model-args", "channels=[48]") == 0
    weights = tmp_path / "train" / "best.pt"
    words = ["--config", str(tmp_path / "demo.yaml"), "--weights", str(weights)]
    words += ["--work-dir", str(tmp_path / "test")]
    capsys.readouterr()
    assert oneshot.main(words) == 0
    assert "note: model_args.channels: 48, not 40" in capsys.readouterr().out
    for flag, expected in (
        ("base_args.bone=True", "say --test-feeder-args base_args.bone=False base_args.vel=False,"),
        ("novel_classes=[1, 2, 3]", "novel_classes 0, 6, not 1, 2"),
    ):
        assert oneshot.main([*words, "--test-feeder-args", flag]) == 2
        assert expected in capsys.readouterr().err
    # Classes differ by purpose: weights of all classes may be used as well.
    assert main_multigpu.main([*words[:2], "--phase", "test", *words[2:]]) == 0
