"""The page of a run: whole, safe, and never in the way of the run itself."""

import re

import numpy as np
import pytest
import yaml
from html_page import checked
from toy_run import train, without_pictures

from torchlight.config import RESOLVED
from torchlight.reports import page, tables
from torchlight.reports.past import read_run
from torchlight.workdir import ARTEFACTS


def test_a_training_ends_with_its_page(config_file, tmp_path, capsys):
    base = config_file("base.yaml")
    top = tmp_path / "top.yaml"
    top.write_text(yaml.safe_dump({"base": "base.yaml", "base_lr": 0.04}))
    assert base
    assert train(str(top), tmp_path / "w", "--weight-decay", "0.002") == 0
    assert re.search(r"page: report.html \(\d+\.\d s\)", capsys.readouterr().out)
    found = checked(tmp_path / "w" / "report.html")
    run = read_run(tmp_path / "w")
    for one in run.evaluations.values():
        assert f"{100 * one.accuracy:.2f} %" in found.text
    assert "The test split chose the best epoch" in found.text
    assert "What differs from its base, base.yaml" in found.text
    told = found.text[found.text.index("What differs") : found.text.index("All of it")]
    assert "base_lr0.050.04" in told
    assert "weight_decay0.00010.002" in told
    assert "momentum" not in told
    assert "batch_size" not in told  # the base says the same
    assert "machine" in found.text
    assert "python main_multigpu.py --allow-import toy --config" in found.text
    assert "Principal components of the scores of 33 samples of the last epoch" in found.text
    assert "What is missing" not in found.text
    known = {path for pattern in ARTEFACTS for path in (tmp_path / "w").glob(pattern)}
    others = {path.name for path in (tmp_path / "w").iterdir() if path not in known}
    assert others == {"top.yaml", ".lock", "runs"}  # --overwrite deletes all else


def test_held_out_samples_choose_what_is_shown(config_file, tmp_path):
    assert train(config_file(val_fraction=0.2), tmp_path / "w") == 0
    found = checked(tmp_path / "w" / "report.html")
    assert "of the best epoch" in found.text
    assert "a part of training held out" in found.text
    assert "The test split chose" not in found.text


def test_a_test_has_a_page_of_its_own(config_file, tmp_path):
    path = config_file()
    assert train(path, tmp_path / "w") == 0
    weights = str(tmp_path / "w" / "best.pt")
    assert train(path, tmp_path / "t", "--phase", "test", "--weights", weights) == 0
    found = checked(tmp_path / "t" / "report.html")
    assert f"test of {weights}" in found.text
    assert "Curves" not in found.text
    assert "missing" not in found.text
    assert train(path, tmp_path / "w", "--phase", "test", "--weights", weights) == 0
    found = checked(tmp_path / "w" / "report.html")  # beside the training's, the later is shown
    assert "of the test" in found.text
    assert "Curves" in found.text


def test_no_run_fails_by_its_page(config_file, tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("no ink")

    monkeypatch.setattr(page, "_whole", broken)
    assert train(config_file(), tmp_path / "w") == 0
    assert "warning: no page (RuntimeError: no ink)" in capsys.readouterr().out
    assert not (tmp_path / "w" / "report.html").exists()


HOSTILE = ["<script>alert(1)</script>", 'a"b\'c & <b>', "two\nlines", "$x^2$ and $", "立つ",
           "e" * 200,            "\u202etxt", "</svg></section>", "{}", ""]  # fmt: skip


def hostile(folder, classes):
    """A work dir that somebody else has written."""
    folder.mkdir()
    labels = np.arange(60) % len(classes)
    scores = np.random.default_rng(0).normal(size=(60, len(classes))).astype(np.float32)
    names = [f"<img src=x onerror=y>{i}" for i in range(60)]
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        tables.write_report(folder, "last_test", scores, labels, names, classes)
    rows = [[n, classes[t], classes[p]] for n, t, p in zip(names, labels, scores.argmax(1),
                                                           strict=True)]  # fmt: skip
    page.write_embedding(folder, "last_test", scores, rows)
    settings = {"model": "<i>m</i>", "feeder": "f", "model_args": {"<u>": "<s>"}, "seed": 1}
    (folder / "a.yaml").write_text(RESOLVED + yaml.safe_dump(settings))
    (folder / "log.txt").write_text(
        "[x] command: a.py --config '<b>.yaml' </pre>\n[x] machine: <script>\n"
        "[x] epoch 1/2: rate x, loss nan accuracy inf %; 1.0 s, 3 samples/s in training\n"
    )


def test_what_files_hold_is_only_text(tmp_path, recwarn):
    hostile(tmp_path / "<b>w", HOSTILE)
    recwarn.clear()
    found = checked(page.write_page(tmp_path / "<b>w"))
    assert not {"img", "i", "u", "s", "b"} & set(found.tags)
    for name in HOSTILE[:2]:
        assert name in found.text
    assert "<img src=x onerror=y>" in found.text
    assert "\u202e" not in found.text
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_what_is_damaged_is_left_out_and_told(tmp_path):
    hostile(tmp_path / "w", list("abc"))
    read = ("a.yaml", "log.txt", "*_confusion.csv", "*_wrong.txt", "*_embedding.csv")
    for number, name in enumerate(read):
        (path,) = (tmp_path / "w").glob(name)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if number % 2 else b"\xff\x00,\n" * 50)
        checked(page.write_page(tmp_path / "w"))
        path.write_bytes(whole)
    (tmp_path / "w" / "last_test_embedding.csv").unlink()
    found = checked(page.write_page(tmp_path / "w"))
    assert "What is missing here" in found.text
    assert "The test split in the plane" in found.text


def test_a_section_that_fails_is_told_beside_the_others(tmp_path):
    hostile(tmp_path / "w", list("abc"))

    def own(run, found):
        return f"<p>{found.counts[1]} samples</p>"

    def broken(run, found):
        raise ValueError("<no more>")

    found = checked(page.write_page(tmp_path / "w", {"Mine": own, "Yours & ours": broken}))
    assert "60 samples" in found.text
    assert "Yours & ours (ValueError: <no more>)" in found.text


@pytest.mark.parametrize("classes", [1, 2, 120])
def test_any_number_of_classes_has_a_page(tmp_path, classes):
    hostile(tmp_path / "w", [f"class number {i}" for i in range(classes)])
    path = page.write_page(tmp_path / "w")
    assert path.stat().st_size < 600_000
    assert "Nothing was confused" in checked(path).text or classes > 1


def test_points_lie_together_that_are_scored_alike(tmp_path):
    labels = np.random.default_rng(1).integers(0, 3, 300)
    noise = np.random.default_rng(0).normal(size=(300, 5))
    scores = (8 * np.eye(5)[labels] + noise).astype(np.float32)
    rows = [[str(i), str(label), str(label)] for i, label in enumerate(labels)]
    for count in (300, 45):  # t-SNE, and principal components
        page.write_embedding(tmp_path, "x", scores[:count], rows[:count])
        lines = (tmp_path / "x_embedding.csv").read_text().splitlines()[1:]
        again = np.array([line.split(",")[3:] for line in lines], float)
        centres = np.stack([again[labels[:count] == k].mean(axis=0) for k in range(3)])
        nearest = np.linalg.norm(again[:, None] - centres, axis=-1).argmin(axis=1)
        assert (nearest == labels[:count]).mean() > 0.98
    first = (tmp_path / "x_embedding.csv").read_bytes()
    page.write_embedding(tmp_path, "x", scores[:45], rows[:45])
    assert (tmp_path / "x_embedding.csv").read_bytes() == first
