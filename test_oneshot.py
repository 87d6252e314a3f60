"""Recognise classes that a model never trained on, by matching queries to exemplars.

python test_oneshot.py --config config/ucla-oneshot/koopman_oneshot_test.yaml --weights W/best.pt
python test_oneshot.py --config ... --weights ... --match cosine --shots 5
torchrun --nproc_per_node=4 test_oneshot.py --config ... --weights ...

Queries and exemplars are those of test_feeder_args: see feeders/oneshot.py. All matchings are
compared; the distances, predictions and confusions written are of the one chosen.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import DataError
from model.errors import ModelError
from model.matching import MATCHES, RCOND
from model.oneshot import Evaluator
from model.published import ALIASES
from torchlight import cli, distributed
from torchlight.checkpoint import Weights, apply_weights, load_weights
from torchlight.config import Config, bind, parse
from torchlight.errors import UserError
from torchlight.evaluation import Evaluation, SplitScorer
from torchlight.numerics import precision_notes, precision_of, prepare_torch
from torchlight.registry import resolve, with_built
from torchlight.reports import (
    class_accuracy,
    comparison,
    confusion,
    topk_accuracy,
    write_comparison,
    write_distances,
    write_report,
)

OWN_PACKAGES = ("feeders", "model")
STEM = "oneshot"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``; return the exit status."""
    return cli.run(lambda stage: _run(argv, stage), (DataError, ModelError))


def _run(argv: Sequence[str] | None, stage: cli.ConfigurationStage) -> int:
    config, weights = _configuration(argv)
    allowed = (*OWN_PACKAGES, *config.allow_import)
    feeder = resolve(config.named("feeder"), config.feeder, ALIASES, allowed)
    model_class = resolve(config.named("model"), config.model, ALIASES, allowed)
    targets = {"test_feeder_args": feeder, "model_args": model_class}
    config = bind(config, targets, ALIASES, allowed)
    world = distributed.start(config.device, 60 * config.timeout_minutes, config.rank_timeout_s)
    stage.over()
    prepare_torch(config)
    queries = world.main_first(lambda: feeder.build(config.test_feeder_args))
    if not hasattr(queries, "exemplars"):
        raise UserError(
            f"feeder: {config.feeder} knows no exemplars; one-shot takes feeders.oneshot.Feeder, "
            "with this one as its base (see config/ucla-oneshot)"
        )
    entries = load_weights(weights)
    arguments = with_built("model_args", config.model_args, "graph", ALIASES, allowed)
    model = model_class.build(_with_classes_of(entries, arguments))
    apply_weights(model, entries, weights, config.ignore_weights)
    scorer = SplitScorer(
        queries,
        batch_size=config.test_batch_size,
        workers=config.num_worker,
        world=world,
        evaluator=Evaluator(queries.exemplars, MATCHES, config.evaluator_args["rcond"]),
        precision=lambda: precision_of(config, world.device),
    )
    for note in [*config.notes, *precision_notes(config, world.device)] if world.is_main else []:
        print(note)
    evaluation = scorer(model.to(world.device), "one-shot")
    if evaluation is not None:
        _report(config, evaluation, queries)
    return 0


def _configuration(argv: Sequence[str] | None) -> tuple[Config, str]:
    """The configuration, this command's own flags laid over it, and the file of weights."""
    parser = cli.Parser(add_help=False)
    matching = parser.add_argument_group("matching")
    matching.add_argument("--match", choices=MATCHES, help="which one to report in full [dmd]")
    matching.add_argument(
        "--rcond",
        type=float,
        help="dmd keeps an exemplar's directions stronger than this times the strongest "
        f"[evaluator_args, or {RCOND}]",
    )
    matching.add_argument(
        "--shots", type=int, metavar="K", help="exemplars a class, fitted jointly [1]"
    )
    own, rest = parser.parse_known_args(argv)
    config, _ = parse(rest, __doc__ or "", parser)
    if config.weights is None:
        raise UserError("--weights FILE is missing: what to embed exemplars and queries with")
    given = {key: value for key, value in vars(own).items() if value is not None}
    feeder_args = dict(config.test_feeder_args)
    if "shots" in given:
        feeder_args["shots"] = given.pop("shots")
    evaluator_args = {"match": "dmd", "rcond": RCOND, **config.evaluator_args, **given}
    update = {"test_feeder_args": feeder_args, "evaluator_args": evaluator_args}
    return config.model_copy(update=update), config.weights


def _with_classes_of(entries: Weights, model_args: dict[str, Any]) -> dict[str, Any]:
    """The model's arguments for as many classes as the weights have; none of them is asked about.

    Published one-shot weights have heads for the novel classes as well.
    """
    heads = [entries[key] for key in ("K", "fc.weight") if key in entries]
    known = "num_class" in model_args and heads and heads[0].dim() > 1
    return {**model_args, "num_class": len(heads[0])} if known else model_args


def _report(config: Config, evaluation: Evaluation, queries: Any) -> None:
    """Print and write what the matchings say; the one asked for in full."""
    names, labels, classes = evaluation.names, evaluation.labels, queries.class_names
    stacked = evaluation.scores.reshape(len(labels), len(MATCHES), len(classes))
    folder, chosen = Path(config.work_dir), config.evaluator_args["match"]
    compared: dict[str, tuple[float, np.ndarray]] = {}
    for match, scores in zip(MATCHES, np.moveaxis(stacked, 1, 0), strict=True):
        by_class = class_accuracy(confusion(scores, labels))
        compared[match] = (topk_accuracy(scores, labels, (1,))[1], by_class)
    scores = stacked[:, MATCHES.index(chosen)]
    shots = len(queries.exemplars.sample_names) // len(classes)
    print(f"weights: {config.weights}")
    print(f"exemplars a class: {shots}; dmd cut-off: {config.evaluator_args['rcond']}")
    print(comparison(compared, classes, np.bincount(labels, minlength=len(classes))))
    write_report(folder, STEM, scores, labels, names, classes)
    write_distances(folder, STEM, -scores, labels, names, classes)
    write_comparison(folder / f"{STEM}_matchings.csv", compared, classes)
    print(f"wrote {folder / STEM}_*: all of {chosen} but the comparison, {STEM}_matchings.csv")


if __name__ == "__main__":
    sys.exit(main())
