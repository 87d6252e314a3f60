"""Whole data sets in one file: PYSKL's (mmaction2's) annotation pickles, arrays x and y."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data.custom.arrays import Clip, Found, clip_of_array
from data.errors import DataError, printable
from data.labels import published_labels
from data.npz import array_names, open_array
from data.skeletons import Skeleton
from torchlight.fusion.unpickle import Array, unpickle
from torchlight.untrusted import read_bounded

_LARGEST = 2**35  # bytes of a pickle, which is read as a whole


def read_annotations(path: Path, skeleton: Skeleton) -> Found:
    """Read ``{"split": {name: [frame_dir]}, "annotations": [...]}``, or the list alone.

    An annotation has ``frame_dir``, ``label``, ``keypoint`` (M, T, V, 2 or 3) and, in 2-D,
    ``keypoint_score`` (M, T, V), which becomes the third channel. Nothing in the pickle is run.

    Raises:
        DataError: the file is something else, or asks for more than plain data.
    """
    try:
        content = unpickle(read_bounded(path, _LARGEST))
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises whatever it likes
        raise DataError(
            f"{path}: no pickle of annotations, or damaged ({printable(error)})"
        ) from error
    found = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(found, list) or not found or not all(isinstance(a, dict) for a in found):
        raise DataError(f"{path}: no annotations; expected a dict with split and annotations")
    names = []
    for number, annotation in enumerate(found):
        name = annotation.get("frame_dir", annotation.get("filename"))
        if not isinstance(name, str) or "keypoint" not in annotation:
            raise DataError(f"{path}: annotation {number} has no frame_dir and keypoint")
        names.append(name)
    splits = content.get("split", {}) if isinstance(content, dict) else {}
    sound = isinstance(splits, dict) and all(
        isinstance(chosen, list) and all(isinstance(name, str) for name in chosen)
        for chosen in splits.values()
    )
    if not sound:
        raise DataError(f"{path}: split is no dict of lists of names")
    readers = [partial(_annotated, path, annotation, skeleton) for annotation in found]
    numbered = all(isinstance(_label(annotation), int) for annotation in found)
    return Found(names, readers, dict(splits), numbered=numbered)


def _annotated(path: Path, annotation: dict, skeleton: Skeleton) -> Clip:
    name = annotation.get("frame_dir", annotation.get("filename"))
    keypoint, score = _array(annotation["keypoint"]), _array(annotation.get("keypoint_score"))
    try:
        if keypoint is None or keypoint.ndim not in (3, 4):
            raise DataError("keypoint is no array (persons, frames, joints, 2 or 3)")
        order = "MTVC" if keypoint.ndim == 4 else "TVC"
        joints = clip_of_array(keypoint, skeleton.num_point, order).joints
        scored = None if joints.shape[-1] == 2 else False
        if score is not None and joints.shape[-1] == 2:
            score = score if score.ndim == 3 else score[None]
            if score.shape != keypoint.shape[-4:-1] and score.shape[1:] != keypoint.shape[:-1]:
                raise DataError(f"keypoint_score is {score.shape}, keypoint {keypoint.shape}")
            joints = np.concatenate([joints, score.transpose(1, 0, 2)[..., None]], axis=-1)
            scored = True
    except DataError as error:
        raise DataError(f"{path}: {printable(name)}: {error}") from error
    return Clip(joints, scored, _label(annotation))


def _label(annotation: dict) -> int | str | None:
    """A class, as a rule its number."""
    label = annotation.get("label")
    found = label.value.item() if isinstance(label, Array) and label.value.size == 1 else label
    return found if isinstance(found, str) or (type(found) is int and found >= 0) else None


def _array(found: Any) -> np.ndarray | None:
    """An array, as the pickle holds it."""
    return found.value if isinstance(found, Array) else None


def read_x_and_y(path: Path, skeleton: Skeleton, axes: str | None) -> Found | None:
    """Read ``x_train, y_train, x_test, y_test`` (or other splits), None where there is no x.

    x is (N, T, V * C), or N clips in another order of axes; zeros at a clip's end are cut off.

    Raises:
        DataError: the arrays are something else.
    """
    there = array_names(path)
    splits = [name[2:] for name in there if name.startswith("x_") and f"y_{name[2:]}" in there]
    if not splits:
        return None
    names: dict[str, list[str]] = {}
    readers: list[partial[Clip]] = []
    for split in splits:
        labels = published_labels(path, split).tolist()
        x = open_array(path, f"x_{split}")
        if len(x) != len(labels):
            raise DataError(f"{path}: {len(x)} clips in x_{split}, {len(labels)} in y_{split}")
        names[split] = [f"{split}_{row}" for row in range(len(x))]
        readers += [
            partial(_row, f"{path}: x_{split}", x, row, label, skeleton, axes)
            for row, label in enumerate(labels)
        ]
    return Found([name for split in splits for name in names[split]], readers, names, numbered=True)


def _row(place: str, x: Any, row: int, label: int, skeleton: Skeleton, axes: str | None) -> Clip:
    array = np.asarray(x[row])
    if array.ndim == 4 and array.shape[0] in (2, 3) and array.shape[2] == skeleton.num_point:
        axes = axes or "CTVM"  # as the data sets of this field are
    try:
        clip = clip_of_array(array, skeleton.num_point, axes)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    filled = np.flatnonzero(clip.joints.any(axis=(1, 2, 3)))
    clip.joints = clip.joints[: filled[-1] + 1 if len(filled) else None]
    clip.label = label
    return clip
