"""The configuration: typed, checked whole before any data is read, saved resolved.

Precedence: flag, then YAML, then the default written here. The fields below are at once the keys
of a YAML and the flags of the command line (``base_lr`` is ``--base-lr`` and ``--base_lr``).
"""

import argparse
import hashlib
import json
import os
import re
import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from .cli import Parser
from .distributed import add_launcher_flags, launched_size
from .errors import UserError, printable
from .files import atomic_write, expanded
from .registry import Aliases, Target, binding_faults, fitted_arguments, look_beside, nearest
from .untrusted import read_bounded
from .values import Loader, Plain, fitted, meaning

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]

RETIRED = {
    "config": "it is the file itself",
    **dict.fromkeys(("local_rank", "nprocs", "master_port"), "the launcher sets it"),
    "model_saved_name": "weights are saved in work_dir as runs-<epoch>-<step>.pt",
    **dict.fromkeys(
        ("only_train_part", "only_train_epoch"), "the adjacency is trained from the first epoch on"
    ),
}
"""Keys found in published configurations, and why they are passed over; the log says so."""

_PATHS = ("work_dir", "weights")
RESOLVED = "# The resolved configuration of the run in this folder, which may rewrite this file.\n"
"""How such a file begins, so that no other is taken for one."""

BASE = "base"
"""Key of a YAML that names others, which it is laid over."""

_MOST_BASES = 16  # one below the other
_LARGEST_YAML_BYTES = 1 << 16  # a second of parsing; configurations have some 1,000 bytes


def _device(value: Any) -> Any:
    """``cuda:1`` (and ``cuda:0,1``, a list of these) as indices, as torch's and others' words."""
    words = value if isinstance(value, list) else [value]
    texts = [str(word).strip().lower() for word in words]
    if len(texts) == 1 and re.fullmatch(r"auto|cpu(:0)?|cuda|gpu", texts[0]):
        return texts[0].removesuffix(":0").replace("gpu", "cuda")
    numbers = [text.removeprefix("cuda:").removeprefix("gpu:") for text in texts]
    indices = [index.strip() for text in numbers for index in text.split(",")]
    if not all(index.isascii() and index.isdigit() for index in indices):
        raise ValueError("is none of auto, cpu, cuda, cuda:0 and CUDA indices such as [0, 1]")
    if len(set(map(int, indices))) != len(indices) or not indices:
        raise ValueError("needs one CUDA index or more, all different")
    return [int(index) for index in indices]


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

    def shown(self, key: str, value: Any) -> str:
        """The same with its value."""
        return f"{self.titled(key)} {value}"


