"""NW-UCLA as this field distributes it: one JSON file a sequence, ``aXX_sYY_eZZ_vWW.json``.

Wang, Nie, Xia, Wu, Zhu: Cross-view Action Modeling, Learning and Recognition, CVPR 2014. A file
holds ``{"file_name": ..., "skeletons": [frame][20 joints][x, y, z in metres], "label": 1..10}``.
Action, subject, take and view are in the name; labels and splits follow from it alone.

The 1,484 files are read and checked once; the result is kept in the user's cache folder.
"""

import hashlib
import io
import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import DataError, printable
from data.skeletons import UCLA
from torchlight.files import atomic_write
from torchlight.untrusted import read_bounded

DEFAULT_ROOT = "data/NW-UCLA/all_sqe"

# Action ids of the ten classes, in label order.
ACTIONS = (1, 2, 3, 4, 5, 6, 8, 9, 11, 12)
CLASS_NAMES = (
    "pick up with one hand",
    "pick up with two hands",
    "drop trash",
    "walk around",
    "sit down",
    "stand up",
    "donning",
    "doffing",
    "throw",
    "carry",
)
VIEWS = {"train": (1, 2), "test": (3,)}

MAX_BYTES = 16 * 2**20  # of a file; the longest sequence has 201 frames, 250 kB
_log = logging.getLogger(__name__)
_LARGEST = 1e30  # metres; beyond, differences and turns leave 32-bit numbers
_NAME = re.compile(r"a(\d{2})_s(\d{2})_e(\d{2})_v(\d{2})", re.ASCII)
_CACHE_FORMAT = 2
_CHECKSUM_BYTES = 32
_LARGEST_CACHE = 2**32


@dataclass(frozen=True)
class SampleName:
    """What a sample's name says; ``label`` counts from 0."""

    action: int
    subject: int
    take: int
    view: int
    label: int


@dataclass(frozen=True)
class Sequences:
    """All sequences of a folder, sorted by name.

    Attributes:
        names: one a sequence, without ``.json``.
        lengths: frames of each, int64 (n,).
        joints: positions in metres, float64 (sum of lengths, 20, 3), one after the other.
    """

    names: list[str]
    lengths: np.ndarray
    joints: np.ndarray


