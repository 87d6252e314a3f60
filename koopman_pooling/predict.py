"""What clips in files show: ``--phase predict --weights W --input FILE_OR_FOLDER``.

Reads every form that ``python -m data.custom`` does, stores, and raw recordings of NTU RGB+D and
NW-UCLA. With --stream a clip is a long recording: a window slides over it, and what is told is
where each action begins and ends. docs/predict.md has more.
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.errors import DataError
from koopman_pooling.inputs import Inputs
from koopman_pooling.loading import add_weights_flags, load_given
from koopman_pooling.pictures import Pictures
from koopman_pooling.recogniser import Prediction, Recogniser
from koopman_pooling.stream import Latency, Span, spans_of, watch
from torchlight.cli import Parser
from torchlight.errors import UserError
from torchlight.files import atomic_write, path_argument
from torchlight.untrusted import Unsound

_ENDINGS = (".csv", ".json", ".jsonl")
_TOGETHER = 1024  # clips in memory; the place of a clip among them decides its random looks
_TOLD = 20  # faults


@dataclass
class Faults:
    """What could not be read: said, counted, and passed over."""

    first: str = ""
    count: int = 0

    def add(self, name: str, error: Exception) -> None:
        """Say it."""
        told = str(error) if name in str(error) else f"{name}: {error}"
        self.first, self.count = self.first or told, self.count + 1
        if self.count <= _TOLD:
            tqdm.write(f"left out: {told}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Predict; return the exit status."""
    given = _parsed(argv)
    recogniser, _ = load_given(given, given.device)
    inputs = Inputs(given.input, recogniser, given.axes)
    pictures = Pictures(given, recogniser.reader) if given.picture else None
    faults, rows, latency = Faults(), list[dict[str, Any]](), Latency()
    for name, clip, found in _answers(given, recogniser, inputs, faults, latency):
        rows += [_row(name, answer, given) for answer in found]
        if pictures:
            for answer in found:
                pictures.save(name, clip, answer)
    if faults.count == len(inputs.names):
        more = f" (and {faults.count - 1} more)" if faults.count > 1 else ""
        raise UserError(f"{faults.first}{more}")
    print(_table(rows, given))
    if given.out:
        _write(given.out, rows)
    if given.stream:
        print(latency.told(given.window, recogniser))
    _tell_end(given, inputs, faults, pictures)
    return 0


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="main_multigpu.py --phase predict", description=__doc__)
    add = parser.add_argument
    add("--phase", choices=["predict"], help="this")
    add_weights_flags(parser)
    add("--input", type=path_argument, required=True, help="a file, or a folder of clips")
    add("--axes", help="of arrays, where it is not told by their shape: TVC, CTV, MTVC, CTVM, ...")
    add("--top", type=int, default=5, help="classes that are told of a clip (5)")
    add("--out", type=path_argument, help=f"table to write: {', '.join(_ENDINGS)}")
    add("--picture", nargs="?", const="png", choices=["png", "gif", "html"],
        help="draw each clip with its label, in the folder of --out")  # fmt: skip
    add("--device", default="auto", help="auto, cpu, cuda, ...")
    add("--stream", action="store_true", help="clips are long: find where each action is")
    add("--window", type=int, help="frames that are looked at together (those of the model)")
    add("--hop", type=int, help="frames from one window to the next (a quarter of a window)")
    add("--threshold", type=float, default=0.0, help="an action less probable is none (0)")
    add("--rate", type=float, help="frames a second, to tell seconds as well")
    given = parser.parse_args(argv)
    _check(given)
    return given


def _check(given: argparse.Namespace) -> None:
    if given.out and given.out.suffix.lower() not in _ENDINGS:
        raise UserError(f"--out {given.out}: give it one of the endings {', '.join(_ENDINGS)}")
    for name in ("top", "window", "hop", "rate"):
        if (value := getattr(given, name)) is not None and not value > 0:
            raise UserError(f"--{name} {value}: give a number larger than 0")
    if not 0 <= given.threshold < 1:
        raise UserError(f"--threshold {given.threshold}: give a probability below 1")
    for name in ("window", "hop", "threshold", "rate"):
        if getattr(given, name) and not given.stream:
            raise UserError(f"--{name}: is of --stream; say both")


