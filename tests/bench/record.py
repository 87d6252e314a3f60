"""Repeat a row of the record on NW-UCLA: train k seeds, test each once, print a Markdown row.

    python tests/bench/record.py fast --seeds 1 2 3
    python tests/bench/record.py --list
    python tests/bench/record.py fast --choose views
    python tests/bench/record.py --table > docs/rows.md
    python tests/bench/record.py published published-mean --seeds 1 --curves curves.png

A row is config/ucla/fast.yaml, in stage two fast_tune.yaml, with flags laid over it. Its test view
is scored once, by the weights of the last epoch. ``--choose`` is for work on a recipe: it trains on
one camera of the training split and scores the other one (``views``), or holds subjects out of both
(``subjects``), and reads no sequence of the test view. Other flags go to the trainings, such as
where the data are. What has ended is kept in --out and not run again; what was interrupted is
resumed by the same command.
"""

import argparse
import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


@dataclass(frozen=True)
class Row:
    """A recipe.

    Attributes:
        told: what it is, for the table.
        flags: laid over the fast recipe.
        of: row whose weights it starts from, their eigenvalues normalised.
        trains: whether it trains, or tests the weights it starts from.
        members: rows whose scores it adds up; such a row trains nothing itself.
        config: what the flags are laid over.
        classes: of a one-shot row, how many the data set has; its seed chooses those held out.
    """

    told: str
    flags: tuple[str, ...] = ()
    of: str | None = None
    trains: bool = True
    members: tuple[str, ...] = ()
    config: str = "config/ucla/fast.yaml"
    classes: int = 0


def _both(*arguments: str) -> tuple[str, ...]:
    """Arguments of both feeders, as flags."""
    return ("--train-feeder-args", *arguments, "--test-feeder-args", *arguments)


def _streams(*names: str) -> tuple[str, ...]:
    return _both(f"streams=[{','.join(names)}]")


def novel_classes(classes: int, seed: int) -> list[int]:
    """Every third class from ``seed - 1`` on, going round: seeds 1, 2, 3 hold out every class."""
    return [(seed - 1 + step) % classes for step in range(0, classes, 3)]


NORMAL = ("--model-args", "init=normal", "scale=none")
MEAN = (*NORMAL, "--model-args", "head=average")
ONE_SHOT = "config/ucla-oneshot/fast.yaml"
DEMO = _both(
    "base=feeders.feeder_demo.Feeder",
    *("base_args.actions=24", "base_args.performers=10", "base_args.repeat=1"),
)


def _prepared(*steps: str) -> tuple[str, ...]:
    turned = "{name: RandomRotate, degrees: [60, 60, 0], order: xyz}"
    return _both(f"transforms=[{', '.join([turned, *steps, '{name: RandomFrames, window: 32}'])}]")


NAMED = ("--train-feeder-args", "relabel=null")
"""Labels as the files are named, also where they are exchanged."""
BODY = (
    *NAMED,
    *_prepared("Centre", "{name: UnitLength, joints: [0, 2], length: 0.33}"),
    *_streams("joint", "bone", "joint_motion"),
)
BOX = (
    *NAMED,
    *_prepared("{name: UnitBox, per_axis: False}"),
    *_streams("joint", "bone", "joint_motion"),
)
"""How the recipe was at first: a box about the clip, in proportion."""

TUNE = "config/ucla/fast_tune.yaml"
KOOPMAN = "config/ucla/koopman.yaml"
PUBLISHED = ("--amp", "bf16")
"""The published recipe reads the test view every fifth epoch, as its curve; the last one counts."""

