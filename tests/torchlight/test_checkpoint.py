"""Weights and states: whole or absent, strict, and never executed."""

import argparse
import errno
import os
import pickle
import resource
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from torchlight.checkpoint import apply_weights, load_weights, save_weights
from torchlight.errors import UserError
from torchlight.resilience.states import StateFile


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_weights_come_back_without_the_prefix(tmp_path, model):
    path = tmp_path / "w.pt"
    save_weights(path, {f"module.{k}": v for k, v in model.state_dict().items()})
    raw = torch.load(path, weights_only=True)
    assert list(raw) == list(model.state_dict())
    torch.save({f"module.{k}": v for k, v in raw.items()}, path)
    found = load_weights(path)
    assert all(torch.equal(found[k], v) for k, v in model.state_dict().items())


def test_only_a_leading_prefix_is_taken_off(tmp_path):
    save_weights(tmp_path / "w.pt", {"a.module.b": torch.ones(1)})
    assert list(load_weights(tmp_path / "w.pt")) == ["a.module.b"]


def test_the_same_weights_are_the_same_bytes(tmp_path, model):
    for name in ("a.pt", "longer_name.pt"):
        save_weights(tmp_path / name, model.state_dict())
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "longer_name.pt").read_bytes()


class Attack:
    """Unpickling this would make a file."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("writer", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o, 2))])
def test_a_checkpoint_that_would_run_something_is_refused_and_does_not(tmp_path, writer):
    path, trace = tmp_path / "w.pt", tmp_path / "trace"
    writer({"a": Attack(trace)}, path)
    with pytest.raises(UserError, match=r"refused, it would run (posix|os)\.system"):
        load_weights(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a checkpoint",
        b"PK\x03\x04 cut off",
        "list",
        "nested",
        "empty",
    ],
)
def test_what_is_no_state_dict_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "w.pt"
    objects = {"list": [1], "nested": {"model": {"a": 1.5}}, "empty": {}}
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(objects[content], path)
    with pytest.raises(UserError) as caught:
        load_weights(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


FOREIGN = {
    "lightning": lambda w: {"state_dict": w, "epoch": 3, "lr": np.float64(0.1), "n": np.int64(3)},
    "arrays": lambda w: {"model_state_dict": w, "curve": np.ones(3), "name": np.str_("x")},
    "optimizer": lambda w: {
        "net": w,
        "optimizer": {"state": {0: {"step": torch.ones(1)}}, "param_groups": [{"lr": 0.1}]},
    },
    "options": lambda w: {"model": w, "args": argparse.Namespace(lr=0.1, out="w")},
    "deeper": lambda w: {"checkpoint": {"epoch": 1, "state_dict": w}},
    "only one": lambda w: {"generator": w, "epoch": 1},
    "averaged too": lambda w: {"state_dict_ema": {k: 0 * v for k, v in w.items()}, "state_dict": w},
    "compiled": lambda w: {f"_orig_mod.{k}": v for k, v in w.items()},
    "compiled and parallel": lambda w: {f"module._orig_mod.{k}": v for k, v in w.items()},
    "compiled in part": lambda w: {k.replace("0.", "0._orig_mod."): v for k, v in w.items()},
    "backbone": lambda w: {f"backbone.{k}": v for k, v in w.items()},
    "all of it": lambda w: {"state_dict": {f"model.module.net.{k}": v for k, v in w.items()}},
    "ordered": lambda w: {"params": OrderedDict(w)},
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("archive", [True, False])
def test_checkpoints_of_other_tools_are_unwrapped(tmp_path, capsys, model, kind, archive):
    content = FOREIGN[kind]({k: v + 1 for k, v in model.state_dict().items()})
    path, before = tmp_path / "w.pt", {k: v.clone() for k, v in model.state_dict().items()}
    torch.save(content, path, _use_new_zipfile_serialization=archive)
    assert apply_weights(model, load_weights(path), "w.pt") == []
    assert all(torch.equal(v, before[k] + 1) for k, v in model.state_dict().items())
    said = capsys.readouterr().err
    inside = next(
        (k for k, v in content.items() if k != "state_dict_ema" and isinstance(v, dict)), ""
    )
    assert said.startswith("note: ") if inside or kind == "backbone" else not said
    assert inside in said


def test_what_all_keys_begin_with_stays_where_the_model_has_it(capsys):
    own = nn.Sequential(OrderedDict(backbone=nn.Linear(2, 2)))
    apply_weights(own, dict(own.state_dict()), "w.pt")
    assert not capsys.readouterr().err
    with pytest.raises(UserError, match=r"unexpected: other\.weight"):
        apply_weights(own, {"other.weight": torch.ones(2, 2)}, "w.pt")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": {"x": torch.ones(1)}, "b": {"x": torch.ones(1)}}, "several state dicts: a, b"),
        ({"x": torch.ones(1), "epoch": 3}, "entry 'epoch' is not a tensor"),
        ({"x": torch.ones(1), "module.x": torch.ones(1)}, "entries twice"),
        ({"state_dict": {"x": 1}}, "entry 'state_dict' is not a tensor"),
        ({"state_dict": {"x": torch.ones(1)}, "b": os.path.join}, "save the model's state_dict()"),
        (nn.Linear(1, 1), "save the model's state_dict()"),
    ],
)
def test_a_checkpoint_without_one_state_dict_is_refused(tmp_path, content, said):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(UserError) as caught:
        load_weights(tmp_path / "w.pt")
    assert said in str(caught.value)
    assert "w.pt" in str(caught.value)


def test_truncated_weights_are_refused(tmp_path, model):
    path = tmp_path / "w.pt"
    save_weights(path, model.state_dict())
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            load_weights(path)


@pytest.mark.parametrize("size", [2**33, 2**44, 2**62])
def test_an_old_file_that_declares_far_more_than_it_holds_is_refused(tmp_path, size):
    path = tmp_path / "old.pt"
    torch.save({"a": torch.ones(5)}, path, _use_new_zipfile_serialization=False)
    assert list(load_weights(path)) == ["a"]
    declared = b"\x8a\x08" + size.to_bytes(8, "little")
    content = path.read_bytes()
    assert content.count(b"K\x05N") == 1  # number of elements, no view
    path.write_bytes(content.replace(b"K\x05N", declared + b"N"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"old\.pt: ") as refused:
        load_weights(path)
    assert "\n" not in str(refused.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**18  # KiB


def test_loading_is_strict_and_says_what_differs(model):
    weights = dict(model.state_dict())
    weights["extra"] = weights.pop("1.bias")
    weights["0.weight"] = torch.zeros(5, 3)
    with pytest.raises(UserError) as caught:
        apply_weights(model, weights, "w.pt")
    for word in ("w.pt", "1 missing: 1.bias", "1 unexpected: extra", "(5, 3)", "(4, 3)"):
        assert word in str(caught.value)


def test_ignored_entries_stay_as_they_were_and_are_listed(model):
    before = model[0].weight.detach().clone()
    weights = {k: torch.zeros_like(v) for k, v in model.state_dict().items()}
    weights["0.weight"] = torch.zeros(9)
    assert apply_weights(model, weights, "w.pt", ["0."]) == ["0.bias", "0.weight"]
    assert torch.equal(model[0].weight, before)
    assert model[1].weight.eq(0).all()


def test_weights_that_are_not_finite_are_refused(model):
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    weights["0.bias"][1] = torch.nan
    with pytest.raises(UserError, match=r"0\.bias holds NaN"):
        apply_weights(model, weights, "w.pt")


def test_the_newest_state_is_loaded(tmp_path):
    state = StateFile(tmp_path)
    for serial in (1, 2, 3):
        state.save({"n": serial}, serial)
        assert StateFile(tmp_path).load() == ({"n": serial}, [])
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_newest_state_falls_back_to_the_one_before(tmp_path):
    state = StateFile(tmp_path)
    state.save({"n": 1}, 1)
    state.save({"n": 2}, 2)
    newest = state.slots[1]
    whole = newest.read_bytes()
    for length in range(0, len(whole), 101):
        newest.write_bytes(whole[:length])
        found, warnings = StateFile(tmp_path).load()
        assert found == {"n": 1}
        assert newest.name in warnings[0]
    flipped = bytearray(whole)
    flipped[-10] ^= 1
    newest.write_bytes(flipped)
    again = StateFile(tmp_path)
    assert again.load()[0] == {"n": 1}
    again.save({"n": 3}, 3)  # goes over the damaged one
    assert StateFile(tmp_path).load() == ({"n": 3}, [])


def test_a_state_that_cannot_be_read_is_neither_damaged_nor_passed_over(tmp_path, monkeypatch):
    file = StateFile(tmp_path)
    for serial in (1, 2):
        file.save({"step": serial}, serial)

    def refuse(path):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr("torchlight.resilience.states.open_regular", refuse)
    with pytest.raises(UserError, match="Stale file handle") as caught:
        StateFile(tmp_path).load()
    assert "--overwrite" not in str(caught.value)
    assert "damaged" not in str(caught.value)


def test_no_whole_state_is_an_error(tmp_path):
    state = StateFile(tmp_path)
    state.save({"n": 1}, 1)
    state.slots[0].write_bytes(b"junk")
    with pytest.raises(UserError, match="--overwrite"):
        StateFile(tmp_path).load()


def test_a_write_that_fails_leaves_both_generations_and_no_temporary_file(tmp_path, monkeypatch):
    state = StateFile(tmp_path)
    state.save({"n": 1}, 1)
    state.save({"n": 2}, 2)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        state.save({"n": 3}, 3)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
