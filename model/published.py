"""Published dotted names, each with the class here that does its work and the arguments it needs.

Configurations and saved runs of the published code name files that were copies of one another;
here a copy is an argument. This is the only table of such names.
"""

from typing import Any

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
    "model.ctrgcn_origin.Model": ("model.classifier.Model", {"head": "average"}),
    "graph.ntu_rgb_d.Graph": ("model.graph.Graph", {"skeleton": "ntu"}),
    "graph.ucla.Graph": ("model.graph.Graph", {"skeleton": "ucla"}),
    "feeders.feeder_oneshot.Feeder": ("feeders.feeder_ntu.Feeder", {}),
}
