"""Published dotted names, each with the class here that does its work and the arguments it needs.

Configurations and saved runs of the published code name files that were copies of one another;
here a copy is an argument. This is the only table of such names.
"""

from pathlib import Path
from typing import Any

from model.errors import ModelError

ALIASES: dict[str, tuple[str, dict[str, Any]]] = {
    "model.Koopman_pooling.Model": ("model.classifier.Model", {"head": "koopman"}),
    "model.Koopman_pooling_tune.Model": (
        "model.classifier.Model",
        {"head": "koopman", "freeze_koopman": True},
    ),
    "model.Koopman_pooling_emb.Model": (
        "model.classifier.Model",
        {"head": "koopman", "return_features": True},
    ),
    **dict.fromkeys(  # NKP's name for it, and CTR-GCN's own
        ("model.ctrgcn_origin.Model", "model.ctrgcn.Model"),
        ("model.classifier.Model", {"head": "average"}),
    ),
    "model.ctrgcn_emb.Model": (
        "model.classifier.Model",
        {"head": "average", "return_features": True},
    ),
    "graph.ntu_rgb_d.Graph": ("model.graph.Graph", {"skeleton": "ntu"}),
    "graph.ucla.Graph": ("model.graph.Graph", {"skeleton": "ucla"}),
    "feeders.feeder_oneshot.Feeder": ("feeders.feeder_ntu.Feeder", {}),
    "feeders.feeder_ucla_oneshot.Feeder": ("feeders.oneshot.UclaFeeder", {}),
    "feeders.feeder_ucla_oneshot_test.Feeder": (
        "feeders.oneshot.UclaFeeder",
        {"exemplars_only": True},
    ),
}

WEIGHTS = {"nw-ucla-fast": str(Path(__file__).parent / "weights" / "nw-ucla-fast.pt")}
"""Trained weights that come with the code, by the name that ``--weights`` takes."""


def imported_class(what: str, name: str) -> type:
    """Return the class of this package that a dotted name stands for; others are not imported.

    Raises:
        ModelError: the name leads elsewhere, or to no class; ``what`` is what it is to name.
    """
    module, _, attribute = name.rpartition(".")
    if not module.startswith("model."):
        raise ModelError(f"{what} {name!r} cannot be imported: it is outside of the package model")
    try:
        found = getattr(__import__(module, fromlist=[attribute]), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(f"{what} {name!r} cannot be imported: {error}") from error
    if not isinstance(found, type) or not found.__module__.startswith(f"{__package__}."):
        raise ModelError(f"{what} {name!r} is no class of the package model")
    return found
