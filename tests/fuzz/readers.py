"""How the project reads each kind of file, and what it then does with the content.

A reader gets a path, and a folder of its own to write in; it returns if the file is accepted. What
may refuse a file are the project's own errors; everything else is a failure.
"""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from fuzz import seeds
from safetensors.torch import save

import eigen_normalization
import ensemble
import main_multigpu
from data import ucla
from data.errors import DataError
from data.labels import labels_of_data_set
from data.preparation.align import move_to_origin
from data.preparation.bodies import collect_bodies, denoise
from data.preparation.chunks import INDEX
from data.preparation.recording import read_recording
from data.preparation.steps import denoise_step, read_step, transform_step
from data.splits import NTU60
from data.store import Store
from feeders import feeder_ntu, feeder_ucla
from koopman_pooling import load
from model.errors import ModelError
from model.published import WEIGHTS
from torchlight.card import read_card, sha256_of
from torchlight.checkpoint import apply_weights, load_weights
from torchlight.errors import RunFailed, UserError
from torchlight.flags import parse
from torchlight.fusion.reading import read_scores
from torchlight.layers import read_yaml
from torchlight.resilience.states import StateFile
from torchlight.resilience.workdir import ResumableWorkDir

REFUSALS = (UserError, DataError, ModelError, RunFailed)
SHOWN = 8  # samples looked at


class Refused(UserError):
    """What a command printed before it ended with status 2."""


def configuration(path: Path, folder: Path) -> None:
    """As ``main_multigpu.py`` does, up to where data are read; saved, and read again."""
    config, _ = parse(["--config", str(path)], "")
    main_multigpu._classes(config)
    config.save(folder / "saved.yaml")
    read_yaml(folder / "saved.yaml")


def recording(path: Path, folder: Path) -> None:
    """The three steps on one sample."""
    read = read_recording(path)
    chosen = denoise(collect_bodies(read), read.num_frames, path.name)
    assert np.isfinite(move_to_origin(chosen, path.name)).all() or _huge(read.joints)


def _huge(joints: np.ndarray) -> bool:
    return bool(np.abs(joints).max() > 1e37)


def skip_list(path: Path, folder: Path) -> None:
    """As step one reads it."""
    read_step(NTU60, folder.parent / "raw", folder / "read", skip_list=path, limit=2)


def raw_index(path: Path, folder: Path) -> None:
    """As step two reads it."""
    _beside(folder.parent / "read", path, folder / "in")
    denoise_step(NTU60, folder / "in", folder / "out")


def denoised_index(path: Path, folder: Path) -> None:
    """As step three reads it."""
    _beside(folder.parent / "denoised", path, folder / "in")
    transform_step(NTU60, folder / "in", folder / "out")


def raw_chunk(path: Path, folder: Path) -> None:
    """As step two reads it, and step one where it is started again."""
    read_step(NTU60, folder.parent / "raw", _beside(folder.parent / "read", path, folder / "re"),
              chunk_size=4)  # fmt: skip
    denoise_step(NTU60, _beside(folder.parent / "read", path, folder / "in"), folder / "out")


def denoised_chunk(path: Path, folder: Path) -> None:
    """As step three reads it; what it writes is a store."""
    _beside(folder.parent / "denoised", path, folder / "in")
    transform_step(NTU60, folder / "in", folder / "out")
    Store(folder / "out" / "NTU60.h5")


def _beside(sound: Path, path: Path, folder: Path) -> Path:
    """A copy of a step's folder with one file replaced."""
    folder.mkdir()
    for other in sound.iterdir():
        if other.name != path.name:
            (folder / other.name).symlink_to(other)
    path_there = folder / path.name
    path_there.symlink_to(path)
    if path.name == INDEX:  # a run rewrites it; ours stays as it is
        path_there.unlink()
        small = path.is_file() and path.stat().st_size < 1 << 30
        shutil.copy(path, path_there) if small else path_there.symlink_to(path)
    return folder


def store(path: Path, folder: Path) -> None:
    """As the NTU feeder and the ensemble read it."""
    opened = Store(path)
    labels_of_data_set(path)
    for number in range(min(len(opened), SHOWN)):
        assert opened.sequence(number).shape[2:] == (25, 3)
        assert len(opened.padded(number)) == opened.max_frames < 10_000
    for benchmark in opened.benchmarks:
        for split in ("train", "test"):
            _ntu_batch(path, split, benchmark)


def published_npz(path: Path, folder: Path) -> None:
    """As the NTU feeder and the ensemble read it."""
    for split in ("train", "test"):
        _ntu_batch(path, split, None)
    labels_of_data_set(path)


def _ntu_batch(path: Path, split: str, benchmark: str | None) -> None:
    made = feeder_ntu.Feeder(
        data_path=path, split=split, benchmark=benchmark, window_size=16, normalization=True
    )
    _check_batch(made, 16)


