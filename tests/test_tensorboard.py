"""A real TensorBoard, asked over HTTP, shows the curves of a run once each, also after a resume."""

import json
import subprocess
import sys
import time
import urllib.request

import pytest
import yaml
from launch import free_port
from toy_run import CONFIG, train

EXPECTED = {
    "train": {"loss", "accuracy", "learning_rate"},
    "val": {"loss", "accuracy"},
}


@pytest.fixture
def ask(tmp_path):
    """Start TensorBoard on ``tmp_path``; return a function from an URL's path to its JSON."""
    port = free_port()
    words = ["--logdir", str(tmp_path), "--port", str(port), "--load_fast", "false"]
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *words], stderr=subprocess.DEVNULL
    )

    def get(path):
        deadline = time.monotonic() + 60
        while True:
            try:
                url = f"http://127.0.0.1:{port}/data/plugin/scalars/{path}"
                with urllib.request.urlopen(url, timeout=10) as answer:
                    return json.load(answer)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    yield get
    server.terminate()
    server.wait(timeout=20)


def test_curves_of_a_resumed_run_have_each_point_once(tmp_path, ask):
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "eval_interval": 1}))
    for epochs in ("2", "4"):
        assert train(str(path), tmp_path / "w", "--num-epoch", epochs) == 0
    deadline = time.monotonic() + 90
    tags = {}
    while time.monotonic() < deadline and len(tags) < 2:
        tags = ask("tags")
        time.sleep(0.5)
    for part, names in EXPECTED.items():
        run = next(run for run in tags if run.endswith(part))
        assert names <= set(tags[run])
        for name in names:
            points = ask(f"scalars?run={run}&tag={name}")
            while len(points) < 4 and time.monotonic() < deadline:  # it reads in the background
                time.sleep(0.5)
                points = ask(f"scalars?run={run}&tag={name}")
            assert [step for _, step, _ in points] == [6, 12, 18, 24]
    rates = ask(f"scalars?run={next(r for r in tags if r.endswith('train'))}&tag=learning_rate")
    assert [value for *_, value in rates] == pytest.approx([0.05, 0.05, 0.05, 0.005])