def parse_name(name: str) -> SampleName:
    """Read action, subject, take and view from ``aXX_sYY_eZZ_vWW``.

    Raises:
        DataError: the name has another form, or its action or view is none of the benchmark's.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(f"{name}: not an NW-UCLA sample name, which reads aXX_sYY_eZZ_vWW")
    action, subject, take, view = (int(group) for group in match.groups())
    if action not in ACTIONS:
        known = ", ".join(str(known) for known in ACTIONS)
        raise DataError(f"{name}: unknown action id {action}; NW-UCLA has {known}")
    if not any(view in views for views in VIEWS.values()):
        raise DataError(f"{name}: unknown view {view}; NW-UCLA has 1, 2 (train) and 3 (test)")
    return SampleName(action, subject, take, view, ACTIONS.index(action))


def read_sequence(path: Path) -> np.ndarray:
    """Read and check one file; return its joints, float64 (T, 20, 3), T >= 1.

    Raises:
        DataError: the file cannot be read, is not JSON of the expected form, holds a frame
            without 20 finite (x, y, z), or a label that disagrees with its name.
    """
    try:
        expected = parse_name(path.stem).label + 1
    except DataError as error:
        raise DataError(f"{path.parent}: {error}") from error
    try:
        document = json.loads(read_bounded(path, MAX_BYTES))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except RecursionError as error:
        raise DataError(f"{path}: not a skeleton file: nested too deeply") from error
    except ValueError as error:  # bad JSON, bad UTF-8, a number of thousands of digits
        raise DataError(f"{path}: not valid JSON ({printable(error)})") from error
    fault = _fault(document, expected)
    if fault:
        raise DataError(f"{path}: {fault}")
    return np.array(document["skeletons"], dtype=np.float64)


def load(
    root: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None = None
) -> Sequences:
    """Return every sequence under ``root``, from the cache if no file has changed since.

    The cache is one file in ``cache_dir`` (default: ``neural-koopman-pooling`` in
    ``$XDG_CACHE_HOME``, or in ``~/.cache``), named after the resolved ``root`` and stamped with
    the names, sizes and modification times of the files it was made from. A damaged one is
    made anew; where none can be written a warning says so and nothing else changes. Any number
    of processes may do this at once.

    Raises:
        DataError: the folder is missing or empty, or a file in it is malformed.
    """
    folder = Path(root)
    sources, signature = _list_sources(folder)
    found = None
    try:
        cache = _cache_path(folder, cache_dir)
        found = _read_cache(cache, signature)
        if found is None:
            found = _read_folder(sources)
            _write_cache(cache, found, signature)
    except RuntimeError as error:
        _log.warning(f"warning: NW-UCLA is parsed anew at every start: {error}")
    return _read_folder(sources) if found is None else found


def _fault(document: object, label: int) -> str:
    """What is wrong with a decoded file whose label should be this; "" if nothing is."""
    if not isinstance(document, dict):
        return f"holds {_describe(document)}, expected an object"
    for key in ("skeletons", "label"):
        if key not in document:
            return f'no key "{key}"; expected "skeletons" and "label"'
    frames, found = document["skeletons"], document["label"]
    if isinstance(found, bool) or found != label:
        return (
            f"label {_describe(found)} disagrees with the file's name, "
            f"whose action has label {label}"
        )
    if not isinstance(frames, list):
        return f'"skeletons" is {_describe(frames)}, expected a list of frames'
    if not frames:
        return "no frames"
    if _looks_right(frames):  # a check in bulk, as number by number takes seconds
        return ""
    faults = (_frame_fault(number, frame) for number, frame in enumerate(frames))
    return next((fault for fault in faults if fault), "")


def _looks_right(frames: list) -> bool:
    try:
        joints = np.array(frames)
    except ValueError:  # lists of different lengths
        return False
    is_number = joints.dtype.kind in "iuf"
    fits = is_number and joints.shape[1:] == (UCLA.num_point, 3)
    return fits and bool((np.abs(joints.astype(np.float64)) <= _LARGEST).all())


def _frame_fault(number: int, frame: object) -> str:
    """What is wrong with one frame, "" if nothing is."""
    if not isinstance(frame, list) or len(frame) != UCLA.num_point:
        found = f"{len(frame)} joints" if isinstance(frame, list) else "no list of joints"
        return f"frame {number} has {found}, expected {UCLA.num_point}"
    for joint, position in enumerate(frame):
        place = f"frame {number}, joint {joint}"
        if not isinstance(position, list) or len(position) != 3:
            return f"{place} is {_describe(position)}, not [x, y, z]"
        for value in position:
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not -_LARGEST <= value <= _LARGEST:  # False for NaN too
                return f"{place} has {_describe(value)} where a number should be"
    return ""


def _describe(value: object) -> str:
    """Show a decoded JSON value in a few words."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _list_sources(folder: Path) -> tuple[list[Path], str]:
    """The folder's JSON files in name order, and a hash that tells its states apart.

    Hidden files are not looked at, and none is opened.
    """
    digest = hashlib.sha256(f"format {_CACHE_FORMAT}".encode())
    try:
        sources = sorted(p for p in folder.iterdir() if p.suffix == ".json" and p.name[0] != ".")
        for source in sources:
            status = source.stat()
            stamp = f"\n{source.name}\t{status.st_size}\t{status.st_mtime_ns}"
            digest.update(os.fsencode(stamp))
    except OSError as error:
        if error.filename != os.fspath(folder):  # a broken link, say
            raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error
        raise DataError(
            f"{folder}: cannot be listed ({error.strerror}); put or link the NW-UCLA JSON files "
            f"at {DEFAULT_ROOT}, or name their folder by root"
        ) from error
    if not sources:
        raise DataError(f"{folder}: no .json files; NW-UCLA has 1,484 of them in all_sqe")
    return sources, digest.hexdigest()


def _read_folder(sources: list[Path]) -> Sequences:
    """Read all files; where some are malformed, raise for the first and count the rest."""
    sequences, faults = [], []
    for source in sources:
        try:
            sequences.append(read_sequence(source))
        except DataError as error:
            faults.append(str(error))
    if faults:
        more = f" (malformed files in all: {len(faults)})" if len(faults) > 1 else ""
        raise DataError(faults[0] + more)
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    return Sequences([source.stem for source in sources], lengths, np.concatenate(sequences))


def _cache_path(folder: Path, cache_dir: str | os.PathLike[str] | None) -> Path:
    """Where the folder's cache lies, by the XDG base directory rule (relative paths are ignored).

    Raises:
        RuntimeError: the home folder is unknown.
    """
    key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    if cache_dir is None:
        configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
        base = configured if configured.is_absolute() else Path.home() / ".cache"
        cache_dir = base / "neural-koopman-pooling"
    return Path(cache_dir) / f"ucla-{key}.cache"


def _read_cache(cache: Path, signature: str) -> Sequences | None:
    """The cached sequences; None if there are none, or old or damaged ones."""
    try:
        content = read_bounded(cache, _LARGEST_CACHE)
    except OSError:
        return None
    checksum, content = content[:_CHECKSUM_BYTES], content[_CHECKSUM_BYTES:]
    if checksum != _checksum(signature, content):
        return None
    with np.load(io.BytesIO(content)) as arrays:
        return Sequences(arrays["names"].tolist(), arrays["lengths"], arrays["joints"])


def _write_cache(cache: Path, found: Sequences, signature: str) -> None:
    """Write the cache.

    Raises:
        RuntimeError: it cannot be written.
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **vars(found))
    content = buffer.getvalue()
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(cache) as temporary:
            temporary.write_bytes(_checksum(signature, content) + content)
    except OSError as error:
        raise RuntimeError(
            f"no cache can be written in {cache.parent} ({error.strerror})"
        ) from error


def _checksum(signature: str, content: bytes) -> bytes:
    return hashlib.sha256(signature.encode() + content).digest()
