"""What is odd about clips: joints that never move or are missing, jumps, imbalance, copies."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from data.custom.labels import natural
from data.own import Tables
from data.skeletons import Skeleton

_JUMP = 0.5  # of the body's size, from one frame to the next: thrice what a fast kick does at 30 Hz
_MISSING = 0.5  # of the frames
_IMBALANCE = 5  # times as many clips of one class as of another
_SHOWN = 5


class Checks:
    """Looks at clips one after the other, and keeps counts alone."""

    def __init__(self, skeleton: Skeleton) -> None:
        self.skeleton = skeleton
        self._low = np.full((skeleton.num_point, 3), np.inf)
        self._high = -self._low
        self._seen = np.zeros(skeleton.num_point)
        self._poses = 0
        self._empty: dict[str, int] = {}
        self._jumps: dict[str, int] = {}
        self._copies: dict[bytes, list[str]] = {}

    def add(self, name: str, joints: np.ndarray, axes: int) -> None:
        """Look at joints (T, M, V, C) of which ``axes`` channels are coordinates."""
        points = joints[..., :axes]
        seen = (points != 0).any(axis=-1)
        there = seen.any(axis=-1)
        self._seen += seen.sum(axis=(0, 1))
        self._poses += int(there.sum())
        low, high = self._low[:, :axes], self._high[:, :axes]
        shown = seen[..., None]
        np.minimum(low, np.where(shown, points, np.inf).min(axis=(0, 1)), out=low)
        np.maximum(high, np.where(shown, points, -np.inf).max(axis=(0, 1)), out=high)
        empty = int((~there.any(axis=1)).sum())
        if empty:
            self._empty[name] = empty
        jump = _jump(points, seen)
        if jump is not None:
            self._jumps[name] = jump
        self._copies.setdefault(hashlib.sha256(joints.tobytes()).digest(), []).append(name)

    def report(
        self, tables: Tables, subjects: Sequence[str | None], pair: tuple[str, str]
    ) -> list[str]:
        """One line for each kind of oddity.

        Args:
            subjects: of each clip. pair: the splits for training and testing.
        """
        rows = [set(tables.splits[name].tolist()) for name in pair]
        train, test = ({tables.names[row] for row in side} for side in rows)
        sides = " and ".join(pair)
        odd = [*self._joints(), *self._clips(tables.frames, tables.names)]
        both = [g[0] for g in self._copies.values() if train & set(g) and test & set(g)]
        if both:
            odd.append(f"the same clip in {sides}: {_some(both)}")
        common = set.intersection(*({subjects[row] for row in side} for side in rows)) - {None}
        if common:
            odd.append(f"subjects in both {sides}: {_some(sorted(map(str, common), key=natural))}")
        return odd + _classes(tables.labels, tables.class_names, dict(zip(pair, rows, strict=True)))

    def _joints(self) -> list[str]:
        named = self.skeleton.joint_names or [""] * self.skeleton.num_point
        titles = [f"{i} {name}".strip() for i, name in enumerate(named)]
        never = self._seen == 0
        rare = ~never & (self._seen < (1 - _MISSING) * self._poses)
        still = ~never & ((self._high <= self._low) | ~np.isfinite(self._low)).all(axis=1)
        return [
            f"joints {what}: {_some([titles[i] for i in np.flatnonzero(which)])}"
            for what, which in (
                ("missing in every frame", never),
                ("missing in most frames", rare),
                ("that never move", still),
            )
            if which.any()
        ]

    def _clips(self, frames: np.ndarray, names: Sequence[str]) -> list[str]:
        odd = []
        if self._empty:
            total = sum(self._empty.values())
            odd.append(f"{total} frames of zeros in {len(self._empty)} clips: {_some(self._empty)}")
        if self._jumps:
            shown = [f"{name} (frame {frame})" for name, frame in self._jumps.items()]
            odd.append(f"jumps of half a body in a frame, in {len(shown)} clips: {_some(shown)}")
        copies = [group for group in self._copies.values() if len(group) > 1]
        if copies:
            odd.append(f"clips that are alike: {_some([' = '.join(g[:2]) for g in copies])}")
        usual = float(np.median(frames))
        short = [names[int(i)] for i in np.flatnonzero((frames < 8) | (frames < usual / 5))]
        long = [names[int(i)] for i in np.flatnonzero(frames > usual * 5)]
        odd += [f"very short clips: {_some(short)}"] if short else []
        odd += [f"very long clips: {_some(long)}"] if long else []
        return odd


def _some(found: Sequence[str] | Mapping[str, int]) -> str:
    listed = [str(name) for name in found]
    more = f", ... ({len(listed)} in all)" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


def _jump(points: np.ndarray, seen: np.ndarray) -> int | None:
    """The first frame to which a joint leaps."""
    spread = np.where(seen[..., None], points, np.nan)
    with np.errstate(invalid="ignore"):
        steps = np.linalg.norm(np.diff(spread, axis=0), axis=-1)  # (T - 1, M, V), NaN if unseen
    filled = spread[seen.sum(axis=2) > seen.shape[2] // 2]  # (poses, V, axes), mostly seen
    if not len(filled) or not len(steps):
        return None
    extent = np.nanmax(filled, axis=1) - np.nanmin(filled, axis=1)
    size = float(np.median(np.linalg.norm(extent, axis=-1)))
    large = np.flatnonzero((steps > _JUMP * size).any(axis=(1, 2)))
    return int(large[0]) + 1 if len(large) and size > 0 else None


def _classes(
    labels: np.ndarray, class_names: Sequence[str], splits: Mapping[str, set[int]]
) -> list[str]:
    odd = []
    counts = Counter(labels.tolist()).most_common()
    (most, large), (least, small) = counts[0], counts[-1]
    if large > _IMBALANCE * small:
        odd.append(
            f"imbalance: {large} clips of {class_names[most]}, {small} of {class_names[least]} "
            "(loss_args: {weight: balanced} helps)"
        )
    for split, rows in splits.items():
        gone = sorted(set(range(len(class_names))) - set(labels[sorted(rows)].tolist()))
        if gone:
            odd.append(
                f"classes without a clip in {split}: {_some([class_names[i] for i in gone])}"
            )
    return odd


def summary(tables: Tables, subjects: Sequence[str | None]) -> str:
    """How much there is, in a line."""
    people = len(set(subjects) - {None})
    by = f", {people} subjects" if people else ""
    frames, labels = tables.frames, np.unique(tables.labels)
    return (
        f"{len(tables.names)} clips of {len(labels)} classes{by}; frames {frames.min()} to "
        f"{frames.max()}, median {int(np.median(frames))}"
    )
