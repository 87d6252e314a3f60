"""--phase export: files that compute what the model does, used as the command prints it."""

import contextlib
import io
import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toy
from random_models import randomised

import main_multigpu
from data.skeletons import NTU, bone_parents
from feeders.feeder_demo import Feeder
from feeders.feeder_own import BodyScale
from feeders.streams import STREAMS, fused
from feeders.transforms import (
    Centre,
    CropResize,
    EvenFrames,
    KeepRate,
    LoneTwice,
    Persons,
    RandomFrames,
    RandomRotate,
    Standardise,
    ToOrigin,
    UnitBox,
    UnitLength,
    ValidFrames,
)
from koopman_pooling import export, quantise
from koopman_pooling.clips import Feed
from koopman_pooling.in_graph import Prepared, settled
from model.classifier import Model
from torchlight.card import Card
from torchlight.checkpoint import save_weights
from torchlight.registry import as_json

CONFIG = [
    *("--config", "config/demo/koopman.yaml"),
    *("--train-feeder-args", "performers=3", "replications=1"),
    *("--test-feeder-args", "performers=3", "replications=1"),
]
PLACES = np.random.default_rng(1).random((3, 1, 25, 1)).astype(np.float32)
PREPARATIONS = [
    [Centre(joint=3), EvenFrames(window=7)],
    [UnitBox(), EvenFrames(window=8)],
    [UnitBox(per_axis=False), EvenFrames(window=1)],
    [Centre(joint=3), UnitLength(joints=[3, 7]), EvenFrames(window=9)],
    [ValidFrames(), CropResize(ratios=[0.95], window=16), Persons(count=2)],
    [CropResize(ratios=[0.5], window=40, shortest=1), Standardise(mean=PLACES, std=1 + PLACES)],
    [ValidFrames(), KeepRate(window=12)],
    [BodyScale(axes=3), CropResize(window=9)],
    [BodyScale(axes=2), EvenFrames(window=9)],
    [ToOrigin(), LoneTwice(), EvenFrames(window=9), Persons(count=2)],
]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(root, tmp_path, monkeypatch):
    (tmp_path / "config").symlink_to(root / "config")
    monkeypatch.chdir(tmp_path)


def weights(head="koopman"):
    """A small model's weights with their card, as training on the demo leaves them."""
    torch.manual_seed(0)
    sizes = {"channels": [8], "stride": [2], "num_person": 1}
    arguments = {"num_class": 8, "num_point": 25, "head": head, **sizes, "in_channels": 3}
    model = randomised(Model(**arguments, graph_args={"skeleton": "ntu"}))
    dataset = Feeder(split="test", performers=3, replications=1)
    card = Card(
        model="model.classifier.Model",
        model_name="model.classifier.Model",
        model_args=arguments,
        free_args={"graph_args": {"skeleton": "ntu"}},
        class_names=dataset.class_names,
        data=dataset.description,
        preprocessing=as_json(dataset.preprocessing),
    )
    save_weights("w.pt", model.state_dict(), card)


