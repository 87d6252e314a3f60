"""The configuration: precedence, faults, round trip, and what a YAML must not do."""

import re
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from torchlight.config import Config, bind, build
from torchlight.errors import UserError
from torchlight.flags import parse
from torchlight.layers import read_yaml
from torchlight.registry import Target

LEAST = {"feeder": "toy.Feeder", "model": "toy.Model"}


@pytest.fixture
def config_file(tmp_path):
    """Write a YAML of the least keys and those given; return its path as text."""

    def write(**values):
        path = tmp_path / "c.yaml"
        path.write_text(yaml.safe_dump({**LEAST, **values}))
        return str(path)

    return write


def test_a_flag_wins_over_the_yaml_and_the_yaml_over_the_default(config_file):
    path = config_file(base_lr=0.2, seed=5)
    config, name = parse(["--config", path, "--base-lr", "0.3"], "")
    assert (config.base_lr, config.seed, config.num_epoch, name) == (0.3, 5, 65, path)


def test_flags_take_dashes_and_underscores(config_file):
    path = config_file()
    for flag in ("--test-batch-size", "--test_batch_size"):
        assert parse(["--config", path, flag, "7"], "")[0].test_batch_size == 7


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--step", "20", "40"], "step", [20, 40]),
        (["--step"], "step", []),
        (["--step", "[1, 2]"], "step", [1, 2]),
        (["--show-topk", "1"], "show_topk", [1]),
        (["--ignore-weights", "fc", "K"], "ignore_weights", ["fc", "K"]),
        (["--ignore-weights", "fc"], "ignore_weights", ["fc"]),
        (["--device", "0", "1"], "device", [0, 1]),
        (["--device", "cpu"], "device", "cpu"),
        (["--save-score", "True"], "save_score", True),
        (["--save-score"], "save_score", True),
        (["--nesterov", "False"], "nesterov", False),
        (["--val-subjects", "1", "3"], "val_subjects", [1, 3]),
        (["--base-lr", "1e-3"], "base_lr", 1e-3),
        (["--global-batch-size", "64"], "global_batch_size", 64),
        (["--local-rank=3"], "seed", 1),
        (["--local_rank", "3"], "seed", 1),
    ],
)
def test_flags_of_every_kind(config_file, words, key, value):
    config, _ = parse(["--config", config_file(), *words], "")
    assert getattr(config, key) == value


def test_pairs_are_laid_over_the_mapping_of_the_yaml(config_file):
    path = config_file(model_args={"a": 1, "graph_args": {"b": 2, "c": 3}})
    words = ["--config", path, "--model-args", "a=x", "graph_args.b=[5]", "d=true"]
    assert parse(words, "")[0].model_args == {
        "a": "x",
        "graph_args": {"b": [5], "c": 3},
        "d": True,
    }


def test_an_exponent_without_a_dot_is_a_number(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("feeder: a.B\nmodel: a.C\nweight_decay: 4e-4\n")
    assert parse(["--config", str(path)], "")[0].weight_decay == 4e-4


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"base_lrr": 1}, ["base_lrr", 'did you mean "base_lr"']),
        ({"base_lr": -1, "phase": "tran"}, ["base_lr", "phase", "greater than 0"]),
        ({"num_epoch": "many"}, ["num_epoch", "integer", "many"]),
        ({"step": [5, 3]}, ["step", "rising"]),
        ({"phase": "test"}, ["needs weights"]),
        ({"val_fraction": 0.1, "val_subjects": [1]}, ["exclude each other"]),
        ({"compile": True, "cuda_graphs": True}, ["exclude each other", "--compile False"]),
        ({"start_epoch": 70}, ["start_epoch"]),
    ],
)
def test_all_faults_are_in_one_line_with_file_and_key(config_file, values, words):
    path = config_file(**values)
    with pytest.raises(UserError) as caught:
        parse(["--config", path], "")
    message = str(caught.value)
    assert message.startswith(path)
    assert "\n" not in message
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--base-lrr", "1"], "--base-lr"),
        (["stray"], "unexpected argument"),
        (["--model-args", "novalue"], "KEY=VALUE"),
        (["--model-args", "a={"], "^--model-args a: "),
    ],
)
def test_faulty_flags_are_named(config_file, words, expected):
    with pytest.raises(UserError, match=expected):
        parse(["--config", config_file(), *words], "")


