"""NW-UCLA files: what is read, what is refused and how, and when the cache is believed."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data import ucla
from data.errors import DataError

NAME = "a02_s03_e04_v01"


def frames(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 20, 3)).round(6).tolist()


def document(name=NAME, count=2, **changes):
    label = ucla.parse_name(name).label + 1
    return {"file_name": name, "skeletons": frames(count), "label": label} | changes


def write(folder, name=NAME, text=None, **changes):
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document(name, **changes)) if text is None else text)
    return path


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "all_sqe"
    folder.mkdir()
    return folder


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_names_labels_and_splits_are_the_published_ones(shared):
    index = json.loads((shared / "parity" / "ucla_index.json").read_text())
    for action, label in index["label_by_action_id"].items():
        assert ucla.parse_name(f"{action}_s10_e00_v02") == ucla.SampleName(
            action=int(action[1:]), subject=10, take=0, view=2, label=label
        )
    names = sorted(path.stem for path in (shared / "data" / "NW-UCLA" / "all_sqe").iterdir())
    for split, key in (("train", "n_train"), ("test", "n_val")):
        assert sum(ucla.parse_name(name).view in ucla.VIEWS[split] for name in names) == index[key]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a07_s01_e00_v01", "unknown action id 7; NW-UCLA has 1, 2, 3, 4, 5, 6, 8, 9, 11, 12"),
        ("a01_s01_e00_v04", "unknown view 4"),
        ("S001C001P001R001A001", "not an NW-UCLA sample name"),
        ("a01_s01_e00_v01_copy", "not an NW-UCLA sample name"),
    ],
)
def test_odd_names_are_refused(folder, name, message):
    (folder / f"{name}.json").write_text("{}")
    with pytest.raises(DataError, match=message) as error:
        ucla.load(folder, folder)
    assert name in str(error.value)


def test_numbers_are_read_exactly(folder):
    numbers = [*frames(3), [[1, -2, 1e-300]] * 20]
    joints = ucla.read_sequence(write(folder, skeletons=numbers))
    assert joints.dtype == np.float64
    assert joints.tolist() == numbers


def joint_replaced(value):
    sequence = frames(3)
    sequence[2][19] = value
    return sequence


BAD = {
    "empty file": ("", "not valid JSON"),
    "cut off": ('{"skeletons": [[[1.0, 2', "not valid JSON"),
    "not text": (b"\xff\xfe\x00", "not valid JSON"),
    "endless number": ('{"label": 1' + "0" * 5000 + "}", "not valid JSON"),
    "nested": ("[" * 200_000 + "]" * 200_000, "nested too deeply"),
    "a list": ([1, 2], "holds a list of 2, expected an object"),
    "no skeletons": ({"label": 2}, 'no key "skeletons"'),
    "no label": ({"skeletons": frames(1)}, 'no key "label"'),
    "other label": (document(label=3), "label 3 disagrees with the file's name.* has label 2"),
    "label as text": (document(label="2"), 'label "2" disagrees'),
    "no frames": (document(skeletons=[]), "no frames"),
    "frames as object": (document(skeletons={}), '"skeletons" is an object'),
    "19 joints": (document(skeletons=[*frames(3), frames(1)[0][:19]]), "frame 3 has 19 joints"),
    "frame is null": (document(skeletons=[None]), "frame 0 has no list of joints"),
    "all 25 joints": (document(skeletons=[[[0.0] * 3] * 25]), "frame 0 has 25 joints, expected 20"),
    "2-D joint": (document(skeletons=joint_replaced([1.0, 2.0])), "frame 2, joint 19 is a list of"),
    "NaN": (document(skeletons=joint_replaced([1.0, np.nan, 0.0])), "joint 19 has NaN where a num"),
    "infinite": (document(skeletons=joint_replaced([1.0, np.inf, 0.0])), "joint 19 has Infinity"),
    "huge number": (document(skeletons=joint_replaced([10**400, 0.0, 0.0])), "joint 19 has 1000"),
    "null": (document(skeletons=joint_replaced([1.0, None, 0.0])), "joint 19 has null"),
    "text": (document(skeletons=joint_replaced(["1", 0.0, 0.0])), 'frame 2, joint 19 has "1"'),
    "one true": (document(skeletons=[[[True] * 3] * 20]), "frame 0, joint 0 has true"),
}


@pytest.mark.parametrize("case", BAD)
def test_malformed_files_are_named_with_what_is_wrong(folder, case):
    content, message = BAD[case]
    path = folder / f"{NAME}.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError, match=message) as error:
        ucla.read_sequence(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300 + len(str(path))


def test_a_file_of_another_kind_is_refused_before_it_fills_the_memory(folder):
    path = folder / f"{NAME}.json"
    with open(path, "wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match="too large"):
        ucla.read_sequence(path)


def test_all_malformed_files_are_counted(folder, cache):
    write(folder, "a01_s01_e00_v01")
    write(folder, "a01_s02_e00_v01", skeletons=[])
    write(folder, "a01_s03_e00_v01", text="?")
    with pytest.raises(DataError, match=r"s02.*no frames \(malformed files in all: 2\)"):
        ucla.load(folder, cache)
    assert not cache.exists()


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: .*put or link .* data/NW-UCLA/all_sqe"):
        ucla.load(tmp_path / "nowhere", tmp_path)
    (tmp_path / "._a01_s01_e00_v01.json").write_text("left behind by an archiver")
    with pytest.raises(DataError, match=r"no \.json files"):
        ucla.load(tmp_path, tmp_path)


def test_broken_link_and_folder_in_place_of_a_file(folder, cache):
    path = folder / f"{NAME}.json"
    path.symlink_to(folder / "gone.json")
    with pytest.raises(DataError, match=f"{NAME}.*cannot be read"):
        ucla.load(folder, cache)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=f"{NAME}.*cannot be read"):
        ucla.load(folder, cache)


def same(first, second):
    return (
        first.names == second.names
        and np.array_equal(first.lengths, second.lengths)
        and np.array_equal(first.joints, second.joints)
    )


@pytest.fixture
def reads(monkeypatch):
    """Names of the files parsed."""
    parsed = []
    original = ucla.read_sequence

    def counting(path):
        parsed.append(path.stem)
        return original(path)

    monkeypatch.setattr(ucla, "read_sequence", counting)
    return parsed


def test_files_are_parsed_once(folder, cache, reads):
    write(folder, "a12_s01_e00_v03", count=5)
    write(folder, "a01_s01_e00_v01", count=1)
    first = ucla.load(folder, cache)
    assert first.names == reads == ["a01_s01_e00_v01", "a12_s01_e00_v03"]
    assert first.lengths.tolist() == [1, 5]
    assert same(first, ucla.load(folder, cache))
    assert same(first, ucla.load(os.path.relpath(folder), cache)), "the resolved path is the key"
    assert len(reads) == 2


@pytest.mark.parametrize("change", ["touch", "size", "add", "remove", "rename"])
def test_any_change_of_the_sources_invalidates(folder, cache, reads, change):
    path = write(folder)
    write(folder, "a01_s01_e00_v01")
    before = ucla.load(folder, cache)
    reads.clear()
    if change == "touch":  # as if edited in place without a change of size
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    elif change == "size":
        status = path.stat()
        write(folder, count=3)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "add":
        write(folder, "a03_s01_e00_v01")
    elif change == "remove":
        path.unlink()
    else:
        path.rename(folder / "a02_s09_e09_v01.json")
    after = ucla.load(folder, cache)
    assert reads == after.names
    assert change == "touch" or not same(before, after)


def test_folders_do_not_share_a_cache(tmp_path, cache):
    for name, count in (("first", 1), ("second", 4)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, count=count)
    assert ucla.load(tmp_path / "first", cache).lengths.tolist() == [1]
    assert ucla.load(tmp_path / "second", cache).lengths.tolist() == [4]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_cache_is_made_anew(folder, cache, data):
    write(folder, count=1)
    shutil.rmtree(cache, ignore_errors=True)
    expected = ucla.load(folder, cache)
    (path,) = cache.iterdir()
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), label="cut off"):
        content = content[: data.draw(st.integers(0, len(content) - 1), label="length")]
    else:
        place = data.draw(st.integers(0, len(content) - 1), label="place")
        content[place] ^= data.draw(st.integers(1, 255), label="flip")
    path.write_bytes(content)
    assert same(expected, ucla.load(folder, cache))


def test_cache_holding_a_pickle_is_never_unpickled(folder, cache):
    write(folder)
    expected = ucla.load(folder, cache)
    (path,) = cache.iterdir()
    np.savez(path, signature=np.array([{"code": "runs"}], dtype=object))
    assert same(expected, ucla.load(folder, cache))


def test_place_of_the_cache(folder, tmp_path, monkeypatch):
    write(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    ucla.load(folder)
    assert len(list((tmp_path / "xdg" / "neural-koopman-pooling").iterdir())) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/paths/are/to/be/ignored")
    ucla.load(folder)
    assert len(list((tmp_path / "home" / ".cache" / "neural-koopman-pooling").iterdir())) == 1


def test_unwritable_cache_is_a_warning(folder, tmp_path, reads, caplog):
    write(folder)
    (tmp_path / "file").write_text("not a folder")
    for _ in range(2):
        assert ucla.load(folder, tmp_path / "file" / "below").names == [NAME]
        (said,) = caplog.messages
        assert f"parsed anew at every start: no cache can be written in {tmp_path / 'file'}" in said
        caplog.clear()
    assert reads == [NAME, NAME]


def test_unknown_home_is_a_warning(folder, monkeypatch, caplog):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    write(folder)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(ucla.Path, "home", staticmethod(no_home))
    assert ucla.load(folder).names == [NAME]
    assert "home directory" in caplog.text


def test_many_processes_at_once(folder, cache, root):
    for subject in range(1, 11):
        write(folder, f"a01_s{subject:02d}_e00_v01", count=20)
    code = (
        "import sys; from data import ucla; s = ucla.load(*sys.argv[1:]);"
        "print(len(s.names), s.joints.sum())"
    )
    command = [sys.executable, "-c", code, str(folder), str(cache)]
    running = [
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    outputs = {process.communicate(timeout=60)[0] for process in running}
    assert {process.returncode for process in running} == {0}
    expected = ucla.load(folder, cache)
    assert outputs == {f"{len(expected.names)} {expected.joints.sum()}\n"}
    assert len(list(cache.iterdir())) == 1, "no temporary file is left"
