"""Real disks that are full, small or read-only, and states cut off at any length."""

import os
import random
import re
import resource
import shutil
import subprocess
import time

import pytest
from launch import ENVIRONMENT, command
from toy_run import ALLOW, assert_same_run, train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

CUTS = 50


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MiB in memory; skip where none can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(line, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def start(path, work, output, **how):
    """Start the command with its output in a file."""
    words = [*ALLOW, "--config", path, "--work-dir", str(work)]
    with open(output, "w") as file:
        return subprocess.Popen(
            command("main_multigpu.py", *words), env=ENVIRONMENT, stdout=file, stderr=file, **how
        )


def wait_for(words, output, process, seconds=240):
    """Wait until the output has ``words``."""
    deadline = time.monotonic() + seconds
    while words not in output.read_text():
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.05)


def fill(disk):
    """Take all that is left of a disk."""
    with open(disk / "ballast", "wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            return disk / "ballast"


def test_a_disk_that_fills_up_and_is_cleared_changes_nothing(config_file, tmp_path, small_disk):
    path, output = config_file(train_feeder_args={"pause": 0.03}, eval_interval=1), tmp_path / "out"
    work = small_disk / "w"
    process = start(path, work, output)
    wait_for("epoch 1/4", output, process)
    ballast = fill(small_disk)
    wait_for("warning: state not written (No space left on device)", output, process)
    ballast.unlink()
    assert process.wait(timeout=240) == 0
    assert "Traceback" not in output.read_text()
    train(path, tmp_path / "plenty")
    assert_same_run(work, tmp_path / "plenty")
    logged = re.findall(r"epoch (\d)/4", (work / "log.txt").read_text())
    assert logged == ["1", "2", "3", "4"]
    assert not list(work.rglob("*.tmp"))


def test_a_disk_that_stays_full_fails_the_run_and_keeps_its_state(
    config_file, tmp_path, small_disk
):
    path, output = config_file(train_feeder_args={"pause": 0.03}), tmp_path / "out"
    work = small_disk / "w"
    process = start(path, work, output)
    wait_for("epoch 1/4", output, process)
    ballast = fill(small_disk)
    assert process.wait(timeout=240) == 1
    said = output.read_text()
    assert "Traceback" not in said
    assert "cannot be written (No space left on device); make room" in said
    ballast.unlink()
    assert train(path, work) == 0
    train(path, tmp_path / "plenty")
    assert_same_run(work, tmp_path / "plenty")


def test_a_read_only_disk_is_a_mistake_said_in_one_line(config_file, tmp_path, small_disk, capsys):
    (small_disk / "w").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert train(config_file(), small_disk / "w") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "work_dir cannot be written (Read-only file system)" in error


def test_a_full_disk_at_the_start_is_said_in_one_line(config_file, small_disk, capsys):
    fill(small_disk)
    assert train(config_file(), small_disk / "w") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "No space left on device" in error


def test_every_file_in_turn_may_not_grow_to_its_size(config_file, tmp_path, capsys):
    path, plenty = config_file(), tmp_path / "plenty"
    train(path, plenty)
    sizes = {p.relative_to(plenty): p.stat().st_size for p in plenty.rglob("*") if p.is_file()}
    assert len(sizes) > 12
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    for number, (name, size) in enumerate(sorted(sizes.items())):
        if size == 0:
            continue
        work = tmp_path / str(number)
        capsys.readouterr()
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, most))
        try:
            status = train(path, work)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        written = capsys.readouterr()
        assert "File too large" in written.err + written.out, name
        assert written.err.count("\n") <= 2, (name, written.err)
        assert status in (0, 1, 2), name
        assert train(path, work) == 0, name
        assert_same_run(work, plenty)
        assert not list(work.rglob("*.tmp"))


def test_a_state_cut_off_at_any_length_falls_back_loudly(config_file, tmp_path):
    path, rng = config_file(eval_interval=1), random.Random(os.environ.get("CHAOS_SEED", "1"))
    train(path, tmp_path / "half", "--num-epoch", "2")
    train(path, tmp_path / "plenty")
    newest = max((tmp_path / "half").glob("resume.*.state"), key=lambda p: p.stat().st_mtime_ns)
    whole = newest.read_bytes()
    for number in range(CUTS):
        work = tmp_path / "cut"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(tmp_path / "half", work)
        (work / newest.name).write_bytes(whole[: rng.randrange(len(whole))])
        assert train(path, work) == 0, number
        logged = (work / "log.txt").read_text()
        assert re.search(
            rf"{newest.name}: damaged \((its checksum does not fit|it is no state, or cut off)\);"
            " resuming from the state before it",
            logged,
        )
        assert "resuming from epoch 2, step 0" in logged
        assert_same_run(work, tmp_path / "plenty")
