"""``report.html``: what a run learnt, on one page that needs no other file and no network.

All of it is read from the work dir, of earlier versions too; what is not there, the page says.
"""

import csv
import html
import io
import shlex
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from torchlight.config import BASE, Config
from torchlight.errors import Stopped, UserError, printable
from torchlight.files import atomic_write
from torchlight.layers import read_layers, read_yaml
from torchlight.reports import charts
from torchlight.reports.past import (
    STEMS,
    Evaluated,
    PastRun,
    read_run,
    rows_of,
    text_of,
    typed,
    wilson,
)
from torchlight.values import flat

PAGE = "report.html"
_WORST = 10  # confusions listed
_NAMED = 6  # samples named for each
_MOST_POINTS = 1000  # of an embedding: some two seconds
_SUPPRESSED = {"work_dir", "phase"}
_NOTHING = Evaluated("", [], np.zeros((0, 0), int), [])


Part = Callable[[PastRun, Evaluated], str]
"""What makes a section as HTML; "" where there is nothing to say, an error where it fails."""


def write_page(folder: Path, more: Mapping[str, Part] = types.MappingProxyType({})) -> Path:
    """Write the page of the run in ``folder``, whole or not at all; return its path.

    Args:
        more: what an application adds of the evaluation, by its heading.

    Raises:
        UserError: there is no run.
        OSError: the page cannot be written.
    """
    run = read_run(folder)
    found, missing, sections = run.shown, list(run.missing), dict[str, str]()
    scored = {"Accuracy": _accuracies, "Curves": _curves, "Confusions": _confusions, **more,
              "The test split in the plane": _embedding}  # fmt: skip
    always = {
        "Configuration": _configuration,
        "Environment": _environment,
        "To repeat it": _commands,
    }
    for title, part in ((scored if found else {"Curves": _curves}) | always).items():
        try:
            sections[title] = part(run, found or _NOTHING)
        except Stopped:
            raise
        except Exception as error:  # of a damaged file, or somebody's class: no reason to stop
            missing.append(f"{title} ({type(error).__name__}: {printable(error)})")
    told = "".join(f"<li>{escape(line)}</li>" for line in missing)
    sections["What is missing here"] = told and f"<ul>{told}</ul>"
    path = folder / PAGE
    with atomic_write(path) as temporary:
        page = _whole(run, found, {title: body for title, body in sections.items() if body})
        temporary.write_text(page, encoding="utf-8")
    return path


def escape(text: object) -> str:
    """Text from a file, safe in HTML, and without characters that show nothing."""
    return html.escape("".join(c if c.isprintable() else " " for c in str(text)))


def table(rows: Iterable[Sequence[object]], *, numbers: Sequence[int] = ()) -> str:
    """Rows, of which the first is the heading, as a table that scrolls within its box.

    Args:
        numbers: columns that are set flush right.
    """
    kinds = dict.fromkeys(numbers, ' class="number"')
    lines = []
    for place, row in enumerate(rows):
        tag = "td" if place else "th"
        cells = (f"<{tag}{kinds.get(i, '')}>{escape(cell)}</{tag}>" for i, cell in enumerate(row))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="scroll" tabindex="0"><table>{"".join(lines)}</table></div>'


def _accuracies(run: PastRun, found: Evaluated) -> str:
    rows: list[list[object]] = [["weights", "top-1", "95 % interval", "right", "chosen on"]]
    chosen = {"best_test": run.chosen_on, "last_test": "nothing"}
    for stem, one in run.evaluations.items():
        (low, high), (right, total) = wilson(*one.counts), one.counts
        rows.append([
            one.title.partition(": top-")[0] or STEMS[stem],
            f"{100 * one.accuracy:.2f} %",
            f"{100 * low:.2f} to {100 * high:.2f} %",
            f"{right} of {total}",
            chosen.get(stem, "see the run of these weights"),
        ])  # fmt: skip
    note = (
        "The interval is Wilson's, for the sampling of the test split alone: it does not tell how "
        "much runs of other seeds differ."
    )
    if "best_test" in run.evaluations and run.chosen_on == "the test split":
        note += (
            " The test split chose the best epoch, as is published practice: its accuracy is too "
            "high. That of the last epoch was chosen by nothing."
        )
    return table(rows, numbers=(1, 2, 3)) + f"<p>{note}</p>"


