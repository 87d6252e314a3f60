"""Raw NTU RGB+D recordings: ``.skeleton`` text to arrays, with a line number for every fault.

The format (Shahroudy et al., NTU RGB+D, CVPR 2016; Kinect v2)::

    2                                          number of frames
    1                                          number of bodies in the first frame
    72057594037931101 0 1 1 1 1 0 0.02 0.05 2  body: id and nine fields nobody here reads
    25                                         number of joints
    0.218 0.172 3.785 277.4 191.8 ... 2        25 joints: x y z in metres, and nine more fields
    ...
    0                                          number of bodies in the second frame: none

The nine further fields of a joint line are counted, not read: no result depends on them, and
recordings hold "-inf" there.
"""

import codecs
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.preparation.decimals import is_number, parse_decimals
from data.skeletons import NTU
from torchlight.untrusted import read_bounded

JOINTS = NTU.num_point
MAX_BYTES = 2**27  # some 40 minutes of two bodies; a recording of NTU RGB+D has 0.3 MB
MAX_BODIES = 100  # in a frame; the sensor tracks six

_JOINT_FIELDS = 12
_BODY_FIELDS = 10
_COUNTS = bytes([_JOINT_FIELDS] * JOINTS)  # fields of the joint lines of a body
_LARGEST = 3.4e38  # of the float32 that are read together
_WHOLE_NUMBER = re.compile(rb"[+-]?\d{1,18}")


@dataclass(frozen=True)
class Recording:
    """What one raw file holds. R = bodies summed over frames; a *record* is one of them.

    Frames without any body vanish here: all later numbering is over the others, the "valid"
    frames, because the published scripts number them so.

    Attributes:
        joints: float32 (R, 25, 3), metres, in the order of the file.
        frames: valid frame of each record, int64 (R,), from 0 without gaps, rising.
        bodies: id of each record. A text, for ids exceed 2**53 and as doubles some would be equal.
        dropped: numbers of the frames without bodies, counted over all frames from 0.
        surplus_line: 1-based line where content begins that the frame count does not cover;
            None as a rule.
    """

    joints: np.ndarray
    frames: np.ndarray
    bodies: list[str]
    dropped: list[int]
    surplus_line: int | None = None

    @property
    def num_frames(self) -> int:
        """Number of valid frames."""
        return int(self.frames[-1]) + 1


class SampleFault(DataError):
    """What is wrong with one sample, and where.

    Attributes:
        source: name of the file or sample.
        line: 1-based line number; None where no single line is at fault.
        reason: the message without name and line.
    """

    def __init__(self, source: str, line: int | None, reason: str) -> None:
        place = source if line is None else f"{source}, line {line}"
        super().__init__(f"{place}: {reason}")
        self.source = source
        self.line = line
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, int | None, str]]:
        """Survive the way back from a worker process."""
        return type(self), (self.source, self.line, self.reason)


def read_recording(path: Path) -> Recording:
    """Read one ``.skeleton`` file.

    A file with more content than its frame count says is read as far as the count goes, as the
    published scripts do; ``surplus_line`` then tells where the rest begins. Line ends of any
    system, tabs, several blanks, blank lines at the end and a byte-order mark are accepted.

    Raises:
        SampleFault: the file cannot be read or breaks the format, has a coordinate that is no
            finite float32 number, or holds no body at all.
    """
    try:
        text = read_bounded(path, MAX_BYTES)
    except OSError as error:
        raise SampleFault(path.name, None, f"cannot be read ({error.strerror})") from error
    return parse_recording(text, path.name)


def parse_recording(text: bytes, source: str) -> Recording:
    """Turn the content of a ``.skeleton`` file into arrays; ``source`` names it in messages.

    Raises:
        SampleFault: as ``read_recording``.
    """
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # Notepad's "Unicode"
        text = text.decode("utf-16", "replace").encode()
    text = text.removeprefix(codecs.BOM_UTF8).rstrip()
    lines = text.splitlines()
    fields = _find_fields(text)
    if fields is not None and len(fields.first) == len(lines):
        with suppress(ValueError):  # a fault is named below
            return _LineReader(lines, source, fields).read()
    return _LineReader(lines, source).read()


@dataclass(frozen=True)
class _Fields:
    """Where in a text the fields lie, found with array operations.

    Attributes:
        text: of which. starts, ends: byte positions of each field, int64.
        first: the first field of each line, int64.
        counts: fields of each line, a byte each; 255 are 255 or more.
    """

    text: bytes
    starts: np.ndarray
    ends: np.ndarray
    first: np.ndarray
    counts: bytes


def _find_fields(text: bytes) -> _Fields | None:
    """Split a text at single blanks and line ends; None if there are others, or double ones.

    With Windows line ends an empty field, to which no line refers, lies between the two
    characters; taking "\\r" out first would cost as much as all the rest.
    """
    windows = b"\r" in text[:32]
    text += b"\r\n" if windows else b"\n"
    raw = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(raw <= ord(" "))
    starts = np.concatenate([[0], ends[:-1] + 1])
    separators = raw[ends]
    line_ends = np.flatnonzero(separators == ord("\n"))
    last = line_ends - windows
    first = np.concatenate([[0], line_ends[:-1] + 1])
    known = np.count_nonzero(separators == ord(" ")) + len(line_ends) * (1 + windows) == len(ends)
    paired = not windows or bool((separators[last] == ord("\r")).all())
    if not known or not paired or np.count_nonzero(ends == starts) != len(line_ends) * windows:
        return None
    counts = np.minimum(last - first + 1, 255).astype(np.uint8).tobytes()
    return _Fields(text, starts, ends, first, counts)


