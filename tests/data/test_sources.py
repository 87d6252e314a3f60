"""Whatever lies under the given folder is read, or named as not read."""

import csv
import os
import shutil

import numpy as np
import pytest

from data.demo.raw import write_skeleton_file
from data.errors import DataError
from data.preparation import command
from data.preparation.sources import find_sources
from data.splits import NTU60, NTU120

FIRST, SECOND = "S001C001P001R001A", "S018C001P008R001A"


def put(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    joints = np.random.default_rng(seed).normal(size=(3, 1, 25, 3))
    joints[..., 2] += 3
    write_skeleton_file(path, joints)
    return path


def names(sources):
    return [source.name for source in sources]


def run(tmp_path, dataset="ntu60", folder="raw"):
    """Status of the first step, and its ``skipped.csv`` as {sample: reason}."""
    arguments = ["--input", str(tmp_path / folder), "--output", str(tmp_path / "out")]
    status = command.read(dataset, [*arguments, "--workers", "1"])
    with open(tmp_path / "out" / "skipped.csv", newline="") as file:
        return status, {row["sample"]: row["reason"] for row in csv.DictReader(file)}


LAYOUTS = {
    "one folder an archive": ("nturgb+d_skeletons", "nturgb+d_skeletons120"),
    "the second beside the first's folder": ("nturgb+d_skeletons", "."),
    "all in one": (".", "."),
    "deep, with blanks": ("a/b c/d/e/f", "Daten Ölçüm/x"),
    "named like a file": ("first.skeleton", "second.zip"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_is_read_whole(tmp_path, layout, capsys):
    first, second = LAYOUTS[layout]
    for action in (1, 2, 60):
        put(tmp_path / "raw" / first / f"{FIRST}{action:03d}.skeleton")
    for action in (61, 120):
        put(tmp_path / "raw" / second / f"{SECOND}{action:03d}.skeleton")
    assert run(tmp_path, "ntu120") == (0, {})
    out = capsys.readouterr().out
    assert "read: 5 samples" in out
    assert "no recording of setup 2 to 17, 19 to 32" in out


def test_a_folder_a_setup_upper_case_and_links(tmp_path):
    put(tmp_path / "raw" / "S001" / f"{FIRST}001.SKELETON")
    put(tmp_path / "raw" / "S002" / "s002c001p001r001a001.Skeleton")
    put(tmp_path / "elsewhere" / "S003C001P001R001A001.skeleton")
    put(tmp_path / "single" / "S004C001P001R001A001.skeleton")
    (tmp_path / "raw" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "raw" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "raw")
    (tmp_path / "raw" / "S004C001P001R001A001.skeleton").symlink_to(
        tmp_path / "single" / "S004C001P001R001A001.skeleton"
    )
    sources, remarks = find_sources(NTU60, tmp_path / "raw")
    assert names(sources) == [f"S{i:03d}C001P001R001A001" for i in (1, 2, 3, 4)]
    assert [remark.verdict for remark in remarks] == ["note"]  # the setups that lack


def test_missing_setups_are_named_with_what_to_do(tmp_path):
    for setup in range(1, 18):
        put(tmp_path / "raw" / f"S{setup:03d}C001P001R001A001.skeleton")
    assert find_sources(NTU60, tmp_path / "raw")[1] == []
    (remark,) = find_sources(NTU120, tmp_path / "raw")[1]
    assert "no recording of setup 18 to 32" in remark.reason
    assert "unpack nturgbd_skeletons_s018_to_s032.zip under" in remark.reason
    (tmp_path / "raw" / "S005C001P001R001A001.skeleton").unlink()
    (remark,) = find_sources(NTU60, tmp_path / "raw")[1]
    assert "no recording of setup 5, while a whole NTU60 has 1 to 17" in remark.reason
    assert "unpack" not in remark.reason


def test_the_same_sample_twice(tmp_path, capsys):
    first = put(tmp_path / "raw" / "a" / f"{FIRST}001.skeleton")
    second = tmp_path / "raw" / "b" / f"{FIRST}001.skeleton"
    second.parent.mkdir()
    shutil.copy(first, second)
    status, listed = run(tmp_path)
    assert status == 0
    assert str(first) in listed[str(second)]
    assert "the same, byte by byte" in capsys.readouterr().out
    put(second, seed=1)
    arguments = ["--input", str(tmp_path / "raw"), "--output", str(tmp_path / "out2")]
    assert command.read("ntu60", arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{first} and {second}: the same sample with different content" in error


OTHERS = {
    f"{FIRST}061.skeleton": "class A061 is none of the 60 of NTU60",
    "S001C004P001R001A001.skeleton": "there is no camera 4",
    "fall_001.skeleton": "does not follow",
    f"{FIRST}002 (1).skeleton": "does not follow",
    f"{FIRST}002.skeleton.txt": "ends not in .skeleton",
    f"{FIRST}003": "ends not in .skeleton",
    f"{FIRST}004.skeleton.crdownload": "ends not in .skeleton",
    "nturgbd_skeletons_s018_to_s032.zip": "unpack",
    f"{FIRST}005.skeleton.gz": "unpack",
    f".{FIRST}006.skeleton": "hidden",
    f".trash/{FIRST}007.skeleton": "hidden",
}


def test_what_is_not_read_is_named(tmp_path, capsys):
    put(tmp_path / "raw" / f"{FIRST}001.skeleton")
    for other in OTHERS:
        put(tmp_path / "raw" / "other" / other)
    for quiet in ("readme.txt", f"{FIRST}001_rgb.avi", ".DS_Store"):
        (tmp_path / "raw" / quiet).write_text("")
    (tmp_path / "raw" / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "raw" / "empty").mkdir()
    status, listed = run(tmp_path)
    assert status == 1
    for other, reason in OTHERS.items():
        assert reason in listed.pop(f"other/{other}"), other
    assert listed == {"gone": "a link that leads nowhere"}
    assert "12 skipped" in capsys.readouterr().out


def test_what_is_left_out_by_design_is_counted_but_no_failure(tmp_path, capsys):
    put(tmp_path / "raw" / f"{FIRST}001.skeleton")
    for action in (1, 61, 120):
        put(tmp_path / "raw" / f"{SECOND}{action:03d}.skeleton")
    (tmp_path / "raw" / f"._{FIRST}001.skeleton").write_bytes(b"\0\5\26\7")
    status, listed = run(tmp_path)
    assert status == 0
    assert len(listed) == 4
    assert "setups above 17 belong to NTU120" in listed[f"{SECOND}061.skeleton"]
    out = capsys.readouterr().out
    assert "0 skipped, 4 left out" in out
    assert "3 files" in out


def test_an_unreadable_folder_is_named_whoever_asks(tmp_path, monkeypatch):
    put(tmp_path / "raw" / f"{FIRST}001.skeleton")
    put(tmp_path / "raw" / "closed" / f"{FIRST}002.skeleton")
    real = os.scandir

    def scandir(place):
        if os.fspath(place).endswith("closed"):
            raise PermissionError(13, "Permission denied", place)
        return real(place)

    monkeypatch.setattr(os, "scandir", scandir)
    status, listed = run(tmp_path)
    assert (status, listed) == (1, {"closed": "folder cannot be read (Permission denied)"})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "nothing is there"),
        (["x.csv", "y"], "other files are there: .csv, without suffix"),
        (["a/nturgbd_skeletons_s001_to_s017.zip"], "s017.zip (an archive; unpack it)"),
        ([f"{SECOND}061.skeleton", f"{SECOND}062.skeleton"], "belong to NTU120, not NTU60), and 1"),
    ],
)
def test_nothing_to_read_is_a_mistake_that_is_explained(tmp_path, content, words):
    for name in content:
        put(tmp_path / name)
    with pytest.raises(DataError) as caught:
        find_sources(NTU60, tmp_path)
    assert words in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_file_instead_of_a_folder(tmp_path):
    with pytest.raises(DataError, match="a file, not a folder"):
        find_sources(NTU60, put(tmp_path / f"{FIRST}001.skeleton"))
