"""Damaged files of every kind are accepted, or refused by one line that names them."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from launch import ENVIRONMENT

from torchlight.config import Config, build
from torchlight.errors import UserError
from torchlight.untrusted import open_archive, read_bounded

HARNESS = Path(__file__).with_name("harness.py")
COUNT = int(os.environ.get("FUZZ_COUNT", "5000"))


def _run(folder: Path, *words: object) -> dict[str, dict[str, int]]:
    """The counts of a run of the harness, which must find no failure."""
    line = [sys.executable, str(HARNESS), "--json", str(folder / "counts.json")]
    done = subprocess.run(
        [*line, *map(str, words)], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "counts.json").read_text())


def test_a_sample_of_damaged_files(tmp_path):
    counts = _run(tmp_path, "--count", 108, "--seed", 7)
    assert len(counts) == 18
    assert sum(sum(found.values()) for found in counts.values()) == 108


@pytest.mark.slow
def test_thousands_of_damaged_files(tmp_path):
    """``FUZZ_COUNT`` says how many."""
    _run(tmp_path, "--count", COUNT)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from([*Config.model_fields, "other"]), VALUES, max_size=4))
def test_any_values_make_a_configuration_or_one_line(values):
    message = "x.yaml: "
    try:
        build({"feeder": "a.B", "model": "a.B", **values}, "x.yaml").digest()
    except UserError as error:
        message = str(error)
    assert message.startswith("x.yaml: ")
    assert message.isprintable()


def _archive(**content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize("lie", [2**31, 2**32 - 1])
def test_an_archive_whose_directory_is_huge_is_refused_unread(tmp_path, lie):
    data = _archive(a=b"x")
    end = data.rindex(b"PK\x05\x06")
    path = tmp_path / "a.zip"
    path.write_bytes(data[: end + 12] + lie.to_bytes(4, "little") + data[end + 16 :])
    with path.open("rb") as file, pytest.raises(zipfile.BadZipFile, match="directory"):
        open_archive(file)


def test_a_sound_archive_is_opened_and_only_with_the_packing_expected(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(_archive(a=b"x" * 99))
    with path.open("rb") as file:
        assert open_archive(file).read("a") == b"x" * 99
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"x" * 99)
    with path.open("rb") as file:
        assert open_archive(file, packed=True).read("a") == b"x" * 99
        with pytest.raises(zipfile.BadZipFile, match="compressed"):
            open_archive(file)


def test_only_regular_files_within_the_limit_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bounded(tmp_path / "file", 5) == b"12345"
    for name, limit in (("pipe", 5), ("file", 4), (".", 5), ("none", 5)):
        with pytest.raises(OSError, match=r"regular|too large|directory|No such"):
            read_bounded(tmp_path / name, limit)