ROWS = {
    "fast": Row("pose, bone and joint motion fused, bodies of one size"),
    "fast-tuned": Row("fast, normalised, stage two", of="fast", config=TUNE),
    "named": Row("fast, labels as the files are named", NAMED),
    "named-tuned": Row(
        "fast, labels as the files are named; normalised, stage two", NAMED, of="named", config=TUNE
    ),
    "body": Row("named, joints in place of the pose", BODY),
    "box": Row("joint, bone and joint motion fused, clips in a box; operators from identity", BOX),
    "box-tuned": Row("box, normalised, stage two", BOX, of="box", config=TUNE),
    "box-normalised": Row("box, normalised, no stage two", BOX, of="box", trains=False),
    "box-random": Row("box, operators from random numbers, as published", (*BOX, *NORMAL)),
    "box-random-tuned": Row(
        "box-random, normalised, stage two", (*BOX, *NORMAL), of="box-random", config=TUNE
    ),
    "box-random-normalised": Row(
        "box-random, normalised, no stage two", (*BOX, *NORMAL), of="box-random", trains=False
    ),
    "box-mean": Row(
        "box, mean over time in place of operators, time halved in blocks 5 and 8", (*BOX, *MEAN)
    ),
    "box-joint": Row("box, joint alone", (*BOX, *_streams("joint"))),
    "box-bone": Row("box, bone alone", (*BOX, *_streams("bone"))),
    "box-joint-motion": Row("box, joint motion alone", (*BOX, *_streams("joint_motion"))),
    "box-bone-motion": Row("box, bone motion alone", (*BOX, *_streams("bone_motion"))),
    "box-four-streams": Row(
        "box: joint, bone, joint and bone motion apart, equal weights",
        members=("box-joint", "box-bone", "box-joint-motion", "box-bone-motion"),
    ),
    "box-and-streams": Row(
        "box fused, joint, bone and mean over time, equal weights",
        members=("box", "box-joint", "box-bone", "box-mean"),
    ),
    "published": Row(
        "with operators, joint, 65 epochs, as published but in bfloat16", PUBLISHED, config=KOOPMAN
    ),
    "published-tuned": Row(
        "published, normalised, stage two",
        PUBLISHED,
        of="published",
        config="config/ucla/tune.yaml",
    ),
    "published-mean": Row(
        "plain CTR-GCN, joint, 65 epochs, as published but in bfloat16",
        PUBLISHED,
        config="config/ucla/ctrgcn.yaml",
    ),
    "two-together": Row("fast and box-bone, equal weights", members=("fast", "box-bone")),
    "two-as-named": Row("named and box-bone, equal weights", members=("named", "box-bone")),
    "one-shot": Row("operators from the identity", config=ONE_SHOT, classes=10),
    "one-shot-random": Row("from random numbers", NORMAL, config=ONE_SHOT, classes=10),
    "one-shot-demo": Row("24 made-up actions, identity", DEMO, config=ONE_SHOT, classes=24),
    "one-shot-demo-random": Row(
        "24 made-up actions, random", (*NORMAL, *DEMO), config=ONE_SHOT, classes=24
    ),
}

VIEWS = {1: 2, 2: 1}
"""Camera trained on, and the one it is scored on: both of the training split."""
SUBJECTS = ((1, 2, 3), (4, 5, 6), (7, 8, 9, 10))
"""Held out in turn."""


def protocol(kind: str) -> list[tuple[str, ...]]:
    """The runs that compare recipes on the training views alone, as flags.

    Args:
        kind: "views" or "subjects".
    """
    recipe = yaml.safe_load((ROOT / "config/ucla/fast.yaml").read_text(encoding="utf-8"))
    right = (f"relabel.{k}={v}" for k, v in recipe["train_feeder_args"]["relabel"].items())
    plain = ("--test-feeder-args", "label_path=train", *right)
    if kind == "subjects":
        # What is called the test split is a training view here, so that no run reads the third one.
        return [(*plain, "--val-subjects", *map(str, held)) for held in SUBJECTS]
    return [
        ("--train-feeder-args", f"views=[{own}]", *plain, f"views=[{other}]")
        for own, other in VIEWS.items()
    ]


