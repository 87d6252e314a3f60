"""The three NTU steps: what they skip and say, and that no interruption shows in the result."""

import csv
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from data.demo import samples
from data.demo.__main__ import write_raw
from data.errors import DataError
from data.preparation import command as ntu_cli
from data.preparation.recording import SampleFault
from data.preparation.steps import denoise_step, read_step, transform_step
from data.splits import NTU60

# Runs one step on small chunks, so that there is much to interrupt.
_STEP = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from data.preparation.steps import denoise_step, read_step, transform_step
from data.splits import NTU60
step, source, output = sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
if step == "read":
    read_step(NTU60, source, output, workers=2, chunk_size=4)
elif step == "denoise":
    denoise_step(NTU60, source, output, workers=2)
else:
    transform_step(NTU60, source, output, npz=True)
"""


@pytest.fixture(scope="session")
def raw(tmp_path_factory):
    """Forty raw files of the demo, one of them damaged."""
    folder = tmp_path_factory.mktemp("raw")
    wanted = samples(actions=2, performers=10, cameras=2, replications=1)
    write_raw(folder, wanted, seed=0, second_body=0.5)
    (path,) = folder.glob(f"*/{wanted[7].name}.skeleton")
    path.write_text(path.read_text()[:5000])
    return folder


@pytest.fixture(scope="session")
def undisturbed(raw, tmp_path_factory):
    """What the three steps give when nobody interrupts them."""
    work = tmp_path_factory.mktemp("undisturbed")
    read_step(NTU60, raw, work / "read", chunk_size=4)
    denoise_step(NTU60, work / "read", work / "denoise")
    transform_step(NTU60, work / "denoise", work / "transform", npz=True)
    return work


def content(folder):
    """Hash of every file, temporary ones included."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def command(root, step, source, output):
    return [sys.executable, "-c", _STEP, str(root), step, str(source), str(output)]


def kill_and_finish(root, step, source, output, delay):
    """Start a step, kill its main process after ``delay`` seconds, run it again to the end."""
    process = subprocess.Popen(command(root, step, source, output))
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(command(root, step, source, output), check=True, timeout=60)


def check_interrupted(root, raw, undisturbed, tmp_path, step, delays):
    source = {"read": raw, "denoise": undisturbed / "read", "transform": undisturbed / "denoise"}
    for number, delay in enumerate(delays):
        output = tmp_path / str(number)
        kill_and_finish(root, step, source[step], output, delay)
        assert content(output) == content(undisturbed / step)


@pytest.mark.parametrize("step", ["read", "denoise", "transform"])
def test_killed_once(root, raw, undisturbed, tmp_path, step):
    check_interrupted(root, raw, undisturbed, tmp_path, step, [0.3])


@pytest.mark.slow
@pytest.mark.parametrize("step", ["read", "denoise", "transform"])
def test_killed_at_twenty_random_moments(root, raw, undisturbed, tmp_path, step):
    started = time.perf_counter()
    source = {"read": raw, "denoise": undisturbed / "read", "transform": undisturbed / "denoise"}
    subprocess.run(command(root, step, source[step], tmp_path / "timing"), check=True)
    seconds = time.perf_counter() - started
    moments = random.Random(0)
    delays = [seconds * moments.uniform(0.2, 1.0) for _ in range(20)]
    check_interrupted(root, raw, undisturbed, tmp_path, step, delays)


def test_killed_between_every_two_files(raw, undisturbed, tmp_path, monkeypatch):
    """Stop after each single rename in turn: the folder never looks complete, the rest follows."""
    real = os.replace
    done = 0

    class Killed(BaseException):
        pass

    def stop_after(count):
        def replace(source, target):
            nonlocal done
            if done == count:
                raise Killed
            done += 1
            real(source, target)

        return replace

    finished = False
    for count in range(100):
        done = 0
        output = tmp_path / "read"
        shutil.rmtree(output, ignore_errors=True)
        monkeypatch.setattr(os, "replace", stop_after(count))
        try:
            read_step(NTU60, raw, output, chunk_size=20)
            finished = True
        except Killed:
            assert not (output / "index").exists()
            with pytest.raises(DataError, match="get_raw_skes_data"):
                denoise_step(NTU60, output, tmp_path / "denoise")
        monkeypatch.setattr(os, "replace", real)
        read_step(NTU60, raw, output, chunk_size=4)
        assert content(output) == content(undisturbed / "read")
        if finished:
            break
    assert finished
    assert count == 5  # two chunks, frames.csv, skipped.csv, index were renamed


def test_no_process_survives_its_killed_parent(root, raw, tmp_path):
    process = subprocess.Popen(command(root, "read", raw, tmp_path / "out"), start_new_session=True)
    time.sleep(0.4)
    process.kill()
    process.wait()
    for _ in range(50):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail("workers outlived the main process")


def test_number_of_workers_and_resuming_do_not_show(raw, undisturbed, tmp_path):
    read_step(NTU60, raw, tmp_path / "read", workers=3, chunk_size=4)
    assert content(tmp_path / "read") == content(undisturbed / "read")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "read").glob("part-*")}
    damaged = sorted(kept)[2]
    damaged.write_bytes(damaged.read_bytes()[:1000])
    read_step(NTU60, raw, tmp_path / "read", chunk_size=4)
    assert content(tmp_path / "read") == content(undisturbed / "read")
    changed = [path for path in kept if path.stat().st_mtime_ns != kept[path]]
    assert changed == [damaged]