def test_missing_config_is_named(tmp_path):
    with pytest.raises(UserError, match="--config"):
        parse([], "")
    with pytest.raises(UserError, match=r"absent\.yaml"):
        parse(["--config", str(tmp_path / "absent.yaml")], "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2\n", 'line 2: key "a" appears twice'),
        ("a: &x [1]\nb: *x\n", "line 2: aliases"),
        ("- 1\n", "mapping"),
        ("", "mapping"),
        ("[1]: 2\n", "unhashable"),
        ("a: [1\n", "line 2"),
        ("a: !!python/object/apply:os.system ['touch hacked']\n", "line 1"),
        ("a: " + "[" * 20000, "nested"),
        ('a: "D:\\data"\n', "line 1: .*single quotes"),
        ("a:\n\tb: 1\n", "line 2: .*blanks, not with tabs"),
        ("x" * (1 << 20) + "xxxx: 1\n", "too large"),
    ],
)
def test_damaged_yaml_is_refused_in_one_line(tmp_path, text, expected):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=expected) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_binary_yaml_is_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(b"a: 1\n# \xd1\xb5\xc1\xb7\n")  # a comment in GBK
    with pytest.raises(UserError, match="line 2: not UTF-8 text; save the file as UTF-8"):
        read_yaml(path)


def test_saved_configuration_gives_the_same_again(config_file, tmp_path):
    path = config_file(base_lr=0.2, step=[3, 4], model_args={"a": {"b": None}})
    config, _ = parse(["--config", path, "--amp", "bf16"], "")
    config.save(tmp_path / "saved.yaml")
    again, _ = parse(["--config", str(tmp_path / "saved.yaml")], "")
    assert again.recipe() == config.recipe()
    assert again.digest() == config.digest()


def test_keys_of_configurations_saved_by_the_published_code_are_passed_over(config_file):
    path = config_file(nprocs=4, local_rank=0, model_saved_name="x", config="c.yaml")
    config, _ = parse(["--config", path], "")
    assert config.feeder == "toy.Feeder"
    assert len(config.notes) == 4
    assert f'{path}: key "nprocs" is passed over: the launcher sets it' in config.notes


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("device: 0", "device", [0]),
        ("device: [0]", "device", [0]),
        ("device: cuda:0", "device", [0]),
        ("device: cuda:0,1", "device", [0, 1]),
        ("device: [cuda:1, cuda:0]", "device", [1, 0]),
        ("device: 0, 1", "device", [0, 1]),
        ("device: cuda", "device", "cuda"),
        ("device: GPU", "device", "cuda"),
        ("device: cpu:0", "device", "cpu"),
        ("amp: off", "amp", "off"),
        ("amp: no", "amp", "off"),
        ("amp: False", "amp", "off"),
        ("amp: None", "amp", "off"),
        ("nesterov: yes", "nesterov", True),
        ("compile: off", "compile", False),
        ("tf32: 1", "tf32", True),
        ("weights: None", "weights", None),
        ("weights: ~", "weights", None),
        ("weights: none", "weights", None),
        ("weights: null", "weights", None),
        ("weights:", "weights", None),
        ("val_fraction: None", "val_fraction", None),
        ("val_fraction: off", "val_fraction", None),
        ("work_dir: 2026-11-26", "work_dir", "2026-11-26"),
        ("work_dir: 1e5", "work_dir", "1e5"),
        ("work_dir: 007", "work_dir", "007"),
        ("work_dir: off", "work_dir", "off"),
        ("base_lr: 1E-1", "base_lr", 0.1),
        ("base_lr: '1e-1'", "base_lr", 0.1),
        ("base_lr: .5", "base_lr", 0.5),
        ("num_epoch: 1e2", "num_epoch", 100),
        ("num_epoch: 1_000", "num_epoch", 1000),
        ("step: 50", "step", [50]),
        ("step: 35, 55", "step", [35, 55]),
        ("step:", "step", []),
        ("show_topk: 1", "show_topk", [1]),
        ("ignore_weights: fc", "ignore_weights", ["fc"]),
        ("ignore_weights:", "ignore_weights", []),
        ("train_feeder_args:", "train_feeder_args", {}),
        ("loggers: CSV", "loggers", ["CSV"]),
        ("loggers: {name: a.B, days: 1e1}", "loggers", [{"name": "a.B", "days": 10.0}]),
        ("loggers: [CSV, {name: a.B, on: 007}]", "loggers", ["CSV", {"name": "a.B", "on": 7}]),
        ("loggers:", "loggers", []),
        ("model_args: {a: off, b: 1e-1, c: None, d: x, e: 'off'}", "model_args",
         {"a": False, "b": 0.1, "c": None, "d": "x", "e": "off"}),
    ],
)  # fmt: skip
def test_yaml_as_people_write_it(tmp_path, text, key, value):
    path = tmp_path / "c.yaml"
    path.write_text(f"\ufefffeeder: a.B\r\nmodel: a.C\r\n{text}\r\n", encoding="utf-8")
    found = getattr(parse(["--config", str(path)], "")[0], key)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "words",
    [["--device", "cuda:0"], ["--device", "0"], ["--device", "[0]"], ["--device=cuda:0"]],
)
def test_a_device_by_flag(config_file, words):
    assert parse(["--config", config_file(device="cpu"), *words], "")[0].device == [0]