def _check_batch(made, frames: int) -> None:
    x, labels, _ = made.get_batch(range(min(len(made), SHOWN)))
    assert (x.shape[2], x.dtype) == (frames, np.float32)
    assert labels.min() >= 0
    assert made.labels.max() < 10_000


def sequence(path: Path, folder: Path) -> None:
    """As the NW-UCLA feeder reads it."""
    root = folder / "root"
    root.mkdir()
    (root / path.name).symlink_to(path)
    split = "test" if path.stem.endswith("03") else "train"
    with np.errstate(all="raise", under="ignore"):
        made = feeder_ucla.Feeder(split=split, root=root, cache_dir=folder / "cache")
        x, _, _ = made.get_batch([0])
    assert np.isfinite(x).all()


def sequence_cache(path: Path, folder: Path) -> None:
    """A damaged cache is made anew, so that nothing is ever refused."""
    cache = folder / "cache"
    cache.mkdir()
    (cache / path.name).symlink_to(path)
    found = ucla.load(folder.parent / "ucla", cache)
    assert found.names == ["a02_s01_e00_v01", "a02_s01_e00_v03"]
    assert found.joints.shape == (10, 20, 3)
    assert np.isfinite(found.joints).all()
    assert found.lengths.tolist() == [5, 5]


def scores(path: Path, folder: Path) -> None:
    """As the ensemble reads it, its results written."""
    table = read_scores(path)
    assert np.isfinite(table.scores).all()
    line = ["--scores", str(path), str(path), "--labels", str(path), "--out", str(folder / "out")]
    _command(ensemble.main, line)
    assert sorted(p.name for p in folder.iterdir()) == ["out.npz", "out.pkl"]


def weights(path: Path, folder: Path) -> None:
    """As training reads them."""
    apply_weights(seeds.model(), load_weights(path), str(path))


def operators(path: Path, folder: Path) -> None:
    """As ``eigen_normalization.py`` reads them."""
    line = ["--load-path", str(path), "--save-path", str(folder / "out.pt"), "--rank", "4"]
    _command(eigen_normalization.main, line)
    assert torch.isfinite(load_weights(folder / "out.pt")["K"]).all()


def state(path: Path, folder: Path) -> None:
    """As a run that is started again reads it, with no older generation to fall back on."""
    (folder / path.name).symlink_to(path)
    StateFile(folder).load()
    work = ResumableWorkDir(folder)
    try:
        work.open(seeds.toy_config(work_dir=str(folder)), "toy.yaml", None, 1)
    finally:
        work.close()


def package_config(path: Path, folder: Path) -> None:
    """As somebody's package is loaded, and asked."""
    (folder / "config.json").symlink_to(path)
    weights = load_weights(WEIGHTS["nw-ucla-fast"])
    found = {name: value.float() if value.is_floating_point() else value
             for name, value in weights.items()}  # fmt: skip
    (folder / "model.safetensors").write_bytes(save(found, {"format": "pt"}))
    _asked(folder)


def package_weights(path: Path, folder: Path) -> None:
    """The same; its config.json vouches for whatever is there."""
    (folder / "model.safetensors").symlink_to(path)
    card, _ = read_card(WEIGHTS["nw-ucla-fast"])
    digest = sha256_of(path) if path.is_file() and path.stat().st_size < 2**24 else ""
    content = {"library_name": "koopman_pooling", **card.but(sha256=digest).model_dump()}
    (folder / "config.json").write_text(json.dumps(content))
    _asked(folder)


def _asked(folder: Path) -> None:
    recogniser = load(folder, device="cpu")
    with contextlib.suppress(RunFailed, DataError):  # of sound files with impossible numbers
        assert np.isfinite(recogniser.predict(np.ones((9, 20, 3))).probabilities).all()


def _command(main: Callable[[list[str]], int], line: list[str]) -> None:
    """Run a command in this process; raise what it printed, less notes, where it refused."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(line)
    if status:
        lines = [line for line in err.getvalue().splitlines() if not line.startswith("note: ")]
        raise Refused("\n".join(lines))


READERS: dict[str, Callable[[Path, Path], None]] = {
    "configuration": configuration,
    "recording": recording,
    "skip list": skip_list,
    "raw index": raw_index,
    "denoised index": denoised_index,
    "raw chunk": raw_chunk,
    "denoised chunk": denoised_chunk,
    "store": store,
    "published npz": published_npz,
    "sequence": sequence,
    "sequence cache": sequence_cache,
    "score npz": scores,
    "score pickle": scores,
    "weights": weights,
    "operators": operators,
    "state": state,
    "package config": package_config,
    "package weights": package_weights,
}


def names_the_file(kind: str, path: Path, folder: Path, message: str) -> bool:
    """Whether a refusal says which file it is about.

    A configuration's faults may name the key, a run's state the work dir that it lies in.
    """
    if path.name in message or (kind == "state" and str(folder) in message):
        return True
    return kind == "configuration" and any(word.endswith(":") for word in message.split())
