"""Which clips there are under a folder, or in a file, and a reader for each."""

import os
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from data.custom.annotations import read_annotations, read_x_and_y
from data.custom.arrays import SCORES, Clip, Found, clip_of_array, stacked
from data.custom.documents import read_document, read_frame_files
from data.custom.tables import read_table
from data.errors import DataError
from data.npz import array_names, open_array
from data.skeletons import NTU, Skeleton
from torchlight.untrusted import Unsound, read_npy

_PICKLES = (".pkl", ".pickle")
_SUFFIXES = (".csv", ".tsv", ".json", ".npy", ".npz", ".skeleton")
_FRAME_FILE = re.compile(r"(.*?)[_.\-]?\d+_keypoints\.json")
_KEYPOINTS = ("keypoint", "keypoints", "joints", "skeleton", "skeletons", "data", "x", "clip")


def find_clips(path: Path, skeleton: Skeleton, axes: str | None = None) -> Found:
    """The clips of a folder, at any depth, or of a file.

    Raises:
        DataError: there is nothing to read, or two clips have one name.
    """
    if path.is_dir():
        found = _in_folder(path, skeleton, axes)
    elif not path.exists():
        raise DataError(f"{path}: no such file or folder")
    else:
        found = _in_file(path, skeleton, axes)
    seen: set[str] = set()
    for name in found.names:
        if name in seen:
            raise DataError(f"{path}: two clips are called {name}")
        seen.add(name)
    return found


def _in_file(path: Path, skeleton: Skeleton, axes: str | None) -> Found:
    whole = read_annotations(path, skeleton) if path.suffix.lower() in _PICKLES else None
    if path.suffix.lower() == ".npz":
        whole = read_x_and_y(path, skeleton, axes)
    if whole is not None:
        return whole
    if path.suffix.lower() not in _SUFFIXES:
        raise DataError(f"{path}: none of {', '.join((*_SUFFIXES, *_PICKLES))}, nor a folder")
    return Found([path.stem], [partial(read_clip, path, skeleton, axes)])


def _in_folder(folder: Path, skeleton: Skeleton, axes: str | None) -> Found:
    clips: list[tuple[str, Callable[[], Clip]]] = []
    others: Counter[str] = Counter()
    for here, below, files in os.walk(folder, followlinks=True):
        below[:] = [name for name in below if not name.startswith(".")]
        place = Path(here).relative_to(folder)
        visible = [name for name in files if not name.startswith(".")]
        frames = [name for name in visible if _FRAME_FILE.fullmatch(name)]
        frames.sort(key=lambda name: (_prefix(name), name))
        for prefix, group in groupby(frames, key=_prefix):
            alone = prefix in ("", place.name) and place.name
            name = (place if alone else place / (prefix or "clip")).as_posix()
            paths = [Path(here, file) for file in group]
            clips.append((name, partial(read_frame_files, paths, skeleton)))
        for file in sorted(set(visible) - set(frames)):
            suffix = Path(file).suffix.lower()
            if suffix in _SUFFIXES:
                name = (place / Path(file).stem).as_posix()
                clips.append((name, partial(read_clip, Path(here, file), skeleton, axes)))
            else:
                others[suffix or "no suffix"] += 1
    if not clips:
        there = f"; it has {', '.join(sorted(others))}" if others else ""
        raise DataError(f"{folder}: no clip in it or below ({', '.join(_SUFFIXES)}){there}")
    clips.sort(key=lambda clip: clip[0])
    return Found([name for name, _ in clips], [reader for _, reader in clips], others=others)


def _prefix(name: str) -> str:
    match = _FRAME_FILE.fullmatch(name)
    return match[1] if match else ""


def read_clip(path: Path, skeleton: Skeleton, axes: str | None = None) -> Clip:
    """Read one file.

    Raises:
        DataError: it cannot be read as a clip of these joints; the message names it.
    """
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        reader: Callable[[], Clip] = partial(read_table, path, skeleton)
    elif suffix == ".json":
        reader = partial(read_document, path, skeleton, axes)
    elif suffix == ".skeleton":
        reader = partial(_read_recording, path, skeleton)
    else:
        reader = partial(_read_arrays, path, skeleton, axes)
    try:
        return reader()
    except (Unsound, DataError) as error:
        told = str(error)
        raise DataError(told if told.startswith(str(path)) else f"{path}: {told}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _read_arrays(path: Path, skeleton: Skeleton, axes: str | None) -> Clip:
    """An array alone, or (``.npz``) joints with scores and a label beside them."""
    if path.suffix.lower() == ".npy":
        return clip_of_array(read_npy(path), skeleton.num_point, axes)
    there = array_names(path)
    key = next((name for name in _KEYPOINTS if name in there), there[0] if len(there) == 1 else "")
    if not key:
        raise DataError(f"{path}: none of {', '.join(_KEYPOINTS)} in it, but {', '.join(there)}")
    array = open_array(path, key)
    scores = next((open_array(path, name) for name in SCORES if name in there), None)
    if scores is not None and array.shape[:-1] == scores.shape and array.shape[-1] == 2:
        array = np.concatenate([array, scores[..., None]], axis=-1)
    clip = clip_of_array(array, skeleton.num_point, axes)
    clip.scored = True if scores is not None else clip.scored
    if "label" in there:
        label = open_array(path, "label")
        clip.label = label.item() if label.size == 1 else None
    return clip


def _read_recording(path: Path, skeleton: Skeleton) -> Clip:
    """A raw ``.skeleton`` file."""
    from data.preparation.recording import read_recording  # another wing, which may be absent

    if skeleton != NTU:
        raise DataError(f"{path}: its joints are those of --layout ntu")
    recording = read_recording(path)
    tracks: dict[str, dict[int, np.ndarray]] = {body: {} for body in recording.bodies}
    frames = recording.frames.tolist()
    for body, frame, joints in zip(recording.bodies, frames, recording.joints, strict=True):
        tracks[body][frame] = joints
    count = recording.num_frames
    return Clip(stacked(list(tracks.values()), count, skeleton.num_point, 3), scored=False)