def run(*words, form="onnx", status=0):
    """What the command says; --phase goes last, as flags go in any order."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        words = ["--weights", "w.pt", "--format", form, *words, "--phase", "export"]
        assert main_multigpu.main(words) == status, err.getvalue()
    return out.getvalue() if status == 0 else err.getvalue()


def ragged(transforms):
    """A graph, a batch of clips of several lengths, some with frames or persons missing, and what
    a dataset makes of them."""
    random = np.random.default_rng(0)
    clips = [100 * random.normal(size=(3, t, 25, 2)).astype(np.float32) for t in (3, 30, 12, 1)]
    clips[1][:, :2] = clips[1][:, -3:] = clips[1][..., 1] = clips[1][:, :, 4] = 0
    clips.append(np.zeros((3, 5, 25, 2), np.float32))
    joints = 900 * random.choice([-1, 1], (5, 2, 30, 25, 3)).astype(np.float32)  # padding
    for place, clip in zip(joints, clips, strict=True):
        place[:, : clip.shape[1]] = clip.transpose(3, 1, 2, 0)
    prepared = [clips[0], clips[1][..., :1], *clips[2:]] if len(transforms) > 3 else clips
    for transform in transforms:
        prepared = [transform(clip, random) for clip in prepared]
    wanted = fused(np.stack(prepared), STREAMS, bone_parents(NTU))
    joints[1, 0, 9, 4, 1] = joints[2, :, 14] = np.nan  # a joint that is zero, and padding
    graph = Prepared(torch.nn.Identity(), transforms, list(STREAMS), bone_parents(NTU))
    return graph, (torch.from_numpy(joints), torch.tensor([3, 30, 12, 1, 5])), wanted


@pytest.mark.parametrize("transforms", PREPARATIONS, ids=lambda ts: type(ts[0]).__name__)
def test_preprocessing_in_the_graph_is_that_of_the_dataset(transforms):
    graph, inputs, wanted = ragged(transforms)
    np.testing.assert_allclose(graph(*inputs), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("transforms", PREPARATIONS, ids=lambda ts: type(ts[0]).__name__)
def test_preprocessing_is_exported(transforms):
    """Made with two clips, used with one and with all."""
    graph, (joints, frames), wanted = ragged(transforms)
    feed = SimpleNamespace(graph=graph, rows=[0], inputs=("joints", "frames"), outputs=("logits",))
    feed.batch = lambda rows: {"joints": joints[:2].numpy(), "frames": frames[:2].numpy()}
    for form, read in export.READERS.items():
        export._write(form, feed, {}, Path("file"))
        for rows in (slice(0, 1), slice(0, 5)):
            batch = {"joints": joints[rows].numpy(), "frames": frames[rows].numpy()}
            np.testing.assert_allclose(read("file")(batch)[0], wanted[rows], rtol=1e-5, atol=1e-5)


def test_what_is_random_is_settled_and_said():
    random = [RandomRotate(degrees=[9, 9, 9]), RandomFrames(window=8), UnitBox(),
              CropResize(ratios=[0.5, 0.9], window=6), KeepRate(window=5, shift=True)]  # fmt: skip
    kept, notes = settled(random)
    assert [type(t) for t in kept] == [EvenFrames, UnitBox, CropResize, KeepRate]
    assert [note.split()[0] for note in notes] == [
        *("RandomRotate", "RandomFrames", "CropResize", "KeepRate")
    ]
    clip = np.random.default_rng(0).normal(size=(3, 20, 25, 1))
    for transform in kept:
        np.testing.assert_array_equal(
            transform(clip, np.random.default_rng(0)), transform(clip, np.random.default_rng(1))
        )


def test_onnx_and_int8_on_clips_of_the_test_split(monkeypatch, capsys):
    """Both files are used as the command prints it."""
    monkeypatch.setattr(quantise, "SECONDS", 0.01)
    weights("koopman")
    said = run(*CONFIG, "--quantize", "int8")
    assert "on 24 of 24 clips of the test split" in said
    assert "Centre, CropResize, streams joint" in said
    assert "int8 against float32: " in said
    lines = said.partition("\n\n")[2]
    assert len(lines.splitlines()) <= 10
    for code in (lines, lines.replace("w.int8.onnx", "w.onnx")):
        exec(code, {})
        assert re.fullmatch(r"\['[a-z ]+'\]\n", capsys.readouterr().out)
    assert sorted(os.listdir()) == ["config", "w.int8.onnx", "w.json", "w.onnx", "w.pt"]


def test_torch_without_a_configuration(capsys):
    """Clips are random; batch and frames may have other sizes than the file was made with."""
    weights("average")
    said = run(form="torch")
    assert "on 12 of 12 random clips" in said
    exec(said.partition("\n\n")[2], {})
    assert re.fullmatch(r"\['[a-z ]+'\]\n", capsys.readouterr().out)
    module = torch.export.load("w.pt2").module()
    for clips, frames in ((1, 1), (5, 44)):
        joints = torch.randn(clips, 1, frames, 25, 3)
        logits, features = module(joints, torch.full((clips,), frames))
        assert logits.shape == (clips, 8)
        assert features.shape == (clips, 8, 16)
    assert "exists already" in run(form="torch", status=2)


def test_a_transform_of_ones_own_stays_outside_and_the_graph_takes_what_comes_of_all():
    def shifted(x, rng):
        return x[:, :24] + 1

    weights()
    test = Feeder(split="test", performers=3, replications=1, transforms=[shifted])
    model = Model(8, 25, 1, graph_args={"skeleton": "ntu"}, channels=[8])
    feed = Feed(model, Card(), test, None, "clips")
    assert feed.notes == ["all preprocessing, as function has no form in a graph"]
    assert feed.about()["input"] == "x float32 (clips, 3, frames, 25, 1)"
    np.testing.assert_array_equal(feed.batch([1])["x"][0], test[1][0])


def test_somebodys_dataset_and_model_and_a_file_that_computes_something_else(monkeypatch):
    torch.manual_seed(0)
    Path("toy.yaml").write_text("{feeder: toy.Feeder, model: toy.Model, test_feeder_args: {split: "
                                "test}}")  # fmt: skip
    save_weights("w.pt", randomised(toy.Model()).state_dict())
    assert "name the YAML that it was trained by: --config FILE" in run(form="torch", status=2)
    own = ("--config", "toy.yaml", "--allow-import", "toy")
    assert "x float32 (clips, 8)" in run(*own, form="torch")
    before, read = Path("w.pt2").read_bytes(), export.READERS["torch"]
    wrong = {"torch": lambda path: lambda batch: [1.001 * x for x in read(path)(batch)]}
    monkeypatch.setattr(export, "READERS", wrong)
    assert "not written, as it differs" in run(*own, "--overwrite", form="torch", status=1)
    assert Path("w.pt2").read_bytes() == before
    assert sorted(os.listdir()) == ["config", "toy.yaml", "w.pt", "w.pt2"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--quantise", "int8"], '(did you mean "--quantize"?)'),
        (["--num-epoch", "3"], "--num-epoch: without --config FILE there is no such flag"),
        ([*CONFIG, "--fromat", "onnx"], '(did you mean "--format"?)'),
        (["--quantize", "int8"], "needs --format onnx, and --config FILE"),
        (["--out", "nowhere/a.onnx"], "nowhere: no such folder"),
        (["--weights", "absent.pt"], "absent.pt"),
        (["--format", "tflite"], "invalid choice: 'tflite'"),
    ],
)
def test_mistakes_are_one_line(words, told):
    weights()
    said = run(*words, status=2)
    assert told in said
    assert said.count("\n") == 1


def test_a_missing_package_names_the_extra(monkeypatch):
    weights()
    gone = SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None))
    monkeypatch.setattr(export, "importlib", gone)
    assert 'needs onnx, onnxscript, onnxruntime: pip install ".[export]"' in run(status=2)
