"""The configuration: typed, checked whole before any data is read, saved resolved.

Precedence: flag, then YAML, then the default written here. The fields below are at once the keys
of a YAML and the flags of the command line (``base_lr`` is ``--base-lr`` and ``--base_lr``).
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .cli import Parser
from .distributed import add_launcher_flags
from .errors import UserError, printable
from .files import atomic_write
from .registry import nearest
from .untrusted import read_bounded

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]

RETIRED = {
    "config": "it is the file itself",
    "local_rank": "the launcher sets it",
    "nprocs": "the launcher sets it",
    "model_saved_name": "weights are saved in work_dir as runs-<epoch>-<step>.pt",
}
"""Keys found in configurations that the published code saved, and why they are passed over."""

_LARGEST_YAML_BYTES = 1 << 16  # a second of parsing; configurations have some 1,000 bytes


class Config(BaseModel):
    """Everything that decides a run."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    work_dir: str = Field("./work_dir/temp", description="folder for everything the run writes")
    phase: Literal["train", "test"] = Field("train", description="train, or test --weights")
    seed: NotNegative = Field(1, description="of weights, sample order and augmentation")

    feeder: str = Field(..., description="dotted name of the dataset class")
    train_feeder_args: dict[str, Any] = Field(default_factory=dict)
    test_feeder_args: dict[str, Any] = Field(default_factory=dict)
    num_worker: NotNegative = Field(2, description="loading processes a rank; 0: none")
    val_fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="share of the training split held out to choose the best epoch"
    )
    val_subjects: list[int] | None = Field(
        None, description="subjects of the training split held out to choose the best epoch"
    )

    model: str = Field(..., description="dotted name of the model class")
    model_args: dict[str, Any] = Field(default_factory=dict)
    evaluator: str | None = Field(
        None, description="dotted name of a class that scores samples instead of the logits"
    )
    evaluator_args: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = Field(None, description="weights to start from, or to test")
    ignore_weights: list[str] = Field(
        default_factory=list, description="entries whose names contain these stay as initialised"
    )

    optimizer: Literal["SGD", "Adam"] = "SGD"
    base_lr: Annotated[float, Field(gt=0)] = Field(0.1, description="after warm-up, before steps")
    step: list[NotNegative] = Field(
        default_factory=list, description="epochs at which the rate is cut"
    )
    lr_decay_rate: Annotated[float, Field(gt=0)] = Field(0.1, description="factor of a cut")
    warm_up_epoch: NotNegative = 0
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    nesterov: bool = False
    start_epoch: NotNegative = Field(0, description="epoch to start at (schedule included)")
    num_epoch: Positive = 65
    batch_size: Positive = Field(16, description="samples that go through the model together")
    global_batch_size: Positive | None = Field(
        None,
        description="samples a step over all processes, accumulated where need be "
        "(default: batch_size x processes)",
    )
    test_batch_size: Positive = 64

    device: Literal["auto", "cpu", "cuda"] | list[NotNegative] = Field(
        "auto", description="auto, cpu, cuda, or CUDA indices in the order of local processes"
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
    show_topk: list[Positive] = Field(default_factory=lambda: [1, 5])
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
        if self.phase == "test" and self.weights is None:
            raise ValueError("phase: test needs weights; say --weights FILE")
        if self.val_fraction is not None and self.val_subjects is not None:
            raise ValueError("val_fraction and val_subjects exclude each other; give one")
        if self.nesterov and self.optimizer != "SGD":
            raise ValueError("nesterov: only SGD has it")
        if self.step != sorted(set(self.step)):
            raise ValueError(f"step: {self.step} is not in rising order")
        if self.start_epoch >= self.num_epoch:
            raise ValueError(f"start_epoch: {self.start_epoch} leaves none of {self.num_epoch}")
        return self

    def recipe(self) -> dict[str, Any]:
        """The keys that decide the weights a run ends with (not where, or how fast, it runs)."""
        return self.model_dump(mode="json", exclude=set(_NOT_RECIPE))

    def digest(self) -> str:
        """SHA-256 of the recipe, as hexadecimal text."""
        return hashlib.sha256(json.dumps(self.recipe(), sort_keys=True).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the resolved configuration as a YAML that is accepted as ``--config``."""
        left_out = {"overwrite", "allow_import"}
        content = self.model_dump(mode="json", exclude=left_out, exclude_none=True)
        with atomic_write(path) as temporary:
            temporary.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


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
    "num_epoch",
    "test_batch_size",
    "overwrite",
    "allow_import",
    "compile",
    "deterministic",
    "test_feeder_args",
    "evaluator",
    "evaluator_args",
)


def parse(
    argv: Sequence[str] | None, description: str, own: argparse.ArgumentParser | None = None
) -> tuple[Config, str]:
    """Read flags and the YAML they name; return the configuration and the YAML's file name.

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
    faults += [f"{word}: belongs to no flag" for word in unknown if word[:1] != "-"]
    if faults:
        raise UserError("; ".join(faults))
    if path is None:
        raise UserError("--config FILE is missing (see config/ for one of each benchmark)")
    values = read_yaml(path)
    for key in RETIRED:
        values.pop(key, None)
    if values.pop("allow_import", None):
        raise UserError(
            f'{path}: key "allow_import": a file cannot let its own dotted names in; '
            f"say --allow-import PACKAGE on the command line"
        )
    merged = {**values, **{key: _flag_value(key, flag, values) for key, flag in flags.items()}}
    return build(merged, path), Path(path).name


def build(values: dict[str, Any], source: str) -> Config:
    """Check ``values`` (from ``source``) and make the configuration.

    Raises:
        UserError: every fault, with its key and what is allowed.
    """
    try:
        return Config(**values)
    except ValidationError as error:
        faults = [_fault(entry) for entry in error.errors(include_url=False)]
        raise UserError(f"{source}: {'; '.join(dict.fromkeys(faults))}") from error
    except TypeError as error:
        raise UserError(f"{source}: {error}") from error


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping of text keys; aliases, doubled keys and huge files are refused.

    Raises:
        UserError: absent, unreadable, not YAML, or not such a mapping.
    """
    file = Path(path)
    try:
        text = read_bounded(file, _LARGEST_YAML_BYTES).decode("utf-8")
        content = yaml.load(text, Loader=_StrictLoader)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text (byte {error.start})") from error
    except yaml.YAMLError as error:
        raise UserError(f"{file}: {_yaml_reason(error)}") from error
    except RecursionError as error:
        raise UserError(f"{file}: nested too deeply") from error
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{file}: not a mapping of keys to values")
    return content


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, less doubled keys (the first would vanish) and aliases (they explode)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.constructor.ConstructorError(
                None, None, "aliases (*name) are not accepted", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f'key "{key}" appears twice', key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _yaml_reason(error: yaml.YAMLError) -> str:
    """What is wrong, with the line, on one line."""
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1}: {reason}" if mark else reason


def _fault(entry: Any) -> str:
    """One of pydantic's findings in our words."""
    key = printable(".".join(str(part) for part in entry["loc"] if not _is_branch(part)) or "?")
    if entry["type"] == "extra_forbidden":
        return f'key "{key}": unknown{nearest(key, Config.model_fields)}'
    if entry["type"] == "missing":
        return f'key "{key}": missing'
    message = entry["msg"].removeprefix("Value error, ")
    if not entry["loc"]:
        return message
    return f'key "{key}": {message[:1].lower()}{message[1:]}, got {entry["input"]!r:.80}'


def _is_branch(part: int | str) -> bool:
    """Whether a part of a location names a branch of a union type, not a key."""
    return isinstance(part, str) and ("[" in part or part in ("int", "float", "str"))


def _parser(description: str, parents: list[argparse.ArgumentParser]) -> Parser:
    parser = Parser(description=description, parents=parents)
    parser.add_argument("--config", metavar="FILE", help="YAML configuration")
    add_launcher_flags(parser)
    for name, field in Config.model_fields.items():
        spellings = list(dict.fromkeys([f"--{name.replace('_', '-')}", f"--{name}"]))
        default = field.get_default(call_default_factory=True)
        help_text = f"{field.description or name.replace('_', ' ')} [{default}]".replace("%", "%%")
        kind = _kind(field.annotation)
        nargs: Any = {"list": "*", "dict": "+", "bool": "?"}.get(kind)
        parser.add_argument(
            *spellings,
            nargs=nargs,
            const="true" if kind == "bool" else None,
            default=argparse.SUPPRESS,
            metavar="KEY=VALUE" if kind == "dict" else name.upper(),
            help=help_text,
        )
    return parser


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


def _flag_value(key: str, flag: Any, values: dict[str, Any]) -> Any:
    """A flag's words as the value of ``key``; key=value pairs are laid over the YAML's mapping.

    Raises:
        UserError: a pair without "=", or a value that is no YAML.
    """
    kind = _kind(Config.model_fields[key].annotation)
    if kind == "dict":
        base = values.get(key)
        result = dict(base) if isinstance(base, dict) else {}
        for pair in flag:
            name, equals, text = pair.partition("=")
            if not equals or not name:
                raise UserError(f"--{key}: {pair!r} is not KEY=VALUE")
            _assign(result, name.split("."), _word(key, text))
        return result
    if kind == "list":
        words = [_word(key, word) for word in flag]
        single = len(words) == 1 and (isinstance(words[0], list | str) or words[0] is None)
        is_text = single and isinstance(words[0], str) and key != "device"
        return words[0] if single and not is_text else words
    return _word(key, flag) if kind == "bool" else flag


def _assign(target: dict[str, Any], parts: list[str], value: Any) -> None:
    """Set ``target[a][b]... = value``, copying the mappings on the way."""
    *path, last = parts
    for part in path:
        inner = target.get(part)
        target[part] = dict(inner) if isinstance(inner, dict) else {}
        target = target[part]
    target[last] = value


def _word(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--{key}: {text!r}: {_yaml_reason(error)}") from error