class Config(BaseModel):
    """Everything that decides a run."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )
    _origin: Origin = PrivateAttr(default_factory=Origin)

    work_dir: str = Field("./work_dir/temp", description="folder for everything the run writes")
    phase: Literal["train", "test"] = Field("train", description="train, or test --weights")
    seed: NotNegative = Field(1, description="of weights, sample order and augmentation")

    feeder: str = Field(..., description="dotted name of the dataset class")
    train_feeder_args: dict[str, Any] = Field(
        default_factory=dict, description="arguments of the training split"
    )
    test_feeder_args: dict[str, Any] = Field(
        default_factory=dict, description="arguments of the test split"
    )
    num_worker: NotNegative = Field(2, description="loading processes a rank; 0: none")
    classes: list[NotNegative] | None = Field(
        None, description="labels to keep, numbered anew in this order, in all splits"
    )
    val_fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="share of the training split held out to choose the best epoch"
    )
    val_subjects: list[int] | None = Field(
        None, description="subjects of the training split held out to choose the best epoch"
    )

    model: str = Field(..., description="dotted name of the model class")
    model_args: dict[str, Any] = Field(default_factory=dict, description="arguments of the model")
    evaluator: str | None = Field(
        None, description="dotted name of a class that scores samples instead of the logits"
    )
    evaluator_args: dict[str, Any] = Field(
        default_factory=dict, description="arguments of the evaluator"
    )
    weights: str | None = Field(None, description="weights to start from, or to test")
    ignore_weights: list[str] = Field(
        default_factory=list, description="entries whose names contain these stay as initialised"
    )
    ignore_card: bool = Field(
        False, description="take weights whose card says that they do not fit; a flag for one run"
    )

    optimizer: str = Field("SGD", description="class of torch.optim, or dotted name")
    optimizer_args: dict[str, Any] = Field(
        default_factory=dict, description="such as betas=[0.9,0.99]"
    )
    loss: str = Field("CrossEntropyLoss", description="class of torch.nn, or dotted name")
    loss_args: dict[str, Any] = Field(
        default_factory=dict, description="such as label_smoothing=0.1 weight=balanced"
    )
    averaging: Literal["ema", "swa"] | None = Field(
        None, description="of the weights over the steps: ema or swa; these are scored and saved"
    )
    averaging_args: dict[str, Any] = Field(
        default_factory=dict, description="decay=0.99 (of ema), start_epoch=0"
    )
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = Field(
        None, description="longer gradients are cut to this norm"
    )
    base_lr: Annotated[float, Field(gt=0)] = Field(0.1, description="rate where the warm-up ends")
    lr_scheduler: str = Field(
        "step", description="step, cosine, or class of torch.optim.lr_scheduler"
    )
    lr_scheduler_args: dict[str, Any] = Field(
        default_factory=dict, description="such as min_lr=0.001 of cosine"
    )
    step: list[NotNegative] = Field(
        default_factory=list, description="epochs at which the rate is cut"
    )
    lr_decay_rate: Annotated[float, Field(gt=0)] = Field(0.1, description="factor of a cut")
    warm_up_epoch: NotNegative = Field(0, description="epochs in which the rate rises to base_lr")
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-4, description="of the optimiser")
    nesterov: bool = Field(False, description="Nesterov momentum, of SGD")
    start_epoch: NotNegative = Field(0, description="epoch to start at (schedule included)")
    num_epoch: Positive = Field(65, description="epochs in all")
    batch_size: Positive = Field(16, description="samples that go through the model together")
    global_batch_size: Positive | None = Field(
        None,
        description="samples a step over all processes, accumulated where need be "
        "(default: batch_size x processes)",
    )
    test_batch_size: Positive = Field(64, description="samples that are scored together")

    device: Annotated[Literal["auto", "cpu", "cuda"] | list[int], BeforeValidator(_device)] = Field(
        "auto", description="auto, cpu, cuda, or CUDA indices in the order of processes"
    )
    amp: Literal["off", "bf16", "fp16"] = Field("off", description="autocast precision")
    compile: bool = Field(False, description="torch.compile the model")
    tf32: bool = Field(False, description="allow TF32 in float32 products on CUDA")
    deterministic: bool = Field(False, description="deterministic algorithms only (slower on CUDA)")
    timeout_minutes: Annotated[float, Field(gt=0)] = Field(
        30, description="a process that the others wait for, for so long, ends the run"
    )
    rank_timeout_s: Annotated[float, Field(gt=0)] = Field(
        60,
        description="seconds after which a process that died, was stopped or cut off ends the run",
    )

    save_score: bool = Field(False, description="write the scores of all test samples")
    show_topk: list[Positive] = Field(
        default_factory=lambda: [1, 5], description="k of the top-k accuracies shown"
    )
    print_log: bool = Field(True, description="also write log.txt")
    log_interval: Positive = Field(100, description="steps between TensorBoard points")
    eval_interval: Positive = Field(5, description="epochs between evaluations")
    save_interval: Positive = Field(10, description="epochs between saved weights")
    save_epoch: NotNegative = Field(0, description="no weights are saved up to this epoch")
    save_minutes: Annotated[float, Field(gt=0)] = Field(
        10, description="minutes between full states within an epoch"
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop", description="what a loss of NaN or infinity does"
    )
    allow_import: list[str] = Field(
        default_factory=list,
        description="your own packages that dotted names may lead into; a flag only, no key",
    )
    overwrite: bool = Field(False, description="delete an existing run in work_dir first")

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
        if self.classes is not None and not 0 < len(self.classes) == len(set(self.classes)):
            raise ValueError("{classes} are not one or more different classes")
        if self.nesterov and self.optimizer.rpartition(".")[2] != "SGD":
            raise ValueError("{nesterov} is for SGD, not for {optimizer}; say --nesterov False")
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
    def notes(self) -> tuple[str, ...]:
        """What is to be said in the log of how the configuration was read."""
        return self._origin.notes

    def noting(self, notes: Sequence[str], **update: Any) -> "Config":
        """A copy with more notes, and with changed values."""
        copy = self.model_copy(update=update)
        copy._origin = replace(self._origin, notes=(*self.notes, *notes))
        return copy

    def recipe(self) -> dict[str, Any]:
        """The keys that decide the weights a run ends with (not where, or how fast, it runs)."""
        # How far a schedule of another kind has come may depend on where it ends.
        left_out = set(_NOT_RECIPE) - ({"num_epoch"} if self.lr_scheduler != "step" else set())
        return self.model_dump(mode="json", exclude=left_out)

    @classmethod
    def with_defaults(cls, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """A recipe that was saved, perhaps before there were all of the keys of today."""
        fields = {k: v for k, v in cls.model_fields.items() if k not in _NOT_RECIPE}
        known = {k: v.get_default(call_default_factory=True) for k, v in fields.items()}
        return {**{k: v for k, v in known.items() if not fields[k].is_required()}, **recipe}

    def digest(self) -> str:
        """SHA-256 of the recipe, as hexadecimal text."""
        return hashlib.sha256(json.dumps(self.recipe(), sort_keys=True).encode()).hexdigest()

    def with_epochs(self, at_least: int) -> "Config":
        """The same configuration, of that many epochs if it has fewer."""
        return self.model_copy(update={"num_epoch": max(self.num_epoch, at_least)})

    def as_yaml(self) -> str:
        """The resolved configuration as a YAML that is accepted as ``--config``."""
        left_out = {"overwrite", "allow_import", "ignore_card"}
        content = self.model_dump(mode="json", exclude=left_out, exclude_none=True)
        return RESOLVED + yaml.safe_dump(content, sort_keys=False)

    def save(self, path: Path) -> None:
        """Write ``as_yaml``, whole or not at all."""
        with atomic_write(path) as temporary:
            temporary.write_bytes(self.as_yaml().encode())


_NOT_RECIPE = (
    "work_dir",
    "phase",
    "num_worker",
    "device",
    "timeout_minutes",
    "rank_timeout_s",
    "save_score",
    "show_topk",
    "print_log",
    "log_interval",
    "eval_interval",
    "save_interval",
    "save_epoch",
    "save_minutes",
    "on_nonfinite",
    "num_epoch",
    "test_batch_size",
    "overwrite",
    "allow_import",
    "ignore_card",
    "compile",
    "deterministic",
    "test_feeder_args",
    "evaluator",
    "evaluator_args",
)


def parse(
    argv: Sequence[str] | None, description: str, own: argparse.ArgumentParser | None = None
) -> tuple[Config, str]:
    """Read flags and the YAML they name; return the configuration and the YAML's path.

    Args:
        own: a command's own flags, parsed by it before; here for the help and for suggestions.

    Raises:
        UserError: all faults of the file and of the flags, in one message.
    """
    parser = _parser(description, [own] if own else [])
    arguments = sys.argv[1:] if argv is None else list(argv)
    known, unknown = parser.parse_known_args(arguments)
    known_flags = {k: v for k, v in vars(known).items() if v is not None}
    path = known_flags.pop("config", None)
    flags = {key: value for key, value in known_flags.items() if key in Config.model_fields}
    faults = [
        f"{word}: unknown flag{_nearest_flag(word, own)}" for word in unknown if word[:1] == "-"
    ]
    faults += [f"{word}: unexpected argument" for word in unknown if word[:1] != "-"]
    if faults:
        raise UserError("; ".join(faults))
    if path is None:
        raise UserError("--config FILE is missing (see config/ for one of each benchmark)")
    try:
        path = expanded(path)
    except ValueError as error:
        raise UserError(f"--config: {error}") from error
    values, files = read_layers(path)
    retired = [key for key in RETIRED if values.pop(key, None) is not None]
    notes = [f'{files[key]}: key "{key}" is passed over: {RETIRED[key]}' for key in retired]
    if values.pop("allow_import", None):
        raise UserError(
            f'{files["allow_import"]}: key "allow_import": a file cannot let its own dotted names '
            f"in; say --allow-import PACKAGE on the command line"
        )
    spelled = {key: _flag_value(key, flag, values) for key, flag in flags.items()}
    by_flag = frozenset(name for key, flag in flags.items() for name in _dotted(key, flag))
    config = build({**values, **spelled}, path, by_flag, files)
    one = isinstance(config.device, list) and len(config.device) == 1
    if one and launched_size() > 1 and "device" not in by_flag:  # passed over by published code too
        notes.append(f"each process takes a CUDA device of its own, not {config.device} alone")
        config = config.model_copy(update={"device": "cuda"})
    config._origin = replace(config._origin, notes=tuple(notes))
    look_beside(config.allow_import, [Path.cwd(), Path(path).resolve().parent])
    return config, path


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

    Raises:
        UserError: every fault, with its key or flag and what is allowed.
    """
    origin = Origin(source, values, by_flag)
    found: dict[str, Any] = {}
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
        in_files: dict[str, dict[str, None]] = {}
        for key, text in faults:
            if key not in by_flag:
                in_files.setdefault(files.get(key, source), {})[text] = None
        in_flags = dict.fromkeys(text for key, text in faults if key in by_flag)
        lines = [f"{file}: {'; '.join(texts)}" for file, texts in in_files.items()]
        raise UserError("; ".join([*lines, *in_flags]))
    config._origin = origin
    return config


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

    Raises:
        UserError: all arguments that are unknown, missing or of another type.
    """
    origin, update, faults = config._origin, {}, []
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
    return config.model_copy(update=update)


def read_layers(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read a YAML, laid over those that its ``base`` names; return its values, and by key the file.

    ``base`` is a path from the file's own folder, or a list of such, the last uppermost. Mappings
    are merged key by key, anything else is replaced. A file may only be based on those in the
    working directory, or in the folder above its own.

    Raises:
        UserError: a file is absent, outside or wrong (see ``read_yaml``), or based on itself.
    """
    first = Path(path)
    roots = (Path.cwd(), _real(first).parent.parent)
    return _layers(first, roots, (), {})


