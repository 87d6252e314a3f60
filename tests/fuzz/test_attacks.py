"""Files that would run a command if they were trusted: nothing runs, and one line says why.

Every attack would leave a file called ``executed``; every test looks for it.
"""

import hashlib
import io
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import toy
import yaml
from toy_run import ALLOW

import eigen_normalization
import ensemble
import main_multigpu
import test_oneshot as oneshot
from data.errors import DataError
from data.labels import labels_of_data_set
from data.npz import open_array
from feeders import oneshot as oneshot_feeder
from torchlight.checkpoint import save_weights
from torchlight.resilience.states import StateFile

TRAIN = {"feeder": "toy.Feeder", "model": "toy.Model", "num_worker": 0, "device": "cpu"}
TEST = {**TRAIN, "phase": "test", "test_feeder_args": {"split": "test"}}
DEMO = {
    "feeder": "feeders.oneshot.Feeder",
    "test_feeder_args": {
        "split": "test",
        "base": "feeders.feeder_demo.Feeder",
        "base_args": {"performers": 4, "replications": 1, "window_size": 12},
        "novel_classes": [0, 3, 6],
    },
    "model": "model.Koopman_pooling.Model",
    "model_args": {
        "num_class": 5,
        "num_point": 25,
        "num_person": 1,
        "graph": "graph.ntu_rgb_d.Graph",
        "channels": [8, 16],
    },
    "device": "cpu",
    "num_worker": 0,
}


class Call:
    """Unpickled without a guard, this runs a command."""

    def __init__(self, function=os.system, *arguments):
        self.call = (function, arguments or ("touch executed",))

    def __reduce__(self):
        return self.call


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Where an attack would leave its trace; looked at after each test."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not list(tmp_path.rglob("executed")), "an attack ran"


