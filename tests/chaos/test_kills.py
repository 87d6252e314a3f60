"""Random SIGKILLs over whole chains of training, and a soak; as long as the environment says."""

import os
import subprocess
import sys

import pytest
from launch import ENVIRONMENT, ROOT

pytestmark = pytest.mark.slow


def script(name, *words):
    """Run a script of this folder; return its output where it ends well."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "chaos" / name), *words],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_killed_chains_end_as_the_undisturbed_one():
    kills, seed = os.environ.get("CHAOS_KILLS", "100"), os.environ.get("CHAOS_SEED", "1")
    assert "chain 0: equal" in script("kills.py", "--kills", kills, "--seed", seed)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_and_open_files_are_flat():
    minutes = os.environ.get("SOAK_MINUTES", "15")
    assert "equal to the undisturbed run's: True" in script("soak.py", "--minutes", minutes)