def _real(path: Path) -> Path:
    """The path without links; of links in a circle as far as that goes."""
    return Path(os.path.realpath(path))


_Layers = tuple[dict[str, Any], dict[str, str]]


def _layers(
    file: Path, roots: Sequence[Path], above: Sequence[Path], known: dict[Path, _Layers]
) -> _Layers:
    """``read_layers`` of a file that those ``above`` are based on; ``known`` are read already."""
    own = read_yaml(file)
    place, values, files = _real(file), dict[str, Any](), dict[str, str]()
    for base in _bases(file, own.pop(BASE, None)):
        there = _real(base)
        fault = ""
        if there in (*above, place):
            fault = "is based on this file again, in a circle"
        elif len(above) >= _MOST_BASES:
            fault = f"is more than {_MOST_BASES} files deep"
        elif not any(there.is_relative_to(root) for root in roots):
            fault = f"is outside of {' and of '.join(map(str, dict.fromkeys(roots)))}"
        elif not os.path.isfile(there):  # unlike Path's, of any name
            fault = "no such file"
        if fault:
            raise UserError(f'{file}: key "{BASE}": {printable(base)}: {fault}')
        if there not in known:
            known[there] = _layers(base, roots, (*above, place), known)
        values, files = _laid_over(values, known[there][0]), files | known[there][1]
    return _laid_over(values, own), files | dict.fromkeys(own, str(file))


