"""A run as its work dir tells it: configuration, log, curves, tables. No file of them is needed.

Work dirs of earlier versions are read too. What is not there, or not understood, is left out.
"""

import csv
import io
import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from torchlight.card import Card, read_card
from torchlight.config import RESOLVED, Config
from torchlight.errors import UserError
from torchlight.layers import read_yaml
from torchlight.untrusted import read_bounded
from torchlight.values import fitted, meaning

_LARGEST_FILE = 1 << 26  # bytes; a year of log lines
STEMS = {"last_test": "last epoch", "best_test": "best epoch", "epoch1_test": "test"}
"""Beginnings of the files of an evaluation, and what it is of."""

_STAMP = r"^(?:\[[^]]*\] )?"
_EPOCH = re.compile(
    _STAMP + r"epoch (\d+)/\d+: rate (\S+), loss (\S+) accuracy (\S+) %"
    r"(?:, (val|test) loss (\S+) accuracy (\S+) %)?.*?; (\S+) s, (\S+) samples/s",
    re.MULTILINE,
)
_TITLES = re.compile(_STAMP + r"((?:last epoch|best epoch|test of) .*): test (top-.*)$", re.M)


@dataclass(frozen=True)
class Evaluated:
    """What is known of a scored test split.

    Attributes:
        classes: c names. matrix: int64 (c, c), true by predicted.
        wrong: name, true and predicted class of the samples it got wrong.
        title: of which weights, in the log's words; empty where it has none.
    """

    stem: str
    classes: list[str]
    matrix: np.ndarray
    wrong: list[tuple[str, str, str]]
    title: str = ""

    @property
    def counts(self) -> tuple[int, int]:
        """Samples that are right, and all."""
        return int(np.trace(self.matrix)), int(self.matrix.sum())

    @property
    def accuracy(self) -> float:
        """Fraction of the samples that are right."""
        right, total = self.counts
        return right / max(total, 1)


@dataclass(frozen=True)
class PastRun:
    """What a work dir tells of its run.

    Attributes:
        config: the resolved configuration; empty where there is none. config_file: where it is.
        log: the text of log.txt.
        epochs: by epoch (from 1), what was measured: "learning_rate", "train/loss",
            "test/accuracy", "seconds" and so on.
        evaluations: by stem, see ``STEMS``.
        card: of best.pt. missing: what could not be told, in words.
    """

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    config_file: Path | None = None
    log: str = ""
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)
    evaluations: dict[str, Evaluated] = field(default_factory=dict)
    card: Card = field(default_factory=Card)
    missing: list[str] = field(default_factory=list)

    @property
    def minutes(self) -> float | None:
        """Of all epochs, each counted once."""
        seconds = [line["seconds"] for line in self.epochs.values() if "seconds" in line]
        return sum(seconds) / 60 if seconds else None

    @property
    def speed(self) -> float | None:
        """Samples a second in training: the median over the epochs."""
        speeds = [line["speed"] for line in self.epochs.values() if "speed" in line]
        return float(np.median(speeds)) if speeds else None

    @property
    def parameters(self) -> int | None:
        """Parameters that were trained."""
        found = re.findall(r"([\d,]+) trained parameters", self.log)
        return int(found[-1].replace(",", "")) if found else None

    @property
    def command(self) -> list[str]:
        """The words of the command that was typed last."""
        found = re.findall(_STAMP + "command: (.*)$", self.log, re.M)
        try:
            return shlex.split(found[-1]) if found else []
        except ValueError:  # a quotation mark is missing
            return []

    def said(self, beginning: str) -> str:
        """The last line of the log that begins so, without it where it ends in a colon."""
        found = re.findall(_STAMP + re.escape(beginning) + "(.*)$", self.log, re.M)
        kept = "" if beginning.endswith(": ") else beginning
        return kept + found[-1] if found else ""

    @property
    def shown(self) -> Evaluated | None:
        """The evaluation to be told in detail: of the last epoch, which the test split has not
        chosen; of the best one where held-out samples chose it; of a test that came later."""
        honest = "held out" in self.chosen_on
        order = ("best_test", "last_test") if honest else ("last_test", "best_test")
        found = [self.evaluations[stem] for stem in order if stem in self.evaluations]
        test = self.evaluations.get("epoch1_test")
        if test and (not found or _age(self.folder, test) > _age(self.folder, found[0])):
            return test
        return found[0] if found else None

    @property
    def chosen_on(self) -> str:
        """What the best epoch was chosen on, in words."""
        if self.config.get("val_fraction") or self.config.get("val_subjects"):
            return "a part of training held out"
        once = self.config.get("eval_interval", 1) >= self.config.get("num_epoch", math.inf)
        return "nothing (one evaluation)" if once else "the test split"


def is_run(folder: Path) -> bool:
    """Whether a run has been in this folder."""
    return _resolved(folder) is not None or (folder / "log.txt").is_file()


