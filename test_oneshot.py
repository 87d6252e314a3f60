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
from feeders.transforms import HOMES
from model.errors import ModelError
from model.matching import MATCHES, RCOND
from model.oneshot import Evaluator
from model.published import ALIASES, WEIGHTS
from torchlight import cli, distributed
from torchlight.card import Card, with_card
from torchlight.checkpoint import Weights, apply_weights, fit_keys, load_weights
from torchlight.config import Config, bind
from torchlight.contract import prepared, with_data
from torchlight.errors import UserError
from torchlight.evaluation import Evaluation, SplitScorer
from torchlight.files import atomic_write
from torchlight.flags import parse
from torchlight.log import start_logging
from torchlight.metrics import topk_accuracy
from torchlight.numerics import precision_notes, prepare_torch
from torchlight.registry import Target, decided_by_data, plug, resolve, with_each_built, with_parts
from torchlight.workdir import check_settings

OWN_PACKAGES = ("feeders", "model")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``; return the exit status."""
    return cli.run(lambda stage: _run(argv, stage), (DataError, ModelError))


def _run(argv: Sequence[str] | None, stage: cli.ConfigurationStage) -> int:
    config, weights, stem = _configuration(argv)
    allowed = (*OWN_PACKAGES, *config.allow_import)
    feeder = resolve(config.named("feeder"), config.feeder, ALIASES, allowed)
    model_class = resolve(config.named("model"), config.model, ALIASES, allowed)
    config, start = with_card(config, model_class)
    targets = {"test_feeder_args": feeder, "model_args": model_class}
    config = bind(config, targets, ALIASES, allowed, {"model_args": decided_by_data(model_class)})
    if config.classes:
        raise UserError(f"{config.named('classes')}: one-shot tests recognise novel_classes")
    world = distributed.start(config.device, 60 * config.timeout_minutes, config.rank_timeout_s)
    world = plug("torchlight.resilience.watched")(world)
    stage.over()
    prepare_torch(config)
    of_data = with_each_built("test_feeder_args", config.test_feeder_args, HOMES, allowed)
    queries = world.main_first(lambda: prepared("test", feeder.build(of_data)))
    if not hasattr(queries, "exemplars"):
        raise UserError(
            f"feeder: {config.feeder} has no exemplars; make it the base of feeders.oneshot.Feeder"
        )
    sets = {"test": queries}
    plug("torchlight.checks.check_data")(config, sets, feeder, start, classes=False)
    entries = fit_keys(load_weights(weights), ("K", "fc.weight"), weights)
    config = _with_classes_of(entries, config, model_class)
    config = world.main_first(lambda: with_data(config, model_class, sets, start, matched=True))
    given = with_parts("model_args", model_class, config.model_args, ALIASES, allowed, config.named)
    model = model_class.build(given)
    apply_weights(model, entries, weights, config.ignore_weights)
    model = plug("model.cpu.accelerate", wanted=world.device.type == "cpu")(model)
    evaluator = Evaluator(queries.exemplars, MATCHES, config.evaluator_args["rcond"])
    scorer = SplitScorer(queries, config, world, evaluator)
    folder, settings = Path(config.work_dir), _settings(config, start)
    record = folder / f"{stem}_settings.json"
    text = world.on_main(lambda: check_settings(record, settings))
    folder.mkdir(parents=True, exist_ok=True)
    log = start_logging(world.is_main, folder / "log.txt")
    notes = (f"note: {note}" for note in config.notes)
    for note in [*notes, *precision_notes(config, world.device)]:
        log.info(note)
    evaluation = scorer(model.to(world.device), "one-shot")
    if evaluation is not None:
        log.info(f"weights: {weights}\n{_report(config, evaluation, queries, folder, stem)}")
        with atomic_write(record) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return 0


def _configuration(argv: Sequence[str] | None) -> tuple[Config, str, str]:
    """The configuration with this command's flags, the weights, the stem of the files written."""
    parser = cli.Parser(add_help=False)
    add = parser.add_argument_group("matching").add_argument
    add("--match", choices=MATCHES, help="which one to report in full [dmd]")
    rcond = "dmd keeps an exemplar's directions stronger than this times the strongest"
    add("--rcond", type=float, help=f"{rcond} [evaluator_args, or {RCOND}]")
    add("--shots", type=int, metavar="K", help="exemplars a class, fitted jointly [1]")
    own, rest = parser.parse_known_args(argv)
    config, _ = parse(rest, __doc__ or "", parser, weights=WEIGHTS)
    if config.measured:
        raise UserError(f"{config.measured} is for main_multigpu.py, with this configuration too")
    if config.weights is None:
        raise UserError("--weights FILE is missing: what to embed exemplars and queries with")
    given = {key: value for key, value in vars(own).items() if value is not None}
    shots = {"shots": given.pop("shots")} if "shots" in given else {}
    usual = {"match": "dmd", "rcond": RCOND, **config.evaluator_args}
    before = {"shots": 1, **usual, **config.test_feeder_args}
    changed = [f"{k}-{v}" for k, v in vars(own).items() if v is not None and v != before[k]]
    stem = "_".join(["oneshot", *changed])
    feeder_args = {**config.test_feeder_args, **shots}
    config = config.but(test_feeder_args=feeder_args, evaluator_args={**usual, **given})
    return config, str(config.weights), stem


def _with_classes_of(entries: Weights, config: Config, model: Target) -> Config:
    """The configuration for as many classes as the weights have; published ones have novel ones."""
    heads = [len(entries[k]) for k in ("K", "fc.weight") if k in entries and entries[k].dim() > 1]
    known = {"num_class": heads[0]} if heads and "num_class" in model.parameters else {}
    return config.but(model_args={**config.model_args, **known})


def _report(config: Config, found: Evaluation, queries: Any, folder: Path, stem: str) -> str:
    """Write what the matchings say, the one asked for in full; return it as text."""
    labels, classes = found.labels, queries.class_names
    stacked = found.scores.reshape(len(labels), len(MATCHES), len(classes))
    methods = dict(zip(MATCHES, np.moveaxis(stacked, 1, 0), strict=True))
    chosen, rcond = (config.evaluator_args[key] for key in ("match", "rcond"))
    shots = len(queries.exemplars.sample_names) // len(classes)
    tops = (f"{m} {topk_accuracy(own, labels, (1,))[1]:.2%}" for m, own in methods.items())
    told = f"exemplars a class: {shots}; dmd cut-off: {rcond}; accuracy: {', '.join(tops)}"
    write = plug("torchlight.reports.write_methods")
    return write(told, folder, stem, methods, chosen, labels, found.names, classes)


def _settings(config: Config, start: Card) -> dict[str, Any]:
    """What the results are a function of."""
    keys = {"feeder", "test_feeder_args", "model", "model_args", "evaluator_args"}
    settings = config.model_dump(mode="json", include=keys)
    return {"weights": config.weights, "sha256": start.sha256, **settings}


if __name__ == "__main__":
    sys.exit(main())
