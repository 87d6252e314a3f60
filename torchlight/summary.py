"""Lines of a run's log: its head, and one for each epoch."""

import contextlib
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from .callbacks import Run
from .components import used
from .log import NEW_BEST
from .numerics import precision_notes


def head(run: Run) -> Iterator[str]:
    """What is trained on what, by which command."""
    config, world, card = run.config, run.world, run.card
    ways = {"tf32": "TF32", "cuda_graphs": "CUDA graphs", "compile": "torch.compile"}
    asked = "".join(f", {word}" for key, word in ways.items() if getattr(config, key))
    yield f"command: {shlex.join(run.command)}"
    yield (
        f"python {platform.python_version()}, torch {torch.__version__}, "
        f"numpy {np.__version__}; {world.size} x {world.device.type}, "
        f"{torch.get_num_threads()} threads each; amp {config.amp}{asked}; seed {config.seed}"
    )
    yield f"machine: {machine(world.device)}"
    kinds = {"train": "training", "val": "held-out", "test": "test"}
    sizes = [f"{len(run.sets[k])} {word} samples" for k, word in kinds.items() if k in run.sets]
    told = ", ".join(f"{key} {_shown(value)}" for key, value in card.data.items())
    yield f"data: {', '.join(sizes)}" + (f"; {told}" if told else "")
    named = dict(run.model.named_parameters())
    frozen = [name for name, entry in named.items() if not entry.requires_grad]
    trained = sum(entry.numel() for entry in named.values() if entry.requires_grad)
    yield (
        f"model: {config.model}, {trained:,} trained parameters; "
        f"frozen: {_shown(frozen) if frozen else 'nothing'}; "
        f"weights: {config.weights or 'newly initialised'}"
    )
    if config.phase == "train":
        if frozen and config.weights is None and not run.resumed:
            yield "note: what is frozen keeps its initial values; --weights FILE gives trained ones"
        yield from _batch(run)
    yield from precision_notes(config, world.device)


def _batch(run: Run) -> Iterator[str]:
    """What a step is, and by what it is taken."""
    config, plan, size = run.config, run.plan, run.world.size
    turns = f", {plan.accumulate} one after another" if plan.accumulate > 1 else ""
    places = f" on each of {size} processes" if size > 1 else ""
    yield (
        f"batch: a step takes {plan.step_size} samples, {plan.micro} at a time{turns}{places}; "
        f"{run.steps} steps an epoch"
    )
    yield from used(config)
    if plan.micro < config.batch_size:
        yield (
            f"note: batch norm sees {plan.micro} samples at a time instead of batch_size "
            f"{config.batch_size}, as a step is spread over {run.began_on} processes"
        )
    if plan.count % size:
        yield (
            f"note: the run began on {run.began_on} processes, and {size} cannot share "
            f"out a step's {plan.count} batches evenly: some wait for others"
        )


def machine(device: torch.device) -> str:
    """The processor, its cores and the system; of CUDA the device before."""
    text = ""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        text = file.read()
    names = [line.partition(": ")[2] for line in text.splitlines() if line.startswith("model name")]
    processor = (names or [platform.processor() or platform.machine()])[0].strip()
    told = f"{processor}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"
    return f"{torch.cuda.get_device_name(device)}; {told}" if device.type == "cuda" else told


def _shown(value: Any) -> str:
    """A value in a sentence; a long list shortened."""
    if isinstance(value, list | tuple):
        words = [str(item) for item in value]
        return " ".join(words[:4]) + (f" ... ({len(words)})" if len(words) > 4 else "")
    return str(value)


def epoch_line(run: Run, seconds: float, waited: float, before: float = 0.0) -> str:
    """What an epoch has come to, and how long the rest takes.

    Args:
        before: seconds that the steps would have taken which a resumed epoch had behind it.
    """
    config, line, chooser = run.config, run.measured, run.chooser
    epoch = run.state.epoch
    scored = ""
    if f"{chooser}/loss" in line:
        best = f" {NEW_BEST}" if run.state.best_epoch == epoch else ""
        scored = (
            f", {chooser} loss {line[f'{chooser}/loss']:.4f} "
            f"accuracy {100 * line[f'{chooser}/accuracy']:.2f} %{best}"
        )
    return (
        f"epoch {epoch}/{config.num_epoch}: rate {line['learning_rate']:g}, "
        f"loss {line['train/loss']:.4f} accuracy {100 * line['train/accuracy']:.2f} %{scored}; "
        f"{seconds:.1f} s, {line['train/samples_per_second']:.0f} samples/s in training, "
        f"{100 * waited / max(seconds, 1e-9):.0f} % waiting for data, "
        f"{duration((seconds + before) * (config.num_epoch - epoch))} left"
    )


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def peak_memory(device: torch.device) -> str:
    """Largest memory so far: of the device on CUDA, else of this process where the system tells."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB on the device"
    if sys.platform == "win32":
        return "not known on this system"
    import resource  # absent on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"{peak / 2**30:.2f} GiB of this process"