@pytest.fixture
def refused(capsys):
    """Run a command; it must end with status 2 and one line, which is returned."""

    def run(main, *line):
        capsys.readouterr()
        assert main([str(word) for word in line]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert error.rstrip("\n").isprintable()
        return error

    return run


def _yaml(path, content):
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def _zip_with_pickle(path, content):
    """A ``torch.save`` archive, its pickle replaced."""
    torch.save({"a": torch.ones(1)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, pickle.dumps(content, 2) if name.endswith("data.pkl") else data)


WRITERS = {
    "zip": torch.save,
    "legacy": lambda o, p: torch.save(o, p, _use_new_zipfile_serialization=False),
    "pickle": lambda o, p: Path(p).write_bytes(pickle.dumps(o, 2)),
    "record": lambda o, p: _zip_with_pickle(p, o),
}
PAYLOADS = {
    "value": {"a": Call()},
    "bare": Call(),
    "nested": {"a": [({"b": Call()},)]},
    "key": {("a", Call()): 1},
    "exec": {"a": Call(exec, "open('executed', 'w').close()")},
}


def test_these_attacks_work_where_nothing_guards(tmp_path):
    """Otherwise the tests below would prove nothing."""
    path = tmp_path / "proof" / "w.pt"
    path.parent.mkdir()
    torch.save(PAYLOADS["nested"], path)
    with open(os.devnull):
        torch.load(path, weights_only=False)
    assert (tmp_path / "executed").exists()
    (tmp_path / "executed").unlink()


@pytest.mark.parametrize(
    ("writer", "payload"),
    [*((writer, "value") for writer in WRITERS), *(("zip", payload) for payload in PAYLOADS)],
)
def test_checkpoints_run_nothing(tmp_path, refused, writer, payload):
    evil = tmp_path / "evil.pt"
    WRITERS[writer](PAYLOADS[payload], evil)
    config = _yaml(tmp_path / "toy.yaml", TEST)
    line = [*ALLOW, "--config", config, "--work-dir", tmp_path / "w", "--weights", evil]
    assert "evil.pt" in refused(main_multigpu.main, *line)
    assert not (tmp_path / "w").exists()
    line = ["--load-path", evil, "--save-path", tmp_path / "out.pt"]
    assert "evil.pt" in refused(eigen_normalization.main, *line)
    assert not (tmp_path / "out.pt").exists()


def test_checkpoints_run_nothing_in_one_shot(tmp_path, refused):
    torch.save(PAYLOADS["value"], tmp_path / "evil.pt")
    config = _yaml(tmp_path / "demo.yaml", DEMO)
    line = ["--config", config, "--weights", tmp_path / "evil.pt", "--work-dir", tmp_path / "w"]
    assert "evil.pt" in refused(oneshot.main, *line)


def _trained(folder):
    """A work dir whose run has ended, and the line that resumes from it."""
    config = _yaml(
        folder / "toy.yaml", {**TRAIN, "base_lr": 0.05, "test_feeder_args": {"split": "test"}}
    )
    line = [*ALLOW, "--config", config, "--work-dir", folder / "w", "--num-epoch"]
    assert main_multigpu.main([str(word) for word in [*line, 1]]) == 0
    return folder / "w", line


def _sealed(payload):
    """A state file whose check sum fits."""
    body = (2**40).to_bytes(8, "big") + payload
    return b"TLSTATE1" + hashlib.sha256(body).digest() + body


def test_a_planted_state_runs_nothing(tmp_path, refused):
    work, line = _trained(tmp_path)
    out = io.BytesIO()
    torch.save({"recipe": Call(), "model": Call()}, out)
    for slot in StateFile(work).slots:
        slot.write_bytes(_sealed(out.getvalue()))
    assert "resume.0.state" in refused(main_multigpu.main, *line, 2)


def test_a_planted_state_is_passed_over_where_an_older_one_is_whole(tmp_path):
    work, line = _trained(tmp_path)
    out = io.BytesIO()
    torch.save({"recipe": Call()}, out)
    states = sorted(work.glob("resume.*.state"))
    shutil.copy(states[0], work / "resume.1.state")
    (work / "resume.0.state").write_bytes(_sealed(out.getvalue()))
    assert main_multigpu.main([str(word) for word in [*line, 2]]) == 0
    assert "it would run" in (work / "log.txt").read_text()


@pytest.mark.parametrize("content", [{}, {"recipe": 1}, {"counters": {"epoch": "x"}}])
def test_a_state_of_another_form_is_refused(tmp_path, refused, content):
    work, line = _trained(tmp_path)
    whole, _ = StateFile(work).load()
    out = io.BytesIO()
    torch.save({**whole, **content} if content else {}, out)
    for slot in StateFile(work).slots:
        slot.write_bytes(_sealed(out.getvalue()))
    assert "resume.0.state" in refused(main_multigpu.main, *line, 2)


def test_a_planted_best_runs_nothing(tmp_path, refused):
    work, line = _trained(tmp_path)
    torch.save(PAYLOADS["value"], work / "best.pt")
    assert "best.pt" in refused(main_multigpu.main, *line, 1)


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_score_pickles_run_nothing(tmp_path, refused, payload, protocol):
    evil = tmp_path / "epoch1_test_score.pkl"
    evil.write_bytes(pickle.dumps(PAYLOADS[payload], protocol))
    assert evil.name in refused(ensemble.main, "--scores", tmp_path)
    assert evil.name in refused(ensemble.main, "--scores", tmp_path, "--labels", evil)


def test_arrays_of_objects_run_nothing(tmp_path, refused):
    evil = tmp_path / "epoch1_test_score.npz"
    objects = np.array([Call(), Call()], dtype=object)
    np.savez(evil, names=objects, scores=objects, y_test=objects, x_test=objects)
    assert evil.name in refused(ensemble.main, "--scores", evil)
    with pytest.raises(DataError, match=evil.name):
        labels_of_data_set(evil)
    with pytest.raises(DataError, match=evil.name):
        open_array(evil, "x_test")


@pytest.mark.parametrize(
    "text",
    [
        "feeder: !!python/object/apply:os.system ['touch executed']",
        "feeder: !!python/object/new:os.system ['touch executed']",
        "feeder: !!python/name:os.system",
        "feeder: !!python/module:os",
        "model_args: !!python/object/apply:subprocess.Popen [['touch', 'executed']]",
        "? !!python/object/apply:os.system ['touch executed']\n: 1",
        "feeder: &a [*a]",
        "feeder: __import__('os').system('touch executed')",
    ],
)
@pytest.mark.parametrize("main", [main_multigpu.main, oneshot.main])
def test_yaml_tags_run_nothing(tmp_path, refused, text, main):
    config = _yaml(tmp_path / "evil.yaml", text)
    assert "evil.yaml" in refused(main, "--config", config, "--weights", "w.pt")


EVIL_NAMES = [
    "os.system",
    "subprocess.Popen",
    "builtins.exec",
    "feeders.feeder_ucla.os",
    "feeders.feeder_ucla.os.system",
    "feeders.feeder_ntu.Path",
    "feeders.oneshot.importlib",
    "model.graph.importlib.import_module",
    "torch.load",
    "evil.Evil",
]


KEYS = ["model", "graph", "base"]


@pytest.fixture
def evil_module(tmp_path, monkeypatch):
    """A module that runs something when it is imported."""
    body = "open('executed', 'w').close()\nclass Evil: pass\n"
    (tmp_path / "evil.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("evil_module")
@pytest.mark.parametrize(
    ("main", "key", "name"),
    [
        *((main_multigpu.main, "feeder", name) for name in EVIL_NAMES),
        *(
            (main_multigpu.main, key, name)
            for key in [*KEYS, "evaluator"]
            for name in EVIL_NAMES[1::3]
        ),
        *((oneshot.main, key, name) for key in KEYS for name in EVIL_NAMES[1::3]),
    ],
)
def test_dotted_names_lead_into_allowed_packages_only(tmp_path, refused, main, key, name):
    arguments = {"args": "touch executed", "shell": True}
    content = {**DEMO, "phase": "test", "work_dir": str(tmp_path / "w")}
    if key == "graph":
        content["model_args"] = {**DEMO["model_args"], "graph": name, "graph_args": arguments}
    elif key == "base":
        own = {**DEMO["test_feeder_args"], "base": name, "base_args": arguments}
        content["test_feeder_args"] = own
    else:
        content[key] = name
        args_key = {"feeder": "test_feeder_args"}.get(key, f"{key}_args")
        content[args_key] = arguments
    save_weights(tmp_path / "w.pt", {"a": torch.ones(1)})
    config = _yaml(tmp_path / "evil.yaml", content)
    error = refused(main, "--config", config, "--weights", tmp_path / "w.pt")
    assert key in error


@pytest.mark.usefixtures("evil_module")
def test_a_file_cannot_let_its_own_names_in(tmp_path, refused):
    content = {**TRAIN, "feeder": "evil.Evil", "allow_import": ["evil", "os", "subprocess"]}
    error = refused(main_multigpu.main, "--config", _yaml(tmp_path / "evil.yaml", content))
    assert "evil.yaml" in error
    assert "--allow-import" in error


def test_what_the_user_allows_is_not_written_where_it_allows_the_next_run(tmp_path, refused):
    work, _ = _trained(tmp_path)
    saved = work / "toy.yaml"
    assert "allow_import" not in saved.read_text()
    assert "--allow-import toy" in refused(main_multigpu.main, "--config", saved)


@pytest.mark.parametrize("name", ["feeders.oneshot.Feeder", "feeders.dataset.SkeletonDataset"])
def test_a_base_that_reads_no_data_is_refused(name):
    with pytest.raises(DataError, match="reads no data set"):
        oneshot_feeder.Feeder(split="train", novel_classes=[0], base=name)


@pytest.mark.parametrize("name", ["../../escape", "/etc/passwd", "..", "a/../../b"])
def test_sample_names_are_never_paths(tmp_path, name, capsys):
    """A score file may name its samples as it likes; nothing is written but the files asked for."""
    source, target = tmp_path / "in", tmp_path / "deep" / "out"
    source.mkdir()
    names = np.array([name, "b"])
    np.savez(source / "epoch1_test_score.npz", names=names, scores=np.eye(2, dtype="f4"),
             labels=np.arange(2))  # fmt: skip
    before = set(tmp_path.rglob("*"))
    line = ["--scores", str(source), "--out", str(target / "fused")]
    assert ensemble.main(line) == 0
    made = {path.relative_to(tmp_path).as_posix() for path in set(tmp_path.rglob("*")) - before}
    assert made == {"deep", "deep/out", "deep/out/fused.npz", "deep/out/fused.pkl"}


def test_reports_of_a_feeder_with_paths_for_names_stay_in_the_work_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(toy.Feeder, "__init__", _with_paths_for_names(toy.Feeder.__init__))
    _trained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"toy.yaml", "w"}
    assert not (tmp_path / "escape_0").exists()


def _with_paths_for_names(init):
    def changed(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.sample_names = [f"../escape_{i}" for i in range(len(self.sample_names))]

    return changed
