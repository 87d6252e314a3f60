"""A disk that is full or read-only: the training command says so and goes on where it can."""

import errno
import fnmatch
import gc
import os

import pytest
from toy_run import assert_same_run, train

pytestmark = pytest.mark.usefixtures("one_thread")

PASSING = ["resume.?.state", "best.pt", "best.json", "runs-2-12.pt", "runs-4-24.pt"]
LASTING = [*PASSING[1:], "last_test_confusion.csv", "best_test_confusion.png", "*_score.npz"]


@pytest.fixture
def full_disk(monkeypatch):
    """A switch: the next ``times`` renames to a file of this name fail as on a full disk."""
    rename = os.replace

    def switch(pattern, times, number=errno.ENOSPC, after=0):
        left = [after, times]

        def replace(source, target):
            if fnmatch.fnmatch(os.path.basename(target), pattern):
                if left[0] > 0:
                    left[0] -= 1
                elif left[1] > 0:
                    left[1] -= 1
                    raise OSError(number, os.strerror(number))
            rename(source, target)

        monkeypatch.setattr(os, "replace", replace)

    return switch


@pytest.mark.parametrize("pattern", PASSING)
def test_a_disk_that_is_full_for_a_while_changes_nothing_but_the_log(
    config_file,
    tmp_path,
    full_disk,
    pattern,
):
    path = config_file()
    train(path, tmp_path / "plenty")
    full_disk(pattern, times=1, after=pattern.startswith("resume"))
    assert train(path, tmp_path / "full") == 0
    logged = (tmp_path / "full" / "log.txt").read_text()
    assert "not written (No space left on device); training continues" in logged
    assert_same_run(tmp_path / "full", tmp_path / "plenty")


@pytest.mark.parametrize("pattern", LASTING)
@pytest.mark.parametrize(
    "number", [errno.ENOSPC, pytest.param(errno.EROFS, marks=pytest.mark.slow)]
)
def test_what_cannot_be_written_at_the_end_fails_the_run_and_the_same_command_finishes_it(
    config_file,
    tmp_path,
    full_disk,
    capsys,
    pattern,
    number,
):
    path, work = config_file(), tmp_path / "full"
    full_disk(pattern, times=100, number=number)
    assert train(path, work) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"cannot be written ({os.strerror(number)})" in error
    full_disk("nothing", times=0)
    assert train(path, work) == 0
    train(path, tmp_path / "plenty")
    assert_same_run(work, tmp_path / "plenty")
    assert not list(work.rglob("*.tmp"))


def test_a_run_whose_first_state_cannot_be_saved_does_not_begin(
    config_file,
    tmp_path,
    full_disk,
    capsys,
):
    path = config_file()
    full_disk("resume.?.state", times=1)
    gc.disable()  # the folder must be free because the run has ended, not because it was collected
    try:
        assert train(path, tmp_path / "w") == 2
        assert "no state can be saved (No space left on device)" in capsys.readouterr().err
        assert train(path, tmp_path / "w") == 0
    finally:
        gc.enable()


def test_weights_that_did_not_fit_hold_back_the_states_that_presuppose_them(
    config_file,
    tmp_path,
    full_disk,
):
    path, work = config_file(), tmp_path / "w"
    full_disk("best.pt", times=100)
    assert train(path, work) == 1
    assert not (work / "best.pt").exists()
    full_disk("nothing", times=0)
    assert train(path, work) == 0
    assert "resuming from epoch 2, step 0" in (work / "log.txt").read_text()


def test_what_a_killed_process_left_is_swept_at_the_next_start(config_file, tmp_path):
    path, work = config_file(), tmp_path / "w"
    work.mkdir()
    left = [
        ".resume.0.state.123.tmp",
        ".best.pt.9.tmp",
        ".toy.yaml.7.tmp",
        ".last_test_wrong.txt.1.tmp",
    ]
    for name in [*left, ".mine.tmp"]:
        (work / name).write_text("half")
    assert train(path, work, "--num-epoch", "1") == 0
    assert [p.name for p in work.glob(".*.tmp")] == [".mine.tmp"]
