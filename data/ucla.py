"""NW-UCLA as this field distributes it: one JSON file a sequence, ``aXX_sYY_eZZ_vWW.json``.

Wang, Nie, Xia, Wu, Zhu: Cross-view Action Modeling, Learning and Recognition, CVPR 2014. A file
holds ``{"file_name": ..., "skeletons": [frame][20 joints][x, y, z in metres], "label": 1..10}``.
Action, subject, take and view are in the name; labels and splits follow from it alone.

The 1,484 files are read and checked once; the result is kept in the user's cache folder.
"""

import hashlib
import json
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import DataError, printable
from data.npz import open_array
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

# The longest sequence has 201 frames, 250 kB. A file beyond this limit is not one of them, and
# decoding it could exhaust the memory.
MAX_BYTES = 16 * 2**20

_LARGEST = 1e30  # metres; beyond, differences and turns leave 32-bit numbers

_NAME = re.compile(r"a(\d{2})_s(\d{2})_e(\d{2})_v(\d{2})", re.ASCII)
_CACHE_FORMAT = 1


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
    document = _read_json(path)
    if not isinstance(document, dict):
        raise DataError(f"{path}: holds {_describe(document)}, expected an object")
    for key in ("skeletons", "label"):
        if key not in document:
            raise DataError(f'{path}: no key "{key}"; expected "skeletons" and "label"')
    label = document["label"]
    if isinstance(label, bool) or label != expected:
        raise DataError(
            f"{path}: label {_describe(label)} disagrees with the file's name, "
            f"whose action has label {expected}"
        )
    return _joints(path, document["skeletons"])


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
    sources = _list_sources(folder)
    signature = _signature(sources)
    cache = _cache_path(folder, cache_dir)
    cached = _read_cache(cache, signature) if cache else None
    if cached is not None:
        return cached
    sequences = _read_folder(sources)
    if cache:
        _write_cache(cache, sequences, signature)
    return sequences


def _read_json(path: Path) -> object:
    try:
        text = read_bounded(path, MAX_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        return json.loads(text)
    except RecursionError as error:
        raise DataError(f"{path}: not a skeleton file: nested too deeply") from error
    except ValueError as error:  # bad JSON, bad UTF-8, a number of thousands of digits
        raise DataError(f"{path}: not valid JSON ({printable(error)})") from error


def _joints(path: Path, frames: object) -> np.ndarray:
    """Turn decoded ``[frame][joint][x, y, z]`` into an array, or name the first fault."""
    if not isinstance(frames, list):
        raise DataError(f'{path}: "skeletons" is {_describe(frames)}, expected a list of frames')
    if not frames:
        raise DataError(f"{path}: no frames")
    if not _looks_right(frames):  # a check in bulk, as checking number by number takes seconds
        _check_frames(path, frames)
    return np.array(frames, dtype=np.float64)


def _looks_right(frames: list) -> bool:
    try:
        joints = np.array(frames)
    except ValueError:  # lists of different lengths
        return False
    is_number = joints.dtype.kind in "iuf"
    fits = is_number and joints.shape[1:] == (UCLA.num_point, 3)
    return fits and bool((np.abs(joints.astype(np.float64)) <= _LARGEST).all())


def _check_frames(path: Path, frames: list) -> None:
    """Raise a DataError that says which frame is wrong, and how."""
    for number, frame in enumerate(frames):
        count = len(frame) if isinstance(frame, list) else None
        if count != UCLA.num_point:
            found = "no list of joints" if count is None else f"{count} joints"
            raise DataError(f"{path}: frame {number} has {found}, expected {UCLA.num_point}")
        for joint, position in enumerate(frame):
            if not isinstance(position, list) or len(position) != 3:
                found = _describe(position)
                raise DataError(f"{path}: frame {number}, joint {joint} is {found}, not [x, y, z]")
            wrong = [value for value in position if not _is_finite_number(value)]
            if wrong:
                found = _describe(wrong[0])
                raise DataError(
                    f"{path}: frame {number}, joint {joint} has {found} where a number should be"
                )


def _is_finite_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return -_LARGEST <= value <= _LARGEST  # False for NaN too


def _describe(value: object) -> str:
    """Show a decoded JSON value in a few words."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _list_sources(folder: Path) -> list[os.DirEntry]:
    """Return the folder's JSON files sorted by name; hidden files are not looked at."""
    try:
        with os.scandir(folder) as entries:
            sources = [e for e in entries if e.name.endswith(".json") and e.name[0] != "."]
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed ({error.strerror}); put or link the NW-UCLA JSON files "
            f"at {DEFAULT_ROOT}, or name their folder by root"
        ) from error
    if not sources:
        raise DataError(f"{folder}: no .json files; NW-UCLA has 1,484 of them in all_sqe")
    return sorted(sources, key=lambda entry: entry.name)