def _curves(run: PastRun, found: Evaluated) -> str:
    wanted = (("loss", "Loss"), ("accuracy", "Accuracy, per cent"), ("learning_rate", "Rate"))
    drawn = "".join(charts.curve(run.epochs, what, title) for what, title in wanted)
    return f'<div class="row">{drawn}</div>' if drawn else ""


def _confusions(run: PastRun, found: Evaluated) -> str:
    rows: list[list[object]] = [["true", "taken for", "times", "of its class", "samples"]]
    totals = found.matrix.sum(axis=1)
    for true, taken, count in worst(found, _WORST):
        words = (found.classes[true], found.classes[taken])
        names = [name for name, *told in found.wrong if tuple(told) == words]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        rows.append([found.classes[true], found.classes[taken], count,
                     f"{100 * count / totals[true]:.0f} %",
                     ", ".join(names[:_NAMED]) + more])  # fmt: skip
    listed = table(rows, numbers=(2, 3)) if len(rows) > 1 else "<p>Nothing was confused.</p>"
    told = f"<p>Of the {STEMS[found.stem]}. Rows are true classes, columns predicted ones.</p>"
    matrix, each = charts.confusions(found), charts.bars(found)
    if len(found.classes) <= charts.FEW:
        both = f'<div class="row">{matrix}{each}</div>'
    else:
        both = f"{matrix}<details><summary>Accuracy of each class</summary>{each}</details>"
    return f"{told}{both}<h3>Most often confused</h3>{listed}"