def _bases(file: Path, value: Any) -> list[Path]:
    """The files that ``value``, the base of ``file``, names.

    Raises:
        UserError: it is no path, and no list of such.
    """
    names = value if isinstance(value, list) else [] if meaning(value) is None else [value]
    if not all(isinstance(name, str) and name for name in names):
        raise UserError(f'{file}: key "{BASE}": {value!r:.80} is no path, and no list of paths')
    try:
        return [file.parent / expanded(str(name)) for name in names]
    except ValueError as error:
        raise UserError(f'{file}: key "{BASE}": {error}') from error


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings, merged key by key; what ``above`` says wins."""
    merged = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _laid_over(below[key], above[key])
    return merged


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping of text keys; aliases, doubled keys and huge files are refused.

    Raises:
        UserError: absent, unreadable, not YAML, or not such a mapping.
    """
    file, data = Path(path), b""
    try:
        data = read_bounded(file, _LARGEST_YAML_BYTES)
        content = yaml.load(data.decode("utf-8"), Loader=Loader)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{file}: line {line}: not UTF-8 text; save the file as UTF-8") from error
    except yaml.YAMLError as error:
        raise UserError(f"{file}: {_yaml_reason(error)}") from error
    except RecursionError as error:
        raise UserError(f"{file}: nested too deeply") from error
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{file}: not a mapping of keys to values")
    return content


def _yaml_reason(error: yaml.YAMLError) -> str:
    """What is wrong, with the line, and what to do where it is a common slip; on one line."""
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error).splitlines()[0]
    if "unknown escape" in reason:
        reason += "; write the path in single quotes, or with / for \\"
    if "'\\t'" in reason:
        reason += "; indent with blanks, not with tabs"
    return f"line {mark.line + 1}: {reason}" if mark else reason


