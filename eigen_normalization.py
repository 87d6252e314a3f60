"""Normalise the eigenvalues of a checkpoint's Koopman operators, between the two stages.

    python eigen_normalization.py --load-path runs-65-x.pt --save-path normalized_runs-65-x.pt

Everything in the checkpoint but ``K`` is copied as it is. See ``model.spectrum``.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from model.errors import ModelError
from model.published import WEIGHTS
from model.spectrum import NormalizationReport, normalize_eigenvalues
from torchlight.card import Card, card_path, read_card
from torchlight.checkpoint import fit_keys, load_weights, save_weights, weights_of
from torchlight.cli import Parser, run
from torchlight.errors import UserError, printable
from torchlight.files import atomic_write, path_argument, remove_leftovers


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, or 2 after a mistake of the user's."""
    words = sys.argv[1:] if argv is None else argv
    return run(lambda stage: _normalize(_parse(words)), (ModelError,))


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(description="Normalise the eigenvalues of Koopman operators.")
    add = parser.add_argument
    add("--load-path", type=path_argument, required=True, help="checkpoint to read")
    add("--save-path", type=path_argument, required=True, help="checkpoint to write")
    add("--num-class", type=int, help="number of classes the file must have")
    add("--rank", type=int, default=32, help="eigenvalues changed in each class (32)")
    add("--power", type=float, default=0.25, help="power of the modulus (0.25)")
    add("--split-pairs", action="store_true", help="cut conjugate pairs at RANK, as published")
    add("--overwrite", action="store_true", help="replace existing output")
    add("--ignore-card", action="store_true", help="normalise what its card says is normalised")
    add("--plot", action="store_true", help="also write <save-path>_spectrum.png")
    return parser.parse_args(argv)


def _normalize(arguments: argparse.Namespace) -> int:
    source = Path(weights_of(str(arguments.load_path), WEIGHTS))
    target = arguments.save_path
    picture = target.with_name(f"{target.stem}_spectrum.png")
    outputs = [target, card_path(target), *([picture] if arguments.plot else [])]
    if not target.parent.is_dir():
        raise UserError(f"{target.parent}: no such folder to write to")
    for path in outputs:
        if path.exists() and not arguments.overwrite:
            raise UserError(f"{path}: exists already; choose another name or add --overwrite")
    remove_leftovers(target.parent, [path.name for path in outputs])
    weights = fit_keys(load_weights(source), {"K"}, str(source))
    card = _card(source, arguments.ignore_card)
    if "K" not in weights:
        raise UserError(f"{source}: holds no Koopman operators (no entry 'K')")
    K = weights["K"]
    if K.ndim != 3:
        raise UserError(f"{source}: K has shape {tuple(K.shape)}, expected (classes, d, d)")
    if arguments.num_class not in (None, len(K)):
        raise UserError(f"{source}: has {len(K)} classes, not --num-class {arguments.num_class}")
    how = {"rank": arguments.rank, "power": arguments.power, "split_pairs": arguments.split_pairs}
    bar = partial(tqdm, desc="operators", unit="class", disable=None)
    try:
        weights["K"], report = normalize_eigenvalues(K, **how, progress=bar)
    except ModelError as error:
        raise UserError(f"{source}: {error}") from error
    save_weights(target, weights, card.but(normalised={**card.normalised, "K": how}))
    print(*report.summary(), sep="\n")
    for line in report.warnings():
        print(f"warning: {line}", file=sys.stderr)
    if arguments.plot:
        _plot(report, picture)
        print(f"wrote {picture}")
    print(f"wrote {target}")
    return 0


def _card(source: Path, ignore: bool) -> Card:
    """The card of the checkpoint to read, which must not say that it is normalised."""
    card, notes = read_card(source)
    for note in notes:
        print(f"note: {note}")
    if "K" in card.normalised and not ignore:
        how = ", ".join(f"{name} {value}" for name, value in card.normalised["K"].items())
        raise UserError(
            f"{source}: normalised already ({printable(how)}); take the checkpoint "
            f"of before (--ignore-card normalises it once more)"
        )
    return card


def _plot(report: NormalizationReport, path: Path) -> None:
    """Draw all classes' eigenvalues in the complex plane with the unit circle, before and after.

    Chosen eigenvalues are orange; those that stay lie on top of them in blue, in both panels.
    """
    from matplotlib.figure import Figure

    stay = report.before[torch.arange(report.before.shape[1]) >= report.changed[:, None]]
    circle = torch.polar(torch.ones(361), torch.linspace(0, 2 * torch.pi, 361))
    figure = Figure(figsize=(11, 6.2), layout="compressed")
    panels = figure.subplots(1, 2, sharex=True, sharey=True, subplot_kw={"aspect": "equal"})
    sides = (("before", report.before), ("after", report.after))
    for axes, (name, values) in zip(panels, sides, strict=True):
        axes.scatter(values.real, values.imag, s=6, color="#e07b1a", lw=0, label="normalised")
        axes.scatter(stay.real, stay.imag, s=6, color="#2a6fb0", lw=0, label="unchanged")
        axes.plot(circle.real, circle.imag, color="black", lw=1, label="unit circle")
        median = values.abs().amax(-1).quantile(0.5)
        axes.set(title=f"{name}: median spectral radius {median:.4f}", xlabel="real part")
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("imaginary part")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


if __name__ == "__main__":
    sys.exit(main())
