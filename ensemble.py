"""Combine the class scores of several streams, each saved by a test run with --save-score True.

python ensemble.py --dataset ntu120/xsub --joint-dir1 W1 --bone-dir1 W2 --joint-dir2 W3 ...
python ensemble.py --scores W1 W2/epoch1_test_score.pkl W3 --alpha 0.6 0.6 0.4
python ensemble.py --scores W1 W2 W3 --search --out work_dir/fused

Directories 1 are Koopman models, directories 2 and those without a number plain CTR-GCN. Samples
are aligned by name; those without names, by their position. Labels are those in the score files, or
in NTU RGB+D and NW-UCLA sample names, or --labels FILE: a score file with labels, a store, a
published .npz data set, CTR-GCN's val_label.pkl, or an .npy of whole numbers.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import softmax

from data.errors import DataError
from data.labels import STORE_SUFFIXES, labels_in_names, labels_of_data_set
from data.npz import array_names
from torchlight import cli
from torchlight.errors import UserError
from torchlight.files import path_argument
from torchlight.fusion import ensemble as fusion
from torchlight.fusion.reading import NUMBERED, ScoreTable, read_labels, read_scores

MODELS = {"1": "Koopman", "2": "CTR-GCN", "": "CTR-GCN"}
KINDS = ("joint", "bone", "joint-motion", "bone-motion")
STREAMS = {
    f"{kind}-dir{n}": f"{MODELS[n]} {kind.replace('-', ' ')}" for n in MODELS for kind in KINDS
}
"""Flags and titles, in the order of the published weights."""
PUBLISHED_WEIGHTS = {"ntu120/xsub": (0.3, 0.4, 0.1, 0.1, 0.4, 0.5, 0.2, 0.0)}
CTRGCN_WEIGHTS = dict(zip(list(STREAMS)[-4:], (0.6, 0.6, 0.4, 0.4), strict=True))
DATASETS = ("ntu/xsub", "ntu/xview", "ntu120/xsub", "ntu120/xset", "NW-UCLA")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``; return the exit status."""
    return cli.run(lambda stage: _run(_parse(argv)), (DataError,))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(description=__doc__)
    add = parser.add_argument
    add("--dataset", "--datasets", choices=DATASETS, help="benchmark")
    for flag, title in STREAMS.items():
        add(f"--{flag}", type=path_argument, metavar="DIR", help=f"scores of the {title} stream")
    scores = {"metavar": "DIR_OR_FILE", "help": "any streams, any number"}
    add("--scores", type=path_argument, nargs="+", default=[], **scores)
    alpha = (
        "one for each stream, in the order of the flags above; of two, the second's alone will do"
    )
    either = parser.add_mutually_exclusive_group().add_argument
    either("--alpha", nargs="+", type=float, metavar="WEIGHT", help=alpha)
    either("--search", action="store_true", help="find weights by cross-validation")
    add("--labels", type=path_argument, metavar="FILE", help="where the labels are")
    norm = "softmax puts streams of different scales on one, e.g. Koopman and CTR-GCN [none]"
    add("--normalise", choices=("none", "softmax"), default="none", help=norm)
    add("--folds", type=int, default=5, help="of the cross-validation [5]")
    add("--seed", type=int, default=0, help="of the cut into folds [0]")
    add("--out", type=path_argument, metavar="STEM", help="write the fused scores, .npz and .pkl")
    add("--overwrite", action="store_true", help="replace the files of --out")
    args = parser.parse_args(argv)
    named = [(key, getattr(args, key.replace("-", "_"))) for key in STREAMS]
    args.streams = [(k, path) for k, path in named if path] + [("", path) for path in args.scores]
    if not args.streams:
        raise UserError("no scores given; say --scores DIR ... or --joint-dir1 DIR ...")
    return args


def _run(args: argparse.Namespace) -> int:
    tables = [read_scores(path) for _, path in args.streams]
    scores = fusion.align(tables)
    labels = _labels(args.labels, tables)
    if labels.max() >= scores.shape[2]:
        raise UserError(f"label {labels.max()}, but the scores are of {scores.shape[2]} classes")
    titles = [f"{STREAMS.get(key, '')} {path}".strip() for key, path in args.streams]
    sys.stderr.writelines(fusion.duplicates(tables, titles))
    if args.normalise == "softmax":
        scores = softmax(scores, axis=2)
    weights, origin = _weights(args, [key for key, _ in args.streams])
    if args.search:
        found = fusion.search_weights(scores, labels, args.folds, args.seed)
        weights, origin = found.weights.tolist(), "found by --search, fitted to all samples"
        print(found)
    fused = fusion.fuse(scores, weights)
    if any(table.numbered for table in tables):
        print("note: samples without names are aligned by their number")
    print(f"weights: {origin}; scores: {args.normalise} normalisation")
    print(fusion.summary(titles, scores, weights, fused, labels))
    if args.out:
        paths = fusion.write_fused(args.out, tables[0].names, fused, labels, args.overwrite)
        print(f"wrote {paths['npz']} and {paths['pkl']}")
    return 0


def _weights(args: argparse.Namespace, keys: list[str]) -> tuple[Sequence[float], str]:
    """Weights of the streams, and in words where they come from."""
    if args.alpha and len(args.alpha) == 1 and len(keys) == 2:
        return [1.0, *args.alpha], "1 and the one given by --alpha, as in CTR-GCN"
    if args.alpha:
        return args.alpha, "given by --alpha"
    if len(keys) > 2 and all(key in CTRGCN_WEIGHTS for key in keys):
        return [CTRGCN_WEIGHTS[key] for key in keys], "published for CTR-GCN's streams"
    published = dict(zip(STREAMS, PUBLISHED_WEIGHTS.get(args.dataset, ()), strict=False))
    if all(key in published for key in keys):
        return [published[key] for key in keys], f"published for {args.dataset}"
    return [1.0] * len(keys), "equal; none are published for these streams"


def _labels(given: Path | None, tables: list[ScoreTable]) -> np.ndarray:
    """Labels (n,) from --labels, else the score files, else the sample names."""
    names = tables[0].names
    if given:
        return fusion.pick_labels(_labels_of(given, names), names, str(given))
    found = fusion.agreed_labels(tables)
    found = labels_in_names(names) if found is None else found
    if found is None:
        files = "a data set (.npz, .h5), a score file with labels, val_label.pkl or an .npy of them"
        raise UserError(f"{tables[0].path}: no labels there; say --labels FILE: {files}")
    return found


def _labels_of(path: Path, names: list[str]) -> dict[str, int]:
    """Labels by name; by position, where one side has no names."""
    is_npz = path.suffix == ".npz" and path.is_file()
    if path.suffix in STORE_SUFFIXES or (is_npz and "scores" not in array_names(path)):
        return labels_of_data_set(path)
    known, numbered = read_labels(path, labels_in_names)
    if numbered and len(known) != len(names):
        raise UserError(f"{path}: {len(known)} labels without names for {len(names)} samples")
    if known.keys() & set(names) or len(known) != len(names):
        return known
    return {NUMBERED.format(i): label for i, label in enumerate(known.values())}


if __name__ == "__main__":
    sys.exit(main())
