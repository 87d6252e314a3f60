"""The two readers of raw files agree with each other; every fault is named with its line."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.preparation.recording import (
    SampleFault,
    _read_carefully,
    _read_quickly,
    parse_recording,
    read_recording,
)

JOINT = "0.25 -1.5e-2 3.125 200 300 -inf 5 6 7 8 9 2"


def text_of(frames, end="\n"):
    """Raw text of frames, each a list of body ids."""
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for body in bodies:
            lines += [f"{body} 0 1 1 1 1 0 0.1 0.2 2", "25", *[JOINT] * 25]
    return (end.join(lines) + end).encode()


def equal(a, b):
    return (
        a.joints.tobytes() == b.joints.tobytes()
        and a.frames.tolist() == b.frames.tolist()
        and a.bodies == b.bodies
        and a.dropped.tolist() == b.dropped.tolist()
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=3, unique=True), min_size=1, max_size=5),
    st.sampled_from(["\n", "\r\n"]),
)
def test_both_readers_agree_on_sound_files(frames, end):
    text = text_of(frames, end)
    quick = _read_quickly(text)
    if not any(frames):
        assert quick is None
        with pytest.raises(SampleFault, match="no body in any"):
            parse_recording(text, "x")
        return
    assert quick is not None
    assert equal(quick, _read_carefully(text, "x"))
    assert equal(quick, parse_recording(text.rstrip(), "x"))


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([b" ", b"\n", b"\r", b"\0", b"x", b"5", b"-", b"\xff", b""]),
)
def test_the_quick_reader_never_accepts_more_than_the_careful_one(seed, damage):
    text = text_of([["a"], ["a", "b"], [], ["b"]], ["\n", "\r\n"][seed % 2])
    place = seed % len(text)
    damaged = text[:place] + damage + text[place + 1 :]
    quick = _read_quickly(damaged)
    if quick is not None:
        assert equal(quick, _read_carefully(damaged, "x"))


@pytest.mark.parametrize(
    ("edit", "line", "words"),
    [
        (lambda t: t.replace(b"2\n1\n", b"3\n1\n", 1), 58, "ends after 2 of the 3 frames"),
        (lambda t: t[:-40], 57, "instead of the 12"),
        (lambda t: t.replace(b"\n25\n", b"\n26\n", 1), 4, "26 joints"),
        (lambda t: t.replace(b"0.1 0.2 2\n", b"2\n", 1), 3, "10 fields"),
        (lambda t: b"\n" + t, 1, "not a whole number"),
        (lambda t: t.replace(b"2\n1\n", b"2\n-1\n", 1), 2, "negative"),
        (lambda t: t.replace(b"2\n1\n", b"2\n101\n", 1), 2, "more than 100"),
        (lambda t: t.replace(b"-1.5e-2", b"1e39", 1), 5, "too large"),
        (lambda t: t.replace(b"3.125", b"nan", 1), 5, "not finite"),
        (lambda t: b"9" * 5000 + t, 1, "not a whole number"),
    ],
)
def test_faults_are_named_with_their_line(edit, line, words):
    with pytest.raises(SampleFault, match=words) as caught:
        parse_recording(edit(text_of([["a"], ["a"]])), "some.skeleton")
    assert caught.value.line == line
    assert str(caught.value).startswith(f"some.skeleton, line {line}: ")
    assert "\n" not in str(caught.value)


def test_a_body_id_twice_in_a_frame_is_a_fault_of_the_second_header():
    with pytest.raises(SampleFault, match="twice") as caught:
        parse_recording(text_of([["a", "b"], ["b", "b"]]), "x")
    assert caught.value.line == 1 + 55 + 1 + 27 + 1


def test_ids_that_are_equal_as_doubles_stay_two_bodies():
    recording = parse_recording(text_of([["72057594037931101", "72057594037931102"]]), "x")
    assert recording.bodies == ["72057594037931101", "72057594037931102"]


def read_or_fault(path):
    try:
        return read_recording(path), None
    except SampleFault as fault:
        return None, fault


def test_verdicts_on_the_bad_files(shared):
    """Each bad file alone: line and verdict as listed."""
    folder = shared / "ntu" / "bad"
    late = {"the name", "removes both", "no frame to take"}  # found by name or by later steps
    entries = json.loads((folder / "bad.json").read_text())
    assert len(entries) >= 28
    for entry in entries:
        path = folder / "raw" / entry["file"]
        recording, fault = read_or_fault(path)
        if fault is not None:
            assert entry["expect"] == "reject", fault
            assert fault.line == entry["line"], fault
            assert fault.source == entry["file"]
            continue
        if entry["expect"] == "decide":  # chosen: the stated frames are read, as published
            assert recording.num_frames == 9
            assert recording.surplus_line == entry["line"]
        elif entry["expect"] == "accept":
            assert equal(recording, read_recording(shared / "ntu" / entry["same_as"]))
        else:
            assert any(word in entry["what"] for word in late), entry


def test_both_readers_agree_on_the_public_files(shared):
    quick_count = 0
    for path in sorted((shared / "ntu" / "public" / "raw").glob("*/*.skeleton")):
        quick = _read_quickly(path.read_bytes())
        quick_count += quick is not None
        if quick is not None:
            assert equal(quick, _read_carefully(path.read_bytes(), path.name))
    assert quick_count >= 25


def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "huge.skeleton"
    with open(path, "wb") as file:
        file.truncate(2**33)
    with pytest.raises(SampleFault, match="too large"):
        read_recording(path)


def test_numbers_are_rounded_to_float32():
    recording = parse_recording(text_of([["a"]]), "x")
    assert recording.joints.dtype == np.float32
    assert recording.joints[0, 0].tolist() == [0.25, np.float32(-0.015), 3.125]