class Recorder:
    """Runs rows and keeps what they gave under ``out``.

    Args:
        processes: that share a training; with two, batch norm sees half a batch, and the figures
            are others.
        flags: for every training, such as where the data are.
    """

    def __init__(self, out: Path, processes: int, flags: Sequence[str] = ()) -> None:
        self.out, self.processes, self.flags = out, processes, tuple(flags)

    def result(self, name: str, seed: int, extra: Sequence[str] = (), tag: str = "") -> dict:
        """What row ``name`` gives with ``seed``; it is run where that is not known yet."""
        folder = self.out / f"{name}{tag}" / str(seed)
        known = folder / "result.json"
        if not known.exists():
            row = ROWS[name]
            run = self._train if row.trains else self._test
            run = self._fuse if row.members else self._one_shot if row.classes else run
            found = {**run(name, folder, seed, extra, tag), "date": str(date.today())}
            known.write_text(json.dumps({**found, "commit": _commit(), "seed": seed}) + "\n")
        return json.loads(known.read_text())

    def _train(self, name: str, folder: Path, seed: int, extra: Sequence[str], tag: str) -> dict:
        row = ROWS[name]
        words = ["--config", row.config, "--work-dir", str(folder), "--seed", str(seed)]
        words += ["--save-score", "True"]
        words += [*row.flags, *self.flags, *extra]
        if row.of is not None:
            words += ["--weights", str(self._normalised(row.of, seed, extra, tag))]
        self._launch(words)
        chosen = "best" if "--val-subjects" in words else "last"
        found = _measured(folder, chosen)
        return found if tag else {**found, "without_copies": self._without_copies(folder, "last")}

    def _test(self, name: str, folder: Path, seed: int, extra: Sequence[str], tag: str) -> dict:
        row, weights = ROWS[name], self._normalised(str(ROWS[name].of), seed, extra, tag)
        words = ["--config", row.config, "--phase", "test", "--weights", str(weights)]
        words += ["--work-dir", str(folder), "--seed", str(seed), *row.flags, *self.flags, *extra]
        self._call("main_multigpu.py", *words)
        found = _measured(folder, "epoch1")
        return found if tag else {**found, "without_copies": self._without_copies(folder, "epoch1")}

    def _normalised(self, of: str, seed: int, extra: Sequence[str], tag: str) -> Path:
        """Weights of row ``of``, their eigenvalues normalised, and their spectra as a picture."""
        self.result(of, seed, extra, tag)
        folder = self.out / f"{of}{tag}" / str(seed)
        target = folder / "normalized.pt"
        if not target.exists():
            paths = ("--load-path", str(_last_weights(folder)), "--save-path", str(target))
            self._call("eigen_normalization.py", *paths, "--num-class", "10", "--plot")
        return target

    def _fuse(self, name: str, folder: Path, seed: int, extra: Sequence[str], tag: str) -> dict:
        members = [self.result(member, seed, extra, tag) for member in ROWS[name].members]
        scores = [str(self.out / f"{m}{tag}" / str(seed)) for m in ROWS[name].members]
        folder.mkdir(parents=True, exist_ok=True)
        printed = self._call("ensemble.py", "--scores", *scores, "--normalise", "softmax")
        accuracy = re.search(r"Top1 Acc: ([\d.]+)%", printed)
        assert accuracy is not None, printed
        minutes = sum(member["minutes"] for member in members)
        places = {member.get("on", "cpu") for member in members}
        place = places.pop() if len(places) == 1 else "both"
        return {"accuracy": float(accuracy[1]), "minutes": minutes, "on": place}

    def _one_shot(self, name: str, folder: Path, seed: int, extra: Sequence[str], tag: str) -> dict:
        row = ROWS[name]
        novel = novel_classes(row.classes, seed)
        words = ["--config", row.config, "--work-dir", str(folder), "--seed", str(seed)]
        words += [*row.flags, *_both(f"novel_classes={novel}")]
        words += [re.sub("^root=", "base_args.root=", flag) for flag in self.flags]
        self._launch([*words, *extra])
        printed = self._call(
            "test_oneshot.py", *words, *extra, "--weights", str(_last_weights(folder))
        )
        told = re.search(r"accuracy: (.*)", printed)
        assert told is not None, printed
        found = {key: float(value) for key, value in re.findall(r"(\w+) ([\d.]+)%", told[1])}
        return {**_measured(folder, "last"), "matchings": found, "novel": novel}

    def _launch(self, words: Sequence[str]) -> None:
        """Train."""
        launcher = ["-m", "torch.distributed.run", "--standalone"]
        launcher += [f"--nproc_per_node={self.processes}"]
        self._call(*(launcher if self.processes > 1 else []), "main_multigpu.py", *words)

    def _without_copies(self, folder: Path, stem: str) -> float:
        """Per cent right of the test sequences that are no copies of training sequences.

        In the files of this field 95 sequences of view 3 are those of view 2.
        """
        roots = [flag[5:] for flag in self.flags if flag.startswith("root=")]
        by_digest: dict[str, list[str]] = {}
        for path in (ROOT / (roots or ["data/NW-UCLA/all_sqe"])[0]).glob("a*_v*.json"):
            frames = json.dumps(json.loads(path.read_text(encoding="utf-8"))["skeletons"])
            digest = hashlib.sha256(frames.encode()).hexdigest()
            by_digest.setdefault(digest, []).append(path.stem)
        own = {name for names in by_digest.values() if len(names) == 1 for name in names}
        test = {name for name in own if name.endswith("v03")}
        wrong = (folder / f"{stem}_test_wrong.txt").read_text(encoding="utf-8").splitlines()[1:]
        missed = {line.split("\t")[0] for line in wrong} & test
        return 100 * (1 - len(missed) / len(test))

    def _call(self, *words: str) -> str:
        """Run a Python command from the project's root; its output goes to the terminal too."""
        from torchlight.errors import Stopped

        line = [sys.executable, *words]
        print("$ python " + " ".join(words), file=sys.stderr, flush=True)
        # With other threads sums are rounded otherwise, and a training goes another way.
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        process = subprocess.Popen(
            line, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert process.stdout is not None
        shown = []
        try:
            for text in process.stdout:
                sys.stderr.write(text)
                shown.append(text)
        except (Stopped, KeyboardInterrupt):  # a training saves its state, and leaves
            process.terminate()
            sys.stderr.write(process.communicate()[0])
            raise SystemExit("stopped; the same command resumes it") from None
        if process.wait():
            raise SystemExit(f"that command ended with status {process.returncode}")
        return "".join(shown)


def _measured(folder: Path, stem: str) -> dict[str, float]:
    """Minutes and samples a second, and per cent right: of the last epoch, of a test, or (best) of
    the part that was held out."""
    from torchlight.reports.past import read_run

    run = read_run(folder)
    if stem != "best" and f"{stem}_test" not in run.evaluations:
        raise SystemExit(f"{folder}: not at its end yet; the same command resumes it")
    if stem == "best":
        accuracy = [line["val/accuracy"] for line in run.epochs.values() if "val/accuracy" in line][
            -1
        ]
    else:
        accuracy = run.evaluations[f"{stem}_test"].accuracy
    found = {"accuracy": 100 * accuracy, "minutes": run.minutes or 0.0, "on": _place(run.log)}
    return {**found, "speed": run.speed} if run.speed else found


def _place(log: str) -> str:
    """What a run computed on: "cpu", "gpu", or "both" where it was resumed on the other."""
    places = set(re.findall(r"; \d+ x (cpu|cuda)", log))
    return "both" if len(places) > 1 else "gpu" if places == {"cuda"} else "cpu"


def _last_weights(folder: Path) -> Path:
    return max(folder.glob("runs-*.pt"), key=lambda path: path.stat().st_mtime)


def _commit() -> str:
    line = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(line, capture_output=True, text=True).stdout.strip() or "unknown"


def ship(folder: Path, target: Path) -> None:
    """Write the weights of a run's last epoch in half precision, with their card, to ``target``."""
    import torch

    from torchlight.card import card_path, read_card, sha256_of

    last = _last_weights(folder)
    weights = torch.load(last, weights_only=True)
    halved = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    torch.save(halved, target)
    found = json.loads((folder / "result.json").read_text())
    card = read_card(last)[0]
    origin = card.training.get("weights")
    card = card.trained(
        weights=origin and Path(origin).name,  # where it lay concerns nobody
        accuracy=found["accuracy"] / 100,
        accuracy_on="test view, once, by the last epoch; mean of ten looks",
        dtype="float16",
        data="NW-UCLA (Wang et al., CVPR 2014), published for research; not part of this file",
        protocol="trained on views 1 and 2; recipe chosen without view 3",
    )
    card.but(sha256=sha256_of(target)).write(card_path(target))


HEADING = (
    "| row | recipe | seeds | top-1: mean ± deviation | best | worst | without copies | minutes | "
    "samples/s | date | commit |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def markdown(name: str, results: Sequence[dict]) -> str:
    """A row of the table; minutes and samples a second are means over the seeds, of GPUs apart."""
    accuracies = [found["accuracy"] for found in results]
    spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
    minutes, speed = _by_place("minutes", results), _by_place("speed", results)
    apart = [found["without_copies"] for found in results if "without_copies" in found]
    cleaned = f"{statistics.mean(apart):.2f} %" if apart else "–"
    seeds = " ".join(str(found["seed"]) for found in results)
    newest = max(results, key=lambda found: found["date"])
    return (
        f"| {name} | {ROWS[name].told} | {seeds} | {statistics.mean(accuracies):.2f}{spread} % | "
        f"{max(accuracies):.2f} | {min(accuracies):.2f} | {cleaned} | {minutes} | {speed} | "
        f"{newest['date']} | {newest['commit']} |"
    )


def _by_place(key: str, results: Sequence[dict]) -> str:
    """The mean of a figure over the runs on processors and over those on GPUs; of a run that was on
    both it says nothing."""
    told = []
    for place, prefix in (("cpu", ""), ("gpu", "GPU ")):
        values = [r[key] for r in results if key in r and r.get("on", "cpu") == place]
        told += [f"{prefix}{statistics.mean(values):.0f}"] if values else []
    return "; ".join(told) or "–"


ONE_SHOT_HEADING = (
    "| row | recipe | novel classes | dmd | l2 | cosine | minutes | date | commit |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def one_shot_markdown(name: str, results: Sequence[dict]) -> str:
    """A row of the table of one-shot results for each choice of novel classes, and their mean."""
    lines, methods = [], ("dmd", "l2", "cosine")
    for found in results:
        cells = " | ".join(f"{found['matchings'][method]:.2f} %" for method in methods)
        novel = " ".join(map(str, found["novel"]))
        lines.append(
            f"| {name} | {ROWS[name].told} | {novel} | {cells} | {found['minutes']:.0f} | "
            f"{found['date']} | {found['commit']} |"
        )
    if len(results) > 1:
        columns = ([found["matchings"][method] for found in results] for method in methods)
        cells = " | ".join(
            f"{statistics.mean(own):.2f} ± {statistics.stdev(own):.2f} %" for own in columns
        )
        lines.append(f"| {name} | | mean | {cells} | | | |")
    return "\n".join(lines)


def _table(out: Path, names: Iterable[str]) -> str:
    """All rows that have results in ``out``: what is trained on every class, then one-shot."""
    parts: dict[str, list[str]] = {HEADING: [], ONE_SHOT_HEADING: []}
    for name in names:
        found = sorted((out / name).glob("*/result.json"), key=lambda path: int(path.parent.name))
        if found:
            heading, row = _told(name, [json.loads(path.read_text()) for path in found])
            parts[heading].append(row)
    return "\n\n".join("\n".join([heading, *rows]) for heading, rows in parts.items() if rows)


def _told(name: str, results: Sequence[dict]) -> tuple[str, str]:
    """The heading of the table that the row belongs to, and the row."""
    if ROWS[name].classes:
        return ONE_SHOT_HEADING, one_shot_markdown(name, results)
    return HEADING, markdown(name, results)


def curves(out: Path, names: Sequence[str], seed: int, picture: Path) -> Iterator[str]:
    """Draw accuracy by epoch, of training and of the test view, and yield it as Markdown tables.

    A row that starts from another one's weights is drawn from the end of that one on.
    """
    from matplotlib.figure import Figure

    from torchlight.reports.charts import CLASSES
    from torchlight.reports.past import read_run

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="accuracy, per cent", ylim=(60, 101))
    runs = {name: read_run(out / name / str(seed)).epochs for name in names}
    for (name, epochs), colour in zip(runs.items(), CLASSES, strict=False):
        before = max(runs.get(str(ROWS[name].of), {}), default=0)
        scored = [epoch for epoch, line in epochs.items() if "test/accuracy" in line]
        rows = [[f"{name}: epoch", *map(str, scored)], ["---"] * (len(scored) + 1)]
        for part, told, style in (("test", "top-1", "o-"), ("train", "training", ":")):
            key = f"{part}/accuracy"
            points = {e: 100 * line[key] for e, line in epochs.items() if key in line}
            rows.append([f"{told}, in %", *(f"{points[epoch]:.2f}" for epoch in scored)])
            places = [before + epoch for epoch in points]
            label = f"{name}, {told}"
            axes.plot(places, list(points.values()), style, ms=3, lw=1.2, color=colour, label=label)
        yield "\n".join(f"| {' | '.join(row)} |" for row in rows)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#d0d0d0", lw=0.5)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(picture, dpi=150, format="png")


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", choices=[[], *ROWS], help="see --list")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--processes", type=int, default=1, help="of a training (1)")
    parser.add_argument("--out", type=Path, default=ROOT / "work_dir" / "record")
    parser.add_argument("--choose", choices=("views", "subjects"), help="on the training views")
    parser.add_argument("--ship", type=Path, metavar="FILE", help="write the first seed's weights")
    parser.add_argument(
        "--curves",
        type=Path,
        metavar="PNG",
        help="draw the first seed's accuracies by epoch, and stop",
    )
    parser.add_argument("--list", action="store_true", help="name the rows, and stop")
    parser.add_argument("--table", action="store_true", help="print all that is known, and stop")
    options, flags = parser.parse_known_args(argv)
    if options.list:
        print("\n".join(f"{name}: {row.told}" for name, row in ROWS.items()))
        return 0
    if options.table:
        print(_table(options.out, ROWS))
        return 0
    if options.curves:
        if not options.rows:
            parser.error("--curves: name the rows to draw (--list shows them)")
        print(*curves(options.out, options.rows, options.seeds[0], options.curves), sep="\n\n")
        return 0
    recorder = Recorder(options.out.resolve(), options.processes, flags)
    for name in options.rows:
        started = time.monotonic()
        if options.choose:
            runs = protocol(options.choose)
            found = [
                recorder.result(name, seed, extra, f"-{options.choose}-{number}")
                for seed in options.seeds
                for number, extra in enumerate(runs, start=1)
            ]
        else:
            found = [recorder.result(name, seed) for seed in options.seeds]
        print(*_told(name, found), sep="\n", flush=True)
        if options.ship:
            ship(options.out / name / str(options.seeds[0]), options.ship)
        print(f"({(time.monotonic() - started) / 60:.0f} minutes)", file=sys.stderr)
    return 0


if __name__ == "__main__":
    from torchlight.cli import run

    sys.exit(run(lambda stage: main()))
