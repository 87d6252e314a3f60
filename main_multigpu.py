"""Train and test skeleton action recognisers.

python main_multigpu.py --config config/ucla/koopman.yaml
python -m torch.distributed.launch --nproc_per_node=4 main_multigpu.py --config ...
torchrun --nproc_per_node=4 main_multigpu.py --config ...
python main_multigpu.py --config W/koopman.yaml --work-dir W --phase test --weights W/best.pt
python main_multigpu.py --config config/ucla/koopman.yaml --phase summary   (or --dry-run)
python main_multigpu.py --config ... --work-dir W --seeds 1 2 3 --streams joint bone
python main_multigpu.py --phase predict --weights W/best.pt --input FILE_OR_FOLDER
python main_multigpu.py --phase package --weights W/best.pt --out DIR   (--phase package --help)
"""

import sys
from collections.abc import Sequence
from typing import Any

from data.errors import DataError
from feeders.transforms import HOMES
from model.errors import ModelError
from model.published import ALIASES, WEIGHTS
from torchlight import cli, distributed
from torchlight.card import Card, card_of_run, with_card
from torchlight.components import bind_components
from torchlight.config import Config, bind
from torchlight.contract import with_data
from torchlight.evaluation import from_test_set, given_by_test_set
from torchlight.flags import parse
from torchlight.holdout import open_splits
from torchlight.loading import Dataset
from torchlight.loggers import Curves, make_loggers
from torchlight.numerics import prepare_torch
from torchlight.registry import Target, decided_by_data, plug, resolve, with_each_built, with_parts
from torchlight.trainer import Trainer

OWN_PACKAGES = ("feeders", "model")
MISTAKES = (DataError, ModelError)
TOOLS = {p: f"koopman_pooling.{p}.main" for p in ("export", "package", "predict", "report")}
"""Other phases than training and testing: the function of a wing that takes the command line."""
SEVERAL = dict.fromkeys(("--seeds", "--streams"), "koopman_pooling.several.run_each")
"""Flags that ask for several runs: the function also takes ``main``, which it calls for each."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``; return the exit status."""
    return cli.run(lambda stage: _run(argv, stage), MISTAKES)


def _run(argv: Sequence[str] | None, stage: cli.ConfigurationStage) -> int:
    if tool := cli.tool_asked_for(argv, TOOLS):
        return tool(argv)
    if several := cli.tool_asked_for(argv, SEVERAL):
        return several(argv, main)
    also = plug("koopman_pooling.several.own_flags")(None)
    config, config_file = parse(argv, __doc__ or "", also, phases=TOOLS, weights=WEIGHTS)
    measure = cli.wing(config.measured, "torchlight.measures.measure") if config.measured else None
    if config.phase == "summary":
        config = config.but(phase="train" if config.train_feeder_args else "test")
    config, card, feeder, model_class, evaluator = _classes(config)
    allowed = (*OWN_PACKAGES, *config.allow_import)
    config, components = bind_components(config, allowed)
    plug("torchlight.checks.check_optimizer")(config, components)
    loggers = make_loggers(config, allowed)
    world = distributed.start(config.device, 60 * config.timeout_minutes, config.rank_timeout_s)
    world = plug("torchlight.resilience.watched")(world)
    stage.over()
    prepare_torch(config)
    sets = world.main_first(lambda: _datasets(config, feeder))
    scored_by = _evaluator(config, evaluator, sets["test"])
    matched = scored_by is not None
    plug("torchlight.checks.check_data")(config, sets, feeder, card, classes=not matched)
    config = world.main_first(lambda: with_data(config, model_class, sets, card, matched=matched))
    given = with_parts("model_args", model_class, config.model_args, ALIASES, allowed, config.named)
    model = model_class.built("model_args", given, MISTAKES)
    check = plug("torchlight.checks.check_model")
    world.main_first(lambda: check(config, model, sets, matched=matched, mistakes=MISTAKES))
    model = plug("model.cpu.accelerate", wanted=world.device.type == "cpu")(model)

    frozen = [name for name, entry in model.named_parameters() if not entry.requires_grad]
    trainer = Trainer(
        config,
        world,
        model,
        sets,
        config_file=config_file,
        evaluator=scored_by,
        components=components,
        card=card_of_run(config, config_file, model_class, feeder, sets, card, frozen),
        command=["main_multigpu.py", *(sys.argv[1:] if argv is None else argv)],
    )
    if measure is not None:
        return measure(trainer, batch=config.dry_run)
    trainer.callbacks.append(Curves(loggers))
    for wing in ("torchlight.reports", "koopman_pooling.report", "torchlight.resilience"):
        trainer = plug(f"{wing}.attach")(trainer)
    trainer.fit() if config.phase == "train" else trainer.test()
    return 0


def _classes(config: Config) -> tuple[Config, Card, Target, Target, Target | None]:
    """Resolve every dotted name and bind its arguments, before anything is built.

    What the card of the weights says of the model is in the configuration then.
    """
    allowed = (*OWN_PACKAGES, *config.allow_import)
    feeder = resolve(config.named("feeder"), config.feeder, ALIASES, allowed)
    model = resolve(config.named("model"), config.model, ALIASES, allowed)
    config, card = with_card(config, model)
    targets = {"test_feeder_args": feeder, "train_feeder_args": feeder, "model_args": model}
    if config.phase == "test":
        del targets["train_feeder_args"]
    evaluator, given = None, {"model_args": decided_by_data(model)}
    if config.evaluator is not None:
        evaluator = resolve(config.named("evaluator"), config.evaluator, ALIASES, allowed)
        targets["evaluator_args"], given["evaluator_args"] = evaluator, from_test_set(evaluator)
    config = bind(config, targets, ALIASES, allowed, given)
    return config, card, feeder, model, evaluator


def _datasets(config: Config, feeder: Target) -> dict[str, Dataset]:
    """The splits of a run by name."""
    allowed = (*OWN_PACKAGES, *config.allow_import)

    def build(key: str, given: dict[str, Any]) -> Any:
        return feeder.built(key, with_each_built(key, given, HOMES, allowed), MISTAKES)

    return open_splits(config, build, feeder.parameters)


def _evaluator(config: Config, target: Target | None, test_set: Any) -> Any:
    """The evaluator; one that compares with exemplars is given those of the test split.

    Queries are of classes that the model has no score for: they are matched unless told otherwise.
    """
    if target is None and hasattr(test_set, "exemplars"):
        target = resolve("evaluator", "model.oneshot.Evaluator", ALIASES, OWN_PACKAGES)
    if target is None:
        return None
    given = {**config.evaluator_args, **given_by_test_set(config, target, test_set)}
    return target.built("evaluator_args", given, MISTAKES)


if __name__ == "__main__":
    sys.exit(main())
