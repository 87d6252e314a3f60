"""Train and test skeleton action recognisers.

python main_multigpu.py --config config/ucla/koopman.yaml
python -m torch.distributed.launch --nproc_per_node=4 main_multigpu.py --config ...
torchrun --nproc_per_node=4 main_multigpu.py --config ...
python main_multigpu.py --config W/koopman.yaml --work-dir W --phase test --weights W/best.pt
"""

import inspect
import sys
from collections.abc import Sequence
from typing import Any

from data.errors import DataError
from model.errors import ModelError
from model.published import ALIASES
from torchlight import cli, distributed
from torchlight.card import Card, card_of_run, check_data, with_card
from torchlight.checkpoint import apply_weights, load_weights
from torchlight.config import Config, bind, parse
from torchlight.errors import UserError
from torchlight.holdout import Subset, held_out_names
from torchlight.numerics import prepare_torch
from torchlight.registry import Target, plug, resolve, with_built
from torchlight.trainer import Trainer, check_compatible

OWN_PACKAGES = ("feeders", "model")
SPLIT_KEYS = ("split", "label_path")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``; return the exit status."""
    return cli.run(lambda stage: _run(argv, stage), (DataError, ModelError))


def _run(argv: Sequence[str] | None, stage: cli.ConfigurationStage) -> int:
    config, config_file = parse(argv, __doc__ or "")
    config, card, feeder, model_class, evaluator = _classes(config)
    world = distributed.start(config.device, 60 * config.timeout_minutes, config.rank_timeout_s)
    stage.over()
    prepare_torch(config)
    sets = world.main_first(lambda: _datasets(config, feeder))
    scored_by = _evaluator(config, evaluator, sets["test"])
    check_data(config, sets, feeder, card, classes=scored_by is None)
    allowed = (*OWN_PACKAGES, *config.allow_import)
    model = model_class.build(
        with_built("model_args", config.model_args, "graph", ALIASES, allowed)
    )
    check_compatible(config, model, sets)
    model = plug("model.cpu.accelerate", wanted=world.device.type == "cpu")(model)

    def start() -> None:
        if config.weights is not None:
            loaded = load_weights(config.weights)
            apply_weights(model, loaded, config.weights, config.ignore_weights)

    frozen = [name for name, entry in model.named_parameters() if not entry.requires_grad]
    shown = sets.get("train", sets["test"])
    trainer = Trainer(
        config,
        world,
        model,
        sets["test"],
        config_file=config_file,
        train_set=sets.get("train"),
        val_set=sets.get("val"),
        evaluator=scored_by,
        start=start,
        card=card_of_run(config, config_file, model_class, feeder, shown, card, frozen),
    )
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
    evaluator, given = None, {}
    if config.evaluator is not None:
        evaluator = resolve(config.named("evaluator"), config.evaluator, ALIASES, allowed)
        targets["evaluator_args"], given["evaluator_args"] = evaluator, _from_test_set(evaluator)
        if given["evaluator_args"] and (config.val_fraction or config.val_subjects):
            raise UserError(
                f"--val-fraction, --val-subjects: {evaluator.name} scores other classes"
            )
    config = bind(config, targets, ALIASES, allowed, given)
    return config, card, feeder, model, evaluator


def _datasets(config: Config, feeder: Target) -> dict[str, Any]:
    """The splits of a run by name.

    With a part held out, "val" is that part, read as the test split is: by its arguments.
    """
    known = inspect.signature(feeder.cls).parameters
    seeded = {"seed": config.seed} if "seed" in known else {}
    sets = {"test": feeder.build({**seeded, **config.test_feeder_args})}
    if config.phase == "test":
        return sets
    sets["train"] = feeder.build({**seeded, **config.train_feeder_args})
    if config.val_fraction is None and config.val_subjects is None:
        return sets
    held = held_out_names(
        sets["train"],
        subjects=config.val_subjects,
        fraction=config.val_fraction,
        seed=config.seed,
    )
    split = {k: v for k, v in config.train_feeder_args.items() if k in SPLIT_KEYS}
    own = {**(split or {"split": "train"}), **({"augment": False} if "augment" in known else {})}
    kept = {k: v for k, v in config.test_feeder_args.items() if k not in SPLIT_KEYS}
    plain = feeder.build({**seeded, **kept, **own})
    sets["val"] = Subset(plain, held)
    sets["train"] = Subset(sets["train"], set(sets["train"].sample_names) - held)
    return sets


def _evaluator(config: Config, target: Target | None, test_set: Any) -> Any:
    """The evaluator; one that compares with exemplars is given those of the test split.

    Queries are of classes that the model has no score for: they are matched unless told otherwise.
    """
    if target is None and hasattr(test_set, "exemplars"):
        target = resolve("evaluator", "model.oneshot.Evaluator", ALIASES, OWN_PACKAGES)
    if target is None:
        return None
    given = {}
    for name in _from_test_set(target):
        if not hasattr(test_set, name):
            raise UserError(f"evaluator: {target.name} needs a feeder that knows its {name}")
        given[name] = getattr(test_set, name)
    return target.build({**config.evaluator_args, **given})


def _from_test_set(evaluator: Target) -> list[str]:
    """Arguments of an evaluator that are no matter of the configuration."""
    return [name for name in ("exemplars",) if name in inspect.signature(evaluator.cls).parameters]


if __name__ == "__main__":
    sys.exit(main())
