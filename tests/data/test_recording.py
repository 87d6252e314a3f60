"""Raw files are read to the bit, in whatever clothes; every fault is named with its line."""

import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data.preparation.recording import SampleFault, parse_recording, read_recording

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
        and a.dropped == b.dropped
    )


def outcome(read, *args):
    """What ``read`` returns, and the fault it raises instead."""
    try:
        return read(*args), None
    except SampleFault as fault:
        return None, fault


def unusual(text, how):
    """The same recording, as other programs write it."""
    if how == "carriage returns":
        return text.replace(b"\n", b"\r")
    if how == "utf-16":
        return text.decode().encode("utf-16")
    return {
        "mark": b"\xef\xbb\xbf" + text,
        "blanks": text.replace(b" ", b"   ").replace(b"\n", b" \n") + b"\n \n",
        "tabs": text.replace(b" ", b"\t"),
        "windows": text.replace(b"\n", b"\r\n"),
        "no last line end": text.rstrip(),
        "exponents": text.replace(b"0.25 ", b"+2.5E-1 ").replace(b" 3.125 ", b" 31250e-4 "),
    }[how]


@pytest.mark.parametrize(
    "how",
    ["mark", "utf-16", "blanks", "tabs", "windows", "carriage returns", "no last line end",
     "exponents"],
)  # fmt: skip
def test_the_same_recording_in_other_clothes(how):
    text = text_of([["a"], [], ["a", "b"]])
    usual = parse_recording(text, "x")
    assert usual.joints[0, 24].tolist() == [0.25, np.float32(-0.015), 3.125]
    assert (usual.frames.tolist(), usual.bodies, usual.dropped) == ([0, 1, 1], ["a", "a", "b"], [1])
    assert equal(parse_recording(unusual(text, how), "x"), usual)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([b" ", b"\n", b"\t", b"_", b"x", b"\xff", b""]))
def test_damage_is_a_fault_or_changes_nothing_else(seed, damage):
    """What is read is what a plain reading of the lines, field by field, gives."""
    text = text_of([["a"], ["a", "b"], [], ["b"]], ["\n", "\r\n"][seed % 2])
    place = seed % len(text)
    text = text[:place] + damage + text[place + 1 :]
    found, fault = outcome(parse_recording, text, "x")
    if fault is None:
        joints = [line.split() for line in text.splitlines() if len(line.split()) == 12]
        plain = np.array([line[:3] for line in joints[: found.joints.size // 3]]).astype(float)
        assert found.joints.reshape(-1, 3).tobytes() == plain.astype(np.float32).tobytes()
        assert found.frames.tolist() == [0, 1, 1, 2]
    else:
        assert str(fault).startswith("x")
        assert "\n" not in str(fault)


@settings(max_examples=200, deadline=None)
@given(
    st.from_regex(rb"[+-]?([0-9]{1,18}\.?[0-9]{0,20}|\.[0-9]{1,20})(e[+-]?[0-9])?", fullmatch=True)
)
def test_coordinates_are_the_nearest_float32(token):
    assume(abs(float(token)) < 3e38)
    text = text_of([["a"]]).replace(b"-1.5e-2", token)
    assert parse_recording(text, "x").joints[0, 3, 1] == np.float32(float(token))


@pytest.mark.parametrize(
    ("edit", "line", "words"),
    [
        (lambda t: t.replace(b"2\n1\n", b"3\n1\n", 1), 58, "ends after 2 of the 3 frames"),
        (lambda t: t[:-40], 57, "instead of the 12 fields"),
        (lambda t: t.replace(b"\n25\n", b"\n26\n", 1), 4, "26 joints"),
        (lambda t: t.replace(b"0.1 0.2 2\n", b"2\n", 1), 3, "10 fields"),
        (lambda t: b"\n" + t, 1, "not a whole number"),
        (lambda t: t.replace(b"2\n1\n", b"2\n-1\n", 1), 2, "negative"),
        (lambda t: t.replace(b"2\n1\n", b"2\n101\n", 1), 2, "more than 100"),
        (lambda t: t.replace(b"-1.5e-2", b"1e39", 1), 5, "too large"),
        (lambda t: t.replace(b"3.125", b"nan", 1), 5, "not finite"),
        (lambda t: t.replace(b"3.125", b"3_1", 1), 5, "z of joint 0 of frame 0 is '3_1', no num"),
        (lambda t: t.replace(b"3.125", b"3,125", 1), 5, "no number"),
        (lambda t: t.replace(b" 200 ", b" \t", 1), 5, "11 field"),
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


def test_text_without_a_body_is_a_fault():
    with pytest.raises(SampleFault, match="no body in any of its 2 frames"):
        parse_recording(text_of([[], []]), "x")


def test_verdicts_on_the_bad_files(shared):
    """Each bad file alone: line and verdict as listed."""
    folder = shared / "ntu" / "bad"
    late = {"the name", "removes both", "no frame to take"}  # found by name or by later steps
    entries = json.loads((folder / "bad.json").read_text())
    assert len(entries) >= 28
    for entry in entries:
        path = folder / "raw" / entry["file"]
        recording, fault = outcome(read_recording, path)
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
