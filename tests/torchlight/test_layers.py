"""A configuration laid over others: what wins, and what is wrong with a base."""

import pytest
import yaml

from torchlight.config import RESOLVED
from torchlight.errors import UserError
from torchlight.flags import parse
from torchlight.layers import read_layers
from torchlight.values import meaning

LEAST = {"feeder": "a.B", "model": "a.B"}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a YAML below a folder that is not the working directory; its path."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def file(name, **values):
        path = tmp_path / "config" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(values))
        return path

    return file


def values_of(path):
    """What a file and its bases say together."""
    return meaning(read_layers(path)[0])


def parsed(path, *words):
    """The configuration."""
    return parse(["--config", str(path), *words], "")[0]


def test_mappings_are_merged_and_the_rest_is_replaced(write):
    write("_base_/low.yaml", step=[1, 2], base_lr=0.3, model_args={"a": {"x": 1, "y": 2}, "b": 3})
    path = write(
        "set/top.yaml", base="../_base_/low.yaml", step=[5], model_args={"a": {"y": 4}, "c": 6}
    )
    assert values_of(path) == {
        "step": [5], "base_lr": 0.3, "model_args": {"a": {"x": 1, "y": 4}, "b": 3, "c": 6},
    }  # fmt: skip


def test_of_several_bases_the_last_wins_and_each_is_relative_to_its_own_file(write):
    write("_base_/ground.yaml", seed=1, num_epoch=1, batch_size=1, num_worker=1)
    write("_base_/one.yaml", base="ground.yaml", num_epoch=2, batch_size=2, num_worker=2)
    write("_base_/two.yaml", base=["ground.yaml"], batch_size=3, num_worker=3)
    path = write("set/top.yaml", base=["../_base_/one.yaml", "../_base_/two.yaml"], num_worker=4)
    # The second base is laid over the first as it is with its own base.
    assert values_of(path) == {"seed": 1, "num_epoch": 1, "batch_size": 3, "num_worker": 4}


def test_nothing_takes_a_mapping_away_and_flags_are_laid_over_all(write):
    write("low.yaml", **LEAST, model_args={"a": 1}, test_feeder_args={"b": 2})
    path = write("top.yaml", base="low.yaml", test_feeder_args=None, base_lr=0.2)
    config = parsed(path, "--model-args", "c=3", "--base-lr", "0.4")
    assert (config.model_args, config.test_feeder_args) == ({"a": 1, "c": 3}, {})
    assert config.base_lr == 0.4


def test_the_resolved_configuration_has_no_base(write, tmp_path):
    write("low.yaml", **LEAST, seed=7)
    config = parsed(write("top.yaml", base="low.yaml"))
    assert config.as_yaml().startswith(RESOLVED)
    assert "base" not in yaml.safe_load(config.as_yaml())
    (tmp_path / "saved.yaml").write_text(config.as_yaml())
    assert parsed(tmp_path / "saved.yaml").model_dump() == config.model_dump()


def test_a_link_to_itself_is_one_line(write, tmp_path):
    path = tmp_path / "loop.yaml"
    path.symlink_to(path)
    with pytest.raises(UserError, match=r"loop\.yaml: cannot be read"):
        read_layers(path)


@pytest.mark.parametrize("none", [None, []])
def test_no_base_is_none(write, none):
    assert values_of(write("top.yaml", base=none, seed=1)) == {"seed": 1}


def test_a_base_in_the_working_directory_serves_a_file_anywhere(write, tmp_path, monkeypatch):
    low = write("deep/er/low.yaml", seed=3)
    path = tmp_path / "elsewhere" / "a" / "b" / "top.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"base: {low}\n")
    with pytest.raises(UserError, match="is outside of"):
        read_layers(path)
    monkeypatch.chdir(tmp_path / "config")
    assert values_of(path) == {"seed": 3}


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("none.yaml", "/none.yaml: no such file"),
        ("sub", "/sub: no such file"),
        ("../../../outside.yaml", "is outside of "),
        ("/etc/passwd", "/etc/passwd: is outside of "),
        ("link.yaml", "link.yaml: is outside of "),
        ("loop.yaml", "loop.yaml: no such file"),
        ("x" * 300, ": no such file"),
        ("top.yaml", "top.yaml: is based on this file again, in a circle"),
        ("round.yaml", "top.yaml: is based on this file again, in a circle"),
        ([1.5], "/1.5: no such file"),
        ({"a": "b"}, "is no path, and no list of paths"),
        ([["a.yaml"]], "is no path, and no list of paths"),
        ("$NOWHERE/a.yaml", "the environment variable NOWHERE is not set"),
        ("deep0.yaml", "is more than 16 files deep"),
        ("bad.yaml", "bad.yaml: line 1: "),
    ],
)
def test_a_wrong_base_is_one_line(write, base, message, tmp_path):
    (tmp_path.parent / "outside.yaml").write_text("seed: 1")
    path = write("set/top.yaml", base=base)
    (path.parent / "sub").mkdir()
    (path.parent / "link.yaml").symlink_to("/etc/hostname")
    (path.parent / "loop.yaml").symlink_to("loop.yaml")
    (path.parent / "bad.yaml").write_text("a: b: c")
    write("set/round.yaml", base=["../set/top.yaml"])
    for number in range(20):
        write(f"set/deep{number}.yaml", base=f"deep{number + 1}.yaml")
    with pytest.raises(UserError) as caught:
        read_layers(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_name_each_other_over_and_over_are_read_once(write):
    for number in range(16):
        following = f"n{number + 1}.yaml"
        write(f"n{number}.yaml", base=[following, following, following, following])
    path = write("n16.yaml", seed=1).parent / "n0.yaml"
    assert values_of(path) == {"seed": 1}


def test_a_fault_names_the_file_that_it_is_in(write):
    low = write("low.yaml", **LEAST, base_lr=-1, spead=2, allow_import=["a"])
    top = write("top.yaml", base="low.yaml", num_epoch=0)
    with pytest.raises(UserError, match=r'low.yaml: key "allow_import": a file cannot'):
        parsed(top)
    low.write_text(low.read_text().replace("allow_import", "nprocs"))
    with pytest.raises(UserError) as caught:
        parsed(top)
    below, above = str(caught.value).split(f"; {top}: ")
    assert below.startswith(f'{low}: key "base_lr": ')
    assert 'key "spead": unknown' in below
    assert above.startswith('key "num_epoch": ')
    low.write_text(yaml.safe_dump({**LEAST, "nprocs": 3}))
    (note,) = parsed(write("top.yaml", base="low.yaml")).notes
    assert note.startswith(f'{low}: key "nprocs" is passed over')
