"""A recogniser answers as the test of its weights does, whatever data set they are of."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig

import numpy as np
import pytest
import torch
import yaml
from small_runs import scores_of, train
from toy_ucla import write_ucla

import main_multigpu
from data.custom.__main__ import main as custom
from data.demo import perform, samples
from data.errors import DataError
from data.ucla import CLASS_NAMES, read_sequence
from feeders import feeder_ntu, feeder_own
from koopman_pooling import Prediction, Recogniser, load
from model.classifier import Model
from torchlight.card import card_path
from torchlight.checkpoint import save_weights
from torchlight.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


def clips_of(dataset):
    """The clips of a dataset as a user has them, (M, T, V, C)."""
    source = dataset.source
    return [source.clip(row).transpose(3, 1, 2, 0) for row in range(len(source.names))]


@pytest.fixture(scope="module")
def ucla(one_thread, tmp_path_factory, root):
    """A run on a made-up NW-UCLA, tested by three random looks; and its folder of files."""
    folder = tmp_path_factory.mktemp("ucla")
    write_ucla(folder / "raw", actions=(1, 2, 3), views=(1, 3), subjects=(1, 2))
    own = [f"root={folder / 'raw'}", f"cache_dir={folder}"]
    looks = ["data_path=null", "streams=[joint,bone]", "only_transforms=true", "repeat=3"]
    turn, draw = "{name: RandomRotate, degrees: [60, 60, 0]}", "{name: RandomFrames, window: 9}"
    steps = f"transforms=[{turn}, {draw}]"
    train(
        *(root / "config/ucla/koopman.yaml", folder / "w", "--amp", "bf16", "--batch-size", "2"),
        *("--global-batch-size", "2", "--train-feeder-args", *own, *looks, steps),
        *("--test-feeder-args", *own, *looks, steps, "--model-args", "num_class=10"),
    )
    return folder


def ucla_clips(folder):
    return [read_sequence(path) for path in sorted((folder / "raw").glob("*v03.json"))]


def test_scores_of_ucla_are_those_of_the_test(ucla):
    recogniser = load(ucla / "w", device="cpu")
    clips = ucla_clips(ucla)
    assert np.array_equal(recogniser.scores(clips), scores_of(ucla / "w"))
    predictions = recogniser.predict(clips)
    best = scores_of(ucla / "w").argmax(axis=1)
    assert [p.label for p in predictions] == [CLASS_NAMES[i] for i in best]
    alone = recogniser.predict(torch.as_tensor(clips[0])[None])
    assert np.array_equal(alone.scores, recogniser.predict(clips[:1])[0].scores)
    assert recogniser.predict(clips[0].tolist()).label == alone.label
    assert recogniser.predict([]) == []
    assert alone.probabilities.sum() == pytest.approx(1)
    assert alone.top(2)[0] == (alone.label, alone.probability)
    assert "raw" not in card_path(ucla / "w/best.pt").read_text()  # no path travels


def test_scores_of_ntu_are_those_of_the_test(tmp_path, root):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 9, 150)).astype("f4")
    x[2:, :, 75:] = 0  # one person alone
    x[3, 7:] = 0
    x -= np.tile(x[:, :1, 3:6], 50) * (x != 0)  # the spine at the origin
    y = np.eye(4)[np.arange(8) % 4]
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    own = [f"data_path={tmp_path / 'a.npz'}", "benchmark=null", "window_size=8"]
    train(
        *(root / "config/nturgbd-cross-subject/koopman.yaml", tmp_path / "w"),
        *("--train-feeder-args", *own, "--test-feeder-args", *own, "normalization=true"),
        *("--train-feeder-args", "normalization=true", "--global-batch-size", "4"),
    )
    recogniser = load(tmp_path / "w", device="cpu")
    clips = clips_of(feeder_ntu.Feeder(data_path=tmp_path / "a.npz", split="test"))
    expected = scores_of(tmp_path / "w")
    assert np.array_equal(recogniser.scores(clips), expected)
    moved = [clip + 3.0 * (clip != 0).any(axis=(2, 3), keepdims=True) for clip in clips]
    assert np.allclose(recogniser.scores(moved), expected, atol=1e-3)  # a sensor's coordinates


def test_scores_of_own_skeletons_are_those_of_the_test(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a/1", "a/2", "a/3", "b/1", "b/2", "b/3"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "in" / f"{name}.npy", rng.random((rng.integers(6, 30), 17, 3)) + 1)
    own = ["--from", str(tmp_path / "in"), "--layout", "coco17", "--out", str(tmp_path / "own")]
    assert custom(own) == 0
    train(tmp_path / "own.yaml", tmp_path / "w", "--batch-size", "2", "--global-batch-size", "2")
    recogniser = load(tmp_path / "w", device="cpu")
    clips = clips_of(feeder_own.Feeder(data_path=tmp_path / "own.npz", split="test"))
    assert np.array_equal(recogniser.scores(clips), scores_of(tmp_path / "w"))
    missing = clips[0].copy()
    missing[:, 0, 3] = np.nan
    zeros = np.nan_to_num(missing)
    assert np.array_equal(recogniser.scores([missing]), recogniser.scores([zeros]))


@pytest.fixture(scope="module")
def demo(one_thread, tmp_path_factory, root):
    """A run on the demo."""
    few = ["performers=3", "replications=1"]
    words = ["--train-feeder-args", *few, "--test-feeder-args", *few]
    return train(root / "config/demo/koopman.yaml", tmp_path_factory.mktemp("demo") / "w", *words)


def demo_clips():
    every = samples(actions=8, performers=3, replications=1)
    return [perform(sample, seed=0)[:, 0] for sample in every if sample.subject == 3]


def test_scores_of_the_demo_are_those_of_the_test(demo):
    recogniser = load(demo / "best.pt", device="cpu")
    clips = demo_clips()
    assert np.array_equal(recogniser.scores(clips), scores_of(demo))
    assert repr(recogniser) == "Recogniser(8 classes, skeleton ntu, cpu)"
    assert repr(recogniser.predict(clips)[0]).startswith("Prediction('")
    assert recogniser.features(clips[0]).shape == (8, 32)
    assert recogniser.features(clips[:2]).shape == (2, 8, 32)


def test_other_classes_are_matched_by_exemplars(demo):
    recogniser = load(demo, device="cpu")
    clips = demo_clips()
    matched = recogniser.match({"this": clips[0], "that": [clips[5]]})
    assert [p.label for p in matched.predict([clips[0], clips[5]])] == ["this", "that"]
    assert len(recogniser.predict(clips[0]).class_names) == 8


@pytest.mark.parametrize(
    ("clip", "told"),
    [
        (np.ones((9, 20, 3)), "float64 (9, 20, 3), expected numbers (frames, 25, 3)"),
        (np.ones((9, 25, 2)), "(9, 25, 2), expected"),
        (np.ones((0, 25, 3)), "(0, 25, 3), expected"),
        (np.full((9, 25, 3), "a"), "expected numbers"),
        (np.zeros((9, 25, 3)), "nobody in any frame"),
        (np.ones((2, 9, 25, 3)), "clips of 2 persons; the model takes 1"),
        ([[[1.0], [2.0, 3.0]]], "no array of numbers"),
    ],
)
def test_a_clip_that_does_not_fit_is_one_line(demo, clip, told):
    with pytest.raises(DataError) as caught:
        load(demo, device="cpu").predict(clip)
    assert told in str(caught.value)


def test_older_weights_are_read_by_the_yaml_beside_them(ucla, tmp_path):
    shutil.copytree(ucla / "w", tmp_path / "w")
    card = json.loads(card_path(tmp_path / "w/best.pt").read_text())
    del card["preprocessing"], card["amp"]
    card_path(tmp_path / "w/best.pt").write_text(json.dumps(card))
    shutil.move(ucla / "raw", ucla / "elsewhere")  # the data are not needed
    try:
        old = load(tmp_path / "w", device="cpu")
    finally:
        shutil.move(ucla / "elsewhere", ucla / "raw")
    assert np.array_equal(old.scores(ucla_clips(ucla)), scores_of(ucla / "w"))
    (tmp_path / "w/koopman.yaml").unlink()
    with pytest.raises(UserError, match="name the YAML"):
        load(tmp_path / "w")


@pytest.mark.parametrize(
    ("config", "persons", "points", "classes"),
    [
        ("nturgbd120-cross-subject/koopman.yaml", 2, 25, 120),
        ("nturgbd-cross-view/tune.yaml", 2, 25, 60),
        ("nturgbd120-oneshot/koopman_oneshot.yaml", 2, 25, 100),
        ("ucla/ctrgcn.yaml", 1, 20, 10),
        ("ucla-oneshot/koopman_oneshot_test.yaml", 1, 20, 6),
    ],
)
def test_published_weights_need_a_yaml_and_no_data(
    root, tmp_path, config, persons, points, classes
):
    head = "average" if "ctrgcn" in config else "koopman"
    graph = {"skeleton": "ntu" if points == 25 else "ucla"}
    small = {"channels": [8], "stride": [1]}
    model = Model(classes, points, persons, graph_args=graph, head=head, **small)
    save_weights(tmp_path / "old.pt", model.state_dict())
    recipe = tmp_path / "old.yaml"
    given = {**small, "num_class": classes}
    base = str(root / "config" / config)
    recipe.write_text(yaml.safe_dump({"base": base, "model_args": given}))
    recogniser = load(tmp_path / "old.pt", config=recipe, device="cpu")
    clip = np.random.default_rng(0).normal(size=(30, points, 3))
    prediction = recogniser.predict(clip)
    assert len(prediction.class_names) == classes
    assert (prediction.class_names == list(CLASS_NAMES)) == (classes == 10)
    assert ("pick up" in prediction.class_names) == (classes in (60, 120))
    recogniser.save_pretrained(tmp_path / "package")
    assert np.array_equal(load(tmp_path / "package").predict(clip).scores, prediction.scores)


def test_an_own_transform_travels_by_its_attributes(demo, tmp_path, root, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "class Shift:\n"
        "    def __init__(self, *, by, hidden=1):\n"
        "        self.by = by\n"
        "    def __call__(self, x, rng):\n"
        "        return x + self.by\n"
        "class Turn(Shift):\n"
        "    def __init__(self, *, by):\n"
        "        self.by = by\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    few = ["performers=3", "replications=1"]
    for name, works in (("Turn", True), ("Shift", False)):
        own = [*few, f"transforms=[{{name: mine.{name}, by: 0.5}}]"]
        work = train(
            *(root / "config/demo/koopman.yaml", tmp_path / name, "--allow-import", "mine"),
            *("--train-feeder-args", *own, "--test-feeder-args", *own),
        )
        with pytest.raises(UserError, match="mine" if works else "hidden"):
            load(work, device="cpu", allow_import=() if works else ["mine"])
        if works:
            recogniser = load(work, device="cpu", allow_import=["mine"])
            assert np.array_equal(recogniser.scores(demo_clips()), scores_of(work))


def test_a_model_of_ones_own_is_loaded_as_it_is(tmp_path, root, monkeypatch):
    (tmp_path / "network.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, channels, stride):\n"
        "        super().__init__()\n"
        "        self.top = torch.nn.Linear(75, int(torch.ones(8).sum()))\n"  # needs real numbers
        "    def forward(self, x):\n"
        "        return self.top(x.mean(dim=(2, 4)).flatten(1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    few = ["performers=3", "replications=1"]
    words = ["--train-feeder-args", *few, "--test-feeder-args", *few]
    own = ["--model", "network.Net", "--allow-import", "network"]
    work = train(root / "config/demo/koopman.yaml", tmp_path / "w", *own, *words)
    recogniser = load(work, device="cpu", allow_import=["network"])
    assert np.array_equal(recogniser.scores(demo_clips()), scores_of(work))
    assert recogniser.predict(demo_clips()[0]).label in recogniser.class_names
    with pytest.raises(UserError, match=r"best\.json: model: .*--allow-import network"):
        load(work)


FOREIGN = """
import sys
import data
from koopman_pooling import Recogniser, load
import numpy as np
import pickle
recogniser = load("nw-ucla-fast", device="cpu")
import model
clip = np.random.default_rng(0).normal(size=(40, 20, 3))
prediction = recogniser.predict(clip)
matched = recogniser.match({"a": clip, "b": clip[::-1]}).predict(clip)
again = pickle.loads(pickle.dumps(recogniser)).predict(clip)
from koopman_pooling.feeders.dataset import SkeletonDataset
assert (data.MINE, model.MINE) == (1, 2)
assert type(recogniser.reader.dataset([clip])) is SkeletonDataset
assert not {"feeders", "torchlight"} & set(sys.modules)
if __name__ == "__main__":
    print(prediction.scores.tolist() == again.scores.tolist(), matched.label)
    if sys.argv[1:] != ["spawn"]:
        sys.exit()
    from torch.utils.data import DataLoader
    spawned = {"num_workers": 1, "multiprocessing_context": "spawn"}
    print(len(list(DataLoader(recogniser.reader.dataset([clip]), batch_size=5, **spawned))))
