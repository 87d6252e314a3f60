"""Combine the class scores of several streams, each saved by a test run with --save-score True.

python ensemble.py --dataset ntu120/xsub --joint-dir1 W1 --bone-dir1 W2 --joint-dir2 W3 ...
python ensemble.py --scores W1 W2/epoch1_test_score.pkl W3 --alpha 0.6 0.6 0.4
python ensemble.py --scores W1 W2 W3 --search --out work_dir/fused

Directories 1 are Koopman models, directories 2 plain CTR-GCN. Samples are joined by name. Labels
are those in our score files; for published ones, those in NTU RGB+D and NW-UCLA sample names, or
--labels FILE: a score file of ours, a store, or a published .npz data set.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.labels import labels_in_names, labels_of_data_set
from torchlight import cli
from torchlight import ensemble as fusion
from torchlight.errors import UserError
from torchlight.files import path_argument
from torchlight.scores import ScoreTable, is_score_file, read_scores

# In the order of the published weights.
STREAMS = {
    f"{stream}-dir{number}": f"{model} {stream.replace('-', ' ')}"
    for number, model in ((1, "Koopman"), (2, "CTR-GCN"))
    for stream in ("joint", "bone", "joint-motion", "bone-motion")
}
PUBLISHED_WEIGHTS = {"ntu120/xsub": (0.3, 0.4, 0.1, 0.1, 0.4, 0.5, 0.2, 0.0)}
DATASETS = ("ntu/xsub", "ntu/xview", "ntu120/xsub", "ntu120/xset", "NW-UCLA")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``; return the exit status."""
    return cli.run(lambda stage: _run(_parse(argv)), (DataError,))


def _run(args: argparse.Namespace) -> int:
    streams = _streams(args)
    tables = [read_scores(path) for _, path in streams]
    joined = fusion.join(tables)
    labels = _labels(args, tables, joined.names)
    fusion.check_labels(labels, joined)
    scores = fusion.normalised(joined.scores, args.normalise)
    weights, origin = _weights(args, [key for key, _ in streams])
    if args.search:
        found = fusion.search_weights(scores, labels, args.folds, args.seed)
        weights, origin = found.weights.tolist(), "found by --search, fitted to all samples"
        print(found)
    fused = fusion.fuse(scores, weights)
    titles = [f"{STREAMS.get(key, '')} {path}".strip() for key, path in streams]
    print(f"weights: {origin}; scores: {args.normalise} normalisation")
    print(fusion.summary(titles, scores, weights, fused, labels))
    if args.out:
        recipe = repr(([float(weight) for weight in weights], args.normalise))
        paths = fusion.write_fused(
            args.out, tables, recipe, fused, labels, overwrite=args.overwrite
        )
        print(f"wrote {paths['npz']} and {paths['pkl']}")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--dataset", "--datasets", help=f"benchmark: {', '.join(DATASETS)}")
    for flag, label in STREAMS.items():
        spellings = dict.fromkeys((f"--{flag}", f"--{flag.replace('-', '_')}"))
        parser.add_argument(
            *spellings, type=path_argument, metavar="DIR", help=f"scores of the {label} stream"
        )
    parser.add_argument(
        "--scores",
        type=path_argument,
        nargs="+",
        default=[],
        metavar="DIR_OR_FILE",
        help="any streams, in any number",
    )
    parser.add_argument(
        "--alpha",
        nargs="+",
        type=float,
        metavar="WEIGHT",
        help="one for each stream given, in the order of the flags above",
    )
    parser.add_argument("--labels", type=path_argument, metavar="FILE", help="where the labels are")
    parser.add_argument(
        "--normalise",
        choices=("none", "softmax"),
        default="none",
        help="softmax puts streams of different scales on one, e.g. Koopman and CTR-GCN [none]",
    )
    parser.add_argument("--search", action="store_true", help="find weights by cross-validation")
    parser.add_argument("--folds", type=int, default=5, help="of the cross-validation [5]")
    parser.add_argument("--seed", type=int, default=0, help="of the cut into folds [0]")
    parser.add_argument(
        "--out", type=path_argument, metavar="STEM", help="write the fused scores, .npz and .pkl"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the files of --out")
    return parser.parse_args(argv)


def _streams(args: argparse.Namespace) -> list[tuple[str, Path]]:
    """(key, path) of the streams given, in the published order."""
    named = [(key, getattr(args, key.replace("-", "_"))) for key in STREAMS]
    streams = [(key, path) for key, path in named if path] + [("", path) for path in args.scores]
    if not streams:
        raise UserError("no scores given; say --scores DIR ... or --joint-dir1 DIR ...")
    if args.dataset and args.dataset not in DATASETS:
        raise UserError(f"--dataset {args.dataset}: not one of {', '.join(DATASETS)}")
    if args.search and args.alpha:
        raise UserError("--search and --alpha exclude each other; give one")
    return streams


def _weights(args: argparse.Namespace, keys: list[str]) -> tuple[Sequence[float], str]:
    """Weights of the streams, and in words where they come from."""
    if args.alpha:
        return args.alpha, "given by --alpha"
    published = PUBLISHED_WEIGHTS.get(args.dataset)
    if published and all(keys):
        by_stream = dict(zip(STREAMS, published, strict=True))
        return [by_stream[key] for key in keys], f"published for {args.dataset}"
    return [1.0] * len(keys), "equal; none are published for these streams"


def _labels(args: argparse.Namespace, tables: list[ScoreTable], names: list[str]) -> np.ndarray:
    """Labels (n,) from --labels, else the score files, else the sample names."""
    if args.labels and not is_score_file(args.labels):
        labels = labels_of_data_set(args.labels)
        return fusion.pick_labels(labels, names, str(args.labels))
    found = fusion.agreed_labels([read_scores(args.labels)] if args.labels else tables, names)
    found = labels_in_names(names) if found is None else found
    if found is None:
        raise UserError(f"{args.labels or tables[0].path}: no labels there; say --labels FILE")
    return found


if __name__ == "__main__":
    sys.exit(main())
