"""Every block of docs/python.md and docs/predict.md runs, in their order."""

import re
import shlex

import numpy as np
import pytest
from toy_ucla import write_ucla

import main_multigpu
from koopman_pooling import load

CLIP = np.random.default_rng(0).normal(size=(40, 20, 3)).round(3)


def blocks(root, page, language):
    text = (root / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with what the pages speak of."""
    write_ucla(tmp_path / "recordings", actions=(1, 2), views=(3,))
    np.savetxt(tmp_path / "recordings/one.csv", CLIP.reshape(40, -1), delimiter=",")
    np.save(tmp_path / "long.npy", np.concatenate([CLIP, CLIP[::-1]]))
    load("nw-ucla-fast", device="cpu").save_pretrained(tmp_path / "work_dir/mine")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_blocks_of_the_python_page_run(root, folder, capsys):
    names: dict = {}
    found = blocks(root, "python.md", "python")
    assert len(found) == 4
    for number, block in enumerate(found):
        exec(compile(block, f"block {number}", "exec"), names)
    assert names["scores"].shape == (3, 10)
    assert names["features"].shape == (128, 32)
    assert names["matched"].class_names == ["wave", "bow"]
    assert np.array_equal(names["again"].scores(names["clips"]), names["scores"])
    assert "Prediction(" in capsys.readouterr().out


def test_the_commands_of_both_pages_run(root, folder):
    text = "".join(blocks(root, "predict.md", "bash"))
    lines = text.replace("\\\n", " ").splitlines()
    lines += re.findall(r"`(python main_multigpu[^`]*)`", (root / "docs/python.md").read_text())
    assert len(lines) == 4
    for line in lines:
        python, script, *words = shlex.split(line)
        assert (python, script) == ("python", "main_multigpu.py")
        assert main_multigpu.main(words) == 0
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    assert {"predictions/table.csv", "predictions/one.png", "actions.csv"} <= written
    assert "my-recogniser/config.json" in written
