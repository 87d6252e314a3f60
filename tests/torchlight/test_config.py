"""The configuration: precedence, faults, round trip, and what a YAML must not do."""

import pytest
import yaml

from torchlight.config import Config, build, parse, read_yaml
from torchlight.errors import UserError

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
    assert (config.base_lr, config.seed, config.num_epoch, name) == (0.3, 5, 65, "c.yaml")


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
        ({"nesterov": True, "optimizer": "Adam"}, ["nesterov"]),
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
        (["stray"], "belongs to no flag"),
        (["--model-args", "novalue"], "KEY=VALUE"),
        (["--model-args", "a={"], "model_args"),
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
        ("1: 2\n", "mapping"),
        ("a: [1\n", "line 2"),
        ("a: !!python/object/apply:os.system ['touch hacked']\n", "line 1"),
        ("a: " + "[" * 20000, "nested"),
        ("a: 2024-13-45\n", "month"),
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
    path.write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(UserError, match="UTF-8"):
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
    assert parse(["--config", path], "")[0].feeder == "toy.Feeder"


def test_only_what_decides_the_weights_is_recipe():
    base = build(LEAST, "test")
    assert build({**LEAST, "work_dir": "x", "num_worker": 9}, "t").digest() == base.digest()
    for key, value in {"seed": 2, "base_lr": 0.3, "amp": "bf16", "weights": "x.pt"}.items():
        assert build({**LEAST, key: value}, "t").digest() != base.digest()


def test_every_key_has_a_reader(root):
    """A key that nothing but the configuration itself mentions would be dead."""
    sources = [root / "main_multigpu.py", *(root / "torchlight").glob("*.py")]
    text = "\n".join(path.read_text() for path in sources)
    dead = [key for key in Config.model_fields if f"config.{key}" not in text]
    assert dead == []
