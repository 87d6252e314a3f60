"""Fixtures shared by all tests."""

from pathlib import Path

import pytest

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
