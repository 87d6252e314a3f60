"""Long recordings: a window slides over them, and what overlapping windows say is averaged.

A frame's probabilities are the mean over the windows that it is in, which smooths them without any
delay. An action is a stretch of frames of one likeliest class.
"""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from koopman_pooling.recogniser import Prediction, Recogniser


@dataclass(frozen=True, repr=False)
class Span(Prediction):
    """An action in a recording.

    Attributes:
        scores: the probabilities, a mean over its frames.
        start, end: its first frame, and the one after its last.
    """

    start: int
    end: int

    @property
    def probabilities(self) -> np.ndarray:
        """As the scores are."""
        return self.scores


class Latency:
    """Seconds from a window's frames to its probabilities."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def told(self, window: int, recogniser: Recogniser) -> str:
        """What was measured, in words."""
        if not self.seconds:
            return "latency: no window"
        median, slow = 1000 * np.percentile(self.seconds, [50, 95])
        where = f"{recogniser.device}"
        if recogniser.device.type == "cpu":
            where += f", {torch.get_num_threads()} threads"
        return (
            f"latency of a window of {window} frames: median {median:.1f} ms, 95 % below "
            f"{slow:.1f} ms ({len(self.seconds)} windows, {recogniser.reader.looks} looks each, "
            f"{where})"
        )


def watch(
    recogniser: Recogniser, clip: np.ndarray, window: int, hop: int, latency: Latency
) -> np.ndarray:
    """Return the probabilities of each frame of a recording, float64 (T, c).

    Every window is looked at like a clip alone. Where nobody is in a window, nothing is probable.

    Args:
        clip: (M, T, V, C). window, hop: in frames; the last window ends with the recording.
        latency: is added to.
    """
    frames = clip.shape[1]
    starts = sorted({*range(0, max(frames - window, 0) + 1, hop), max(frames - window, 0)})
    total, windows = np.zeros((frames, len(recogniser.class_names))), np.zeros((frames, 1))
    warm = bool(latency.seconds)
    for start in tqdm(starts, "watching", unit=" windows", disable=None, leave=False):
        part = clip[:, start : start + window]
        windows[start : start + window] += 1
        if not np.nan_to_num(part).any():
            continue
        if not warm:  # the first run of a model prepares much
            recogniser.predict(part)
            warm = True
        begun = time.perf_counter()
        total[start : start + window] += recogniser.predict(part).probabilities
        latency.seconds.append(time.perf_counter() - begun)
    return total / windows


def spans_of(
    probabilities: np.ndarray, class_names: Sequence[str], shortest: int, threshold: float = 0.0
) -> list[Span]:
    """Return the actions in a recording, by the probabilities of its frames (T, c).

    Args:
        shortest: frames of an action; what is shorter goes to the neighbour that is likelier there.
        threshold: an action whose mean probability is lower is none.
    """
    likeliest = probabilities.argmax(axis=1)
    likeliest[~probabilities.any(axis=1)] = -1
    borders = [0, *(np.flatnonzero(np.diff(likeliest)) + 1).tolist(), len(likeliest)]
    runs = [[a, b, int(likeliest[a])] for a, b in itertools.pairwise(borders)]
    while len(runs) > 1:
        number = min(range(len(runs)), key=lambda i: runs[i][1] - runs[i][0])
        start, end, _ = runs[number]
        if end - start >= shortest:
            break
        beside = [runs[i] for i in (number - 1, number + 1) if 0 <= i < len(runs)]
        here = probabilities[start:end].mean(axis=0)
        runs[number][2] = max(beside, key=lambda run: here[run[2]] if run[2] >= 0 else -1)[2]
        runs = _joined(runs)
    found = [(a, b, probabilities[a:b].mean(axis=0)) for a, b, c in runs if c >= 0]
    spans = [Span(class_names, mean, a, b) for a, b, mean in found]
    return [span for span in spans if span.probability >= threshold]


def _joined(runs: list[list[int]]) -> list[list[int]]:
    """Neighbours of one class as one."""
    joined = [runs[0]]
    for start, end, label in runs[1:]:
        if label == joined[-1][2]:
            joined[-1][1] = end
        else:
            joined.append([start, end, label])
    return joined
