"""Predictions as pictures: the clip, and above it what it shows."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from koopman_pooling.preprocessing import ClipReader
from koopman_pooling.recogniser import Prediction
from koopman_pooling.stream import Span
from torchlight.cli import wing

_RATE = 30.0  # frames a second


class Pictures:
    """Draws clips into a folder.

    Attributes:
        folder: that of ``--out``, or predictions/. count: of pictures so far.
    """

    def __init__(self, given: argparse.Namespace, reader: ClipReader) -> None:
        wing("--picture", "data.show.drawing.save_strip")  # which may be absent
        self.folder = given.out.parent if given.out else Path("predictions")
        self.count, self._kind, self._reader = 0, given.picture, reader
        self._rate = given.rate or _RATE

    def save(self, name: str, clip: np.ndarray, answer: Prediction) -> None:
        """Draw a clip (M, T, V, C), or the part of it that the answer is about."""
        from data.show.drawing import save_animation, save_strip
        from data.show.page import save_html
        from data.show.poses import poses

        file, title = name.replace("/", "_"), name
        if isinstance(answer, Span):
            clip = clip[:, answer.start : answer.end]
            file, title = (
                f"{file}_{answer.start:06d}",
                f"{name}, frames {answer.start}-{answer.end - 1}",
            )
        title = f"{title}: {answer.label} {100 * answer.probability:.0f} %"
        axes = len(self._reader.kind.removesuffix("s"))
        joints = np.nan_to_num(clip.transpose(1, 0, 2, 3))
        drawn = poses(joints, self._reader.skeleton, axes=axes, title=title)
        path: Any = self.folder / f"{file}.{self._kind}"
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._kind == "png":
            save_strip(path, drawn)
        elif self._kind == "gif":
            save_animation(path, drawn, rate=self._rate)
        else:
            save_html(path, drawn, rate=self._rate)
        self.count += 1
