"""Several runs by one command: ``--seeds 1 2 3``, ``--streams joint bone``, or both.

Each is a run like any other, in ``<work_dir>/<stream>/seed-<n>``. What has ended with these
settings is not run again, what was interrupted is resumed. ``summary.csv`` and ``summary.md`` in
the work dir above them compare what has ended.
"""

import gc
import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feeders.streams import instead
from model.published import WEIGHTS
from torchlight import distributed
from torchlight.cli import Parser, wing
from torchlight.config import Config
from torchlight.errors import UserError
from torchlight.files import atomic_write
from torchlight.flags import parse
from torchlight.values import flat
from torchlight.workdir import starts_over

ENDED = "ended.json"
_SURROUNDINGS = {
    *("work_dir", "overwrite", "allow_import", "ignore_card", "device", "num_worker"),
    *("timeout_minutes", "rank_timeout_s", "print_log", "log_interval", "save_minutes"),
}
"""Settings on which what a run leaves behind does not depend."""


@dataclass(frozen=True)
class Planned:
    """One of the runs: its row in the table, its command line and its configuration."""

    row: str
    words: list[str]
    config: Config

    @property
    def folder(self) -> Path:
        """Its work dir."""
        return Path(self.config.work_dir)

    @property
    def _settings(self) -> str:
        content = self.config.model_dump(mode="json", exclude=_SURROUNDINGS)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def has_ended(self) -> bool:
        """Whether it is there, of these very settings."""
        try:
            told = json.loads((self.folder / ENDED).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return told == {"settings": self._settings} and not starts_over(self.config)

    def begin(self) -> None:
        """From here on it has not ended."""
        (self.folder / ENDED).unlink(missing_ok=True)

    def end(self) -> None:
        """Note that it has ended."""
        with atomic_write(self.folder / ENDED) as temporary:
            temporary.write_text(json.dumps({"settings": self._settings}) + "\n", encoding="utf-8")


def own_flags(given: object = None) -> Parser:
    """Those of this wing, for the help and for suggestions as well."""
    parser = Parser(add_help=False)
    parser.add_argument("--seeds", type=int, nargs="+", help="train a run of each")
    told = "train a run of each stream; joint+bone: both, fused"
    parser.add_argument("--streams", nargs="+", help=told)
    return parser


def run_each(argv: Sequence[str] | None, main: Callable[[Sequence[str]], int]) -> int:
    """Train the runs that a command line asks for, one after the other, and compare them.

    Args:
        main: trains one; takes its command line, and returns its exit status.
    """
    wing("--seeds and --streams", "torchlight.reports.past.read_run")
    parent, runs = _planned(sys.argv[1:] if argv is None else argv)
    config = runs[0].config
    world = distributed.start(config.device, 60 * config.timeout_minutes, config.rank_timeout_s)
    left = world.on_main(lambda: [i for i, run in enumerate(runs) if not run.has_ended])
    if world.is_main:
        print(f"{len(runs)} runs in {parent}, of which {len(runs) - len(left)} have ended")
        for number in left:
            runs[number].begin()
    distributed.stop()
    for number in left:
        run = runs[number]
        if world.is_main:
            print(f"run {number + 1} of {len(runs)}: {run.folder}", flush=True)
        status = main(run.words)
        gc.collect()  # of what is in cycles, such as a model on a device
        if status:
            if world.is_main:
                print(f"stopped in {run.folder}; the same command resumes it")
            return status
        if world.is_main:
            run.end()
            _summarise(parent)
    if world.is_main:
        print(_summarise(parent))
    return 0


def _planned(argv: Sequence[str]) -> tuple[Path, list[Planned]]:
    """The work dir above all, and the runs, checked as far as can be before the first begins."""
    given, words = own_flags().parse_known_args(argv)
    if any(word.startswith("--resume") for word in words):
        raise UserError("--resume: leave it out; --seeds and --streams resume what has not ended")
    for flag, values in (("--seeds", given.seeds), ("--streams", given.streams)):
        if values and len(set(values)) < len(values):
            raise UserError(f"{flag}: one of {' '.join(map(str, values))} is there twice")
    config, _ = parse(words, "", own_flags(), weights=WEIGHTS)
    if given.seeds and config.by_flag("seed"):
        raise UserError("--seed and --seeds exclude each other; leave --seed out")
    if config.phase != "train" or config.measured:
        other = config.measured or "--phase test"
        raise UserError(f"--seeds and --streams train; say {other} for one run at a time")
    parent, runs = Path(config.work_dir), []
    for stream, number in itertools.product(given.streams or [""], given.seeds or [config.seed]):
        folder = parent / stream / f"seed-{number}"
        own = [*words, "--work-dir", str(folder), "--seed", str(number)]
        own += _stream_words(config, stream) if stream else []
        runs.append(Planned(stream or parent.name, own, parse(own, "", weights=WEIGHTS)[0]))
    return parent, runs


def _stream_words(config: Config, stream: str) -> list[str]:
    """Flags that let both splits show ``stream``, or several (``joint+bone``) fused."""
    words = []
    for key in ("train_feeder_args", "test_feeder_args"):
        changes = instead(getattr(config, key), stream.split("+"))
        pairs = [f"{name}={json.dumps(value)}" for name, value in changes.items()]
        words += [f"--{key.replace('_', '-')}", *pairs]
    return words


def _summarise(parent: Path) -> str:
    """Write both tables of all runs in ``parent`` that have ended; return them for the terminal."""
    from torchlight.compare import NOTE, markdown, summary, write_table  # wings that may be out
    from torchlight.reports.past import read_run

    there = sorted(parent.glob(f"**/seed-*/{ENDED}"), key=lambda file: int(file.parent.name[5:]))
    groups: dict[str, list[Any]] = {}
    for file in sorted(there, key=lambda file: file.parent.parent):
        folder = file.parent
        name = (
            folder.parent.name
            if folder.parent == parent
            else str(folder.parent.relative_to(parent))
        )
        groups.setdefault(name, []).append(read_run(folder))
    note = NOTE + "".join(f" {told}" for told in map(_unlike, groups, groups.values()) if told)
    rows = summary(groups)
    for name in ("summary.csv", "summary.md"):
        write_table(parent / name, rows, note)
    return f"{markdown(rows)}\n{note}\nwrote {parent / 'summary.csv'} and {parent / 'summary.md'}"


def _unlike(name: str, runs: Sequence[Any]) -> str:
    """A sentence where runs of a row differ in more than their seeds."""
    settings = [flat(run.config) for run in runs]
    keys = dict.fromkeys(key for one in settings for key in one)
    apart = [key for key in keys if len({str(one.get(key)) for one in settings}) > 1]
    apart = [key for key in apart if key not in ("seed", "work_dir")]
    return f"Runs of {name} differ in {', '.join(apart)}." if apart else ""