def worst(found: Evaluated, most: int) -> list[tuple[int, int, int]]:
    """The most frequent confusions: true class, predicted class, how often."""
    wrong = found.matrix - np.diag(np.diag(found.matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    cells = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(int(i), int(j), int(wrong[i, j])) for i, j in cells if wrong[i, j]]


# -- the embedding --------------------------------------------------------------------------------


def write_embedding(folder: Path, stem: str, scores: np.ndarray, rows: Sequence[list[str]]) -> None:
    """Write ``<stem>_embedding.csv``: where samples lie in the plane.

    By t-SNE of the scores (n, c), of at most 1,000 samples, evenly chosen; of few by their
    principal components.

    Args:
        rows: name, true and predicted class of the n samples.

    Raises:
        OSError: the file cannot be written.
    """
    chosen = np.linspace(0, len(scores) - 1, min(len(scores), _MOST_POINTS)).round().astype(int)
    x = scores[chosen].astype(np.float64)
    x = (x - x.mean(axis=0)) / (x.std() or 1.0)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    components = (u * s)[:, :30]
    if len(x) > 60:
        from sklearn.manifold import TSNE  # a second

        tsne = TSNE(init="pca", random_state=0, max_iter=300, perplexity=20)
        plane = tsne.fit_transform(components)
    else:
        plane = np.pad(components, ((0, 0), (0, 2)))[:, :2]
    lines = [["sample", "true", "predicted", "x", "y"]]
    lines += [[*rows[i], f"{a:.3f}", f"{b:.3f}"] for i, (a, b) in zip(chosen, plane, strict=True)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    with atomic_write(folder / f"{stem}_embedding.csv") as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _embedding(run: PastRun, found: Evaluated) -> str:
    file = run.folder / f"{found.stem}_embedding.csv"
    lines = [row for row in rows_of(file)[1:] if len(row) == 5]
    if not lines:
        raise UserError(f"{file.name} is not there")
    xy = np.array([[float(cell) for cell in row[3:]] for row in lines])
    labels = np.array([found.classes.index(row[1]) for row in lines])
    wrong = np.array([row[1] != row[2] for row in lines])
    drawn = charts.points(xy, labels, wrong, found.classes, "The test split in the plane")
    part = "" if len(lines) == found.counts[1] else f" of {found.counts[1]}"
    how = "t-SNE" if len(lines) > 60 else "Principal components"
    named = "names" if len(found.classes) <= charts.NAMES_IN_PLACE else "numbers, from 0,"
    return (
        f"{drawn}<p>{how} of the scores of {len(lines)}{part} samples of the {STEMS[found.stem]}. "
        f"Colours and {named} are those of the true class; a cross was taken for another. "
        "Distances between groups say little.</p>"
    )


# -- what it was ----------------------------------------------------------------------------------


def _configuration(run: PastRun, found: Evaluated) -> str:
    if not run.config:
        return ""
    below, named = _below(run)
    own, rows = flat(run.config), [["key", named, "this run"]]
    for key in dict.fromkeys([*own, *below]):
        old, new = below.get(key), own.get(key)
        unsaid = new is None and old in (None, False, [])
        if old != new and not unsaid and key.partition(".")[0] not in _SUPPRESSED:
            rows.append([key, *("–" if v is None else _setting(v) for v in (old, new))])
    text = text_of(run.config_file) if run.config_file else ""
    differing = table(rows) if len(rows) > 1 else "<p>Nothing differs.</p>"
    return (
        f"<h3>What differs from {escape(named)}</h3>{differing}<details><summary>All of it: "
        f"{escape(run.config_file)}</summary>{_code(text)}</details>"
    )


def _below(run: PastRun) -> tuple[dict[str, Any], str]:
    """What the configuration was laid over, and its name: the base of the file that the command
    names, where both are still there; else the defaults."""
    fields = Config.model_fields.items()
    defaults = {k: v.default for k, v in fields if not v.is_required() and v.default is not None}
    words = " ".join(run.command).replace("--config=", "--config ").split(" ")
    try:
        file = Path(words[words.index("--config") + 1])
        bases = read_yaml(file).get(BASE) or []
        names = [bases] if isinstance(bases, str) else list(bases)
        below = flat(defaults)
        for name in names:
            below |= flat(typed(read_layers(file.parent / name)[0]))
        return below, "its base, " + ", ".join(names) if names else "the defaults"
    except (ValueError, IndexError, TypeError, UserError):
        return flat(defaults), "the defaults"


def _setting(value: object) -> str:
    """A value as a YAML has it, on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1 << 20, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _code(text: str) -> str:
    """Text of several lines, as it stands."""
    lines = "\n".join(escape(line) for line in text.splitlines())
    return f'<pre class="scroll" tabindex="0">{lines}</pre>'


def _environment(run: PastRun, found: Evaluated) -> str:
    facts: dict[str, object] = {
        "software": run.said("python "),
        "machine": run.said("machine: "),
        "model": run.said("model: "),
        "data": run.said("data: "),
        "trained parameters": run.parameters,
        "minutes of training": run.minutes and f"{run.minutes:.1f}",
        "samples a second": run.speed and f"{run.speed:.0f}",
        "memory": run.said("peak memory"),
    }
    return table([["", ""], *([k, v] for k, v in facts.items() if v)])


def _commands(run: PastRun, found: Evaluated) -> str:
    words, weights = run.command or ["main_multigpu.py"], run.folder / "best.pt"
    own = " ".join(words).partition(" --allow-import ")[2].partition(" --")[0].split()
    again = ["python", words[0], "--config", str(run.config_file), "--work-dir", "OTHER"]
    again += ["--allow-import", *own] if own else []
    test = [*again, "--phase", "test", "--weights", str(weights)]
    lines = {
        "as it was typed": ["python", *run.command] if run.command else [],
        "from what is saved here": again if run.config.get("phase") == "train" else [],
        "the best epoch, tested again": test if run.config_file and weights.exists() else [],
    }
    told = [f"# {what}\n{shlex.join(line)}" for what, line in lines.items() if line]
    return _code("\n\n".join(told)) if told else ""


# -- the whole ------------------------------------------------------------------------------------


def _whole(run: PastRun, found: Evaluated | None, sections: Mapping[str, str]) -> str:
    name = escape("/".join(run.folder.resolve().parts[-2:]).lstrip("/"))
    facts = []
    if found is not None:
        (low, high), (right, total) = wilson(*found.counts), found.counts
        facts.append((f"{100 * found.accuracy:.2f} %", f"top-1, {STEMS[found.stem]}"))
        facts.append((f"{100 * low:.1f}–{100 * high:.1f} %", "95 % interval"))
        facts.append((f"{right} of {total}", "test samples right"))
    facts += [(f"{run.minutes:.3g}", "minutes of training")] if run.minutes else []
    facts += [(f"{run.parameters:,}", "trained parameters")] if run.parameters else []
    cards = "".join(f"<div><dt>{told}</dt><dd>{value}</dd></div>" for value, told in facts)
    links = "".join(f'<a href="#s{i}">{escape(t)}</a>' for i, t in enumerate(sections))
    body = "".join(
        f'<section id="s{i}"><h2>{escape(title)}</h2>{inner}</section>'
        for i, (title, inner) in enumerate(sections.items())
    )
    config = run.config
    what = " · ".join(
        escape(word)
        for word in (config.get("model"), run.config_file and run.config_file.name,
                     "seed" in config and f"seed {config['seed']}", run.folder.resolve())
        if word
    )  # fmt: skip
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head>\n<body><header><h1>{name}</h1><p>{what}</p>"
        f'<dl>{cards}</dl><nav aria-label="Sections">{links}</nav></header>\n<main>{body}</main>'
        "</body></html>\n"
    )


_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --muted: #57606a; --line: #d0d7de;
  --blue: #2b6cb0; --orange: #c2501c; --box: #f6f8fa }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --paper: #14171b; --muted: #9aa4ae;
  --line: #3a424a; --blue: #6cb0f0; --orange: #f29a5c; --box: #1d2227 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 76rem; padding: 0 1rem 4rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, sans-serif }
h1 { margin: 1.5rem 0 0; font-size: 1.7rem; overflow-wrap: anywhere; line-height: 1.2 }
header p { margin: .3rem 0 1rem; color: var(--muted); overflow-wrap: anywhere }
h2 { margin: 2.5rem 0 .7rem; padding-top: .7rem; border-top: 1px solid var(--line);
  font-size: 1.25rem }
h3 { margin: 1.3rem 0 .5rem; font-size: 1rem; overflow-wrap: anywhere }
p { max-width: 46rem }
a { color: var(--blue) }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem }
dl div { padding: .6rem .8rem; background: var(--box); border-radius: 6px }
dt { color: var(--muted); font-size: .85rem }
dd { margin: 0; font-size: 1.25rem; font-weight: 600 }
.scroll { overflow-x: auto; max-width: 100% }
.scroll:focus-visible { outline: 2px solid var(--blue) }
table { border-collapse: collapse; font-size: .9rem }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line) }
td { min-width: 7rem; max-width: 42rem; overflow-wrap: break-word }
.number { min-width: 0; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
pre { padding: .8rem; background: var(--box); border-radius: 6px; font-size: .85rem }
details { margin: 1rem 0 }
summary { cursor: pointer; overflow-wrap: anywhere }
svg { display: block; width: 100%; height: auto; fill: currentColor; stroke-linejoin: round }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr));
  gap: 1rem }
.chart text[style*="700"] { paint-order: stroke; stroke: var(--paper); stroke-width: 3px }
figure { margin: 0 0 .8rem }
figcaption { font-size: .9rem; overflow-wrap: anywhere }
figcaption span { display: block; color: var(--muted) }
"""
