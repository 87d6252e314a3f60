"""Each wing can be deleted: in a copy of the tree, everything but its own feature still works."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from launch import ROOT

KEPT = ("*.py", "torchlight", "model", "feeders", "data", "config")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "NW-UCLA", "nturgbd_raw", "*.egg-info")
TWO_EPOCHS = [
    *("--work-dir", "w", "--num-worker", "0", "--num-epoch", "2", "--step", "1"),
    *("--warm-up-epoch", "0", "--device", "cpu", "--model-args", "channels=[8,16]", "stride=[1,1]"),
]
SHORT = [
    *("--config", "config/demo/koopman.yaml", *TWO_EPOCHS),
    *("--train-feeder-args", "performers=3", "replications=1"),
    *("--test-feeder-args", "performers=3", "replications=1"),
]
NOT_INSTALLED = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
"""
"""A wing that is deleted here must not be found where torchlight is installed from, editable."""


@pytest.fixture(scope="module")
def without(root, tmp_path_factory):
    """A function that makes a copy of the tree less some folders, with something to run there."""

    def copy(*wings):
        tree = tmp_path_factory.mktemp("tree")
        for pattern in KEPT:
            for path in root.glob(pattern):
                if path.is_dir():
                    shutil.copytree(path, tree / path.name, ignore=LEFT_OUT)
                else:
                    shutil.copy(path, tree)
        for wing in wings:
            shutil.rmtree(tree / wing)
        (tree / "sitecustomize.py").write_text(NOT_INSTALLED)

        def run(*words):
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)}
            return subprocess.run(
                [sys.executable, *words],
                cwd=tree,
                env=environment,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )

        return tree, run

    return copy


def test_without_the_engine_the_preparation_and_the_fusion(without):
    """Training, testing, normalising and a prepared data set do without either wing; testing
    writes score files without the one that reads them."""
    tree, run = without(
        "model/cpu", "data/preparation", "torchlight/checks", "data/custom", "data/show"
    )
    trained = run("main_multigpu.py", *SHORT, "--save-score", "True")
    assert trained.returncode == 0, trained.stderr
    normalised = run("eigen_normalization.py", "--load-path", "w/best.pt", "--rank", "4",
                     "--save-path", "w/n.pt")  # fmt: skip
    assert normalised.returncode == 0, normalised.stderr
    fused = run("ensemble.py", "--scores", "w")
    assert fused.returncode == 0, fused.stderr
    np.savez(tree / "a.npz", x_train=np.ones((4, 9, 150), "f4"), y_train=np.eye(4))
    read = "from feeders.feeder_ntu import Feeder; print(Feeder(data_path='a.npz')[0][0].shape)"
    assert "(3, 64, 25, 2)" in run("-c", read).stdout

    shutil.rmtree(tree / "torchlight" / "fusion")
    tested = run("main_multigpu.py", *SHORT, "--save-score", "True", "--phase", "test",
                 "--weights", "w/best.pt", "--work-dir", "scored")  # fmt: skip
    assert tested.returncode == 0, tested.stderr
    assert {"epoch1_test_score.npz", "epoch1_test_score.pkl"} <= set(os.listdir(tree / "scored"))
    assert "torchlight.fusion" in run("ensemble.py", "--scores", "scored").stderr
    predicted = run("main_multigpu.py", "--phase", "predict", "--weights", "w/best.pt")
    assert "--phase predict: the wing koopman_pooling" in predicted.stderr
    assert (predicted.returncode, predicted.stderr.count("\n")) == (2, 1)


def test_without_the_demo(without):
    """A data set of one's own is trained on; the demo alone is missed."""
    tree, run = without("data/demo")
    recordings = np.random.default_rng(0).normal(size=(2, 4, 9, 150)).astype("f4")
    np.savez(tree / "a.npz", x_train=recordings[0], y_train=np.eye(4), x_test=recordings[1],
             y_test=np.eye(4))  # fmt: skip
    own = ["data_path=a.npz", "benchmark=null", "window_size=8"]
    words = ["--config", "config/nturgbd-cross-subject/koopman.yaml", *TWO_EPOCHS]
    words += ["--train-feeder-args", *own, "--test-feeder-args", *own, "--global-batch-size", "4"]
    trained = run("main_multigpu.py", *words)
    assert trained.returncode == 0, trained.stderr
    missed = run("main_multigpu.py", *SHORT)
    assert missed.returncode == 2
    assert "data.demo" in missed.stderr
    assert missed.stderr.count("\n") == 1


def test_without_resilience_reports_and_measures(without):
    """Training, testing and plain saving of weights do without these wings."""
    wings = ("resilience", "reports", "measures", "comforts")
    tree, run = without(*(f"torchlight/{wing}" for wing in wings))
    trained = run("main_multigpu.py", *SHORT)
    assert trained.returncode == 0, trained.stderr
    found = {path.name for path in (tree / "w").iterdir()}
    assert {"best.pt", "best.json", "koopman.yaml", "log.txt", "runs"} <= found
    assert not {"best_test_confusion.png", "resume.0.state"} & found
    tested = run("main_multigpu.py", "--config", "w/koopman.yaml", "--work-dir", "t",
                 "--phase", "test", "--save-score", "True", "--weights", "w/best.pt")  # fmt: skip
    assert tested.returncode == 0, tested.stderr
    assert "top-1" in tested.stdout
    assert (tree / "t" / "epoch1_test_score.npz").exists()
    again = run("main_multigpu.py", *SHORT)
    assert again.returncode == 2
    assert "holds weights (best.pt)" in again.stderr
    assert run("test_oneshot.py", "--help").returncode == 0
    measured = run("main_multigpu.py", *SHORT, "--dry-run")
    assert measured.returncode == 2
    assert measured.stderr == "error: --dry-run: the wing torchlight.measures was taken out\n"
    listed = run("main_multigpu.py", "--config", "list")
    assert listed.returncode == 2
    assert "the wing torchlight.comforts was taken out" in listed.stderr
    shutil.copytree(ROOT / "koopman_pooling", tree / "koopman_pooling")  # which draws and compares
    trained = run("main_multigpu.py", *SHORT, "--work-dir", "with")
    assert trained.returncode == 0, trained.stderr
    several = run("main_multigpu.py", *SHORT, "--seeds", "1", "2")
    assert "the wing torchlight.reports.past was taken out" in several.stderr
    assert (several.returncode, several.stderr.count("\n")) == (2, 1)


def test_own_skeletons_without_the_wing_that_made_them(without):
    """What ``data.custom`` wrote is read without it; and it does without the preparation."""
    tree, run = without("data/preparation")
    for name in ("a/1", "a/2", "b/1", "b/2"):
        (tree / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tree / "in" / f"{name}.npy", np.random.default_rng(len(name)).random((9, 17, 3)))
    made = run("-m", "data.custom", "--from", "in", "--layout", "coco17", "--out", "own")
    assert made.returncode == 0, made.stderr
    shutil.rmtree(tree / "data/custom")
    shown = run("-m", "data.show", "own.npz", "--sample", "a/1", "--out", "a.png")
    assert shown.returncode == 0, shown.stderr
    shutil.rmtree(tree / "data/show")
    read = "from feeders.feeder_own import Feeder; print(Feeder(data_path='own.npz')[0][0].shape)"
    assert "(3, 64, 17, 1)" in run("-c", read).stdout


def test_a_missing_preparation_is_named(without):
    """Only its own feature is gone."""
    tree, run = without("data/preparation")
    gone = run(str(tree / "data/ntu/get_raw_skes_data.py"), "--help")
    assert gone.returncode != 0
    assert "data.preparation" in gone.stderr
