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
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.skeletons import NTU
from torchlight.untrusted import read_bounded

JOINTS = NTU.num_point
MAX_BYTES = 2**27  # some 40 minutes of two bodies; a recording of NTU RGB+D has 0.3 MB
MAX_BODIES = 100  # in a frame; the sensor tracks six

_JOINT_FIELDS = 12
_BODY_FIELDS = 10
_BLANKS = [_JOINT_FIELDS - 1] * JOINTS
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
    published scripts do. Line ends of any system, tabs, several blanks, blank lines at the end and
    a byte-order mark are accepted.

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
    text = text.removeprefix(codecs.BOM_UTF8).lstrip(b" ").rstrip()
    lines = text.splitlines()
    if _has_unusual_blanks(text):
        lines = [b" ".join(line.split()) for line in lines]
    return _LineReader(lines, source).read()


def _has_unusual_blanks(text: bytes) -> bool:
    """Whether there are tabs, two blanks in a row, or blanks at an end of a line."""
    raw = np.frombuffer(text, np.uint8)
    white, blank = raw <= ord(" "), raw == ord(" ")
    beside = blank[:-1] & white[1:] | white[:-1] & blank[1:]
    return bool(beside.any()) or any(byte in text for byte in b"\t\v\f")


@dataclass
class _LineReader:
    """A walk over the lines of one file; their fields are parted by single blanks."""

    lines: list[bytes]
    source: str
    position: int = 0  # lines read so far, which is the 1-based number of the current line
    starts: list[int] = field(default_factory=list)  # lines before the joints of each record
    joint_lines: list[bytes] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
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
        bodies = [body.decode("latin-1") for body in self.bodies]
        return Recording(self.joints(), np.array(self.frames), bodies, self.dropped, surplus)

    def read_frame(self, frame: int) -> None:
        bodies = self.whole_number(f"body count of frame {frame}")
        if bodies > MAX_BODIES:
            raise self.fault(f"{bodies} bodies in frame {frame}, more than {MAX_BODIES}")
        known = len(self.bodies)
        for _ in range(bodies):
            fields = self.fields(_BODY_FIELDS, f"a body in frame {frame}")
            if fields[0] in self.bodies[known:]:
                raise self.fault(f"body id {_show(fields[0])} is in frame {frame} twice")
            self.bodies.append(fields[0])
            self.frames.append(frame - len(self.dropped))
            self.read_joints(frame)
        if bodies == 0:
            self.dropped.append(frame)

    def read_joints(self, frame: int) -> None:
        """Note the lines of all joints of one body."""
        joints = self.whole_number("joint count")
        if joints != JOINTS:
            raise self.fault(f"{joints} joints instead of {JOINTS}")
        self.starts.append(self.position)
        lines = self.lines[self.position : self.position + JOINTS]
        if [line.count(b" ") for line in lines] == _BLANKS:
            self.position += JOINTS
        else:
            for joint in range(JOINTS):  # one of them raises
                self.fields(_JOINT_FIELDS, f"joint {joint} of frame {frame}")
        self.joint_lines += lines

    def joints(self) -> np.ndarray:
        """The coordinates as numbers, float32 (R, 25, 3)."""
        try:  # to the bit what ``float`` gives
            numbers = np.loadtxt(self.joint_lines, delimiter=" ", usecols=(0, 1, 2), comments=None)
        except ValueError:
            raise self.no_number() from None
        with np.errstate(over="ignore"):
            joints = numbers.astype(np.float32).reshape(-1, JOINTS, 3)
        if not np.isfinite(joints).all():
            raise self.no_number()
        return joints

    def no_number(self) -> SampleFault:
        """The fault of the first coordinate that is no finite float32."""
        coordinates = [token for line in self.joint_lines for token in line.split()[:3]]
        reasons = enumerate(map(_why_no_number, coordinates))
        place, why = next((place, why) for place, why in reasons if why)
        record, joint, axis = place // (3 * JOINTS), place // 3 % JOINTS, "xyz"[place % 3]
        self.position = self.starts[record] + joint + 1
        valid = (n for n in count() if n not in self.dropped)
        frame = next(islice(valid, self.frames[record], None))
        token = _show(coordinates[place])
        return self.fault(f"{axis} of joint {joint} of frame {frame} is {token}, {why}")

    def fields(self, number: int, what: str) -> list[bytes]:
        """The fields of the next line, so many of them."""
        fields = self.next_line(what).split()
        if len(fields) != number:
            raise self.fault(f"{len(fields)} field(s) instead of the {number} fields of {what}")
        return fields

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


def _why_no_number(token: bytes) -> str:
    """Why a token is no finite float32, "" if it is one."""
    try:
        number = float(token.replace(b"_", b"?"))  # "1_0" is a number to Python alone
    except ValueError:
        return "no number"
    with np.errstate(over="ignore"):
        if np.isfinite(np.float32(number)):
            return ""
    return "not finite" if token[-1:].isalpha() else "too large for a 32-bit number"


def _show(token: bytes) -> str:
    """A token for a message: printable, short, on one line."""
    text = ascii(token.decode("latin-1"))
    return text if len(text) <= 40 else text[:36] + "...'"
