"""Weights as a folder: what is in it, what it answers, and what untrusted ones may hold."""

import json
import shutil
import sys

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import torch
from huggingface_hub import ModelCard

import main_multigpu
from data.ucla import CLASS_NAMES
from koopman_pooling import Recogniser, load
from koopman_pooling.package import FILES
from torchlight.errors import UserError

CLIP = np.random.default_rng(0).normal(size=(40, 20, 3))


def package(*words):
    return main_multigpu.main(["--phase", "package", *map(str, words)])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package") / "mine"
    assert package("--weights", "nw-ucla-fast", "--out", folder) == 0
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """A package of its own for each test."""
    return shutil.copytree(written, tmp_path / "mine")


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_package_answers_as_its_weights_do(folder):
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    expected = load("nw-ucla-fast", device="cpu").scores([CLIP])
    for place in (folder, folder / "model.safetensors"):
        assert np.array_equal(load(place, device="cpu").scores([CLIP]), expected)
    config = json.loads((folder / "config.json").read_text())
    assert config["model"] == "model.classifier.Model"
    assert config["class_names"] == list(CLASS_NAMES)
    assert config["preprocessing"]["skeleton"]["name"] == "ucla"
    assert config["preprocessing"]["streams"] == ["pose", "bone", "joint_motion"]
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}


def test_the_hub_understands_its_card(folder):
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "koopman_pooling"
    assert "skeleton:ucla" in card.data.tags
    assert "93.97 %" in card.text
    assert "pick up with one hand" in card.text
    assert 'load("mine")' in card.text


def test_packaging_again_keeps_only_an_edited_readme(folder, capsys):
    (folder / "README.md").write_text("of my own")
    before = (folder / "config.json").read_bytes()
    edit(folder, class_names=None)
    assert package("--weights", "nw-ucla-fast", "--out", folder) == 0
    assert (folder / "README.md").read_text() == "of my own"
    assert (folder / "config.json").read_bytes() == before
    (folder.parent / "thesis").mkdir()
    (folder.parent / "thesis" / "README.md").write_text("years of work")
    assert package("--weights", "nw-ucla-fast", "--out", folder.parent / "thesis") == 2
    assert "other files" in capsys.readouterr().err


def test_without_a_place_it_lies_beside_the_weights(folder, tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    assert package("--weights", "nw-ucla-fast") == 0
    assert (tmp_path / "nw-ucla-fast_package" / "config.json").is_file()
    assert not (root / "model/weights/nw-ucla-fast_package").exists()
    assert package("--weights", folder) == 0
    assert (folder / "model_package" / "config.json").is_file()


def test_a_package_of_a_package_is_the_same(folder, tmp_path):
    assert package("--weights", folder, "--out", tmp_path / "again") == 0
    for name in FILES[:2]:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"library_name": "transformers"}, "of another library"),
        ({"class_names": 3}, "describes no weights"),
        ({"more": 1}, "describes no weights"),
        ({"sha256": "0"}, "checksum differs"),
        ({"model": "os.system"}, "outside of the allowed packages"),
        ({"model": "model.oneshot.Evaluator"}, "is no torch.nn"),
        (
            {"model_args": {"num_class": 10**9, "num_point": 20, "num_person": 1}},
            "numbers, and the",
        ),
        ({"preprocessing": {}}, "preprocessing"),
    ],
)
def test_what_is_wrong_with_it_is_one_line(folder, capsys, change, told):
    edit(folder, **change)
    assert package("--weights", folder, "--out", folder.parent / "new") == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (folder.parent / "new").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"transforms": [{"name": "os.system", "command": "x"}]}, "outside of the allowed"),
        ({"transforms": [{"name": "feeders.feeder_ucla.Feeder", "root": "/"}]}, "no transform"),
        ({"transforms": [{"name": "feeders.transforms.one_of"}]}, "no class"),
        ({"transforms": [{"name": "feeders.transforms.Persons", "count": 10**9}]}, "beyond"),
        ({"transforms": [{"name": "feeders.transforms.Persons"}]}, "needs it"),
        ({"transforms": [{"window": 3}]}, "neither a name"),
        ({"streams": ["sound"]}, "streams"),
        ({"repeat": 10**6}, "repeat"),
        ({"channels": "x" * 10**4}, "channels"),
        ({"skeleton": {"name": "x", "num_point": 2, "bones": [[0, 9]], "center": 0}}, "preproc"),
    ],
)
def test_untrusted_preprocessing_is_bounded(folder, change, told):
    config = json.loads((folder / "config.json").read_text())
    edit(folder, preprocessing=config["preprocessing"] | change)
    with pytest.raises((UserError, ValueError), match=told) as caught:
        load(folder, device="cpu").predict(CLIP)
    assert "\n" not in str(caught.value)


def test_damaged_files_are_one_line(folder, capsys):
    whole = (folder / "model.safetensors").read_bytes()
    for content in (whole[:1000], b"", b"\xff" * 64):
        (folder / "model.safetensors").write_bytes(content)
        edit(folder, sha256=__import__("hashlib").sha256(content).hexdigest())
        assert package("--weights", folder, "--out", folder.parent / "new") == 2
        assert "model.safetensors: damaged" in capsys.readouterr().err
    (folder / "model.safetensors").unlink()
    assert package("--weights", folder, "--out", folder.parent / "new") == 2
    assert "model.safetensors: No such file" in capsys.readouterr().err
    (folder / "config.json").unlink()
    assert package("--weights", folder, "--out", folder.parent / "new") == 2
    assert "neither weights" in capsys.readouterr().err
    assert package("--weights", folder.parent / "no.pt", "--out", folder.parent / "new") == 2
    assert "no such weights file" in capsys.readouterr().err


def test_the_hub_brings_and_takes_packages(folder, monkeypatch):
    asked, sent = [], []

    def snapshot(name, **options):
        asked.append((name, options))
        return str(folder)

    class Api:
        def __init__(self, token=None):
            self.token = token

        def create_repo(self, repo_id, **options):
            return type("Url", (), {"repo_id": repo_id})

        def upload_folder(self, *, folder_path, repo_id, **options):
            sent.append((repo_id, sorted(p.name for p in folder_path.iterdir())))
            return "https://hub/commit"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    recogniser = Recogniser.from_pretrained("me/mine", revision="v1", device="cpu")
    assert asked == [("me/mine", {"allow_patterns": list(FILES), "revision": "v1"})]
    assert Recogniser.from_pretrained(folder, device="cpu").class_names == list(CLASS_NAMES)
    assert recogniser.push_to_hub("me/new", private=True) == "https://hub/commit"
    assert sent == [("me/new", sorted(FILES))]


def test_without_the_hub_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert load(folder, device="cpu").predict(CLIP)
    for call in (Recogniser.from_pretrained, load(folder, device="cpu").push_to_hub):
        with pytest.raises(UserError, match=r'pip install "\.\[hub\]"'):
            call("me/mine")


def test_an_unknown_name_on_the_hub_is_one_line(monkeypatch):
    def absent(name, **options):
        raise OSError("404: no such repository")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", absent)
    with pytest.raises(UserError, match="me/none: 404"):
        Recogniser.from_pretrained("me/none")
