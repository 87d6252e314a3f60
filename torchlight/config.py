"""The configuration: typed, checked whole before any data is read, saved resolved.

The fields of ``Config`` are at once the keys of a YAML (``torchlight.layers``) and the flags of the
command line (``torchlight.flags``). Precedence: flag, then YAML, then the default written here.
"""

import hashlib
import json
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from .errors import UserError, printable
from .files import atomic_write, expanded
from .registry import Aliases, Target, binding_faults, fitted_arguments
from .terminal import nearest
from .values import fitted, meaning

Arguments = dict[str, Any]
Fraction = Annotated[float, Field(gt=0, lt=1)]

RESOLVED = "# The resolved configuration of the run in this folder, which may rewrite this file.\n"
"""How such a file begins, so that no other is taken for one."""

BASE = "base"
"""Key of a YAML that names others, which it is laid over."""

ALSO_CALLED = {
    **dict.fromkeys(("lr", "learning_rate"), "base_lr"),
    **dict.fromkeys(("epochs", "max_epochs", "num_epochs"), "num_epoch"),
    **dict.fromkeys(("out", "output", "output_dir", "save_dir", "logdir"), "work_dir"),
    **dict.fromkeys(("checkpoint", "ckpt", "pretrained", "load_from"), "weights"),
    **dict.fromkeys(("gpu", "gpus"), "device"),
    **{"workers": "num_worker", "wd": "weight_decay", "warmup_epochs": "warm_up_epoch"},
    **{"scheduler": "lr_scheduler", "criterion": "loss", "fp16": "amp", "ema": "averaging"},
}
"""What others call keys."""

_PATHS = ("work_dir", "weights")


def _device(value: Any) -> Any:
    """``cuda:1`` (and ``cuda:0,1``, a list of these) as indices, as torch's and others' words."""
    words = [str(word).strip().lower() for word in (value if isinstance(value, list) else [value])]
    if len(words) == 1 and re.fullmatch(r"auto|cpu(:0)?|cuda|gpu", words[0]):
        return words[0].removesuffix(":0").replace("gpu", "cuda")
    listed = [re.sub(r"^(cuda|gpu):", "", word).split(",") for word in words]
    indices = [index.strip() for part in listed for index in part]
    if not all(re.fullmatch(r"[0-9]+", index) for index in indices):
        raise ValueError("is none of auto, cpu, cuda, cuda:0 and CUDA indices such as [0, 1]")
    if len(set(map(int, indices))) != len(indices) or not indices:
        raise ValueError("needs one CUDA index or more, all different")
    return [int(index) for index in indices]


Device = Annotated[Literal["auto", "cpu", "cuda"] | list[int], BeforeValidator(_device)]


@dataclass(frozen=True)
class Origin:
    """What the user wrote, and where: for messages, and for types that are known only later.

    ``written`` are the values as read, ``flags`` the dotted names of those given by flags,
    ``notes`` what is to be said in the log.
    """

    source: str = ""
    written: Mapping[str, Any] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def named(self, dotted: str) -> str:
        """How the user wrote the setting ``dotted``: ``--model-args drop_out`` or ``base_lr``."""
        key, _, rest = dotted.partition(".")
        by_flag = any(f"{dotted}.".startswith(f"{flag}.") for flag in self.flags)
        return f"--{key.replace('_', '-')} {rest}".rstrip() if by_flag else dotted

    def titled(self, key: str) -> str:
        """The same at the beginning of a line."""
        return self.named(key) if self.named(key)[:2] == "--" else f'key "{key}"'


def key(default: Any, description: str) -> Any:
    """A key of the configuration."""
    return Field(default, description=description)


