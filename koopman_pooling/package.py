"""Weights as a folder that can be handed on: ``--phase package --weights W [--out DIR]``.

    model.safetensors   the weights, nothing else
    config.json         what they are: model, classes, skeleton, streams and preprocessing
    README.md           a card for people, and for the Hugging Face hub

Nothing in it is code. ``koopman_pooling.load(DIR)`` reads it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from koopman_pooling.preprocessing import first_fault
from model.published import WEIGHTS as NAMED
from torchlight.card import Card, sha256_of
from torchlight.cli import Parser
from torchlight.errors import UserError, printable
from torchlight.files import atomic_write, path_argument, reason
from torchlight.untrusted import open_regular, read_bounded

LIBRARY = "koopman_pooling"
WEIGHTS, CONFIG, README = FILES = ("model.safetensors", "config.json", "README.md")
_LARGEST = 1 << 20  # bytes of config.json


def is_package(folder: Path) -> bool:
    """Whether it is the folder of a package."""
    return all((folder / name).is_file() for name in (WEIGHTS, CONFIG))


def write_package(folder: Path, weights: dict[str, Tensor], card: Card) -> None:
    """Write a package; a README that is there stays.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: value.detach().cpu().clone().contiguous() for name, value in weights.items()}
    with atomic_write(folder / WEIGHTS) as temporary:
        safetensors.torch.save_file(plain, temporary, {"format": "pt"})
        digest = sha256_of(temporary)
    start = card.training.get("weights")  # a path here means nothing elsewhere
    facts = card.training | ({"weights": Path(start).name} if start else {})
    content = {"library_name": LIBRARY, **card.but(sha256=digest, training=facts).model_dump()}
    with atomic_write(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if not (folder / README).exists():
        with atomic_write(folder / README) as temporary:
            temporary.write_text(_readme(folder.resolve().name, plain, card), encoding="utf-8")


def read_package(folder: Path) -> tuple[dict[str, Tensor], Card]:
    """The weights and the card of a package.

    Raises:
        UserError: a file is missing, damaged, or of another package.
    """
    path = folder / CONFIG
    try:
        content = json.loads(read_bounded(path, _LARGEST))
        if not isinstance(content, dict) or content.pop("library_name", None) != LIBRARY:
            raise UserError(f"{path}: of another library than {LIBRARY}")
        card = Card.model_validate(content)
        with open_regular(folder / WEIGHTS):  # no pipe, which would never end
            pass
        with safetensors.safe_open(folder / WEIGHTS, "pt"):  # of a size that its header knows
            digest = sha256_of(folder / WEIGHTS)
    except (safetensors.SafetensorError, MemoryError) as error:
        raise UserError(f"{folder / WEIGHTS}: damaged ({printable(error)})") from error
    except OSError as error:
        raise UserError(f"{error.filename or path}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: describes no weights ({first_fault(error)})") from error
    if digest != card.sha256:
        raise UserError(f"{folder / WEIGHTS}: not what {CONFIG} is of (the checksum differs)")
    try:
        return safetensors.torch.load_file(folder / WEIGHTS), card
    except (safetensors.SafetensorError, ValueError, KeyError) as error:  # of numbers torch lacks
        raise UserError(f"{folder / WEIGHTS}: damaged ({printable(error)})") from error


def _readme(name: str, weights: dict[str, Tensor], card: Card) -> str:
    """The card: a YAML header for the hub, then what the weights are in words."""
    data, made, shape = card.data, card.training, card.preprocessing
    streams = [word for word in data.get("streams", []) if isinstance(word, str)]
    skeleton = shape["skeleton"]
    classes = card.class_names or []
    tags = ["skeleton-based-action-recognition", "koopman", f"skeleton:{skeleton['name']}"]
    header = ["---", f"library_name: {LIBRARY}", "tags:", *(f"- {json.dumps(t)}" for t in tags)]
    header += ["metrics:", "- accuracy", "---"]
    numbers = sum(value.numel() for value in weights.values())
    accuracy = made.get("accuracy")
    rows = {
        "model": f"`{card.model}`, {numbers:,} numbers",
        "takes": f"clips (T, {skeleton['num_point']}, {len(shape['channels'])}) of any length: "
        f"frames, joints of `{skeleton['name']}`, coordinates",
        "streams": ", ".join(streams),
        "classes": len(classes) or card.model_args.get("num_class", ""),
        "accuracy": f"{100 * accuracy:.2f} % ({made.get('accuracy_on')})" if accuracy else "",
        "trained": f"{made['recipe']}, seed {made.get('seed')}" if made.get("recipe") else "",
        "data": made.get("data", ""),
    }
    lines = [
        *(*header, "", f"# {name}", ""),
        "Recognises actions from skeleton sequences by Neural Koopman Pooling (Wang, Xu, Mu, CVPR "
        "2023).",
        *("", "| | |", "|---|---|"),
        *(f"| {key} | {printable(value)} |" for key, value in rows.items() if value),
        *("", "```python", "from koopman_pooling import load", ""),
        *(f'recogniser = load("{name}")', "print(recogniser.predict(clip).top(5))", "```"),
        "",
        *(["Classes: " + ", ".join(printable(name) for name in classes) + ".", ""]),
        "Preprocessing is in `config.json` and is applied by `predict`. It answers with one of its "
        "classes whatever a clip shows.",
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Write a package of weights; return the exit status."""
    from koopman_pooling.loading import add_weights_flags, load_given

    parser = Parser(prog="main_multigpu.py --phase package", description=__doc__)
    parser.add_argument("--phase", choices=["package"], help="this")
    add_weights_flags(parser)
    parser.add_argument("--out", type=path_argument, help="folder (NAME_package, beside them)")
    given = parser.parse_args(argv)
    recogniser, path = load_given(given, "cpu")
    beside = Path() if given.weights in NAMED else path.parent
    folder = given.out or beside / f"{path.stem}_package"
    if folder.is_dir() and any(folder.iterdir()) and not is_package(folder):
        raise UserError(f"--out {folder}: holds other files than a package's; name another folder")
    recogniser.save_pretrained(folder)
    print(f"wrote {folder}: {', '.join(FILES)}")
    return 0


def published(name: str, options: dict[str, Any]) -> Path:
    """The folder of a package, downloaded from the Hugging Face hub where it is not one here.

    Raises:
        UserError: there is none; huggingface_hub is not installed.
    """
    if Path(name).is_dir():
        return Path(name)
    hub = _hub()
    try:
        return Path(hub.snapshot_download(name, allow_patterns=list(FILES), **options))
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: {printable(error)}") from error


def publish(recogniser: Any, repo_id: str, options: dict[str, Any]) -> str:
    """Upload a package by huggingface_hub's mixin; return the address of the commit.

    Raises:
        UserError: huggingface_hub is not installed.
    """

    class Published(_hub().ModelHubMixin):  # type: ignore[misc]
        def _save_pretrained(self, save_directory: Path) -> None:
            recogniser.save_pretrained(save_directory)

    return Published().push_to_hub(repo_id, **options)


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError('needs huggingface_hub: pip install ".[hub]"') from error
    return huggingface_hub