def _answers(
    given: argparse.Namespace,
    recogniser: Recogniser,
    inputs: Inputs,
    faults: Faults,
    latency: Latency,
) -> Iterator[tuple[str, np.ndarray, Sequence[Prediction]]]:
    """Name, clip and what is answered, in order."""
    if given.stream:
        given.window = given.window or max(recogniser.reader.windows, default=64)
        given.hop = given.hop or max(1, given.window // 4)
        for name, clip in _clips(recogniser, inputs, faults):
            seen = watch(recogniser, clip, given.window, given.hop, latency)
            shortest = max(1, given.window // 2)
            yield name, clip, spans_of(seen, recogniser.class_names, shortest, given.threshold)
        return
    read = _clips(recogniser, inputs, faults)
    while part := [pair for _, pair in zip(range(_TOGETHER), read, strict=False)]:
        looks = len(part) * recogniser.reader.looks
        with tqdm(total=looks, desc="recognising", unit=" looks", disable=None, leave=False) as bar:
            scores = recogniser.scores([clip for _, clip in part], bar.update)
        for (name, clip), row in zip(part, scores, strict=True):
            yield name, clip, [Prediction(recogniser.class_names, row)]


def _clips(
    recogniser: Recogniser, inputs: Inputs, faults: Faults
) -> Iterator[tuple[str, np.ndarray]]:
    """What can be read and fits the model."""
    bar = tqdm(inputs.names, "reading", unit=" clips", disable=None, leave=False)
    for number, name in enumerate(bar):
        try:
            clip = inputs.read(number)
            recogniser.reader.dataset([clip], names=[name])  # or it would fail among others
        except (DataError, Unsound) as error:
            faults.add(name, error)
            continue
        yield name, clip


def _row(name: str, answer: Prediction, given: argparse.Namespace) -> dict[str, Any]:
    """A line of the table."""
    place: dict[str, Any] = {"clip": name}
    if isinstance(answer, Span):
        place |= {"start": answer.start, "end": answer.end}
        if given.rate:
            place |= {"start_s": answer.start / given.rate, "end_s": answer.end / given.rate}
    return {**place, "top": answer.top(given.top)}


def _table(rows: Sequence[dict[str, Any]], given: argparse.Namespace) -> str:
    lines = []
    for row in rows:
        title = row["clip"]
        if "start" in row:
            title += f"  frames {row['start']}-{row['end'] - 1}"
        if "start_s" in row:
            title += f" ({row['start_s']:.2f}-{row['end_s']:.2f} s)"
        told = "  ".join(f"{label} {100 * probability:.1f} %" for label, probability in row["top"])
        lines.append(f"{title}: {told}")
    return "\n".join(lines) or "no action is as probable as --threshold"


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    named = [
        {**row, "top": [{"label": label, "probability": p} for label, p in row["top"]]}
        for row in rows
    ]
    if path.suffix.lower() == ".csv":
        text = _as_csv(rows)
    elif path.suffix.lower() == ".json":
        text = json.dumps(named, indent=1, ensure_ascii=False) + "\n"
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in named)
    with atomic_write(path) as temporary:
        temporary.write_bytes(text.encode())


def _as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """A line a clip: the likeliest class first, then label_2, probability_2, ..."""
    flat = []
    for row in rows:
        line = {key: value for key, value in row.items() if key != "top"}
        for rank, (label, probability) in enumerate(row["top"], 1):
            number = "" if rank == 1 else f"_{rank}"
            line |= {f"label{number}": label, f"probability{number}": f"{probability:.6f}"}
        flat.append(line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(flat[0]) if flat else ["clip"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _tell_end(
    given: argparse.Namespace, inputs: Inputs, faults: Faults, pictures: Pictures | None
) -> None:
    if inputs.crowded:
        print(f"note: {inputs.crowded} clips have more persons than the model takes; those seen in "
              "most frames are left", file=sys.stderr)  # fmt: skip
    if faults.count:
        print(f"note: {faults.count} of {len(inputs.names)} clips could not be read and are left "
              "out", file=sys.stderr)  # fmt: skip
    wrote = [str(given.out)] if given.out else []
    wrote += [f"{pictures.count} pictures in {pictures.folder}"] if pictures else []
    if wrote:
        print(f"wrote {', '.join(wrote)}")
