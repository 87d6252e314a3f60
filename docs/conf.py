"""The site, of pages, docstrings and cards: ``python -m sphinx -qW docs docs/_build``."""

import json
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "Neural Koopman Pooling"
extensions = [
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib.mermaid",
]
html_theme = "furo"
html_title = project
exclude_patterns = ["_build"]
suppress_warnings = ["ref.python"]  # an attribute's name in prose may be that of several

myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_use_ivar = True
ROOMS = ("koopman_pooling", "data", "feeders", "model", "torchlight")
apidoc_modules = [
    {
        "path": f"../{room}",
        "destination": f"reference/{room}",
        "separate_modules": True,
        "module_first": True,
    }
    for room in ROOMS
]

ZOO = """# Model zoo

Weights that come with the code, as their cards say; `--weights NAME` and
[`load("NAME")`](python.md) take them. A package of the same for others:
`python main_multigpu.py --phase package --weights NAME --out FOLDER` ([from Python](python.md)).
"""


def zoo(folder: Path) -> str:
    """The page of the weights in ``folder``, each with the card beside it."""
    return "\n".join([ZOO, *(_entry(path) for path in sorted(folder.glob("*.json")))])


def _entry(path: Path) -> str:
    card = json.loads(path.read_text(encoding="utf-8"))
    made, size = card["training"], path.with_suffix(".pt").stat().st_size
    rows: dict[str, Any] = {
        "accuracy": f"{made['accuracy']:.2%}, {made['accuracy_on']}",
        "trained by": f"`{made['recipe']}`, seed {made['seed']}, {made['epoch']} epochs; "
        f"{made.get('protocol', '')}",
        "data": made.get("data", card["feeder"]),
        "input": ", ".join(f"{key} {_shown(value)}" for key, value in card["data"].items()),
        "model": f"`{card['model']}`, "
        + ", ".join(f"{key} {_shown(value)}" for key, value in card["model_args"].items() if value),
        "classes": ", ".join(card["class_names"]),
        "normalised": ", ".join(card["normalised"]) or "no",
        "file": f"{size / 1e6:.1f} MB, {made.get('dtype', 'float32')}, SHA-256 `{card['sha256']}`",
    }
    lines = [f"| {key} | {value} |" for key, value in rows.items()]
    return "\n".join([f"## {path.stem}", "", "| | |", "|---|---|", *lines, ""])


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _write_zoo(app: Any) -> None:
    page, text = Path(app.srcdir) / "zoo.md", zoo(ROOT / "model" / "weights")
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")


def _visit_math(writer: Any, node: Any) -> None:
    """A formula as MathML, which browsers show without a script from elsewhere."""
    block = isinstance(node, nodes.math_block)
    writer.body.append(tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Write what is made of cards before pages are read; write formulas in our way."""
    app.connect("builder-inited", _write_zoo)
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math, None))
