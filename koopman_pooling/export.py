"""``--phase export``: a trained model with its preprocessing as one file, for other programs.

python main_multigpu.py --phase export --weights W --format onnx|torch [--config C] [--out FILE]
python main_multigpu.py --phase export --weights W --format onnx --config C --quantize int8

The graph takes raw joints wherever all of the preprocessing can be part of it, else what the model
takes. It is compared with the model on clips of the test split, where a configuration is given and
its data are at hand, else on random clips.
"""

import argparse
import contextlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from koopman_pooling.clips import Feed, feed_of
from koopman_pooling.loading import add_weights_flags, weights_path
from koopman_pooling.old_weights import saved_beside
from torchlight import cli
from torchlight.config import Config
from torchlight.errors import RunFailed, UserError, told
from torchlight.files import atomic_write, path_argument
from torchlight.registry import nearest

Run = Callable[[dict[str, np.ndarray]], Sequence[np.ndarray]]

SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch": ()}
TOLERANCE = 1e-4
"""Largest difference to the model, relative to the largest value of an output."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``; return the exit status.

    Raises:
        UserError: what cannot be exported, or a file that is there already.
        RunFailed: the file computes something else than the model; it is not left.
    """
    asked, rest = _parse(argv)
    out = asked.out or Path(Path(asked.weights).stem).with_suffix(SUFFIX[asked.format])
    small = out.with_name(f"{out.stem}.int8{out.suffix}")
    for target in [out, *([small] if asked.quantize else [])]:
        if target.exists() and not asked.overwrite:
            raise UserError(f"{target}: exists already; choose another --out or add --overwrite")
        if not target.parent.is_dir():
            raise UserError(f"{target.parent}: no such folder to write to")
    feed = feed_of(asked, rest, training=asked.quantize is not None)
    about = feed.about()
    with atomic_write(out) as temporary:
        _write(asked.format, feed, about, temporary)
        worst = _largest_difference(READERS[asked.format](temporary), feed)
        if not worst <= TOLERANCE:
            raise RunFailed(
                f"{out}: not written, as it differs from the model by {worst:.1e} of the largest "
                f"value (at most {TOLERANCE:g})"
            )
    shown = {key: value for key, value in about.items() if isinstance(value, str)}
    shown["checked"] = f"differs from the model by {worst:.1e} of the largest value, on {feed.on}"
    print(_wrote(out), *(f"  {key}: {value}" for key, value in shown.items()), sep="\n")
    if asked.quantize:
        from koopman_pooling.quantise import compare, quantise

        with atomic_write(small) as temporary:
            with quiet():
                quantise(out, temporary, feed)
            report = compare(out, temporary, feed)
        print(_wrote(small), *report, sep="\n")
    print("", *_usage(asked.format, small if asked.quantize else out, feed), sep="\n")
    return 0


