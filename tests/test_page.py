"""What a run's page shows of skeletons and operators, the command that writes it, and its look."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from html_page import checked
from toy_ucla import write_ucla

from data.skeletons import UCLA
from feeders.dataset import ArraySource, SkeletonDataset
from koopman_pooling.sections import clips
from main_multigpu import main
from model.spectrum import normalize_eigenvalues, spectrum
from torchlight.checkpoint import load_weights
from torchlight.config import RESOLVED
from torchlight.reports.past import Evaluated

SMALL = (
    *("--config", "config/demo/koopman.yaml", "--num-epoch", "1", "--step", "--num-worker", "0"),
    *("--warm-up-epoch", "0", "--device", "cpu", "--model-args", "channels=[8,16]", "stride=[1,1]"),
    *("--train-feeder-args", "performers=3", "replications=1"),
    *("--test-feeder-args", "performers=3", "replications=1"),
)


@pytest.fixture(scope="module")
def demo(root, tmp_path_factory):
    """A short training on the demo data, whose operators were normalised."""
    folder = tmp_path_factory.mktemp("page") / "w"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main([*SMALL, "--work-dir", str(folder)]) == 0
    shutil.copytree(folder, folder.with_name("at its end"))
    weights = load_weights(folder / "best.pt")
    weights["K"], _ = normalize_eigenvalues(weights["K"], rank=4)
    torch.save(weights, folder / "normalized_best.pt")
    return folder


def test_the_end_of_a_training_draws_operators_and_clips(demo):
    file = demo.with_name("at its end") / "report.html"
    page = checked(file)
    radii = spectrum(load_weights(demo / "best.pt")["K"]).abs().amax(-1)
    assert f"Median spectral radius: as trained {radii.quantile(0.5):.3f}." in page.text
    assert "Clips of the worst confusions" in page.text
    wrong = [line.split("\t") for line in (demo / "last_test_wrong.txt").read_text().splitlines()]
    captions = r"<b>[^<]*, taken for ([^<]*)</b><span>(.*?)</span>"
    shown = re.findall(captions, file.read_text(encoding="utf-8"))
    assert shown
    for taken, name in shown:
        assert [name, taken] in [[line[0], line[2]] for line in wrong[1:]]


def test_a_clip_is_shown_beside_a_right_one_of_the_class_it_was_taken_for():
    names = [f"a{i}" for i in range(6)]
    labels, subjects = [0, 0, 1, 1, 2, 2], [1, 1, 1, 2, 3, 2]
    joints = np.random.default_rng(0).normal(size=(3, 9, 20, 1)).astype(np.float32)
    source = ArraySource(UCLA, names, labels, subjects, [joints] * 6, ["x", "y", "z"])
    wrong = [("a0", "x", "y"), ("a1", "x", "z"), ("a4", "z", "y")]
    matrix = np.array([[0, 1, 1], [0, 2, 0], [0, 1, 1]])
    found = Evaluated("last_test", ["x", "y", "z"], matrix, wrong)
    text = clips(found, SkeletonDataset(source))
    shown = re.findall(r"<b>(.*?)</b><span>(.*?)</span>", text)
    assert shown == [
        ("x, taken for y", "a0"), ("y", "a2"),  # of the same person
        ("x, taken for z", "a1"), ("z", "a5"),  # the other one is wrong itself
        ("z, taken for y", "a4"), ("y", "a2"),
    ]  # fmt: skip
    assert text.count("<svg") == 6
    assert clips(found, object()) == ""


def test_the_command_writes_it_anew_with_what_has_come_since(demo, capsys):
    assert main(["--phase", "report", "--work-dir", str(demo)]) == 0
    assert capsys.readouterr().out == f"wrote {demo / 'report.html'}\n"
    page = checked(demo / "report.html")
    before, after = (
        spectrum(load_weights(demo / name)["K"]).abs().amax(-1).quantile(0.5)
        for name in ("best.pt", "normalized_best.pt")
    )
    assert f"as trained {before:.3f}, normalised {after:.3f}." in page.text
    assert "Clips of the worst confusions" in page.text
    assert "missing" not in page.text


def test_what_is_out_of_reach_is_told(demo, tmp_path):
    """Data that are elsewhere now, weights that are damaged, evaluations of an earlier version."""
    folder = tmp_path / "w"
    shutil.copytree(demo, folder)
    settings = yaml.safe_load((folder / "koopman.yaml").read_text())
    settings |= {"feeder": "feeders.feeder_ucla.Feeder", "test_feeder_args": {"root": "gone"}}
    (folder / "koopman.yaml").write_text(RESOLVED + yaml.safe_dump(settings))
    (folder / "best.pt").write_bytes(b"x" * 1000)
    (folder / "last_test_embedding.csv").unlink()
    assert main(["--phase", "report", "--work-dir", str(folder)]) == 0
    missing = checked(folder / "report.html").text.partition("What is missing here")[2]
    assert re.search("Clips of the worst confusions .*gone", missing)
    assert re.search("Operators .*best.pt", missing)
    assert "last_test_embedding.csv" in missing


@pytest.mark.parametrize(("words", "told"), [
    ([], "--work-dir"),
    (["--work-dir", "none"], "none: no such folder"),
    (["--work-dir", "."], "no run in it"),
    (["--work-dir", ".", "--weights", "x"], "unknown flag"),
])  # fmt: skip
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    assert main(["--phase", "report", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_model_without_operators_has_a_page(root, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_ucla(tmp_path / "data")
    words = ["--config", str(root / "config" / "ucla" / "ctrgcn.yaml"), "--num-epoch", "1"]
    words += ["--step", "--warm-up-epoch", "0", "--global-batch-size", "4", "--batch-size", "4"]
    words += ["--model-args", "channels=[8,16]", "stride=[1,1]", "--num-worker", "0"]
    words += ["--device", "cpu", "--train-feeder-args", f"root={tmp_path / 'data'}", "repeat=1"]
    words += ["--test-feeder-args", f"root={tmp_path / 'data'}"]
    assert main([*words, "--work-dir", str(tmp_path / "w")]) == 0
    page = checked(tmp_path / "w" / "report.html")
    assert "Operators" not in page.text
    assert "missing" not in page.text
    assert (tmp_path / "w" / "report.html").stat().st_size < 2_000_000


MEASURED = """
<!doctype html><body><script>
const widths = [390, 1280], found = {};
onload = () => setTimeout(() => { widths.forEach((width, i) => {
  const page = frames[i].document.documentElement;
  found[width] = [page.scrollWidth, frames[i].document.querySelectorAll("svg").length];
}); document.body.textContent = "MEASURED" + JSON.stringify(found) + "END"; }, 500);
</script>FRAMES</body>
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["page", "clip"])
def test_it_fits_a_telephone_and_a_desk(demo, tmp_path, kind):
    """In a real browser: nothing is wider than the window."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium")
    file = demo / "report.html"
    if kind == "clip":
        from data.show.__main__ import main as show

        write_ucla(tmp_path / "data")
        file = tmp_path / "clip.html"
        clip = sorted((tmp_path / "data").iterdir())[0]
        assert show([str(clip), "--out", str(file), "--title", "a" * 200]) == 0
    frames = "".join(
        f'<iframe src="{file.as_uri()}" style="width:{width}px;height:900px;border:0"></iframe>'
        for width in (390, 1280)
    )
    (tmp_path / "frames.html").write_text(MEASURED.replace("FRAMES", frames))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    flags += ["--disable-background-networking", "--no-first-run", "--virtual-time-budget=9000"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [chromium, *flags, Path(tmp_path / "frames.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    measured = re.search(r"MEASURED(.*?)END", done.stdout)
    assert measured, done.stdout[-500:] + done.stderr[-500:]
    for width, (wide, pictures) in json.loads(measured[1]).items():
        assert wide <= int(width)
        assert pictures >= (9 if kind == "page" else 0)