class Config(BaseModel):
    """Everything that decides a run."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )
    _origin: Origin = PrivateAttr(default_factory=Origin)

    work_dir: str = key("./work_dir/temp", "folder for everything the run writes")
    phase: Literal["train", "test", "summary"] = key(
        "train", "train, test (with --weights), summary"
    )
    seed: NonNegativeInt = key(1, "of weights, sample order and augmentation")

    feeder: str = key(..., "dotted name of the dataset class")
    train_feeder_args: Arguments = key({}, "arguments of the training split")
    test_feeder_args: Arguments = key({}, "arguments of the test split")
    num_worker: NonNegativeInt = key(2, "loading processes a rank; 0: none")
    classes: list[NonNegativeInt] | None = key(None, "labels to keep, numbered anew in this order")
    val_fraction: Fraction | None = key(None, "share of training held out to choose the epoch")
    val_subjects: list[int] | None = key(None, "training subjects held out to choose the epoch")

    model: str = key(..., "dotted name of the model class")
    model_args: Arguments = key({}, "arguments of the model; what the data decide may be left out")
    evaluator: str | None = key(None, "dotted name of a class that scores instead of the logits")
    evaluator_args: Arguments = key({}, "arguments of the evaluator")
    weights: str | None = key(None, "weights to start from, or to test")
    ignore_weights: list[str] = key([], "entries whose names contain these stay as initialised")
    ignore_card: bool = key(False, "take weights whose card says that they do not fit, this once")

    optimizer: str = key("SGD", "class of torch.optim, or dotted name")
    optimizer_args: Arguments = key({}, "such as betas=[0.9,0.99]")
    loss: str = key("CrossEntropyLoss", "class of torch.nn, or dotted name")
    loss_args: Arguments = key({}, "such as label_smoothing=0.1 weight=balanced")
    averaging: Literal["ema", "swa"] | None = key(
        None, "of the weights, scored and saved: ema or swa"
    )
    averaging_args: Arguments = key({}, "decay=0.99 (of ema), start_epoch=0")
    clip_grad_norm: PositiveFloat | None = key(None, "longer gradients are cut to this norm")
    base_lr: PositiveFloat = key(0.1, "rate where the warm-up ends")
    lr_scheduler: str = key("step", "step, cosine, or class of torch.optim.lr_scheduler")
    lr_scheduler_args: Arguments = key({}, "such as min_lr=0.001 of cosine")
    step: list[NonNegativeInt] = key([], "epochs at which the rate is cut")
    lr_decay_rate: PositiveFloat = key(0.1, "factor of a cut")
    warm_up_epoch: NonNegativeInt = key(0, "epochs in which the rate rises to base_lr")
    weight_decay: NonNegativeFloat = key(1e-4, "of the optimiser")
    nesterov: bool = key(False, "Nesterov momentum, of SGD")
    start_epoch: NonNegativeInt = key(0, "epoch to start at (schedule included)")
    num_epoch: PositiveInt = key(65, "epochs in all")
    batch_size: PositiveInt = key(16, "samples that go through the model together")
    global_batch_size: PositiveInt | None = key(
        None, "samples a step over all processes (default: batch_size x processes)"
    )
    test_batch_size: PositiveInt = key(64, "samples that are scored together")

    device: Device = key("auto", "auto, cpu, cuda, or CUDA indices in the order of processes")
    amp: Literal["off", "bf16", "fp16"] = key("off", "autocast precision")
    compile: bool = key(False, "torch.compile the model")
    cuda_graphs: bool = key(False, "capture a step's passes as CUDA graphs, for small batches")
    tf32: bool = key(False, "allow TF32 in float32 products on CUDA")
    deterministic: bool = key(False, "deterministic algorithms only (slower on CUDA)")
    timeout_minutes: PositiveFloat = key(
        30, "a process that keeps others waiting so long ends the run"
    )
    rank_timeout_s: PositiveFloat = key(
        60, "seconds until a process that died, stopped or is cut off ends the run"
    )

    save_score: bool = key(False, "write the scores of all test samples")
    show_topk: list[PositiveInt] = key([1, 5], "k of the top-k accuracies shown")
    loggers: list[str | Arguments] = key(
        ["TensorBoard"], "of the curves: TensorBoard, CSV, WandB or dotted names"
    )
    print_log: bool = key(True, "also write log.txt")
    log_interval: PositiveInt = key(100, "steps between TensorBoard points")
    eval_interval: PositiveInt = key(5, "epochs between evaluations")
    save_interval: PositiveInt = key(10, "epochs between saved weights")
    save_epoch: NonNegativeInt = key(0, "no weights are saved up to this epoch")
    save_minutes: PositiveFloat = key(10, "minutes between full states within an epoch")
    on_nonfinite: Literal["stop", "skip"] = key("stop", "what a loss of NaN or infinity does")
    allow_import: list[str] = key(
        [], "your packages that dotted names may lead into; a flag, no key"
    )
    overwrite: bool = key(False, "delete an existing run in work_dir first")
    dry_run: bool = key(False, "measure some steps, estimate the hours, write nothing, and stop")

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        """Raise ValueError; names in braces stand for settings as the user wrote them."""
        if self.phase == "test" and self.weights is None:
            raise ValueError("{phase} needs weights; say --weights FILE")
        if self.val_fraction is not None and self.val_subjects is not None:
            raise ValueError(
                "{val_fraction} and {val_subjects} exclude each other; say --val-fraction None "
                "or --val-subjects None"
            )
        if self.compile and self.cuda_graphs:
            raise ValueError("{compile} and {cuda_graphs} exclude each other; say --compile False")
        if self.classes is not None and not 0 < len(self.classes) == len(set(self.classes)):
            raise ValueError("{classes} are not one or more different classes")
        if self.step != sorted(set(self.step)):
            raise ValueError("{step} is not in rising order")
        if self.start_epoch >= self.num_epoch:
            raise ValueError(
                f"{{start_epoch}} leaves none of {{num_epoch}}; "
                f"say --num-epoch {self.start_epoch + 1} or more"
            )
        return self

    def named(self, dotted: str) -> str:
        """How the user wrote a setting, as a flag or as a key; for messages."""
        return self._origin.named(dotted)

    def by_flag(self, dotted: str) -> bool:
        """Whether a setting is from the command line."""
        return self.named(dotted) != dotted

    @property
    def measured(self) -> str:
        """The flag that asks for measures of a run instead of the run, if one does."""
        summary = "--phase summary" if self.phase == "summary" else ""
        return "--dry-run" if self.dry_run else summary

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said in the log of how the configuration was read."""
        return self._origin.notes

    def but(self, *notes: str, **changes: Any) -> "Config":
        """A copy with changed values, and with more notes."""
        copy = self.model_copy(update=changes)
        copy._origin = replace(self._origin, notes=(*self.notes, *notes))
        return copy

    def with_epochs(self, at_least: int) -> "Config":
        """The same configuration, of that many epochs if it has fewer."""
        return self.but(num_epoch=max(self.num_epoch, at_least))

    def recipe(self) -> dict[str, Any]:
        """The keys that decide the weights a run ends with (not where, or how fast, it runs)."""
        # How far a schedule of another kind has come may depend on where it ends.
        left_out = _NOT_RECIPE - ({"num_epoch"} if self.lr_scheduler != "step" else set())
        return self.model_dump(mode="json", exclude=left_out)

    @classmethod
    def with_defaults(cls, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """A recipe that was saved, perhaps before there were all of the keys of today."""
        optional = {k: v for k, v in cls.model_fields.items() if not v.is_required()}
        return {k: v.default for k, v in optional.items() if k not in _NOT_RECIPE} | dict(recipe)

    def digest(self) -> str:
        """SHA-256 of the recipe, as hexadecimal text."""
        return hashlib.sha256(json.dumps(self.recipe(), sort_keys=True).encode()).hexdigest()

    def as_yaml(self) -> str:
        """The resolved configuration as a YAML that is accepted as ``--config``."""
        left_out = {"overwrite", "allow_import", "ignore_card", "dry_run"}
        content = self.model_dump(mode="json", exclude=left_out, exclude_none=True)
        return RESOLVED + yaml.safe_dump(content, sort_keys=False)

    def save(self, path: Path) -> None:
        """Write ``as_yaml``, whole or not at all."""
        with atomic_write(path) as temporary:
            temporary.write_bytes(self.as_yaml().encode())


_NOT_RECIPE = {
    *("work_dir", "phase", "overwrite", "dry_run", "allow_import", "ignore_card", "num_epoch"),
    *("num_worker", "device", "compile", "cuda_graphs", "deterministic"),
    *("timeout_minutes", "rank_timeout_s"),
    *("save_score", "show_topk", "loggers", "print_log", "log_interval", "eval_interval"),
    *("save_interval", "save_epoch", "save_minutes", "on_nonfinite"),
    *("test_batch_size", "test_feeder_args", "evaluator", "evaluator_args"),
}


def build(
    values: Mapping[str, Any],
    source: str,
    by_flag: frozenset[str] = frozenset(),
    files: Mapping[str, str] = types.MappingProxyType({}),
) -> Config:
    """Check ``values`` (from ``source``) and make the configuration.

    Args:
        by_flag: dotted names of the values that are from flags instead.
        files: by key those that are from another file than ``source``.
    """
    origin, found = Origin(source, values, by_flag), dict[str, Any]()
    faults: list[tuple[str, str]] = []
    for key, value in values.items():
        known = Config.model_fields.get(key)
        found[key] = fitted(known.annotation, value) if known else meaning(value)
        if key in _PATHS and isinstance(found[key], str):
            try:
                found[key] = expanded(found[key])
            except ValueError as error:
                faults.append((key, f"{origin.titled(key)}: {error}"))
    try:
        config = Config(**found)
    except ValidationError as error:
        faults += [_fault(entry, origin, found) for entry in error.errors(include_url=False)]
    if faults:
        places: dict[str, dict[str, None]] = {}
        for key, text in sorted(faults, key=lambda fault: fault[0] in by_flag):
            place = "" if key in by_flag else f"{files.get(key, source)}: "
            places.setdefault(place, {})[text] = None
        raise UserError("; ".join(place + "; ".join(texts) for place, texts in places.items()))
    config._origin = origin
    return config


def _fault(entry: Any, origin: Origin, found: Mapping[str, Any]) -> tuple[str, str]:
    """One of pydantic's findings: the key that it is about, and what it is in our words."""
    parts = [str(part) for part in entry["loc"] if not _is_branch(part)]
    key, title = (*parts, "")[0], origin.titled(printable(".".join(parts) or "?"))
    message = entry["msg"].removeprefix("Value error, ")
    if entry["type"] == "extra_forbidden":
        return key, f"{title}: unknown{nearest(key, [*Config.model_fields, BASE], ALSO_CALLED)}"
    if entry["type"] == "missing":
        return key, f"{title}: missing"
    if not parts:
        fields = Config.model_fields.items()
        shown = {k: f"{origin.titled(k)} {found.get(k, v.default)}" for k, v in fields}
        return key, message.format_map(shown)
    written = origin.written.get(key)
    got = str(written) if len(parts) == 1 and isinstance(written, str) else entry["input"]
    return key, f"{title}: {message[:1].lower()}{message[1:]}, got {got!r:.80}"


def _is_branch(part: int | str) -> bool:
    """Whether a part of a location names a branch of a union type, not a key."""
    return isinstance(part, str) and ("[" in part or part in ("int", "float", "str"))


def bind(
    config: Config,
    targets: Mapping[str, Target],
    aliases: Aliases,
    allowed: Iterable[str],
    given: Mapping[str, Iterable[str]] = types.MappingProxyType({}),
) -> Config:
    """The configuration with the arguments of each target as its signature means them.

    Args:
        targets: by the key that holds their arguments.
        given: arguments that come from elsewhere, by the same keys.
    """
    origin, update, faults = config._origin, dict[str, Any](), list[str]()
    for key, target in targets.items():
        read = origin.written.get(key) or {}
        written = {
            name: read[name] if name in read and meaning(read[name]) == value else value
            for name, value in getattr(config, key).items()
        }
        try:
            update[key] = fitted_arguments(target, written, aliases, allowed)
        except ValueError as error:
            name, _, text = str(error).partition(": ")
            faults.append(f"{origin.named(f'{key}.{name}')}: {text}")
            continue
        faults += binding_faults(key, target, update[key], origin.named, given.get(key, ()))
    if faults:
        raise UserError("; ".join(faults))
    return config.but(**update)
