"""Sets runs beside each other: accuracies, minutes, parameters, and what their settings differ in.

    python -m torchlight.compare DIR DIR ... [--out runs.csv|runs.md]

A DIR is a work dir, or a folder of such. Nothing is written without --out.
"""

import csv
import io
import os
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torchlight.cli import Parser, run
from torchlight.config import Config
from torchlight.errors import UserError
from torchlight.files import atomic_write, path_argument
from torchlight.reports.past import STEMS, PastRun, is_run, read_run, wilson
from torchlight.values import flat

Rows = list[list[str]]
NONE = "–"
NOTE = (
    "Accuracies are top-1 on the test split, in per cent, of the last epoch where nothing else is "
    "said: nothing chose it. Those of the best epoch are too high where the test split chose it."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 2 after a mistake of the user's."""
    return run(lambda stage: _compare(argv))


def _compare(argv: Sequence[str] | None) -> int:
    parser = Parser(prog="python -m torchlight.compare", description=__doc__)
    parser.add_argument("folders", metavar="DIR", nargs="+", type=path_argument)
    parser.add_argument("--out", type=path_argument, help="also write the table: .csv or .md")
    given = parser.parse_args(argv)
    if given.out is not None and given.out.suffix.lower() not in (".csv", ".md"):
        raise UserError(f"--out {given.out}: give it one of the endings .csv and .md")
    folders = [run for folder in given.folders for run in _runs_in(folder)]
    rows = beside_each_other([read_run(folder) for folder in dict.fromkeys(folders)])
    print(f"{markdown(rows)}\n{NOTE}")
    if given.out is not None:
        write_table(given.out, rows, NOTE)
        print(f"wrote {given.out}")
    return 0


def _runs_in(folder: Path) -> list[Path]:
    """The folder, or the runs in the folders below it."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if is_run(folder):
        return [folder]
    below = sorted({path.parent for path in folder.glob("*/**/*.yaml") if is_run(path.parent)})
    if not below:
        raise UserError(f"{folder}: no run in it or below it")
    return below


def beside_each_other(runs: Sequence[PastRun]) -> Rows:
    """A table of a column for each run; of settings only those that differ."""
    rows = [["", *_short([run.folder for run in runs])]]
    for stem, told in STEMS.items():
        found = [run.evaluations.get(stem) for run in runs]
        if any(found):
            rows.append(
                [f"top-1, {told}", *(f"{100 * e.accuracy:.2f}" if e else NONE for e in found)]
            )
            rows.append(["95 % interval", *(_interval(*e.counts) if e else NONE for e in found)])
        if stem == "best_test" and any(found):
            chosen = (run.chosen_on if e else NONE for run, e in zip(runs, found, strict=True))
            rows.append(["best epoch chosen on", *chosen])
    rows.append(["minutes of training", *(_told(run.minutes) for run in runs)])
    rows.append(["samples a second", *(_told(run.speed) for run in runs)])
    rows.append(["trained parameters", *(_told(run.parameters) for run in runs)])
    fields = Config.model_fields.items()
    defaults = {key: field.default for key, field in fields if not field.is_required()}
    settings = [flat({**defaults, **run.config}) if run.config else {} for run in runs]
    for key in dict.fromkeys(key for one in settings for key in one):
        values = [_setting(one.get(key)) for one in settings]
        if len(set(values)) > 1 and key != "work_dir":
            rows.append([key, *values])
    return rows


def summary(groups: Mapping[str, Sequence[PastRun]]) -> Rows:
    """A table of a row for each group of runs that differ in their seeds alone."""
    head = ["runs", "seeds", "mean", "deviation", "best", "worst"]
    best_epoch = ["best epoch: mean", "best epoch: deviation", "best epoch chosen on"]
    rows = [[*head, *best_epoch, "minutes", "parameters"]]
    for name, runs in groups.items():
        last, best = (_accuracies(runs, stem) for stem in ("last_test", "best_test"))
        minutes = [run.minutes for run in runs if run.minutes is not None]
        seeds = " ".join(str(run.config.get("seed", "?")) for run in runs)
        extremes = [f"{max(last):.2f}", f"{min(last):.2f}"] if last else [NONE, NONE]
        chosen = " / ".join(dict.fromkeys(run.chosen_on for run in runs))
        rows.append([name, seeds, *_spread(last), *extremes, *_spread(best), chosen])
        rows[-1].append(_told(statistics.mean(minutes)) if minutes else NONE)
        rows[-1].append(_told(next((run.parameters for run in runs), None)))
    return rows


def _accuracies(runs: Iterable[PastRun], stem: str) -> list[float]:
    return [100 * run.evaluations[stem].accuracy for run in runs if stem in run.evaluations]


def _spread(values: Sequence[float]) -> list[str]:
    """Mean and standard deviation (of a sample)."""
    mean = f"{statistics.mean(values):.2f}" if values else NONE
    return [mean, f"{statistics.stdev(values):.2f}" if len(values) > 1 else NONE]


def _interval(right: int, total: int) -> str:
    low, high = wilson(right, total)
    return f"{100 * low:.2f} to {100 * high:.2f}"


def _told(value: float | None) -> str:
    """A measure in a cell."""
    if value is None:
        return NONE
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return NONE if value is None else str(value)


def _short(folders: Sequence[Path]) -> list[str]:
    """The folders' names as far as they differ."""
    if len(folders) == 1:
        return [folders[0].resolve().name]
    whole = [str(folder.resolve()) for folder in folders]
    common = os.path.commonpath(whole)
    return [os.path.relpath(path, common) for path in whole]


def markdown(rows: Rows) -> str:
    """The rows, of which the first is the heading, as a table that reads well as text too."""
    cells = [[" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def write_table(path: Path, rows: Rows, note: str) -> None:
    """Write the rows as CSV, or as Markdown above the note; whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    content = text.getvalue() if path.suffix.lower() == ".csv" else f"{markdown(rows)}\n\n{note}\n"
    with atomic_write(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
