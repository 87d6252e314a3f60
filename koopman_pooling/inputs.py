"""Clips from whatever files people have, as a model's preprocessing takes them.

The readers are those of ``data.custom``; stores and files of own skeletons are read as well.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.labels import STORE_SUFFIXES
from data.own import CHANNELS, OwnClips, is_own
from data.store import Store
from koopman_pooling.recogniser import Recogniser
from torchlight.cli import wing

Reader = Callable[[], np.ndarray]
"""Gives a clip (M, T, V, C)."""


class Inputs:
    """The clips of a file or a folder.

    Attributes:
        names: of the clips.
        crowded: how many of those read had more persons than the model takes: those who are seen
            in most frames are left.

    Raises:
        DataError: there is nothing to read.
    """

    def __init__(self, path: Path, recogniser: Recogniser, axes: str | None = None) -> None:
        self._reader, self._persons = recogniser.reader, recogniser.persons
        self.crowded = 0
        if path.suffix.lower() in STORE_SUFFIXES and path.is_file():
            store = Store(path)
            self.names = store.names
            self._readers: list[Reader] = [
                partial(_stored, store, row) for row in range(len(store))
            ]
        elif is_own(path):
            own = OwnClips(path)
            self.names = own.tables.names
            self._kind_is(own.tables.channels, str(path))
            self._readers = [partial(_own, own, row) for row in range(len(own.tables.names))]
        else:
            self.names, self._readers = self._of_custom(path, axes)

    def read(self, number: int) -> np.ndarray:
        """A clip (M, T, V, C), its persons those that the model takes.

        Raises:
            DataError: it cannot be read, or its joints are others.
        """
        clip = self._readers[number]()
        self.crowded += self._persons is not None and len(clip) > self._persons
        return clip[: self._persons]

    def _of_custom(self, path: Path, axes: str | None) -> tuple[list[str], list[Reader]]:
        find_clips = wing("--input", "data.custom.readers.find_clips")
        found = find_clips(path, self._reader.skeleton, axes)
        readers, ntu = list[Reader](), self._reader.raw_ntu
        for reader in found.readers:
            file = reader.args[0] if isinstance(reader, partial) else None
            if isinstance(file, Path) and file.suffix.lower() == ".skeleton" and ntu:
                readers.append(partial(_actors, file))
            else:
                readers.append(partial(self._custom, reader))
        return found.names, readers

    def _custom(self, reader: Callable) -> np.ndarray:
        """A clip of ``data.custom``, who is seen most first, with the model's channels."""
        from data.custom.arrays import channels_of, ranked

        clip = reader()
        kind = channels_of(clip, self._reader.skeleton)
        if kind == "xys" and self._reader.kind == "xy":
            kind, clip.joints = "xy", clip.joints[..., :2]
        self._kind_is(kind, "the clip")
        known = np.isfinite(clip.joints).all(axis=-1, keepdims=True)
        joints = ranked(np.where(known, clip.joints, 0), clip.joints.shape[1])
        if not joints.shape[1]:
            raise DataError("nobody in any frame")
        return joints.transpose(1, 0, 2, 3)

    def _kind_is(self, kind: str, what: str) -> None:
        if kind != self._reader.kind:
            wanted = CHANNELS.get(self._reader.kind, self._reader.kind)
            raise DataError(f"{what}: its joints are {CHANNELS[kind]}; the model takes {wanted}")


def _stored(store: Store, row: int) -> np.ndarray:
    """A clip of a store; a lone person whom the data set does not show twice has company."""
    clip = store.sequence(row).transpose(1, 0, 2, 3)
    alone = len(clip) == 1 and not store.copied[row]
    return np.concatenate([clip, np.zeros_like(clip)]) if alone else clip


def _own(own: OwnClips, row: int) -> np.ndarray:
    return own.sequence(row).transpose(1, 0, 2, 3)


def _actors(path: Path) -> np.ndarray:
    """A raw recording by the rules that NTU RGB+D is prepared by."""
    wing(str(path), "data.preparation.align.move_to_origin")  # which may be absent
    from data.preparation.align import move_to_origin
    from data.preparation.bodies import collect_bodies, denoise
    from data.preparation.recording import JOINTS, read_recording

    recording = read_recording(path)
    joints = denoise(collect_bodies(recording), recording.num_frames, path.name)
    moved = move_to_origin(joints, path.name)
    return moved.reshape(len(moved), -1, JOINTS, 3).transpose(1, 0, 2, 3)
