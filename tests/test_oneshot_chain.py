"""NTU RGB+D 120 one-shot on made-up recordings, from raw files, by the command lines themselves."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from launch import run

from data.preparation import command as ntu_cli
from data.splits import EXEMPLARS, NOVEL_ACTIONS, NTU120
from data.store import Store
from feeders.sources import open_ntu

pytestmark = pytest.mark.slow

AUXILIARY = (2, 3, 62, 63)
PERFORMERS = 3
CONFIG = "config/nturgbd120-oneshot/koopman_oneshot.yaml"
TEST_CONFIG = "config/nturgbd120-oneshot/koopman_oneshot_test.yaml"
SMALL = ["--model-args", f"num_class={len(AUXILIARY)}", "channels=[8, 16]"]


@pytest.fixture(scope="module")
def folder(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``raw`` recordings of 24 actions and the ``store`` made of them."""
    made = tmp_path_factory.mktemp("chain")
    actions = map(str, sorted((*NOVEL_ACTIONS, *AUXILIARY)))
    words = ["--performers", str(PERFORMERS), "--cameras", "1", "--replications", "1"]
    generate = ["-m", "data.demo", "--out", made / "raw", "--exemplars", *words]
    _python(root, *generate, "--action-ids", *actions)
    scripts, source = root / "data" / "ntu120", made / "raw"
    for name in ("get_raw_skes_data", "get_raw_denoised_data", "seq_transformation"):
        _python(scripts, f"{name}.py", "--input", source, "--output", made / name)
        source = made / name
    return made


def _python(where: Path, *words: object) -> None:
    subprocess.run(
        [sys.executable, *map(str, words)], cwd=where, check=True, capture_output=True, timeout=300
    )


def _store(folder: Path) -> Path:
    return folder / "seq_transformation" / "NTU120.h5"


def _from(path: Path, *more: str) -> list[str]:
    """Words that lead a feeder to a file; a published one has no benchmarks."""
    plain = ["base_args.benchmark=null"] if path.suffix == ".npz" else []
    return [f"base_args.data_path={path}", *plain, *more]


def _train(folder: Path, work: Path, train: list[str], test: list[str]) -> Path:
    """Train for an epoch; return the weights."""
    short = ["--num-epoch", "1", "--batch-size", "4", "--global-batch-size", "4"]
    words = ["--config", CONFIG, *SMALL, *short, "--num-worker", "0", "--work-dir", str(work)]
    words += ["--train-feeder-args", *train, "--test-feeder-args", *test, "--device", "cpu"]
    done = run("main_multigpu.py", *words)
    assert done.returncode == 0, done.stderr
    assert f"{PERFORMERS * len(AUXILIARY)} training samples" in done.stdout + done.stderr
    assert f"({PERFORMERS * len(NOVEL_ACTIONS)} samples)" in done.stdout + done.stderr
    return work / "best.pt"


def _test(weights: Path, work: Path, test: list[str], processes: int = 1) -> dict[str, list[str]]:
    """Match; return the distances of each query, as they were written."""
    words = ["--config", TEST_CONFIG, *SMALL, "--weights", str(weights), "--work-dir", str(work)]
    words += ["--test-feeder-args", *test, "--test-batch-size", "7", "--device", "cpu"]
    launcher = "plain" if processes == 1 else "torchrun"
    done = run("test_oneshot.py", *words, processes=processes, launcher=launcher)
    assert done.returncode == 0, done.stderr
    with (work / "oneshot_distances.csv").open(newline="") as file:
        return {row[0]: row[1:] for row in csv.reader(file)}


def _published(folder: Path) -> tuple[Path, list[str]]:
    """A file in the published form, auxiliary and novel samples, and the names of the novel."""
    arrays: dict[str, np.ndarray] = {}
    names: dict[str, list[str]] = {"train": [], "test": []}
    store = _store(folder)
    for part, splits in (("train", ["train"]), ("test", ["exemplar", "test"])):
        frames = []
        for split in splits:
            source = open_ntu(store, "oneshot", split, in_memory=False)
            for row, name in enumerate(source.names):
                clip = source.clip(row).transpose(1, 3, 2, 0)
                padded = np.zeros((source.max_frames, 2, 25, 3), np.float32)
                padded[: len(clip), : clip.shape[1]] = clip
                frames.append(padded.reshape(len(padded), -1))
                names[part].append(name)
        arrays[f"x_{part}"] = np.stack(frames)
        arrays[f"y_{part}"] = np.eye(120)[[int(name[-3:]) - 1 for name in names[part]]]
    path = folder / "one_shot_train_NTU120.npz"
    np.savez(path, **arrays)
    return path, names["test"]


def test_the_split_is_the_protocols(folder: Path) -> None:
    store = Store(_store(folder))
    parts = {
        split: {store.names[row] for row in store.split("oneshot", split)}
        for split in ("train", "exemplar", "test")
    }
    assert parts["exemplar"] == EXEMPLARS
    assert {int(name[-3:]) for name in parts["train"]} == set(AUXILIARY)
    assert {int(name[-3:]) for name in parts["test"]} == set(NOVEL_ACTIONS)


def test_from_raw_files_and_from_a_published_file_with_one_and_two_processes(
    folder: Path, tmp_path: Path
) -> None:
    stored = _from(_store(folder))
    weights = _train(folder, tmp_path / "work", stored, stored)
    one = _test(weights, tmp_path / "one", stored)
    two = _test(weights, tmp_path / "two", stored, processes=2)
    assert one == two
    assert len(one) == 1 + PERFORMERS * len(NOVEL_ACTIONS)

    path, names = _published(folder)
    train = _from(path, "pool=[train]")
    exemplars = [f"test_{i}" for i, name in enumerate(names) if name in EXEMPLARS]
    test = _from(path, "pool=[test]", f"exemplars=[{', '.join(exemplars)}]")
    trained = _train(folder, tmp_path / "published", train, test)
    assert trained.exists()
    again = _test(weights, tmp_path / "npz", test)
    assert {names[int(key[5:])]: row for key, row in again.items() if key != "sample"} == {
        key: row for key, row in one.items() if key != "sample"
    }


def test_a_missing_exemplar_is_named(folder: Path, tmp_path: Path) -> None:
    missing = "S018C003P008R001A067"
    skipped = tmp_path / "skip.txt"
    skipped.write_text(f"{missing}\n")
    read, denoised, store = tmp_path / "read", tmp_path / "denoised", tmp_path / "store"
    words = ["--input", str(folder / "raw"), "--output", str(read), "--skip-list", str(skipped)]
    assert ntu_cli.read(NTU120.name, words) == 0
    words = ["--input", str(read), "--output", str(denoised)]
    assert ntu_cli.choose_actors(NTU120.name, words) == 0
    words = ["--input", str(denoised), "--output", str(store)]
    assert ntu_cli.transform(NTU120.name, words) == 0
    words = ["--config", CONFIG, *SMALL, "--work-dir", str(tmp_path / "work"), "--device", "cpu"]
    lead = _from(store / "NTU120.h5")
    done = run(
        "main_multigpu.py", *words, "--train-feeder-args", *lead, "--test-feeder-args", *lead
    )
    assert done.returncode == 2
    assert done.stderr == f"error: one-shot: the exemplar {missing} is missing from the data set\n"