def _read_folder(sources: list[os.DirEntry]) -> Sequences:
    """Read all files; where some are malformed, raise for the first and count the rest."""
    names, sequences, faults = [], [], []
    for source in sources:
        path = Path(source.path)
        try:
            sequences.append(read_sequence(path))
            names.append(path.stem)
        except DataError as error:
            faults.append(str(error))
    if faults:
        more = f" (malformed files in all: {len(faults)})" if len(faults) > 1 else ""
        raise DataError(faults[0] + more)
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    return Sequences(names, lengths, np.concatenate(sequences))


def _signature(sources: list[os.DirEntry]) -> str:
    """Hash what tells one state of the folder from another without opening its files."""
    digest = hashlib.sha256(f"format {_CACHE_FORMAT}".encode())
    for source in sources:
        try:
            status = source.stat()
        except OSError as error:  # a broken link, say
            raise DataError(f"{source.path}: cannot be read ({error.strerror})") from error
        stamp = f"\n{source.name}\t{status.st_size}\t{status.st_mtime_ns}"
        digest.update(os.fsencode(stamp))
    return digest.hexdigest()


def _cache_path(folder: Path, cache_dir: str | os.PathLike[str] | None) -> Path | None:
    """Return where the folder's cache lies; None, with a warning, where there is no home."""
    key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    try:
        directory = Path(cache_dir) if cache_dir is not None else _user_cache()
    except RuntimeError as error:
        _warn_uncached(str(error))
        return None
    return directory / f"ucla-{key}.npz"


def _user_cache() -> Path:
    """The XDG base directory rule, which has relative paths ignored.

    Raises:
        RuntimeError: the home folder is unknown.
    """
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = configured if configured.is_absolute() else Path.home() / ".cache"
    return base / "neural-koopman-pooling"


def _read_cache(cache: Path, signature: str) -> Sequences | None:
    """Return the cached sequences, or None if there are none, or old or damaged ones."""
    try:
        if str(open_array(cache, "signature")) != signature:
            return None
        names, lengths, joints = (
            np.array(open_array(cache, key)) for key in ("names", "lengths", "joints")
        )
    except DataError:
        return None
    sequences = Sequences([str(name) for name in names.ravel()], lengths, joints)
    return sequences if _is_sound(sequences) else None


def _is_sound(found: Sequences) -> bool:
    """Whether a cache holds what ``_read_folder`` could have given."""
    joints, lengths = found.joints, found.lengths
    return bool(
        all(_NAME.fullmatch(name) for name in found.names)
        and lengths.dtype == np.int64
        and lengths.shape == (len(found.names),)
        and (lengths > 0).all()
        and joints.dtype == np.float64
        and joints.shape == (lengths.sum(), UCLA.num_point, 3)
        and (np.abs(joints) <= _LARGEST).all()
    )


def _write_cache(cache: Path, sequences: Sequences, signature: str) -> None:
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(cache) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                signature=np.array(signature),
                names=np.array(sequences.names),
                lengths=sequences.lengths,
                joints=sequences.joints,
            )
    except OSError as error:
        _warn_uncached(f"no cache can be written in {cache.parent} ({error.strerror})")


def _warn_uncached(reason: str) -> None:
    warnings.warn(f"NW-UCLA is parsed anew at every start: {reason}", stacklevel=4)
