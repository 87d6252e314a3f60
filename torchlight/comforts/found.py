"""Configurations that are here, and the newest run of one."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from ..config import RESOLVED, Config, build
from ..errors import UserError
from ..layers import read_layers

_OF_A_RUN = ("feeder", "train_feeder_args", "model", "model_args")
"""Settings that make it a run of a configuration; others may have been given by flags."""


def listed(paths: Iterable[Path]) -> str:
    """A line for each configuration: its path, and what its first comment says."""
    told = {}
    for path in paths:
        first = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
        told[str(path)] = first.removeprefix("#").strip() if first[:1] == "#" else ""
    width = max(map(len, told), default=0)
    return "\n".join(f"{path:{width}}  {what}".rstrip() for path, what in told.items())


def last_run(config: Config, file: str) -> tuple[Path, str, str]:
    """The newest run of a configuration that has a state to resume from.

    It is looked for in and below ``--work-dir``, where one is given; else below the uppermost
    folder of the configuration's own (``work_dir`` of ``work_dir/a/b``).

    Args:
        file: the configuration's path.

    Returns:
        Its work dir, its resolved configuration, and when it was saved.
    """
    top = Path(config.work_dir)
    if not config.by_flag("work_dir"):
        top = top.parent if top.is_absolute() else Path(*top.parts[:1])
    saved: dict[Path, float] = {}
    for state in top.rglob("resume.*.state"):
        saved[state.parent] = max(state.stat().st_mtime, saved.get(state.parent, 0))
    for folder in sorted(saved, key=lambda own: -saved[own]):
        for own in sorted(folder.glob("*.yaml")):
            if _is_of(own, config):
                when = datetime.fromtimestamp(saved[folder]).isoformat(" ", "minutes")
                return folder, str(own), when
    raise UserError(
        f"--resume last: no run of {file} with a state to resume from in {top} or below; say "
        f"--work-dir, or leave --resume out to begin one"
    )


def _is_of(path: Path, config: Config) -> bool:
    """Whether a YAML is the resolved one of a run of ``config``."""
    try:
        with open(path, encoding="utf-8") as stream:
            if stream.readline() != RESOLVED:
                return False
        other = build(read_layers(path)[0], str(path))
    except (OSError, ValueError, UserError):  # somebody's file
        return False
    return all(_within(getattr(config, key), getattr(other, key)) for key in _OF_A_RUN)


def _within(said: object, resolved: object) -> bool:
    """Whether a resolved value is what was ``said``; what the data decide is not said."""
    if not isinstance(said, dict) or not isinstance(resolved, dict):
        return said == resolved or said is None
    return all(_within(value, resolved.get(name)) for name, value in said.items())
