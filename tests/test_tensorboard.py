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

BY_EPOCH = {
    "learning_rate",
    *(f"train/{k}" for k in ("loss", "accuracy", "gradient_norm", "samples_per_second")),
    *(f"test/{k}" for k in ("loss", "accuracy", "top5")),
}
BY_STEP = {
    f"step/{name}" for name in ("loss", "gradient_norm", "learning_rate", "samples_per_second")
}


@pytest.fixture
def ask(tmp_path):
    """Start TensorBoard on ``tmp_path``; return a function from a plugin's URL to its JSON."""
    port = free_port()
    words = ["--logdir", str(tmp_path), "--port", str(port), "--load_fast", "false"]
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *words], stderr=subprocess.DEVNULL
    )

    def get(path):
        deadline = time.monotonic() + 60
        while True:
            try:
                url = f"http://127.0.0.1:{port}/data/plugin/{path}"
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
    path.write_text(yaml.safe_dump({**CONFIG, "eval_interval": 1, "log_interval": 3}))
    for epochs in ("2", "4"):
        assert train(str(path), tmp_path / "w", "--num-epoch", epochs) == 0
    deadline = time.monotonic() + 90

    def steps(name):
        points = ask(f"scalars/scalars?run={run}&tag={name}")
        return [step for _, step, _ in points]

    tags = {}
    while time.monotonic() < deadline and not tags:
        tags = ask("scalars/tags")
        time.sleep(0.5)
    (run,) = tags  # one run: its curves lie over each other
    while time.monotonic() < deadline and len(steps("test/top5")) < 4:  # it reads meanwhile
        time.sleep(0.5)
    assert set(ask("scalars/tags")[run]) == BY_EPOCH | BY_STEP
    for name in BY_EPOCH:
        assert steps(name) == [6, 12, 18, 24], name
    for name in BY_STEP:
        assert steps(name) == list(range(3, 25, 3)), name
    rates = ask(f"scalars/scalars?run={run}&tag=learning_rate")
    assert [value for *_, value in rates] == pytest.approx([0.05, 0.05, 0.05, 0.005])
    assert set(ask("images/tags")[run]) == {"last/confusion", "best/confusion"}
    assert "configuration/text_summary" in ask("text/tags")[run]
