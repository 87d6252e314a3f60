"""NTU RGB+D: what a sample's name says, and who is in which split. Nothing but names is needed.

Sources: Shahroudy et al., NTU RGB+D, CVPR 2016 (60 classes; xsub and xview, section 3.2); Liu et
al., NTU RGB+D 120, TPAMI 2019 (120 classes; xsub, xset and one-shot, section 4).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from data.errors import DataError

_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})", re.ASCII)
_LARGEST = {"setup": 32, "camera": 3, "subject": 999, "replication": 999, "action": 120}

_TRAIN_SUBJECTS_60 = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
_TRAIN_SUBJECTS_120 = (
    *_TRAIN_SUBJECTS_60,
    *(45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86),
    *(89, 91, 92, 93, 94, 95, 97, 98, 100, 103),
)

NOVEL_ACTIONS = tuple(range(1, 121, 6))  # one-shot: A1, A7, ..., A115
EXEMPLARS = frozenset(
    f"{'S001C003P008R001' if action <= 60 else 'S018C003P008R001'}A{action:03d}"
    for action in NOVEL_ACTIONS
)


@dataclass(frozen=True)
class SampleName:
    """The numbers of ``SsssCcccPpppRrrrAaaa``, all counted from 1."""

    name: str
    setup: int
    camera: int
    subject: int
    replication: int
    action: int

    @property
    def label(self) -> int:
        """The class, counted from 0, from all three digits of the action."""
        return self.action - 1


@dataclass(frozen=True)
class Benchmark:
    """A way to divide a data set.

    Attributes:
        split_of: the split ("train", "test", "exemplar") of a sample.
        order: what the rows of a split are sorted by, before the name.
        published: its name in the published ``.npz`` files; None if there are none.
    """

    split_of: Callable[[SampleName], str]
    order: Callable[[SampleName], int]
    published: str | None = None


@dataclass(frozen=True)
class DataSet:
    """NTU RGB+D 60 or 120.

    Attributes:
        stem: start of its files' names, as published.
        folder: of its scripts and files, from the project's root.
        last_setup: samples of later setups belong to the other set only.
        copies_single_actor: whether the published arrays show a lone actor twice.
    """

    name: str
    stem: str
    folder: str
    num_class: int
    last_setup: int
    copies_single_actor: bool
    benchmarks: dict[str, Benchmark]


def parse_name(name: str) -> SampleName:
    """Read the numbers of an NTU sample's name.

    Raises:
        DataError: the name has another form, or its setup, camera or action does not exist.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(f"{name}: the name does not follow SsssCcccPpppRrrrAaaa")
    numbers = dict(zip(_LARGEST, map(int, match.groups()), strict=True))
    for what, number in numbers.items():
        if not 1 <= number <= _LARGEST[what]:
            raise DataError(f"{name}: there is no {what} {number} in NTU RGB+D")
    return SampleName(name, **numbers)


def split_rows(benchmark: Benchmark, samples: Sequence[SampleName]) -> dict[str, np.ndarray]:
    """Row numbers of each split, int64, in the order of the published arrays.

    Args:
        samples: of a whole data set, in name order.
    """
    ordered = sorted(range(len(samples)), key=lambda row: benchmark.order(samples[row]))
    rows: dict[str, list[int]] = {}
    for row in ordered:
        rows.setdefault(benchmark.split_of(samples[row]), []).append(row)
    return {split: np.array(chosen, dtype=np.int64) for split, chosen in rows.items()}


def _cross_subject(train_subjects: tuple[int, ...], published: str) -> Benchmark:
    return Benchmark(
        split_of=lambda sample: "train" if sample.subject in train_subjects else "test",
        # Published rows go subject by subject, name order within: not name order overall.
        order=lambda sample: sample.subject,
        published=published,
    )


def _one_shot_split(sample: SampleName) -> str:
    if sample.action not in NOVEL_ACTIONS:
        return "train"
    return "exemplar" if sample.name in EXEMPLARS else "test"


NTU60 = DataSet(
    name="ntu60",
    stem="NTU60",
    folder="data/ntu",
    num_class=60,
    last_setup=17,
    copies_single_actor=False,
    benchmarks={
        "xsub": _cross_subject(_TRAIN_SUBJECTS_60, "CS"),
        "xview": Benchmark(
            split_of=lambda sample: "test" if sample.camera == 1 else "train",
            order=lambda sample: sample.camera,  # all of camera 2, then all of camera 3
            published="CV",
        ),
    },
)

NTU120 = DataSet(
    name="ntu120",
    stem="NTU120",
    folder="data/ntu120",
    num_class=120,
    last_setup=32,
    copies_single_actor=True,
    benchmarks={
        "xsub": _cross_subject(_TRAIN_SUBJECTS_120, "CSub"),
        "xset": Benchmark(
            split_of=lambda sample: "train" if sample.setup % 2 == 0 else "test",
            order=lambda sample: sample.setup,
            published="CSet",
        ),
        "oneshot": Benchmark(split_of=_one_shot_split, order=lambda sample: 0),
    },
)

DATA_SETS = {dataset.name: dataset for dataset in (NTU60, NTU120)}
