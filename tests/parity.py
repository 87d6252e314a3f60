"""Weights of the golden data, rebuilt from their rule (``../shared/parity/README.md``)."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

PUBLISHED_MODELS = {
    "koopman_ucla": ("model.Koopman_pooling.Model", "graph.ucla.Graph"),
    "koopman_ntu60": ("model.Koopman_pooling.Model", "graph.ntu_rgb_d.Graph"),
    "koopman_ntu120": ("model.Koopman_pooling.Model", "graph.ntu_rgb_d.Graph"),
    "ctrgcn_ntu60": ("model.ctrgcn_origin.Model", "graph.ntu_rgb_d.Graph"),
    "ctrgcn_ucla": ("model.ctrgcn_origin.Model", "graph.ucla.Graph"),
}


def read_keys(shared: Path, case: str) -> dict[str, Any]:
    """Return a case's published keys: entries [key, shape, dtype], buffers, parameter_order."""
    return json.loads((shared / "parity" / f"state_dict_keys_{case}.json").read_text())


def read_weights(shared: Path, case: str) -> dict[str, torch.Tensor]:
    """Return the float32 state dict of a case, checked against its hash."""
    facts = json.loads((shared / "parity" / "weights.json").read_text())[case]
    graphs = np.load(shared / "parity" / "graph.npz")
    graph = graphs["ucla" if "ucla" in facts["graph"] else "ntu_rgb_d"]
    weights = build_weights(read_keys(shared, case)["entries"], facts["seed"], graph)
    digest = hashlib.sha256()
    for key in sorted(weights):
        if weights[key].is_floating_point():
            digest.update(weights[key].numpy().tobytes())
    assert digest.hexdigest() == facts["sha256"]
    return weights


def build_weights(
    entries: list[tuple[str, list[int], str]], seed: int, graph: np.ndarray
) -> dict[str, torch.Tensor]:
    """Return weights by the rule: one normal draw an entry, in sorted order, scaled by kind."""
    generator = np.random.default_rng(seed)
    weights = {}
    for key, shape, dtype in sorted(entries):
        if dtype == "int64":
            weights[key] = torch.zeros(shape, dtype=torch.int64)
            continue
        z = generator.standard_normal(shape)
        value = np.asarray(_scaled(key, z, graph), dtype=np.float32)
        weights[key] = torch.from_numpy(value)
    return weights


def _scaled(key: str, z: np.ndarray, graph: np.ndarray) -> np.ndarray:
    """Turn standard normal numbers into an entry; the first matching rule applies."""
    last = key.rpartition(".")[2]
    if key.endswith("gcn1.bn.running_mean"):
        return z
    if key.endswith("gcn1.bn.running_var"):
        return 100.0 * (0.5 + np.abs(z))
    if last == "K":
        return 0.9 * np.eye(z.shape[-1]) + 0.02 * z
    if last == "PA":
        return graph.astype(np.float32).astype(np.float64) + 0.05 * z
    if last == "weight":
        if z.ndim == 1:
            return 1.0 + 0.1 * z
        return z * np.sqrt(1.0 / np.prod(z.shape[1:]))
    return {
        "running_mean": lambda: 0.1 * z,
        "running_var": lambda: 0.5 + np.abs(z),
        "alpha": lambda: 0.5 + 0.1 * z,
        "bias": lambda: 0.1 * z,
    }[last]()
