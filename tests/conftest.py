"""Fixtures shared by all tests."""

import os
from pathlib import Path

# Before torch is imported: workers of pytest-xdist share the machine, and threads that wait for one
# another spin. Twice as fast; what is about threads sets their number.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
import yaml
from toy_run import CONFIG

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Golden data and the real benchmark, kept beside the checkout; skip without them."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"golden data not present: {folder}")
    return folder


@pytest.fixture
def config_file(tmp_path):
    """The toy configuration as a file, with what is given on top."""

    def write(name="toy.yaml", **values):
        path = tmp_path / name
        path.write_text(yaml.safe_dump({**CONFIG, **values}))
        return str(path)

    return write


@pytest.fixture(scope="module")
def one_thread():
    """For a whole module: sums do not depend on the machine's cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
