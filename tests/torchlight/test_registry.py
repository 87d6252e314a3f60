"""Dotted names: found, refused with the reason, and bound before anything is built."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
import toy

from torchlight.errors import UserError
from torchlight.registry import Target, binding_faults, resolve

ALIASES = {"old.Name": ("toy.Model", {"num_class": 3})}


def test_an_alias_brings_its_arguments_and_the_user_wins():
    target = resolve("model", "old.Name", ALIASES, ["toy"])
    assert target.cls is toy.Model
    assert target.build({}).num_class == 3
    assert target.build({"num_class": 4}).num_class == 4


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "not a dotted name"),
        ("Model", "not a dotted name"),
        (".toy.Model", "not a dotted name"),
        ("toy..Model", "not a dotted name"),
        ("os.system", "--allow-import os"),
        ("toy.inner.Model", "No module named"),
        ("toy.Modle", 'did you mean "Model"'),
        ("toy.np", "no class"),
        ("toy.Tensor", "defined in torch"),
        ("old.Nam", "allow-import old"),
    ],
)
def test_a_bad_name_is_refused_with_the_reason(name, expected):
    with pytest.raises(UserError, match=expected):
        resolve("model", name, ALIASES, ["toy"])


def test_nothing_outside_the_allowed_packages_is_even_imported(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')\nclass A: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError):
        resolve("model", "evil.A", {}, ["toy"])
    assert not (tmp_path / "trace").exists()
    resolve("model", "evil.A", {}, ["evil"])
    assert (tmp_path / "trace").exists()


def test_binding_names_unknown_and_missing_arguments():
    target = resolve("model", "toy.Model", {}, ["toy"])
    assert binding_faults("model_args", target, {"num_class": 3}) == []
    (fault,) = binding_faults("model_args", target, {"num_clas": 3})
    assert "model_args.num_clas" in fault
    assert 'did you mean "num_class"' in fault


def test_binding_names_a_missing_argument():
    class Needs:
        def __init__(self, a, b=1):
            pass

    target = resolve("model", "old.Name", ALIASES, ["toy"])
    target = type(target)("x.Needs", Needs, {})
    assert binding_faults("model_args", target, {}) == ["model_args.a: x.Needs needs it"]


class Like(Protocol):
    """A type that an object has without knowing."""

    def __len__(self) -> int: ...


class Typed:
    """Takes a value of each kind that configurations have to do with."""

    def __init__(
        self,
        count: int = 1,
        rate: float = 0.5,
        flag: bool = False,
        sizes: Sequence[int] = (),
        pair: tuple[int, int] = (1, 2),
        path: str | Path = "",
        options: dict[str, Any] | None = None,
        like: Like | None = None,
        free: Any = None,
        bare=None,
    ):
        pass


@pytest.mark.parametrize(
    "given",
    [
        {"count": 3, "rate": 1, "flag": True, "sizes": [1, 2], "pair": [1, 2], "path": "a/b"},
        {"path": Path("a"), "options": {"a": [1]}, "free": object(), "bare": object(), "like": [1]},
        {"options": None, "rate": float("inf")},
    ],
)
def test_values_of_the_right_type_are_taken(given):
    assert binding_faults("args", Target("x.Typed", Typed, {}), given) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", "3"),
        ("count", 1.5),
        ("count", True),
        ("rate", "0.1"),
        ("flag", "maybe"),
        ("flag", 1),
        ("sizes", 3),
        ("sizes", [1, "x"]),
        ("pair", [1]),
        ("path", [1]),
        ("options", "a=1"),
    ],
)
def test_a_value_of_another_type_is_named(name, value):
    (fault,) = binding_faults("args", Target("x.Typed", Typed, {}), {name: value})
    assert fault.startswith(f"args.{name}: {value!r}: ")
    assert "\n" not in fault
