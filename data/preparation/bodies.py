"""From tracked bodies to at most two actors: the length, spread and motion rules, to the bit.

These are the rules of the published NTU preprocessing, surprises included: networks were trained
and compared on what they give, so a better rule would give another data set. Wherever a rule
looks like a mistake, a comment begins with "Kept:".
"""

import math
from dataclasses import dataclass, field

import numpy as np

from data.preparation.recording import JOINTS, Recording, SampleFault

MIN_FRAMES = 11  # a body with this many frames or fewer is noise
MAX_WIDTH = 0.8  # a frame is noisy where a body is wider than this share of its height
MAX_NOISY = 0.69754  # a body with this share of noisy frames or more is noise

KEPT, TOO_SHORT, TOO_WIDE = 0, 1, 2


@dataclass
class Body:
    """All that was tracked under one id.

    Attributes:
        id: as in the file.
        joints: float32 (L, 25, 3).
        first: valid frame of its first appearance. From there on its frames count without gaps.
        motion: variance of x, y and z over all joints and frames, added up, float32; nan in a
            sample with one id, where nothing has to be compared.
        final_motion: what the actors are chosen by: ``motion``, or less (see the spread rule).
        removed_by: KEPT, TOO_SHORT or TOO_WIDE.
        actor: 1 or 2, or 0 if it found no place.
    """

    id: str
    joints: np.ndarray
    first: int
    motion: np.float32
    removed_by: int = KEPT
    actor: int = 0
    final_motion: np.float32 = field(init=False)

    def __post_init__(self) -> None:
        self.final_motion = self.motion

    @property
    def last(self) -> int:
        """The last of its (gapless) frames.

        Kept: a body that was absent for a while has its later frames moved forward to close the
        gap, to times where they do not belong, and the end of its stretch looks empty.
        """
        return self.first + len(self.joints) - 1


def collect_bodies(recording: Recording) -> list[Body]:
    """The bodies of a recording in order of first appearance."""
    records: dict[str, list[int]] = {}
    for record, name in enumerate(recording.bodies):
        records.setdefault(name, []).append(record)
    if len(records) == 1:
        name = recording.bodies[0]
        return [Body(name, recording.joints, first=0, motion=np.float32(np.nan))]
    bodies = []
    for name, rows in records.items():
        joints = recording.joints[rows]
        bodies.append(Body(name, joints, int(recording.frames[rows[0]]), motion_of(joints)))
    return bodies


def motion_of(joints: np.ndarray) -> np.float32:
    """Population variances of x, y and z over (frames, joints), added up, in float32.

    Args:
        joints: float32 (L, 25, 3).
    """
    with np.errstate(over="ignore", invalid="ignore"):  # coordinates of 1e30 are finite, squares no
        return np.float32(np.sum(np.var(joints.reshape(-1, 3), axis=0)))


def denoise(bodies: list[Body], num_frames: int, source: str) -> np.ndarray:
    """Choose the actors of a sample; fills in what became of each body.

    Args:
        bodies: as ``collect_bodies`` gives them.
        num_frames: valid frames of the recording.
        source: the sample's name, for messages.

    Returns:
        float32 (T, 75) or (T, 150): actor, joint, x y z. 150 wide if two or more ids were left
        after the filters, even if all of them became actor 1.

    Raises:
        SampleFault: no body or no frame is left.
    """
    if len(bodies) == 1:
        # Kept: a sample with one id passes no filter, and none of its frames is cut.
        bodies[0].actor = 1
        return bodies[0].joints.reshape(num_frames, -1)
    left = _filter_by_length(bodies)
    if not left:
        reason = f"no body has more than {MIN_FRAMES} frames: the length filter removes them all"
        raise SampleFault(source, None, reason)
    joints = _place_actors(_filter_by_spread(left), num_frames)
    # Kept: "missing" means that the coordinates add up to zero, as those of a real pose may.
    joints = joints[joints.sum(axis=1) != 0]
    if not len(joints):
        raise SampleFault(source, None, "no frame is left in which anybody is present")
    return joints


def _filter_by_length(bodies: list[Body]) -> list[Body]:
    """Mark bodies of few frames as removed; return the others."""
    for body in bodies:
        if len(body.joints) <= MIN_FRAMES:
            body.removed_by = TOO_SHORT
    return [body for body in bodies if body.removed_by == KEPT]


def _filter_by_spread(bodies: list[Body]) -> list[Body]:
    """Mark bodies that are wider than high most of the time as removed; return the others.

    Kept: bodies are tried in order of first appearance and the trial ends when one is left, so
    the last one stays however noisy it is. The noisy frames of a body that stays lower the motion
    it is ranked by (never raise it), but remain in the data.
    """
    left = list(bodies)
    for body in bodies:
        if len(left) == 1:
            break
        x, y = body.joints[:, :, 0], body.joints[:, :, 1]
        noisy = np.ptp(x, axis=1) > np.float32(MAX_WIDTH) * np.ptp(y, axis=1)
        count = int(np.count_nonzero(noisy))
        if count / len(noisy) >= MAX_NOISY:
            body.removed_by = TOO_WIDE
            left.remove(body)
        elif count:
            body.final_motion = min(body.motion, motion_of(body.joints[~noisy]))
    return left


def _place_actors(bodies: list[Body], num_frames: int) -> np.ndarray:
    """Write the bodies into actors, largest motion first; float32 (num_frames, 75 or 150)."""
    joints = np.zeros((num_frames, min(len(bodies), 2), JOINTS, 3), dtype=np.float32)
    # The hull of the frames written of each actor, holes included: none of the first.
    # Kept: the second's starts as frame 0 to 0 and never lets go of frame 0. Once anything is
    # written there, every earlier part of that person overlaps and is lost.
    hulls: list[tuple[float, float]] = [(math.inf, -math.inf), (0, 0)]
    # Python's sort is stable: equal motions keep the order of first appearance.
    for body in sorted(bodies, key=lambda body: -body.final_motion):
        for place, (first, last) in enumerate(hulls[: joints.shape[1]]):
            # Kept: bodies that share exactly one frame do not overlap; the later written wins it.
            if min(last, body.last) <= max(first, body.first):
                joints[body.first : body.last + 1, place] = body.joints
                hulls[place] = min(first, body.first), max(last, body.last)
                body.actor = place + 1
                break
    return joints.reshape(num_frames, -1)
