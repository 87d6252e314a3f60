"""Recognise classes that a model never trained on, by matching queries to exemplars.

python test_oneshot.py --config config/ucla-oneshot/koopman_oneshot_test.yaml --weights W/best.pt
python test_oneshot.py --config ... --weights ... --match cosine --shots 5
torchrun --nproc_per_node=4 test_oneshot.py --config ... --weights ...

Besides the flags of main_multigpu.py: --match dmd | l2 | cosine is the matching reported in full
(all three are compared), --rcond the cut-off of the dmd fit, --shots the exemplars a class.
"""

import argparse
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
from torchlight.checkpoint import apply_weights, load_weights
from torchlight.config import Config, parse
from torchlight.errors import UserError
from torchlight.evaluation import Evaluation, SplitScorer
from torchlight.registry import binding_faults, resolve
from torchlight.reports import (
    class_accuracy,
    confusion,
    topk_accuracy,
    write_comparison,
    write_distances,
    write_report,
)
from torchlight.trainer import precision_of, prepare_torch

OWN_PACKAGES = ("feeders", "model")
STEM = "oneshot"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``; return the exit status."""
    return cli.run(lambda stage: _run(argv, stage), (DataError, ModelError))


def _run(argv: Sequence[str] | None, stage: cli.ConfigurationStage) -> int:
    config, weights = _configuration(argv)
    allowed = (*OWN_PACKAGES, *config.allow_import)
    feeder = resolve("feeder", config.feeder, ALIASES, allowed)
    model_class = resolve("model", config.model, ALIASES, allowed)
    faults = binding_faults("test_feeder_args", feeder, config.test_feeder_args)
    faults += binding_faults("model_args", model_class, config.model_args)
    if faults:
        raise UserError("; ".join(faults))
    world = distributed.start(config.device, 60 * config.timeout_minutes, config.rank_timeout_s)
    stage.over()
    prepare_torch(config)
    queries = world.main_first(lambda: feeder.build(config.test_feeder_args))
    if not hasattr(queries, "exemplars"):
        raise UserError("feeder: one-shot needs one that knows its exemplars (feeders.oneshot)")
    model = model_class.build(config.model_args)
    apply_weights(model, load_weights(weights), weights, config.ignore_weights)
    scorer = SplitScorer(
        queries,
        batch_size=config.test_batch_size,
        workers=config.num_worker,
        world=world,
        evaluator=Evaluator(queries.exemplars, MATCHES, config.evaluator_args["rcond"]),
        precision=lambda: precision_of(config, world.device),
    )
    evaluation = scorer(model.to(world.device), "one-shot")
    if evaluation is not None:
        _report(config, evaluation, queries)
    return 0


def _configuration(argv: Sequence[str] | None) -> tuple[Config, str]:
    """The configuration, this command's own flags laid over it, and the file of weights."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--match", choices=MATCHES)
    parser.add_argument("--rcond", type=float)
    parser.add_argument("--shots", type=int)
    own, rest = parser.parse_known_args(argv)
    config, _ = parse(rest, __doc__ or "")
    if config.weights is None:
        raise UserError("--weights FILE is missing: what to embed exemplars and queries with")
    given = {key: value for key, value in vars(own).items() if value is not None}
    feeder_args = dict(config.test_feeder_args)
    if "shots" in given:
        feeder_args["shots"] = given.pop("shots")
    evaluator_args = {"match": "dmd", "rcond": RCOND, **config.evaluator_args, **given}
    update = {"test_feeder_args": feeder_args, "evaluator_args": evaluator_args}
    return config.model_copy(update=update), config.weights


def _report(config: Config, evaluation: Evaluation, queries: Any) -> None:
    """Print and write what the matchings say; the one asked for in full."""
    names, labels, classes = evaluation.names, evaluation.labels, queries.class_names
    stacked = evaluation.scores.reshape(len(labels), len(MATCHES), len(classes))
    folder, chosen = Path(config.work_dir), config.evaluator_args["match"]
    compared: dict[str, tuple[float, np.ndarray]] = {}
    print(f"{len(labels)} queries of {len(classes)} novel classes; weights {config.weights}")
    for match, scores in zip(MATCHES, np.moveaxis(stacked, 1, 0), strict=True):
        by_class = class_accuracy(confusion(scores, labels))
        compared[match] = (topk_accuracy(scores, labels, (1,))[1], by_class)
        print(f"{match:>8} top-1 {compared[match][0]:.2%}")
    scores = stacked[:, MATCHES.index(chosen)]
    for name, accuracy in zip(classes, compared[chosen][1], strict=True):
        print(f"{chosen:>8} class {name}: {accuracy:.2%}")
    write_report(folder, STEM, scores, labels, names, classes)
    write_distances(folder, STEM, -scores, labels, names, classes)
    write_comparison(folder / f"{STEM}_matchings.csv", compared, classes)
    print(f"wrote {folder / STEM}_*")


if __name__ == "__main__":
    sys.exit(main())