def _fault(entry: Any, origin: Origin, found: Mapping[str, Any]) -> tuple[str, str]:
    """One of pydantic's findings: the key that it is about, and what it is in our words."""
    parts = [str(part) for part in entry["loc"] if not _is_branch(part)]
    key, title = (*parts, "")[0], origin.titled(printable(".".join(parts) or "?"))
    message = entry["msg"].removeprefix("Value error, ")
    if entry["type"] == "extra_forbidden":
        return key, f"{title}: unknown{nearest(key, [*Config.model_fields, BASE])}"
    if entry["type"] == "missing":
        return key, f"{title}: missing"
    if not parts:
        fields = Config.model_fields.items()
        shown = {k: origin.shown(k, found.get(k, known.default)) for k, known in fields}
        return key, message.format_map(shown)
    written = origin.written.get(key)
    got = str(written) if len(parts) == 1 and isinstance(written, str) else entry["input"]
    return key, f"{title}: {message[:1].lower()}{message[1:]}, got {got!r:.80}"


def _is_branch(part: int | str) -> bool:
    """Whether a part of a location names a branch of a union type, not a key."""
    return isinstance(part, str) and ("[" in part or part in ("int", "float", "str"))


def _parser(description: str, parents: list[argparse.ArgumentParser]) -> Parser:
    usage = "%(prog)s --config FILE [--KEY VALUE ...]"
    parser = Parser(usage=usage, description=description, parents=parents)
    parser.add_argument("--config", metavar="FILE", help="YAML configuration")
    add_launcher_flags(parser)
    for name, known in Config.model_fields.items():
        kind = _kind(known.annotation)
        nargs: Any = {"list": "*", "dict": "+", "bool": "?"}.get(kind)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            action="extend" if kind == "dict" else "store",
            nargs=nargs,
            const="true" if kind == "bool" else None,
            default=argparse.SUPPRESS,
            metavar="KEY=VALUE" if kind == "dict" else name.upper(),
            help=_help(known).replace("%", "%%"),
        )
    return parser


def _help(known: FieldInfo) -> str:
    """What a setting is, what it may be, and in brackets what it is where nothing is said."""
    branches = [known.annotation, *getattr(known.annotation, "__args__", ())]
    choices = [str(c) for b in branches if get_origin(b) is Literal for c in b.__args__]
    text = str(known.description)
    if choices and not all(choice in text for choice in choices):
        text += f": {', '.join(choices)}"
    if known.is_required():
        return f"{text} (required)"
    default = known.get_default(call_default_factory=True)
    shown = " ".join(map(str, default)) if isinstance(default, list) else str(default)
    return text if default in (None, [], {}) else f"{text} [{shown}]"


def _kind(annotation: Any) -> str:
    """Whether a field is written as a list, as key=value pairs, as a switch, or as one word."""
    if annotation is bool:
        return "bool"
    branches = getattr(annotation, "__args__", ()) if get_origin(annotation) is not dict else ()
    origins = {get_origin(annotation), *(get_origin(branch) for branch in branches)}
    return "dict" if dict in origins else "list" if list in origins else "word"


def _nearest_flag(word: str, own: argparse.ArgumentParser | None) -> str:
    names = [*Config.model_fields, *(vars(own.parse_args([])) if own else ())]
    flags = [f"--{name.replace('_', '-')}" for name in names]
    return nearest(word.split("=")[0].replace("_", "-"), flags)


def _dotted(key: str, flag: Any) -> list[str]:
    """The dotted names of what a flag sets."""
    if _kind(Config.model_fields[key].annotation) != "dict":
        return [key]
    return [f"{key}.{pair.partition('=')[0]}" for pair in flag]


def _flag_value(key: str, flag: Any, values: Mapping[str, Any]) -> Any:
    """A flag's words as the value of ``key``; key=value pairs are laid over the YAML's mapping.

    Raises:
        UserError: a pair without "=", or a value that is no YAML.
    """
    kind, name = _kind(Config.model_fields[key].annotation), f"--{key.replace('_', '-')}"
    if kind == "dict":
        base = values.get(key)
        result = dict(base) if isinstance(base, dict) else {}
        for pair in flag:
            inner, equals, text = pair.partition("=")
            if not equals or not inner:
                raise UserError(f"{name}: {pair!r} is not KEY=VALUE")
            _assign(result, inner.split("."), _word(f"{name} {inner}", text))
        return result
    if kind == "list":
        words = [_word(name, word) for word in flag]
        return words[0] if len(words) == 1 else words
    return Plain(flag)


def _assign(target: dict[str, Any], parts: list[str], value: Any) -> None:
    """Set ``target[a][b]... = value``, copying the mappings on the way."""
    *path, last = parts
    for part in path:
        inner = target.get(part)
        target[part] = dict(inner) if isinstance(inner, dict) else {}
        target = target[part]
    target[last] = value


def _word(name: str, text: str) -> Any:
    try:
        return yaml.load(text or "~", Loader=Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{name}: {text!r}: {_yaml_reason(error)}") from error
