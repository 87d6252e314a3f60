"""The command lines of the three NTU steps: parse, run, report. ``data/ntu*/*.py`` call them."""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from data.errors import DataError, printable
from data.preparation.chunks import Remark
from data.preparation.recording import SampleFault
from data.preparation.steps import SKIPPED, Summary, denoise_step, read_step, transform_step
from data.splits import DATA_SETS, DataSet
from torchlight.files import path_argument, print_any_text

RAW, DENOISED = Path("raw_data"), Path("denoised_data")
_SHOWN = 20  # lines of the table; the rest is in skipped.csv


def read(dataset: str, argv: Sequence[str] | None = None) -> int:
    """``get_raw_skes_data.py``: raw recordings to ``raw_data``. Returns the exit status."""
    parser = _parser(read, Path("../nturgbd_raw"), RAW)
    _add_workers(parser)
    parser.add_argument("--skip-list", type=path_argument, help="text file of samples to leave out")
    args = parser.parse_args(argv)

    def run(chosen: DataSet) -> Summary:
        return read_step(
            chosen,
            args.input,
            args.output,
            workers=args.workers,
            limit=args.limit,
            skip_list=args.skip_list,
            strict=args.strict,
        )

    return _report("read", dataset, args.output, run)


def choose_actors(dataset: str, argv: Sequence[str] | None = None) -> int:
    """``get_raw_denoised_data.py``: ``raw_data`` to ``denoised_data``. Returns the exit status."""
    parser = _parser(choose_actors, RAW, DENOISED)
    _add_workers(parser)
    args = parser.parse_args(argv)

    def run(chosen: DataSet) -> Summary:
        return denoise_step(
            chosen,
            args.input,
            args.output,
            workers=args.workers,
            limit=args.limit,
            strict=args.strict,
        )

    return _report("denoise", dataset, args.output, run)


def transform(dataset: str, argv: Sequence[str] | None = None) -> int:
    """``seq_transformation.py``: ``denoised_data`` to the store. Returns the exit status."""
    parser = _parser(transform, DENOISED, Path())
    parser.add_argument(
        "--npz", action="store_true", help="also write the published .npz files (large)"
    )
    args = parser.parse_args(argv)

    def run(chosen: DataSet) -> Summary:
        return transform_step(chosen, args.input, args.output, limit=args.limit, npz=args.npz)

    return _report("transform", dataset, args.output, run)


def _parser(main: Callable[..., int], source: Path, output: Path) -> argparse.ArgumentParser:
    purpose = (main.__doc__ or "").split(". ")[0]
    parser = argparse.ArgumentParser(description=purpose)
    parser.add_argument(
        "--input", type=path_argument, default=source, help="folder to read (default: %(default)s)"
    )
    parser.add_argument(
        "--output",
        type=path_argument,
        default=output,
        help="folder to write (default: %(default)s)",
    )
    parser.add_argument("--limit", type=_positive, help="only the first this many samples")
    return parser


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=_positive,
        default=_available_cores(),
        help="processes (default: %(default)s, the cores available)",
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first faulty sample")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux: respects what a cluster's scheduler grants
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _report(step: str, dataset: str, output: Path, run: Callable[[DataSet], Summary]) -> int:
    """Run a step and print what it did; 0, or 1 if it skipped a sample, or 2 if it cannot work."""
    print_any_text()
    started = time.perf_counter()
    try:
        summary = run(DATA_SETS[dataset])
    except SampleFault as fault:
        print(f"{fault} (stopped, --strict)", file=sys.stderr)
        return 1
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    seconds = time.perf_counter() - started
    _print_table(summary.remarks, output)
    count = Counter(remark.verdict for remark in summary.remarks)
    print(
        f"{step}: {summary.accepted} samples in {seconds:.1f} s "
        f"({summary.accepted / seconds:.0f} a second); {count['skipped']} skipped, "
        f"{count['left out']} left out"
        + (f" (see {output / SKIPPED})" if count["left out"] else "")
    )
    for path in summary.files:
        print(f"wrote {path}")
    return int(any(r.step == step and r.verdict == "skipped" for r in summary.remarks))


def _print_table(remarks: Sequence[Remark], output: Path) -> None:
    """The remarks as a table, skipped samples first; what is left out, by reason."""
    reasons: dict[str, list[Remark]] = {}
    for remark in remarks:
        if remark.verdict == "left out":
            reasons.setdefault(remark.reason, []).append(remark)
    left_out = [
        group[0] if len(group) == 1 else replace(group[0], sample=f"{len(group)} files")
        for group in reasons.values()
    ]
    skipped = [remark for remark in remarks if remark.verdict == "skipped"]
    notes = [remark for remark in remarks if remark.verdict == "note"]
    shown = skipped[:_SHOWN] + left_out[:_SHOWN] + notes[:_SHOWN]
    if not shown:
        return
    width = max(len(printable(remark.sample)) for remark in shown)
    print(f"{'verdict':8} {'step':8} {'sample':{width}} {'line':>6}  reason")
    for remark in shown:
        line = remark.line or ""
        sample, reason = printable(remark.sample), printable(remark.reason)
        print(f"{remark.verdict:8} {remark.step:8} {sample:{width}} {line:>6}  {reason}")
    if len(skipped) > _SHOWN:
        print(f"... and {len(skipped) - _SHOWN} more skipped; see {output / SKIPPED}")
    if len(left_out) > _SHOWN:
        print(f"... and {len(left_out) - _SHOWN} more left out; see {output / SKIPPED}")
