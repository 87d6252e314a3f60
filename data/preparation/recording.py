"""Raw NTU RGB+D recordings: ``.skeleton`` text to arrays, with a line number for every fault.

The format (Shahroudy et al., NTU RGB+D, CVPR 2016; Kinect v2)::

    2                                          number of frames
    1                                          number of bodies in the first frame
    72057594037931101 0 1 1 1 1 0 0.02 0.05 2  body: id and nine fields nobody here reads
    25                                         number of joints
    0.218 0.172 3.785 277.4 191.8 ... 2        25 joints: x y z in metres, and nine more fields
    ...
    0                                          number of bodies in the second frame: none

Two readers share the work. The quick one looks at the whole file with array operations and
understands only what the recorder writes: one blank between fields, nothing surplus. Whatever it
does not understand, damaged or merely unusual, goes to the careful one, which walks the lines,
accepts all that is legal and names the line of the first fault. Both give the same arrays.

The nine further fields of a joint line are counted, not read: no result depends on them, and
recordings hold "-inf" there.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.preparation.decimals import is_number, parse_decimals
from data.skeletons import NTU
from torchlight.untrusted import read_bounded

JOINTS = NTU.num_point
MAX_BYTES = 16 * 2**20  # a recording has some 0.3 MB; a longer file is something else
MAX_BODIES = 100  # in a frame; the sensor tracks six

_JOINT_FIELDS = 12
_BODY_FIELDS = 10
_BODY_LINES = JOINTS + 2
_BODY_LAYOUT = np.array([_BODY_FIELDS, 1] + [_JOINT_FIELDS] * JOINTS)
_WHOLE_NUMBER = re.compile(rb"[+-]?\d{1,18}")
_BLANK, _LINE_END, _RETURN = b" \n\r"


@dataclass(frozen=True)
class Recording:
    """What one raw file holds. R = bodies summed over frames; a *record* is one of them.

    Frames without any body vanish here: all later numbering is over the others, the "valid"
    frames, because the published scripts number them so.

    Attributes:
        joints: float32 (R, 25, 3), metres, in the order of the file.
        frames: valid frame of each record, int64 (R,), from 0 without gaps, rising.
        bodies: id of each record. A text, for ids exceed 2**53 and as doubles some would be equal.
        dropped: numbers of the frames without bodies, int64, counted over all frames from 0.
        surplus_line: 1-based line where content begins that the frame count does not cover;
            None as a rule.
    """

    joints: np.ndarray
    frames: np.ndarray
    bodies: list[str]
    dropped: np.ndarray
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
    published scripts do; ``surplus_line`` then tells where the rest begins. Windows line ends,
    trailing blanks and blank lines at the end are accepted.

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
    recording = _read_quickly(text)
    return recording if recording is not None else _read_carefully(text, source)


# ---- the quick reader ----


@dataclass(frozen=True)
class _Fields:
    """Where the fields of a text begin and end, and which are on which line.

    Attributes:
        starts, ends: byte positions of each field, int64.
        first: the first field of each line, int64. counts: fields of each line, int64.
    """

    starts: np.ndarray
    ends: np.ndarray
    first: np.ndarray
    counts: np.ndarray


def _read_quickly(text: bytes) -> Recording | None:
    """Read what the recorder writes; None for anything else, sound or not."""
    windows = b"\r" in text[:32]
    if not text.endswith(b"\n"):
        text += b"\r\n" if windows else b"\n"
    fields = _find_fields(text, windows)
    walk = _walk_frames(text, fields) if fields is not None else None
    if fields is None or walk is None:
        return None
    heads, frames, dropped = walk
    x_fields = fields.first[heads[:, None] + np.arange(2, _BODY_LINES)]
    coordinates = (x_fields[..., None] + np.arange(3)).ravel()
    try:
        numbers = parse_decimals(text, fields.starts[coordinates], fields.ends[coordinates])
    except ValueError:
        return None
    with np.errstate(over="ignore"):  # too large for float32: infinite, and refused below
        joints = numbers.astype(np.float32).reshape(-1, JOINTS, 3)
    ids = fields.first[heads]
    places = zip(fields.starts[ids].tolist(), fields.ends[ids].tolist(), strict=True)
    bodies = [text[start:end].decode("latin-1") for start, end in places]
    repeats = len(set(zip(frames, bodies, strict=True))) < len(bodies)
    if repeats or not np.isfinite(joints).all():
        return None
    return Recording(joints, np.array(frames), bodies, np.array(dropped, dtype=np.int64))


def _find_fields(text: bytes, windows: bool) -> _Fields | None:
    """Split a text at single blanks and line ends; None if there are others, or double ones.

    With Windows line ends an empty field, to which no line refers, lies between the two
    characters; taking "\\r" out first would cost as much as all the rest.
    """
    raw = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(raw <= _BLANK)
    starts = np.empty_like(ends)
    starts[0] = 0
    np.add(ends[:-1], 1, out=starts[1:])
    separators = raw[ends]
    line_ends = np.flatnonzero(separators == _LINE_END)
    last = line_ends - windows
    first = np.empty_like(line_ends)
    first[0] = 0
    np.add(line_ends[:-1], 1, out=first[1:])
    known = np.count_nonzero(separators == _BLANK) + len(line_ends) * (1 + windows) == len(ends)
    paired = not windows or bool((separators[last] == _RETURN).all())
    if not known or not paired or np.count_nonzero(ends == starts) != len(line_ends) * windows:
        return None
    return _Fields(starts, ends, first, last - first + 1)


def _walk_frames(text: bytes, fields: _Fields) -> tuple[np.ndarray, list[int], list[int]] | None:
    """Header line of every body, its valid frame, and the frames without bodies; None if unsure.

    Everything but the coordinates is checked: the file has exactly the announced lines, each
    with the right number of fields.
    """
    starts, ends = fields.starts[fields.first], fields.ends[fields.first]
    num_lines = len(starts)
    announced = text[starts[0] : ends[0]]
    heads: list[int] = []
    frames: list[int] = []
    dropped: list[int] = []
    line, valid = 1, 0
    for frame in range(int(announced) if announced.isdigit() and len(announced) < 10 else 0):
        token = text[starts[line] : ends[line]] if line < num_lines else b""
        if len(token) != 1 or not token.isdigit() or fields.counts[line] != 1:
            return None
        count = int(token)
        line += 1
        if count:
            heads.extend(range(line, line + count * _BODY_LINES, _BODY_LINES))
            frames.extend([valid] * count)
            valid += 1
            line += count * _BODY_LINES
        else:
            dropped.append(frame)
    if line != num_lines or not heads or fields.counts[0] != 1:
        return None
    lines = np.array(heads)
    layout = fields.counts[lines[:, None] + np.arange(_BODY_LINES)]
    if (layout != _BODY_LAYOUT).any() or not _all_say_joints(
        text, starts[lines + 1], ends[lines + 1]
    ):
        return None
    return lines, frames, dropped


def _all_say_joints(text: bytes, starts: np.ndarray, ends: np.ndarray) -> bool:
    """Whether every token ``text[starts[i]:ends[i]]`` is the number of joints."""
    expected = str(JOINTS).encode()
    raw = np.frombuffer(text, np.uint8)
    fits = ends - starts == len(expected)
    for place, character in enumerate(expected):  # a short token is followed by a line's end
        fits &= raw[np.minimum(starts + place, len(raw) - 1)] == character
    return bool(fits.all())


# ---- the careful reader ----


def _read_carefully(text: bytes, source: str) -> Recording:
    """Read line by line; raise a SampleFault that names the line of the first fault."""
    return _LineReader(text.rstrip().splitlines(), source).read()


@dataclass
class _LineReader:
    """A walk over the lines of one file."""

    lines: list[bytes]
    source: str
    position: int = 0  # lines read so far, which is the 1-based number of the current line
    joints: list[np.ndarray] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)

    def read(self) -> Recording:
        num_frames = self.whole_number("frame count")
        if num_frames == 0:
            raise self.fault("the frame count is 0")
        valid = 0
        for frame in range(num_frames):
            valid += self.read_frame(frame, valid, num_frames)
        if valid == 0:
            raise SampleFault(self.source, None, f"no body in any of its {num_frames} frames")
        return Recording(
            joints=np.stack(self.joints),
            frames=np.array(self.frames),
            bodies=self.bodies,
            dropped=np.array(self.dropped, dtype=np.int64),
            surplus_line=self.position + 1 if self.position < len(self.lines) else None,
        )

    def read_frame(self, frame: int, valid: int, num_frames: int) -> bool:
        """Read one frame; say whether it has a body."""
        if self.position == len(self.lines):
            reason = f"the file ends after {frame} of the {num_frames} frames it announces"
            raise SampleFault(self.source, self.position + 1, reason)  # the first missing line
        count = self.whole_number(f"body count of frame {frame}")
        if count > MAX_BODIES:
            raise self.fault(f"{count} bodies in frame {frame}, more than {MAX_BODIES}")
        seen: set[str] = set()
        for _ in range(count):
            body = self.read_body(frame, seen)
            seen.add(body)
            self.bodies.append(body)
            self.frames.append(valid)
        if count == 0:
            self.dropped.append(frame)
        return count > 0

    def read_body(self, frame: int, seen: set[str]) -> str:
        """Read one body's header and joints; return its id, which must not be ``seen`` yet."""
        head = self.next_line(f"a body of frame {frame}").split()
        if len(head) != _BODY_FIELDS:
            what = f"the {_BODY_FIELDS} fields of a body in frame {frame}"
            raise self.fault(f"{len(head)} field(s) instead of {what}")
        body = head[0].decode("latin-1")
        if body in seen:
            raise self.fault(f"body id {_show(head[0])} is in frame {frame} twice")
        count = self.whole_number("joint count")
        if count != JOINTS:
            raise self.fault(f"{count} joints instead of {JOINTS}")
        self.joints.append(np.array([self.read_joint(frame, j) for j in range(JOINTS)]))
        return body

    def read_joint(self, frame: int, joint: int) -> np.ndarray:
        """Read x, y and z of a joint, float32 (3,)."""
        place = f"joint {joint} of frame {frame}"
        tokens = self.next_line(place).split()
        if len(tokens) != _JOINT_FIELDS:
            raise self.fault(f"{len(tokens)} field(s) instead of the {_JOINT_FIELDS} of {place}")
        named = zip("xyz", tokens[:3], strict=True)
        return np.array([self.coordinate(token, f"{axis} of {place}") for axis, token in named])

    def coordinate(self, token: bytes, what: str) -> np.float32:
        if not is_number(token):
            infinite = token.lower().lstrip(b"+-") in (b"nan", b"inf", b"infinity")
            raise self.fault(
                f"{what} is {_show(token)}, {'not finite' if infinite else 'no number'}"
            )
        with np.errstate(over="ignore"):
            value = np.float32(float(token))
        if not np.isfinite(value):
            raise self.fault(f"{what} is {_show(token)}, too large for a 32-bit number")
        return value

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