def read_run(folder: Path) -> PastRun:
    """Read what there is.

    Raises:
        UserError: there is no run in ``folder``.
    """
    if not is_run(folder):
        raise UserError(f"{folder}: no run in it (neither a resolved configuration nor log.txt)")
    file, log, missing = _resolved(folder), text_of(folder / "log.txt"), list[str]()
    try:
        config = {} if file is None else typed(read_yaml(file))
    except UserError:
        config = {}
    epochs = _epochs_of_log(log) or _epochs_of_points(_points_of_csv(folder))
    epochs = epochs or _epochs_of_points(_events(folder))
    titles = {_stem(title): f"{title}: {top}" for title, top in _TITLES.findall(log)}
    found = {stem: _evaluated(folder, stem, titles.get(stem, "")) for stem in STEMS}
    evaluations = {stem: one for stem, one in found.items() if one is not None}
    card, _ = read_card(folder / "best.pt")
    if not config:
        missing.append("the resolved configuration (a YAML)")
    if not log:
        missing.append("log.txt: the command, the versions, minutes")
    if not epochs and config.get("phase") != "test":
        missing.append("the curves (in log.txt, curves.csv or runs/)")
    if not evaluations:
        missing.append("an evaluation (*_confusion.csv)")
    return PastRun(folder, config, file, log, epochs, evaluations, card, missing)


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % confidence interval of a fraction (Wilson, JASA 1927)."""
    if not total:
        return 0.0, 1.0
    z, p = 1.959964, right / total
    middle = p + z**2 / (2 * total)
    half = z * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    scale = 1 + z**2 / total
    return max((middle - half) / scale, 0.0), min((middle + half) / scale, 1.0)


def typed(values: Mapping[str, Any]) -> dict[str, Any]:
    """What was read from a YAML, as the configuration's types mean it."""
    known = Config.model_fields
    return {
        key: fitted(known[key].annotation, value) if key in known else meaning(value)
        for key, value in values.items()
    }


def _age(folder: Path, found: Evaluated) -> float:
    return (folder / f"{found.stem}_confusion.csv").stat().st_mtime


def _resolved(folder: Path) -> Path | None:
    """The resolved configuration; the latest of several."""
    there = [p for p in folder.glob("*.yaml") if text_of(p).startswith(RESOLVED[:30])]
    return max(there, key=lambda path: path.stat().st_mtime, default=None)


def text_of(path: Path) -> str:
    """The text of a file; "" where there is none that can be read."""
    try:
        return read_bounded(path, _LARGEST_FILE).decode("utf-8", "replace")
    except OSError:
        return ""


def rows_of(path: Path) -> list[list[str]]:
    """The rows of a CSV; none where there is none that can be read."""
    try:
        return list(csv.reader(io.StringIO(text_of(path), newline="")))
    except csv.Error:
        return []


def _stem(title: str) -> str:
    words = {told: stem for stem, told in STEMS.items()}
    return next(stem for told, stem in words.items() if title.startswith(told))


def _epochs_of_log(log: str) -> dict[int, dict[str, float]]:
    """Of an epoch that was run again after an interruption, the last time counts."""
    found: dict[int, dict[str, float]] = {}
    for epoch, rate, loss, accuracy, split, *scored, seconds, speed in _EPOCH.findall(log):
        line = {"learning_rate": rate, "train/loss": loss, "train/accuracy": accuracy}
        line |= {"seconds": seconds, "speed": speed}
        if split:
            line |= dict(zip((f"{split}/loss", f"{split}/accuracy"), scored, strict=True))
        numbers = {name: _number(text) for name, text in line.items()}
        percent = {k: v / 100 for k, v in numbers.items() if k.endswith("accuracy")}
        found[int(epoch)] = numbers | percent
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


Point = tuple[int, str, float]  # step, name, value


def _epochs_of_points(points: Iterable[Point]) -> dict[int, dict[str, float]]:
    """What loggers were told at the end of each epoch; theirs are steps, counted out here."""
    by_step: dict[int, dict[str, float]] = {}
    for step, name, value in points:
        if not name.startswith("step/"):
            by_step.setdefault(step, {})[name] = value
    ends = [by_step[step] for step in sorted(by_step) if "train/loss" in by_step[step]]
    return dict(enumerate(ends, start=1))


def _points_of_csv(folder: Path) -> Iterator[Point]:
    for row in rows_of(folder / "curves.csv"):
        if len(row) == 3 and row[0].isdigit():
            yield int(row[0]), row[1], _number(row[2])


def _events(folder: Path) -> Iterator[Point]:
    """The points of TensorBoard's files; once training and test were folders of their own."""
    files = sorted((folder / "runs").rglob("events.out.tfevents.*"))
    if not files:
        return
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    places = {"train": "train/", "val": "test/"}
    for file in files:
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            name = tag if tag == "learning_rate" else places.get(file.parent.name, "") + tag
            yield from ((point.step, name, point.value) for point in events.Scalars(tag))


def _evaluated(folder: Path, stem: str, title: str) -> Evaluated | None:
    """An evaluation by its confusions; None where there are none."""
    rows = rows_of(folder / f"{stem}_confusion.csv")
    try:
        matrix = np.array([[int(cell) for cell in row[1:]] for row in rows[1:]])
    except ValueError:
        return None
    if not rows or matrix.shape != (len(rows[0]) - 1, len(rows[0]) - 1) or not len(matrix):
        return None
    lines = [line.split("\t") for line in text_of(folder / f"{stem}_wrong.txt").splitlines()[1:]]
    wrong = [(words[0], words[1], words[2]) for words in lines if len(words) == 3]
    return Evaluated(stem, rows[0][1:], matrix, wrong, title)