@dataclass
class _LineReader:
    """A walk over the lines of one file.

    With ``fields``, those of joint lines are counted by them and coordinates converted together in
    the end, and what is wrong there is not said.
    """

    lines: list[bytes]
    source: str
    fields: _Fields | None = None
    position: int = 0  # lines read so far, which is the 1-based number of the current line
    starts: list[int] = field(default_factory=list)  # first joint line of each record, from 0
    joints: list[tuple[float, ...]] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)

    def read(self) -> Recording:
        num_frames = self.whole_number("frame count")
        if num_frames == 0:
            raise self.fault("the frame count is 0")
        for frame in range(num_frames):
            if self.position == len(self.lines):
                self.position += 1  # the first missing line
                raise self.fault(
                    f"the file ends after {frame} of the {num_frames} frames it announces"
                )
            self.read_frame(frame)
        if not self.frames:
            raise SampleFault(self.source, None, f"no body in any of its {num_frames} frames")
        surplus = self.position + 1 if self.position < len(self.lines) else None
        joints = self.convert(self.fields) if self.fields else np.array(self.joints)
        joints = joints.astype(np.float32).reshape(-1, JOINTS, 3)
        return Recording(joints, np.array(self.frames), self.bodies, self.dropped, surplus)

    def convert(self, fields: _Fields) -> np.ndarray:
        """The coordinates of all joint lines, float64 (3 * lines,).

        Raises:
            ValueError: one is no number, or none that is finite in 32 bits.
        """
        lines = np.array(self.starts)[:, None] + np.arange(JOINTS)
        wanted = (fields.first[lines][..., None] + np.arange(3)).ravel()
        joints = parse_decimals(fields.text, fields.starts[wanted], fields.ends[wanted])
        if not (np.abs(joints) < _LARGEST).all():
            raise ValueError("a number too large")
        return joints

    def read_frame(self, frame: int) -> None:
        count = self.whole_number(f"body count of frame {frame}")
        if count > MAX_BODIES:
            raise self.fault(f"{count} bodies in frame {frame}, more than {MAX_BODIES}")
        known = len(self.bodies)
        for _ in range(count):
            head = self.next_line(f"a body of frame {frame}").split()
            if len(head) != _BODY_FIELDS:
                what = f"the {_BODY_FIELDS} fields of a body in frame {frame}"
                raise self.fault(f"{len(head)} field(s) instead of {what}")
            body = head[0].decode("latin-1")
            if body in self.bodies[known:]:
                raise self.fault(f"body id {_show(head[0])} is in frame {frame} twice")
            self.bodies.append(body)
            self.frames.append(frame - len(self.dropped))
            self.read_body_joints(frame)
        if count == 0:
            self.dropped.append(frame)

    def read_body_joints(self, frame: int) -> None:
        """Read x, y and z of all joints of one body."""
        count = self.whole_number("joint count")
        if count != JOINTS:
            raise self.fault(f"{count} joints instead of {JOINTS}")
        end = self.position + JOINTS
        if self.fields is None:
            self.joints += [self.read_joint(frame, joint) for joint in range(JOINTS)]
        elif self.fields.counts[self.position : end] != _COUNTS:
            raise ValueError("another number of fields")
        else:
            self.starts.append(self.position)
            self.position = end

    def read_joint(self, frame: int, joint: int) -> tuple[float, ...]:
        """Read x, y and z of a joint, in a way that tells what is wrong."""
        place = f"joint {joint} of frame {frame}"
        tokens = self.next_line(place).split()
        if len(tokens) != _JOINT_FIELDS:
            raise self.fault(f"{len(tokens)} field(s) instead of the {_JOINT_FIELDS} of {place}")
        for axis, token in zip("xyz", tokens[:3], strict=True):
            what = f"{axis} of {place} is {_show(token)}"
            if token.lower().lstrip(b"+-") in (b"nan", b"inf", b"infinity"):
                raise self.fault(f"{what}, not finite")
            if not is_number(token):
                raise self.fault(f"{what}, no number")
            with np.errstate(over="ignore"):
                if not np.isfinite(np.float32(float(token))):
                    raise self.fault(f"{what}, too large for a 32-bit number")
        return tuple(map(float, tokens[:3]))

    def whole_number(self, what: str) -> int:
        token = self.next_line(f"the {what}").strip()
        if not _WHOLE_NUMBER.fullmatch(token):
            raise self.fault(f"the {what} is {_show(token)}, not a whole number")
        if int(token) < 0:
            raise self.fault(f"the {what} is negative: {int(token)}")
        return int(token)

    def next_line(self, what: str) -> bytes:
        self.position += 1
        if self.position > len(self.lines):
            raise self.fault(f"the file ends where {what} should be")
        return self.lines[self.position - 1]

    def fault(self, reason: str) -> SampleFault:
        """A fault of the current line."""
        return SampleFault(self.source, self.position, reason)


def _show(token: bytes) -> str:
    """A token for a message: printable, short, on one line."""
    text = ascii(token.decode("latin-1"))
    return text if len(text) <= 40 else text[:36] + "...'"
