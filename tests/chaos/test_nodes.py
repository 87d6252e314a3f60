"""Two nodes, each a network namespace with an address of its own, train as one under torchrun.

What is lost is all of a node's processes, or the link between the two.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import torch
from launch import ENVIRONMENT, ROOT
from toy_run import ALLOW, assert_same_run, train, weights

from torchlight.resilience.signals import AGAIN

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

ADDRESSES = ("10.213.7.1", "10.213.7.2")
SILENCE_S = 6
OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Otherwise a launcher that comes later waits in vain for the address that the first one, which
keeps the store and has not been restarted, does not give out a second time (torch 2.13)."""


def ip(*words: str) -> None:
    """Run ``ip``; the test fails where it does."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Nodes:
    """Two namespaces joined by a pair of virtual network cards."""

    def __init__(self, folder: Path) -> None:
        token = uuid.uuid4().hex[:6]
        self.names = [f"chaos{token}{side}" for side in "ab"]
        self.cards = [f"v{token}{side}" for side in "ab"]
        self.agents: dict[int, subprocess.Popen] = {}
        self.outputs = [folder / f"node{node}.out" for node in (0, 1)]

    def make(self) -> None:
        """Make the namespaces, their cards and addresses."""
        for name in self.names:
            ip("netns", "add", name)
        ip("link", "add", self.cards[0], "type", "veth", "peer", "name", self.cards[1])
        for name, card, address in zip(self.names, self.cards, ADDRESSES, strict=True):
            ip("link", "set", card, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", card)
            ip("-n", name, "link", "set", card, "up")
            ip("-n", name, "link", "set", "lo", "up")

    def start(self, node: int, *words: str, restarts: int = 0) -> None:
        """Start a node's torchrun, with one process."""
        launcher = [
            "--nnodes=2", "--nproc_per_node=1", f"--max-restarts={restarts}",
            "--rdzv-backend=c10d", f"--rdzv-endpoint={ADDRESSES[0]}:29417", "--rdzv-id=chaos",
            f"--local-addr={ADDRESSES[node]}", f"--rdzv-conf=is_host={int(node == 0)}",
        ]  # fmt: skip
        script = str(ROOT / "main_multigpu.py")
        line = [sys.executable, "-m", "torch.distributed.run", *launcher]
        with open(self.outputs[node], "a") as output:
            self.agents[node] = subprocess.Popen(
                ["ip", "netns", "exec", self.names[node], *line, script, *ALLOW, *words],
                env={**ENVIRONMENT, **OWN_STORE, "GLOO_SOCKET_IFNAME": self.cards[node]},
                stdout=output,
                stderr=output,
            )

    def said(self, node: int) -> str:
        """All that a node has printed."""
        return self.outputs[node].read_text()

    def wait_for(self, words: str, seconds: float = 240) -> int:
        """Wait until a node has said ``words``; return which (rank 0 may be on either)."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for node in self.agents:
                if words in self.said(node):
                    return node
            time.sleep(0.1)
        raise AssertionError(self.said(0) + self.said(1))

    def processes(self, node: int) -> list[int]:
        """All processes of a node."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self.names[node]], capture_output=True, text=True, check=False
        )
        return [int(word) for word in listed.stdout.split()]

    def training(self) -> int:
        """How many processes are left on both nodes that no launcher is."""
        commands = [
            Path(f"/proc/{process}/cmdline").read_text()
            for node in (0, 1)
            for process in self.processes(node)
        ]
        return sum("torch.distributed.run" not in command for command in commands)

    def kill(self, node: int) -> None:
        """Kill all processes of a node at once, as when it loses its power."""
        for process in self.processes(node):
            os.kill(process, signal.SIGKILL)
        if node in self.agents:
            self.agents.pop(node).wait()

    def cut(self) -> None:
        """Take the link away."""
        ip("-n", self.names[0], "link", "set", self.cards[0], "down")

    def statuses(self, seconds: float = 240) -> list[int]:
        """The exit statuses of the agents that are left."""
        deadline = time.monotonic() + seconds
        return [a.wait(max(deadline - time.monotonic(), 0.1)) for a in self.agents.values()]

    def remove(self) -> None:
        """Leave nothing behind."""
        for node, name in enumerate(self.names):
            self.kill(node)
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.fixture
def nodes(tmp_path):
    """Two nodes, or the reason why there are none."""
    if shutil.which("ip") is None:
        pytest.skip("no command `ip` (iproute2)")
    made = Nodes(tmp_path)
    try:
        made.make()
    except subprocess.CalledProcessError as error:
        made.remove()
        pytest.skip(f"network namespaces cannot be made here: {error.stderr.decode().strip()}")
    yield made
    made.remove()


@pytest.fixture
def words(config_file, tmp_path):
    """The training command's flags, for a run slow enough to be disturbed."""
    path = config_file(train_feeder_args={"pause": 0.03}, rank_timeout_s=SILENCE_S)
    return ["--config", path, "--work-dir", str(tmp_path / "w")]


def test_two_nodes_train_as_one(nodes, words, tmp_path):
    for node in (0, 1):
        nodes.start(node, *words)
    assert nodes.statuses() == [0, 0], nodes.said(0) + nodes.said(1)
    train(words[1], tmp_path / "one")
    left, right = weights(tmp_path / "w"), weights(tmp_path / "one")
    for key in left:
        torch.testing.assert_close(left[key], right[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", ["power", "link"])
def test_a_lost_node_ends_the_run_and_the_same_command_goes_on(nodes, words, tmp_path, loss):
    for node in (0, 1):
        nodes.start(node, *words)
    nodes.wait_for("epoch 1/4")
    if loss == "power":
        nodes.kill(1)
    else:
        nodes.cut()
    nodes.wait_for("error: rank ", seconds=5 * SILENCE_S)
    deadline = time.monotonic() + 5 * SILENCE_S
    while nodes.training():
        assert time.monotonic() < deadline, nodes.said(0) + nodes.said(1)
        time.sleep(0.1)
    nodes.kill(1)  # the launcher waits there until the system gives its connection up: minutes
    assert all(nodes.statuses(seconds=120))
    said = nodes.said(0) + nodes.said(1)
    assert f"; stopping; {AGAIN} from the last saved state" in said
    assert train(words[1], tmp_path / "w") == 0
    assert "began on 2 processes, 1 now" in (tmp_path / "w" / "log.txt").read_text()


def test_a_lost_node_that_comes_back_goes_on_with_the_others(nodes, words, tmp_path):
    for node in (0, 1):
        nodes.start(node, *words, restarts=3)
    nodes.wait_for("epoch 1/4")
    nodes.kill(1)
    time.sleep(3 * SILENCE_S)
    nodes.start(1, *words, restarts=3)
    assert nodes.statuses() == [0, 0], nodes.said(0) + nodes.said(1)
    assert "resuming from epoch" in (tmp_path / "w" / "log.txt").read_text()
    nodes.agents.clear()
    for node in (0, 1):
        nodes.start(node, "--config", words[1], "--work-dir", str(tmp_path / "whole"))
    assert nodes.statuses() == [0, 0]
    assert_same_run(tmp_path / "w", tmp_path / "whole")