@pytest.mark.parametrize("words", [["mps"], ["-1"], ["0", "0"], ["[]"], ["cuda:x"], ["0.5"]])
def test_a_device_that_cannot_be_is_refused(config_file, words):
    with pytest.raises(UserError, match=r"^--device: .*CUDA ind"):
        parse(["--config", config_file(), "--device", *words], "")


def test_each_process_of_a_published_launch_has_a_device_of_its_own(config_file, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    path = config_file(device=[0])
    config, _ = parse(["--config", path], "")
    assert config.device == "cuda"
    assert "a CUDA device of its own" in config.notes[0]
    assert parse(["--config", path, "--device", "0"], "")[0].device == [0]


def test_paths_are_expanded(config_file, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RUNS", "runs")
    monkeypatch.delenv("NOWHERE", raising=False)
    config_file(work_dir="~/a", weights="${HOME}/$RUNS/w.pt")
    config, name = parse(["--config", "~/c.yaml"], "")
    assert (config.work_dir, config.weights) == (f"{tmp_path}/a", f"{tmp_path}/runs/w.pt")
    assert name == f"{tmp_path}/c.yaml"
    words = ["--config", "$HOME/c.yaml", "--work-dir", "$NOWHERE/x", "--weights", "~no-user/x"]
    expected = "^--weights: .* no user .*; --work-dir: .* NOWHERE is not set"
    with pytest.raises(UserError, match=expected):
        parse(words, "")
    with pytest.raises(UserError, match=r"^--config: .* NOWHERE is not set"):
        parse(["--config", "$NOWHERE/c.yaml"], "")
    config_file(work_dir="$NOWHERE/a")
    with pytest.raises(UserError, match=r'c\.yaml: key "work_dir": .* NOWHERE is not set'):
        parse(["--config", "~/c.yaml"], "")


@pytest.mark.parametrize(
    ("values", "words", "expected"),
    [
        ({}, ["--base-lr", "abc"], "^--base-lr: input should be a valid number.*got 'abc'"),
        ({"base_lr": 1}, ["--base_lr", "-1"], "^--base-lr: input should be greater"),
        ({}, ["--step", "x"], "^--step: "),
        ({}, ["--amp", "on"], "^--amp: input should be 'off', 'bf16' or 'fp16', got 'on'"),
        ({"seed": -1}, ["--amp", "x"], 'key "seed": .*; --amp: '),
        ({"start_epoch": 9}, ["--num-epoch", "5"],
         r'key "start_epoch" 9 leaves none of --num-epoch 5; say --num-epoch 10 or more'),
        ({"val_subjects": [1]}, ["--val-fraction", "0.1"],
         r'--val-fraction 0.1 and key "val_subjects" \[1\] .* say .* --val-subjects None'),
        ({}, ["--phase", "test"], "--phase test needs weights; say --weights FILE"),
        ({}, ["--lr-schedule", "cosine"], "--lr-scheduler"),
    ],
)  # fmt: skip
def test_an_error_about_a_flag_names_the_flag(config_file, values, words, expected):
    with pytest.raises(UserError, match=expected) as caught:
        parse(["--config", config_file(**values), *words], "")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"nesterov": True}, ["--optimizer", "Adam", "--nesterov", "False"]),
        ({"start_epoch": 9}, ["--num-epoch", "10"]),
        ({"val_subjects": [1]}, ["--val-fraction", "0.1", "--val-subjects", "None"]),
        ({"val_fraction": 0.1}, ["--val-subjects", "1", "--val-fraction", "None"]),
    ],
)
def test_what_a_conflict_advises_works(config_file, values, words):
    parse(["--config", config_file(**values), *words], "")