def _wrote(path: Path) -> str:
    return f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)"


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The flags of this command, and those of a configuration."""
    parser = cli.Parser(description=__doc__)
    add = parser.add_argument
    add("--phase", choices=["export"])
    add_weights_flags(parser)
    add("--format", choices=SUFFIX, required=True, help="onnx, or torch.export's .pt2")
    add("--out", type=path_argument, metavar="FILE", help="[the weights' name, in this folder]")
    add("--quantize", choices=["int8"], help="also an 8-bit file, measured")
    add("--overwrite", action="store_true", help="replace existing output")
    asked, rest = parser.parse_known_args(argv)
    if asked.config is None:
        with contextlib.suppress(UserError):  # of the run that trained the weights
            asked.config = saved_beside(weights_path(asked.weights))
    keys = [f"--{name.replace('_', '-')}" for name in Config.model_fields]
    for flag in [word.partition("=")[0] for word in rest if word[:2] == "--"]:
        if flag not in keys:
            own = [f"--{name.replace('_', '-')}" for name in vars(asked)]
            raise UserError(f"{flag}: unknown flag{nearest(flag, [*own, *keys])}")
    if rest and asked.config is None:
        raise UserError(f"{rest[0]}: without --config FILE there is no such flag")
    if asked.quantize and (asked.format != "onnx" or asked.config is None):
        raise UserError("--quantize needs --format onnx, and --config FILE for clips to measure on")
    absent = [name for name in NEEDED[asked.format] if importlib.util.find_spec(name) is None]
    if absent:
        raise UserError(f'--format onnx needs {", ".join(absent)}: pip install ".[export]"')
    return asked, rest


def _write(form: str, feed: Feed, about: dict[str, Any], path: Path) -> None:
    """Export the graph; batch and frames are variable where the model allows it."""
    example = tuple(torch.from_numpy(array) for array in feed.batch(feed.rows[:2]).values())
    axes = [{0: "clips", 2: "frames"} if x.dim() == 5 else {0: "clips"} for x in example]
    auto = tuple(dict.fromkeys(own, torch.export.Dim.AUTO) for own in axes)
    try:
        with torch.no_grad(), quiet():
            program = torch.export.export(feed.graph, example, dynamic_shapes=auto)
            if form == "torch":
                with open(path, "wb") as file:
                    extra = {"about.json": json.dumps(about)}
                    torch.export.save(program, file, extra_files=extra)
                return
            found: Any = torch.onnx.export(
                program,
                example,
                dynamo=True,
                verbose=False,
                dynamic_shapes=tuple(axes),
                input_names=list(feed.inputs),
                output_names=list(feed.outputs),
            )
    except Exception as error:  # of somebody's model
        name = type(feed.model).__name__
        raise UserError(f"{name} cannot be exported to {form}: {told(error)}") from error
    texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in about.items()}
    found.model.metadata_props.update(texts)
    found.save(str(path), external_data=False)


def session(path: Path) -> Run:
    """A function that runs an ONNX file, on as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    found = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: found.run(None, inputs)


def _program(path: Path) -> Run:
    """A function that runs a file of torch.export's."""
    with open(path, "rb") as file, quiet():
        module = torch.export.load(file).module()
    return lambda inputs: Feed.run(module, *inputs.values())


READERS: dict[str, Callable[[Path], Run]] = {"onnx": session, "torch": _program}


def _largest_difference(run: Run, feed: Feed) -> float:
    """From the model, relative to the largest value of an output; in batches of several sizes."""
    worst = 0.0
    for rows in (feed.rows, feed.rows[:1], feed.rows[1:4]):
        for found, wanted in zip(run(feed.batch(rows)), feed.eager(rows), strict=True):
            worst = max(worst, float(np.abs(found - wanted).max() / np.abs(wanted).max()))
    return worst


def _usage(form: str, path: Path, feed: Feed) -> list[str]:
    """Ten lines of Python that use the file."""
    (shape, *_) = [array[:1].shape for array in feed.batch(feed.rows[:1]).values()]
    clips = f'{feed.inputs[0]} = np.random.rand(*{shape}).astype("float32")  # your clips'
    ragged = "frames" in feed.inputs
    lengths = [f"frames = np.array([{shape[2]}])  # of each clip"] if ragged else []
    if form == "onnx":
        given = ", ".join(f'"{name}": {name}' for name in feed.inputs)
        use = [
            f"file = onnxruntime.InferenceSession({str(path)!r})",
            'names = json.loads(file.get_modelmeta().custom_metadata_map["class_names"])',
            *(clips, *lengths, f"logits = file.run(None, {{{given}}})[0]"),
        ]
    else:
        given = ", ".join(f"torch.from_numpy({name})" for name in feed.inputs)
        use = [
            'about = {"about.json": ""}',
            f"model = torch.export.load({str(path)!r}, extra_files=about).module()",
            'names = json.loads(about["about.json"])["class_names"]',
            *(clips, *lengths, f"logits = model({given}){'[0]' * (len(feed.outputs) > 1)}"),
        ]
    needed = "onnxruntime" if form == "onnx" else "torch"
    shown = "print([names[row.argmax()] for row in logits])"
    return [f"import json, {needed}", "import numpy as np", *use, shown]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporters say of their own insides."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