def test_a_complete_folder_is_incomplete_again_while_it_is_remade(raw, tmp_path):
    read_step(NTU60, raw, tmp_path / "read", chunk_size=4)
    with pytest.raises(SampleFault):
        read_step(NTU60, raw, tmp_path / "read", chunk_size=5, strict=True)
    with pytest.raises(DataError, match="not complete"):
        denoise_step(NTU60, tmp_path / "read", tmp_path / "denoise")


def test_a_changed_file_is_read_again(raw, tmp_path):
    copy = tmp_path / "raw"
    shutil.copytree(raw, copy)
    first = read_step(NTU60, copy, tmp_path / "read", chunk_size=4)
    (path, *_) = sorted(copy.glob("*/*.skeleton"))
    path.write_text("")
    second = read_step(NTU60, copy, tmp_path / "read", chunk_size=4)
    assert second.accepted == first.accepted - 1


def test_bad_files_are_skipped_and_listed(shared, tmp_path, capsys):
    source = shared / "ntu" / "bad" / "raw"
    outputs = ["--output", str(tmp_path / "read")]
    assert ntu_cli.read("ntu120", ["--input", str(source), *outputs, "--workers", "1"]) == 1
    assert "23 skipped" in capsys.readouterr().out
    arguments = ["--input", str(tmp_path / "read"), "--output", str(tmp_path / "denoise")]
    assert ntu_cli.choose_actors("ntu120", [*arguments, "--workers", "1"]) == 1
    arguments = ["--input", str(tmp_path / "denoise"), "--output", str(tmp_path)]
    assert ntu_cli.transform("ntu120", arguments) == 0
    out = capsys.readouterr().out
    assert "3 samples" in out
    assert "note" in out
    with open(tmp_path / "skipped.csv", newline="") as file:
        table = {row["sample"]: row for row in csv.DictReader(file)}
    assert len(table) == 25
    assert table["S010C001P007R001A010.skeleton"]["line"] == "197"
    assert table["S007C001P018R001A023"]["step"] == "denoise"
    assert "A121" in next(name for name in table if "121" in name)


def test_strict_stops_at_the_first(raw, tmp_path, capsys):
    with pytest.raises(SampleFault, match="line"):
        read_step(NTU60, raw, tmp_path / "read", strict=True, chunk_size=4)
    assert not (tmp_path / "read" / "index").exists()
    arguments = ["--input", str(raw), "--output", str(tmp_path / "read"), "--strict"]
    assert ntu_cli.read("ntu60", arguments) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_skip_list_and_limit(raw, tmp_path, undisturbed):
    with open(undisturbed / "read" / "skipped.csv", newline="") as file:
        faulty = next(csv.DictReader(file))["sample"].removesuffix(".skeleton")
    listing = tmp_path / "missing.txt"
    listing.write_text(f"302 samples have missing skeletons:\n\n{faulty}\n")
    summary = read_step(NTU60, raw, tmp_path / "read", skip_list=listing, limit=5, strict=True)
    note, listed = summary.remarks
    assert (summary.accepted, note.verdict) == (5, "note")
    assert (listed.sample, listed.reason) == (faulty, "on the skip list")
    assert denoise_step(NTU60, tmp_path / "read", tmp_path / "denoise", limit=3).accepted == 3
    assert transform_step(NTU60, tmp_path / "denoise", tmp_path, limit=2).accepted == 2
    listing.write_text("nothing\n")
    with pytest.raises(DataError, match="names no sample"):
        read_step(NTU60, raw, tmp_path / "read", skip_list=listing)


def test_mistakes_are_one_line_and_status_2(raw, undisturbed, tmp_path, capsys):
    missing, out = str(tmp_path / "missing"), ["--output", str(tmp_path / "out")]
    assert ntu_cli.read("ntu60", ["--input", missing, *out]) == 2
    assert "no such folder; unpack the raw skeletons there" in capsys.readouterr().err
    assert ntu_cli.read("ntu60", ["--input", str(tmp_path), *out]) == 2
    capsys.readouterr()
    assert ntu_cli.choose_actors("ntu60", ["--input", missing, *out]) == 2
    error = capsys.readouterr().err
    assert "run in data/ntu: python get_raw_skes_data.py" in error
    assert error.count("\n") == 1
    denoised = str(undisturbed / "denoise")
    assert ntu_cli.transform("ntu120", ["--input", denoised, *out]) == 2
    assert "holds ntu60, not ntu120" in capsys.readouterr().err


def test_scripts_run_from_their_folder(root, raw, tmp_path):
    for name in ("get_raw_skes_data", "get_raw_denoised_data", "seq_transformation"):
        for folder in ("ntu", "ntu120"):
            script = root / "data" / folder / f"{name}.py"
            result = subprocess.run(
                [sys.executable, script.name, "--help"],
                cwd=script.parent,
                capture_output=True,
                text=True,
                check=True,
            )
            assert "--output" in result.stdout
