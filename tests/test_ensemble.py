"""The ensemble from its command line: golden numbers, joining by name, honest search."""

import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
from launch import ENVIRONMENT, command

import ensemble
from data.splits import NTU60, parse_name
from data.store import write_store
from torchlight.fusion.ensemble import fuse, search_weights
from torchlight.fusion.reading import read_scores
from torchlight.scores import write_scores

FLAGS = [
    f"--{stream}-dir{number}"
    for number in (1, 2)
    for stream in ("joint", "bone", "joint-motion", "bone-motion")
]


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, np.ndarray]:
    """Arrays of the recorded ensemble."""
    with np.load(shared / "parity" / "ensemble.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def _published(folder: Path, names: list[str], scores: np.ndarray) -> Path:
    """A work dir with a published pickle only, so without labels."""
    folder.mkdir(parents=True)
    write_scores(folder / "epoch1_test_score", names, scores, None, "")["npz"].unlink()
    return folder


def _stream(folder: Path, names: list[str], scores: np.ndarray, labels: np.ndarray) -> Path:
    """A work dir with our own score files."""
    folder.mkdir(parents=True)
    write_scores(folder / "epoch1_test_score", names, scores, labels, folder.name)
    return folder


def _data_set(path: Path, labels: np.ndarray) -> Path:
    np.savez(path, y_test=np.eye(labels.max() + 1)[labels], x_test=np.zeros(1))
    return path


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("dashes", [True, False])
def test_golden_ensemble_whatever_the_order_of_a_table(
    tmp_path: Path,
    golden: dict[str, np.ndarray],
    capsys: pytest.CaptureFixture[str],
    shuffled: bool,
    dashes: bool,
) -> None:
    """With one table's rows and names permuted together the published script changes its mind."""
    command = ["--datasets", "ntu120/xsub", "--out", str(tmp_path / "fused")]
    for i, (flag, scores) in enumerate(zip(FLAGS, golden["scores"], strict=True)):
        names = golden["names"].tolist()
        if shuffled and i == golden["shuffle_source"]:
            names = [names[j] for j in golden["shuffle_order"]]
            scores = scores[golden["shuffle_order"]]
        flag = flag if dashes else "--" + flag[2:].replace("-", "_")
        command += [flag, str(_published(tmp_path / str(i), names, scores))]
    command += ["--labels", str(_data_set(tmp_path / "data.npz", golden["labels"]))]
    assert ensemble.main(command) == 0
    printed = capsys.readouterr().out
    assert str(golden["printed"]) in printed.splitlines()
    assert "published for ntu120/xsub" in printed
    fused = read_scores(tmp_path / "fused.npz")
    assert fused.names == golden["names"].tolist()
    np.testing.assert_array_equal(fused.scores, golden["combined"])
    np.testing.assert_array_equal(fused.scores.argmax(1), golden["pred"])
    np.testing.assert_array_equal(fused.labels, golden["labels"])


def _toy(seed: int = 0, n: int = 60) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Two streams of 4 classes: the first weak, the second strong and on a larger scale."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, n)
    scores = random.standard_normal((2, n, 4)).astype(np.float32)
    scores[0, np.arange(n), labels] += 0.3
    scores[1, np.arange(n), labels] += 2.5
    scores[1] = 50 * scores[1] - 260
    return [f"s{i}" for i in range(n)], scores, labels


def test_own_score_files_bring_labels_and_any_number_of_streams(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, scores, labels = _toy()
    folders = [
        str(_stream(tmp_path / "0", names, scores[0], labels)),
        str(_stream(tmp_path / "1", names[::-1], scores[1][::-1], labels[::-1])),
    ]
    assert ensemble.main(["--scores", *folders, "--alpha", "2", "0.5"]) == 0
    printed = capsys.readouterr().out
    expected = (np.argmax(2 * scores[0] + 0.5 * scores[1], axis=1) == labels).mean()
    assert f"Top1 Acc: {100 * expected:.4f}%" in printed
    best = max((s.argmax(1) == labels).mean() for s in scores)
    assert f"gain over the best stream: {100 * (expected - best):+.2f} points" in printed
    assert ensemble.main(["--dataset", "NW-UCLA", "--bone_dir1", folders[1]]) == 0
    assert "weights: equal" in capsys.readouterr().out
    # Weights that belong to streams, not to positions.
    assert ensemble.main(["--dataset", "ntu120/xsub", "--bone-dir2", folders[0]]) == 0
    assert "  0.5000" in capsys.readouterr().out


def test_fused_scores_are_an_input_again(tmp_path: Path) -> None:
    names, scores, labels = _toy()
    folders = [str(_stream(tmp_path / str(i), names, s, labels)) for i, s in enumerate(scores)]
    out = str(tmp_path / "new" / "fused")
    assert ensemble.main(["--scores", *folders, "--out", out]) == 0
    assert ensemble.main(["--scores", out + ".pkl", folders[0]]) == 0
    before = read_scores(out).scores
    assert ensemble.main(["--scores", *folders, "--out", out]) == 2
    again = ["--scores", *folders, "--out", out, "--overwrite", "--alpha", "1", "2"]
    assert ensemble.main(again) == 0
    assert not np.array_equal(read_scores(out).scores, before)


def test_softmax_takes_scale_and_offset_away(tmp_path: Path) -> None:
    names, scores, labels = _toy()
    paths = []
    for shift in (0.0, 1000.0):
        parts = [scores[0], scores[1] + shift]
        root = tmp_path / str(shift)
        folders = [str(_stream(root / str(i), names, s, labels)) for i, s in enumerate(parts)]
        paths.append(root / "fused")
        command = ["--scores", *folders, "--normalise", "softmax", "--out", str(paths[-1])]
        assert ensemble.main(command) == 0
    fused = [read_scores(path).scores for path in paths]
    np.testing.assert_allclose(fused[0], fused[1], atol=1e-3)
    np.testing.assert_allclose(fused[0].sum(axis=1), 2.0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda n, s, y: (n[:-1], s[:-1], y[:-1]), "lacks 1 samples: s59"),
        (lambda n, s, y: (["x", *n[1:]], s, y), "lacks 1 samples: s0; has 1 others: x"),
        (lambda n, s, y: ([f"t{i}" for i in n], s, y), "lacks 60 samples: s0, s1, s10 and 57 more"),
        (lambda n, s, y: (n, s[:, :3], y.clip(max=2)), "scores of 3 classes"),
        (lambda n, s, y: (n, s, (y + 1) % 4), "labels differ"),
    ],
)
def test_tables_that_do_not_belong_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: object, said: str
) -> None:
    names, scores, labels = _toy()
    first = _stream(tmp_path / "first", names, scores[0], labels)
    second = _stream(tmp_path / "second", *change(names, scores[1], labels))  # type: ignore[operator]
    assert ensemble.main(["--scores", str(first), str(second)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "second" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--alpha", "1", "1", "1"], "3 weights for 2 streams"),
        (["--alpha", "0", "0"], "not all zero"),
        (["--alpha", "nan", "1"], "must be finite"),
        (["--alpha", "1", "1", "--search"], "not allowed with argument"),
        (["--search", "--folds", "61"], "must be 2 to 60"),
        (["--dataset", "ntu120/xsbu"], "invalid choice: 'ntu120/xsbu' (choose from 'ntu/xsub'"),
        (["--labels", "absent.npz"], "absent.npz"),
        (["--joint-dir1", "absent"], "absent"),
        (["--alpha", "1", "much"], "--alpha: invalid float value: 'much'"),
        (["--normalise", "sigmoid"], "--normalise: invalid choice: 'sigmoid'"),
        (["--joint-dri1", "x"], '--joint-dri1: unknown flag (did you mean "--joint-dir1"?)'),
    ],
)
def test_impossible_wishes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    names, scores, labels = _toy()
    folders = [str(_stream(tmp_path / str(i), names, s, labels)) for i, s in enumerate(scores)]
    assert ensemble.main(["--scores", *folders, *more]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_labels_of_published_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the names of NTU RGB+D and NW-UCLA samples; other names need --labels."""
    scores = np.eye(5, dtype=np.float32)[[1, 0]]
    for names in (["S001C001P001R001A002", "S001C001P001R001A001"],
                  ["a02_s01_e00_v03", "a01_s01_e00_v03"]):  # fmt: skip
        folder = _published(tmp_path / names[0], names, scores)
        assert ensemble.main(["--scores", str(folder)]) == 0
        assert "Top1 Acc: 100.0000%" in capsys.readouterr().out
    folder = _published(tmp_path / "test", ["test_0", "test_1"], scores)
    assert ensemble.main(["--scores", str(folder)]) == 2
    assert "say --labels FILE" in capsys.readouterr().err
    own = _stream(tmp_path / "own", ["test_1", "test_0", "test_2"], scores[[1, 0, 0]], np.arange(3))
    assert ensemble.main(["--scores", str(folder), "--labels", str(own)]) == 0
    assert "Top1 Acc: 100.0000%" in capsys.readouterr().out
    narrow = _published(tmp_path / "narrow", ["a12_s01_e00_v03"], scores[:1])
    assert ensemble.main(["--scores", str(narrow)]) == 2
    assert "label 9, but the scores are of 5 classes" in capsys.readouterr().err
    short = _data_set(tmp_path / "short.npz", np.array([1]))
    assert ensemble.main(["--scores", str(folder), "--labels", str(short)]) == 2
    assert "no label for 1 samples: test_1" in capsys.readouterr().err


def test_labels_of_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["S001C001P001R001A001", "S001C001P001R001A002"]
    ones = np.ones(2, dtype=np.int64)
    frames = np.zeros((2, 1, 1, 25, 3), np.float32)
    samples = [parse_name(name) for name in names]
    write_store(tmp_path / "ntu.h5", NTU60, samples, ones, ones, ones > 1, frames)
    folder = _published(tmp_path / "w", names[::-1], np.eye(2, dtype=np.float32)[::-1])
    labels = ["--labels", str(tmp_path / "ntu.h5")]
    assert ensemble.main(["--scores", str(folder), *labels]) == 0
    assert "Top1 Acc: 100.0000%" in capsys.readouterr().out
    (tmp_path / "ntu.h5").write_bytes(b"")
    assert ensemble.main(["--scores", str(folder), *labels]) == 2


def test_search_finds_the_strong_stream_whatever_its_scale() -> None:
    _, scores, labels = _toy(n=400)
    found = search_weights(scores, labels)
    influence = found.weights * scores.std(axis=(1, 2))
    assert influence[1] > 3 * influence[0] > 0
    assert found.fitted >= found.equal
    assert found.losses[0] < found.losses[1]
    again = search_weights(scores, labels)
    np.testing.assert_array_equal(again.weights, found.weights)
    assert again.held_out == found.held_out
    rescaled = search_weights(scores * np.array([1000, 1])[:, None, None], labels)
    np.testing.assert_allclose(
        fuse(scores * np.array([1000, 1], np.float32)[:, None, None], rescaled.weights).argmax(1),
        fuse(scores, found.weights).argmax(1),
    )


def test_held_out_accuracy_of_noise_is_not_flattering() -> None:
    """Forty random streams fit 80 random labels well, and say nothing about others."""
    random = np.random.default_rng(0)
    scores = random.standard_normal((40, 80, 4)).astype(np.float32)
    found = search_weights(scores, random.integers(0, 4, 80))
    assert found.fitted > 0.4
    assert found.held_out < 0.35


@pytest.mark.parametrize("seed", range(12))
def test_searched_weights_are_never_worse_than_equal_ones(seed: int) -> None:
    """On the samples they are fitted to, in both figures that are shown."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, 50)
    scores = random.standard_normal((3, 50, 3)).astype(np.float32)
    scores[:, np.arange(50), labels] += 0.7
    found = search_weights(scores, labels, seed=seed)

    def accuracy(weights: np.ndarray) -> float:
        return float((fuse(scores, weights).argmax(1) == labels).mean())

    assert (found.fitted, found.equal) == (accuracy(found.weights), accuracy(np.full(3, 1 / 3)))
    assert found.fitted >= found.equal
    assert found.losses[0] <= found.losses[1]


def test_equal_weights_are_kept_where_the_search_finds_worse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, scores, labels = _toy()
    worst = np.array([1.0, 0.0]), 0.0
    monkeypatch.setattr("torchlight.fusion.ensemble._fit_weights", lambda scores, labels: worst)
    found = search_weights(scores, labels)
    assert found.weights.tolist() == [0.5, 0.5]
    assert found.fitted == found.equal == found.held_out  # in each fold as well


def _pickled(path: Path, content: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return str(path)


def test_samples_without_names_are_aligned_by_their_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, scores, labels = _toy()
    names = [f"test_{i}" for i in range(len(labels))]
    listed = _pickled(tmp_path / "list.pkl", list(scores[0]))
    named = str(_published(tmp_path / "named", names[::-1], scores[1][::-1]))
    known = str(_data_set(tmp_path / "data.npz", labels))
    expected = (np.argmax(scores.sum(axis=0), axis=1) == labels).mean()
    for pair in ([listed, named], [named, listed]):
        assert ensemble.main(["--scores", *pair, "--labels", known]) == 0
        printed = capsys.readouterr().out
        assert f"Top1 Acc: {100 * expected:.4f}%" in printed
        assert "without names are aligned by their number" in printed
    other = str(_published(tmp_path / "other", [f"s{i}" for i in names], scores[1]))
    short = _pickled(tmp_path / "short.pkl", list(scores[1][1:]))
    for second, said in ((other, "list.pkl have no names"), (short, "lacks 1 samples: test_59")):
        assert ensemble.main(["--scores", listed, second, "--labels", known]) == 2
        assert said in capsys.readouterr().err


def test_labels_of_samples_without_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CTR-GCN's list of NW-UCLA counts labels from 1, but has names that tell."""
    scores = np.eye(10, dtype=np.float32)[[4, 0]]
    stream = _pickled(tmp_path / "numbers.pkl", dict(enumerate(scores)))
    assert ensemble.main(["--dataset", "NW-UCLA", "--scores", stream]) == 2
    assert "say --labels FILE" in capsys.readouterr().err
    takes = [("a05_s04_e00_v03", 5), ("a01_s01_e00_v03", 1)]
    listed = [{"file_name": name, "label": label} for name, label in takes]
    np.save(tmp_path / "labels.npy", np.array([4, 0]))
    for file in (_pickled(tmp_path / "val_label.pkl", listed), str(tmp_path / "labels.npy")):
        assert ensemble.main(["--scores", stream, "--labels", file]) == 0
        assert "Top1 Acc: 100.0000%" in capsys.readouterr().out
    np.save(tmp_path / "labels.npy", np.array([4, 0, 0]))
    assert ensemble.main(["--scores", stream, "--labels", str(tmp_path / "labels.npy")]) == 2
    assert "3 labels without names for 2 samples" in capsys.readouterr().err
    raw = ["S001C001P001R001A005.skeleton", "S001C001P001R001A001.skeleton"]
    stream = _pickled(tmp_path / "raw.pkl", dict(zip(raw, scores, strict=True)))
    assert ensemble.main(["--scores", stream]) == 0
    assert "Top1 Acc: 100.0000%" in capsys.readouterr().out


def test_flags_of_ctrgcn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names, scores, labels = _toy()
    folders = [str(_stream(tmp_path / str(i), names, s, labels)) for i, s in enumerate(scores)]
    joint, bone = ["--joint-dir", folders[0]], ["--bone-dir", folders[1]]
    for more, alpha in (([], 1.0), (["--alpha", "0.01"], 0.01)):
        line = ["--dataset", "ntu120/xsub", *joint, *bone, *more]
        assert ensemble.main(line) == 0
        expected = (np.argmax(scores[0] + np.float32(alpha) * scores[1], axis=1) == labels).mean()
        assert f"Top1 Acc: {100 * expected:.4f}%" in capsys.readouterr().out
    motion = ["--joint-motion-dir", folders[1], "--bone-motion-dir", folders[0]]
    assert ensemble.main([*joint, *bone, *motion]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split()[0] for line in lines if line.endswith(tuple(folders))]
    assert shown == ["0.6000", "0.6000", "0.4000", "0.4000"]
    assert ensemble.main([*joint, *bone, *motion, "--alpha", "1"]) == 2
    assert "1 weights for 4 streams" in capsys.readouterr().err


def test_search_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names, scores, labels = _toy()
    folders = [str(_stream(tmp_path / str(i), names, s, labels)) for i, s in enumerate(scores)]
    assert ensemble.main(["--scores", *folders, "--search", "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    found = search_weights(scores, labels, seed=3)
    assert f"search: {found.held_out:.2%} held out (5 folds)" in printed
    assert "found by --search" in printed
    assert f"{found.equal:.2%} with equal weights, cross-entropy {found.losses[1]:.4f}" in printed
    assert "the least cross-entropy of the fused scores" in printed


def test_a_reader_that_leaves_early_gets_no_traceback(tmp_path: Path) -> None:
    names, labels = [f"s{i}" for i in range(4)], np.arange(4) % 2
    stream = _stream(tmp_path / "a", names, np.eye(2)[labels], labels)
    process = subprocess.Popen(
        command("ensemble.py", "--scores", stream),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert error == ""
