"""Sound files of every kind that the project reads, made by the project's own writers.

Real recordings of NW-UCLA and faulty NTU texts are added where they lie beside the checkout.
"""

import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import toy
import yaml
from torch import nn

from data import ucla
from data.demo import samples
from data.demo.__main__ import write_raw
from data.preparation.chunks import INDEX
from data.preparation.steps import denoise_step, read_step, transform_step
from data.splits import NTU60
from koopman_pooling import load
from torchlight.checkpoint import save_weights
from torchlight.config import build
from torchlight.layers import read_layers
from torchlight.resilience.states import StateFile
from torchlight.scores import write_scores
from torchlight.values import meaning

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
REAL = 6  # files taken of each folder of real data


@dataclass(frozen=True)
class Seed:
    """A file: its name (which parsers look at), its content, and whether it is sound."""

    name: str
    data: bytes
    sound: bool = True


def model() -> nn.Module:
    """The network that the seeds' weights belong to."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def make_seeds(folder: Path) -> dict[str, list[Seed]]:
    """Seeds by kind; ``folder`` is scratch space and keeps what steps need beside the seed."""
    return {
        "configuration": _configurations(),
        **_skeletons(folder),
        **_sequences(folder),
        **_scores(folder),
        **_checkpoints(folder),
        **_package(folder),
    }


def _configurations() -> list[Seed]:
    """All there are, whole; those of a test phase do not name the weights, so they are refused."""
    paths = sorted(p for p in (ROOT / "config").rglob("*.yaml") if p.parent.name != "_base_")
    found = {f"{p.parent.name}_{p.name}": read_layers(p)[0] for p in paths}
    return [
        Seed(name, yaml.safe_dump(meaning(values)).encode(), values.get("phase") != "test")
        for name, values in found.items()
    ]


def _read(paths: list[Path], sound: bool = True) -> list[Seed]:
    assert paths
    return [Seed(path.name, path.read_bytes(), sound) for path in paths]


def _skeletons(folder: Path) -> dict[str, list[Seed]]:
    """Raw recordings and what the three steps make of them."""
    raw, read, denoised, out = (folder / name for name in ("raw", "read", "denoised", "out"))
    wanted = samples(actions=2, performers=4, cameras=2, replications=1)
    write_raw(raw, wanted, seed=0, second_body=0.5)
    read_step(NTU60, raw, read, chunk_size=4)
    denoise_step(NTU60, read, denoised)
    transform_step(NTU60, denoised, out, npz=True)
    faulty: list[Seed] = []
    recordings = sorted(raw.rglob("*.skeleton"))[:REAL]
    if SHARED.is_dir():
        faulty = _read(sorted((SHARED / "ntu" / "bad" / "raw").glob("*.skeleton")), sound=False)
    skip_list = folder / "skip.txt"
    skip_list.write_text(
        "heading\n" + "".join(f"{sample.name}.skeleton\n" for sample in wanted[:3])
    )
    return {
        "recording": _read(recordings) + faulty,
        "skip list": _read([skip_list]),
        "raw index": _read([read / INDEX]),
        "denoised index": _read([denoised / INDEX]),
        "raw chunk": _read([read / "part-00000"]),
        "denoised chunk": _read([denoised / "part-00000"]),
        "store": _read([out / "NTU60.h5"]),
        "published npz": _read([out / "NTU60_CS.npz", out / "NTU60_CV.npz"]),
    }


def _sequences(folder: Path) -> dict[str, list[Seed]]:
    """NW-UCLA's JSON files, and the cache made of them."""
    root, cache = folder / "ucla", folder / "cache"
    root.mkdir()
    random = np.random.default_rng(0)
    for view in (1, 3):
        name = f"a02_s01_e00_v{view:02d}"
        frames = random.normal(size=(5, 20, 3)).round(4).tolist()
        content = {"file_name": name, "skeletons": frames, "label": 2}
        (root / f"{name}.json").write_text(json.dumps(content))
    ucla.load(root, cache)
    paths = sorted(root.glob("*.json"))
    if SHARED.is_dir():
        paths += sorted((SHARED / "data" / "NW-UCLA" / "all_sqe").glob("*.json"))[:REAL]
    return {"sequence": _read(paths), "sequence cache": _read(sorted(cache.glob("*.cache")))}


def _scores(folder: Path) -> dict[str, list[Seed]]:
    """Score files of both forms, of the names of NTU, and of names that say no label."""
    random = np.random.default_rng(1)
    scores = random.standard_normal((12, 5)).astype(np.float32)
    labels = np.arange(12) % 5
    named = [f"S001C001P001R001A{i + 1:03d}" for i in labels.tolist()]
    named = [f"S{i + 1:03d}{name[4:]}" for i, name in enumerate(named)]
    first = write_scores(folder / "named", named, scores, labels, "abc")
    other = write_scores(folder / "other", [f"x{i}" for i in range(12)], scores, None, "")
    old = folder / "old.pkl"
    old.write_bytes(pickle.dumps(dict(zip(named, scores, strict=True)), protocol=2))
    return {
        "score npz": _read([first["npz"]]) + _read([other["npz"]], sound=False),
        "score pickle": _read([first["pkl"], old]) + _read([other["pkl"]], sound=False),
    }


def _checkpoints(folder: Path) -> dict[str, list[Seed]]:
    """Weights, zipped as now and plain as before, and states of a run."""
    weights, operators, legacy = (folder / n for n in ("weights.pt", "operators.pt", "legacy.pt"))
    save_weights(weights, model().state_dict())
    save_weights(operators, {"K": 0.2 * torch.randn(3, 6, 6), "fc.bias": torch.zeros(3)})
    plain = dict(model().state_dict())
    torch.save(plain, legacy, _use_new_zipfile_serialization=False)
    (folder / "state").mkdir()
    StateFile(folder / "state").save(run_state(), 1)
    return {
        "weights": _read([weights, legacy]),
        "operators": _read([operators]),
        "state": _read([folder / "state" / "resume.0.state"]),
    }


def _package(folder: Path) -> dict[str, list[Seed]]:
    """The weights that come with the code, as a package."""
    load("nw-ucla-fast", device="cpu").save_pretrained(folder / "package")
    config, weights = (folder / "package" / name for name in ("config.json", "model.safetensors"))
    return {"package config": _read([config]), "package weights": _read([weights])}


def toy_config(**values: object):
    """A configuration of the toy task."""
    return build({"feeder": "toy.Feeder", "model": "toy.Model", **values}, "toy.yaml")


def run_state() -> dict[str, object]:
    """What a run of the toy task saves."""
    network = toy.Model()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    return {
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": {},
        "counters": {
            "epoch": 0,
            "step": 0,
            "global_step": 0,
            "best_accuracy": -1.0,
            "best_epoch": 0,
            "history": [],
        },
        "metrics": [0.0] * 5,
        "data": None,
        "weights": None,
        "world": 1,
        "recipe": toy_config().recipe(),
    }