"""


def test_the_name_collides_with_nobodys_modules(tmp_path, root):
    done = foreign(tmp_path, [tmp_path, root])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "a"]


def foreign(folder, path, *words, python=sys.executable):
    """Run the lines above beside a user's own data.py and model/."""
    (folder / "data.py").write_text("MINE = 1")
    (folder / "model").mkdir()
    (folder / "model/__init__.py").write_text("MINE = 2")
    (folder / "use.py").write_text(FOREIGN)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [python, "use.py", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_where_the_plain_names_are_ours_nothing_is_loaded_twice():
    import koopman_pooling.data.ucla as same
    import koopman_pooling.model.classifier as classifier

    from data import ucla

    assert same is ucla
    assert ucla.__spec__.name == "data.ucla"
    assert classifier.Model is Model
    assert type(load("nw-ucla-fast", device="cpu").model).__mro__[2] is Model
    assert isinstance(load("nw-ucla-fast", device="cpu"), Recogniser)
    assert Prediction.__module__ == "koopman_pooling.recogniser"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["editable", "for good"])
def test_one_install_is_enough_in_any_folder(tmp_path, root, way):
    pytest.importorskip("pip")
    copy, user, venv = tmp_path / "project", tmp_path / "user", tmp_path / "venv"
    user.mkdir()
    unwanted = shutil.ignore_patterns("work_dir", ".*", "__pycache__", "NW-UCLA", "*.h5", "build")
    shutil.copytree(root, copy, ignore=unwanted)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin/python"
    ask = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout
    with open(os.path.join(site.strip(), "dependencies.pth"), "w") as file:
        file.write(sysconfig.get_paths()["purelib"])
    install = [sys.executable, "-m", "pip", "-q", "--python", python, "install"]
    words = ["--no-deps", "--no-build-isolation", *(["-e"] if way == "editable" else []), copy]
    subprocess.run([*install, *words], check=True, capture_output=True)
    if way == "for good":
        shutil.rmtree(copy)
    done = foreign(user, [], "spawn", python=python)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "a", "2"]
    command = [python, "-m", "koopman_pooling.data.show", "--help"]
    helped = subprocess.run(command, cwd=user, capture_output=True, text=True, check=False)
    assert "--numbers" in helped.stdout, helped.stderr


@pytest.mark.slow
def test_all_of_the_real_ucla(shared, tmp_path, root):
    raw = shared / "data/NW-UCLA/all_sqe"
    words = ["--phase", "test", "--weights", "nw-ucla-fast", "--save-score", "True"]
    own = ["--num-worker", "0", "--test-feeder-args", f"root={raw}", f"cache_dir={tmp_path}"]
    config = ["--config", str(root / "config/ucla/fast.yaml"), "--work-dir", str(tmp_path / "w")]
    assert main_multigpu.main([*config, *words, *own]) == 0
    clips = [read_sequence(path) for path in sorted(raw.glob("*v03.json"))]
    assert len(clips) == 464
    assert np.array_equal(load("nw-ucla-fast").scores(clips), scores_of(tmp_path / "w"))
