"""The command lines of the three NTU steps: parse, run, report. ``data/ntu*/*.py`` call them."""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data.errors import DataError, printable
from data.preparation.chunks import Remark
from data.preparation.recording import SampleFault
from data.preparation.steps import SKIPPED, denoise_step, read_step, transform_step
from data.splits import DATA_SETS
from torchlight.files import path_argument, print_any_text
from torchlight.terminal import Parser

RAW, DENOISED = Path("raw_data"), Path("denoised_data")
_STEPS = {"read": read_step, "denoise": denoise_step, "transform": transform_step}
_SHOWN = 20  # lines of the table; the rest is in skipped.csv


def read(dataset: str, argv: Sequence[str] | None = None) -> int:
    """``get_raw_skes_data.py``: raw recordings to ``raw_data``. Returns the exit status."""
    parser = _parser("Raw recordings to raw_data", Path("../nturgbd_raw"), RAW)
    _add_workers(parser)
    parser.add_argument("--skip-list", type=path_argument, help="text file of samples to leave out")
    return _run("read", dataset, parser.parse_args(argv))


def choose_actors(dataset: str, argv: Sequence[str] | None = None) -> int:
    """``get_raw_denoised_data.py``: ``raw_data`` to ``denoised_data``. Returns the exit status."""
    parser = _parser("raw_data to denoised_data", RAW, DENOISED)
    _add_workers(parser)
    return _run("denoise", dataset, parser.parse_args(argv))


def transform(dataset: str, argv: Sequence[str] | None = None) -> int:
    """``seq_transformation.py``: ``denoised_data`` to the store. Returns the exit status."""
    parser = _parser("denoised_data to the store", DENOISED, Path())
    parser.add_argument(
        "--npz", action="store_true", help="also write the published .npz files (large)"
    )
    return _run("transform", dataset, parser.parse_args(argv))


def _parser(purpose: str, source: Path, output: Path) -> argparse.ArgumentParser:
    parser = Parser(description=purpose, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    folders = {"source": (source, "folder to read"), "output": (output, "folder to write")}
    for name, (default, told) in folders.items():
        flag = "--input" if name == "source" else "--output"
        parser.add_argument(flag, dest=name, type=path_argument, default=default, help=told)
    parser.add_argument("--limit", type=_positive, help="only the first this many samples")
    return parser


def _add_workers(parser: argparse.ArgumentParser) -> None:
    linux = hasattr(os, "sched_getaffinity")  # there: what a cluster's scheduler grants
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    parser.add_argument("--workers", type=_positive, default=cores, help="processes")
    parser.add_argument("--strict", action="store_true", help="stop at the first faulty sample")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _run(step: str, dataset: str, args: argparse.Namespace) -> int:
    """Run a step and print what it did; 0, or 1 if it skipped a sample, or 2 if it cannot work."""
    print_any_text()
    started = time.perf_counter()
    try:
        summary = _STEPS[step](DATA_SETS[dataset], **vars(args))  # type: ignore[operator]
    except SampleFault as fault:
        print(f"{fault} (stopped, --strict)", file=sys.stderr)
        return 1
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename or args.output}: {error.strerror}", file=sys.stderr)
        return 2
    seconds = time.perf_counter() - started
    skipped_csv = args.output / SKIPPED
    _print_table(summary.remarks, skipped_csv)
    count = Counter(remark.verdict for remark in summary.remarks)
    print(
        f"{step}: {summary.accepted} samples in {seconds:.1f} s "
        f"({summary.accepted / seconds:.0f} a second); {count['skipped']} skipped, "
        f"{count['left out']} left out" + (f" (see {skipped_csv})" if count["left out"] else "")
    )
    for path in summary.files:
        print(f"wrote {path}")
    return int(any(r.step == step and r.verdict == "skipped" for r in summary.remarks))


def _print_table(remarks: Sequence[Remark], skipped_csv: Path) -> None:
    """The remarks as a table, skipped samples first; what is left out, by reason."""
    groups: dict[str, dict[Remark, None]] = {"skipped": {}, "left out": {}, "note": {}}
    same = Counter((remark.verdict, remark.reason) for remark in remarks)
    for remark in remarks:
        files = same[remark.verdict, remark.reason]
        if remark.verdict == "left out" and files > 1:
            remark = replace(remark, sample=f"{files} files", line=None)
        groups[remark.verdict][remark] = None
    shown = [remark for group in groups.values() for remark in [*group][:_SHOWN]]
    if not shown:
        return
    width = max(len(printable(remark.sample)) for remark in shown)
    print(f"{'verdict':8} {'step':8} {'sample':{width}} {'line':>6}  reason")
    for remark in shown:
        line = remark.line or ""
        sample, reason = printable(remark.sample), printable(remark.reason)
        print(f"{remark.verdict:8} {remark.step:8} {sample:{width}} {line:>6}  {reason}")
    for verdict in ("skipped", "left out"):
        if len(groups[verdict]) > _SHOWN:
            print(f"... and {len(groups[verdict]) - _SHOWN} more {verdict}; see {skipped_csv}")