class Own:
    """Somebody's feeder: types on some arguments only."""

    def __init__(
        self,
        p: float | list[float] = 1.0,
        mode: Literal["on", "off"] = "on",
        debug: bool = False,
        data_path: str = "",
        folders: list[Path] | None = None,
        bare=None,
        word="on",
        base: str = "toy.Feeder",
        base_args: dict[str, Any] | None = None,
    ) -> None:
        pass


def test_nested_arguments_are_what_their_types_mean(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    path = tmp_path / "c.yaml"
    path.write_text(
        "feeder: a.B\nmodel: a.C\ntest_feeder_args:\n  {p: [5e-1, 1], mode: off, debug: 'off', "
        "data_path: 2024, folders: [~/a, $HOME/b], word: off, bare: off, base_args: {pause: 1e-1}}"
    )
    targets = {"test_feeder_args": Target("a.B", Own, {})}
    config = bind(parse(["--config", str(path)], "")[0], targets, {}, ["toy"])
    assert config.test_feeder_args == {
        "p": [0.5, 1],
        "mode": "off",
        "debug": False,
        "data_path": "2024",
        "folders": ["/home/me/a", "/home/me/b"],
        "word": "off",
        "bare": False,
        "base_args": {"pause": 0.1},
    }
    words = [
        "--config",
        str(path),
        "--test-feeder-args",
        "debug=maybe",
        "folders=[$NO_SUCH]",
        "x=1",
    ]
    with pytest.raises(UserError) as caught:
        bind(parse(words, "")[0], targets, {}, ["toy"])
    assert str(caught.value).startswith("--test-feeder-args folders: '$NO_SUCH': ")
    words = ["--config", str(path), "--test-feeder-args", "debug=maybe", "x=1"]
    with pytest.raises(UserError) as caught:
        bind(parse(words, "")[0], targets, {}, ["toy"])
    assert "--test-feeder-args debug: 'maybe': " in str(caught.value)
    assert "--test-feeder-args x: a.B takes no such argument" in str(caught.value)


def test_only_what_decides_the_weights_is_recipe():
    base = build(LEAST, "test")
    assert build({**LEAST, "work_dir": "x", "num_worker": 9}, "t").digest() == base.digest()
    for key, value in {"seed": 2, "base_lr": 0.3, "amp": "bf16", "weights": "x.pt"}.items():
        assert build({**LEAST, key: value}, "t").digest() != base.digest()


def test_every_key_has_a_reader(root):
    """A key that nothing but the configuration itself mentions would be dead."""
    sources = [root / "main_multigpu.py", *(root / "torchlight").rglob("*.py")]
    text = "\n".join(path.read_text() for path in sources)
    reads = ("config.{}", 'settings["{}"]')
    dead = [k for k in Config.model_fields if not any(r.format(k) in text for r in reads)]
    assert dead == []


OWN = ("--completion", "--config", "--resume")
"""Flags that are no keys."""


def test_help_names_every_setting_once_in_words(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"], "What it does.")
    printed = capsys.readouterr().out
    flags = re.findall(r"^  (--[\w-]+)", printed, re.MULTILINE)
    assert sorted(flags) == sorted(
        [*OWN, *(f"--{name.replace('_', '-')}" for name in Config.model_fields)]
    )
    text = " ".join(printed.split())
    assert not re.search(r"Pydantic|\[\{\}\]|\[None\]|\[\]|None \[", text)
    assert "autocast precision: off, bf16, fp16 [off]" in text
    assert "dotted name of the model class (required)" in text


def test_a_flag_of_pairs_may_be_said_again(config_file):
    config, _ = parse(
        ["--config", config_file(), "--model-args", "a=1", "--model-args", "b=2", "a=3"], ""
    )
    assert {name: config.model_args[name] for name in ("a", "b")} == {"a": 3, "b": 2}
