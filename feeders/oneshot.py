"""One-shot splits of any data set: training on some classes, recognising others from exemplars."""

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import ucla
from data.errors import DataError
from data.oneshot import choose_exemplars
from feeders import feeder_ucla
from feeders.arguments import at_least_one, one_of
from feeders.dataset import ArraySource, SkeletonDataset, Source

SPLITS = ("train", "test", "exemplar")


class Feeder(SkeletonDataset):
    """One part of a data set that is cut by class.

    The samples of one or more ordinary splits are pooled. Those of the classes that are not novel
    are the ``train`` part (the auxiliary set); of each novel class, ``shots`` samples are
    exemplars and the others are queries, the ``test`` part. Only the train part is augmented.

    Labels are positions: in the train part among the classes left, in rising order; in the other
    parts among ``novel_classes``, in the order given. ``class_names`` has the original labels and
    the actions' names.

    Args:
        split: "train", "test" (the queries) or "exemplar".
        novel_classes: labels, from 0, in the underlying data set. The train part of a data set
            that was cut before has none of them; where its labels count the auxiliary classes
            alone, say ``[]``.
        exemplars: a rule of ``data.oneshot`` or a list of sample names.
        shots: exemplars a class.
        base: dotted name, within ``feeders``, of the class that reads the data set; or the class.
        base_args: its arguments, less those named here.
        pool: the splits of the data set that are put together.
        augment: passed on where ``base`` takes it; None means in the train part only.
        seed: of all random numbers.

    Attributes:
        class_names: original label and name, by label here.

    Raises:
        DataError: an impossible argument, a novel class without samples, a missing exemplar.
    """

    def __init__(
        self,
        *,
        split: str,
        novel_classes: Sequence[int],
        exemplars: str | Sequence[str] = "first",
        shots: int = 1,
        base: str | type = "feeders.feeder_ucla.Feeder",
        base_args: dict[str, Any] | None = None,
        pool: Sequence[str] = ("train", "test"),
        augment: bool | None = None,
        seed: int = 0,
    ) -> None:
        one_of("split", split, SPLITS)
        at_least_one("shots", shots)
        self._arguments: dict[str, Any] = {
            "novel_classes": novel_classes,
            "exemplars": exemplars,
            "shots": shots,
            "base": base,
            "base_args": base_args,
            "pool": pool,
            "seed": seed,
        }
        augmented = split == "train" if augment is None else augment
        bases = _pool(base, base_args or {}, pool, augmented, seed)
        names = [name for part in bases for name in part.sample_names]
        labels = np.concatenate([part.labels for part in bases])
        if len(set(names)) != len(names):
            raise DataError(f"pool: splits {list(pool)} share samples; name each split once")
        classes, rows = _part(split, names, labels, novel_classes, exemplars, shots)
        first = bases[0]
        known = getattr(first, "class_names", None)
        super().__init__(
            ArraySource(
                first.source.skeleton,
                [names[row] for row in rows],
                [classes.index(label) for label in labels[rows].tolist()],
                np.concatenate([part.subjects for part in bases])[rows],
                _Pool([part.source for part in bases], rows),
                [f"{label} {known[label]}" if known else str(label) for label in classes],
            ),
            transforms=first.transforms,
            streams=first.stream_table,
            repeat=first.repeat,
            seed=seed,
            from_raw=first.from_raw,
        )
        for key, value in first.description.items():
            decided = {f"base_args.{k}": v for k, v in first.described_by[key].items()}
            self.describe(key, value, **decided)
        if novel_classes:  # none, where the file for training was cut before
            novel = sorted(novel_classes)
            self.describe("novel_classes", novel, novel_classes=novel)

    @property
    def exemplars(self) -> "Feeder":
        """The exemplars that belong to this split."""
        return Feeder(split="exemplar", **self._arguments)


class UclaFeeder(Feeder):
    """NW-UCLA's one-shot parts by the arguments of the published feeders.

    Those read their samples from a pickled list, which is not read here: the cut is that of
    ``config/ucla-oneshot``, every third class being novel, or that of the arguments.

    Args:
        label_path: a text with "train" (the auxiliary classes) or "val" (the queries) in it.
        exemplars_only: "train" means the exemplars, as in the published feeder for testing.
        novel_classes, exemplars, shots, seed: as of ``Feeder``. All others: as of
            ``feeders.feeder_ucla.Feeder``.
    """

    def __init__(
        self,
        *,
        label_path: str,
        exemplars_only: bool = False,
        novel_classes: Sequence[int] = (0, 3, 6, 9),
        exemplars: str | Sequence[str] = "first",
        shots: int = 1,
        data_path: str = "joint",
        root: str | os.PathLike[str] = ucla.DEFAULT_ROOT,
        repeat: int = 1,
        window_size: int = -1,
        debug: bool = False,
        random_choose: bool = False,
        random_shift: bool = False,
        random_move: bool = False,
        normalization: bool = False,
        use_mmap: bool = True,
        seed: int = 0,
    ) -> None:
        split = feeder_ucla.resolve_split(None, label_path)
        super().__init__(
            split="exemplar" if exemplars_only and split == "train" else split,
            novel_classes=novel_classes,
            exemplars=exemplars,
            shots=shots,
            base=feeder_ucla.Feeder,
            base_args={
                "data_path": data_path,
                "root": root,
                "repeat": repeat,
                "window_size": window_size,
                "debug": debug,
                "random_choose": random_choose,
                "random_shift": random_shift,
                "random_move": random_move,
                "normalization": normalization,
                "use_mmap": use_mmap,
            },
            seed=seed,
        )


class _Pool:
    """The clips ``rows`` of several sources, one after the other."""

    def __init__(self, sources: Sequence[Source], rows: np.ndarray) -> None:
        counts = [len(source.names) for source in sources]
        self._sources = np.repeat(np.arange(len(counts)), counts)[rows].tolist()
        self._rows = np.concatenate([np.arange(count) for count in counts])[rows].tolist()
        self._pool = sources

    def __getitem__(self, row: int) -> np.ndarray:
        return self._pool[self._sources[row]].clip(self._rows[row])


def _part(
    split: str,
    names: list[str],
    labels: np.ndarray,
    novel_classes: Sequence[int],
    rule: str | Sequence[str],
    shots: int,
) -> tuple[list[int], np.ndarray]:
    """Classes of a part in label order, and the rows of its samples, those in name order."""
    novel = list(novel_classes)
    present = set(labels.tolist())
    absent = [label for label in novel if label not in present]
    # A file for training may be cut already, as the published one is: it has none of them.
    cut_already = split == "train" and len(absent) == len(novel)
    if len(set(novel)) != len(novel) or not (cut_already or (novel and not absent)):
        raise DataError(
            f"novel_classes: {novel} must be distinct labels of the data set, which has "
            f"{min(present)} to {max(present)}" + (f"; no sample of {absent}" if absent else "")
        )
    order = np.array(sorted(range(len(names)), key=names.__getitem__))
    is_novel = np.isin(labels[order], novel)
    if split == "train":
        if is_novel.all():
            raise DataError("novel_classes: leaves no class to train on")
        return sorted(present - set(novel)), order[~is_novel]
    members = {
        label: [names[row] for row in order[is_novel] if labels[row] == label] for label in novel
    }
    chosen = choose_exemplars(members, rule, shots)
    exemplars = {name for group in chosen.values() for name in group}
    wanted = split == "exemplar"
    rows = [row for row in order[is_novel] if (names[row] in exemplars) == wanted]
    return novel, np.array(rows, dtype=np.int64)


def _pool(
    base: str | type, arguments: dict[str, Any], pool: Sequence[str], augment: bool, seed: int
) -> list[Any]:
    """The underlying data set, a feeder for each of its splits."""
    made = _class_of(base) if isinstance(base, str) else base
    known = inspect.signature(made)
    common: dict[str, Any] = {**arguments, "seed": seed}
    if "augment" in known.parameters and not arguments.get("only_transforms"):
        common.setdefault("augment", augment)
    try:
        known.bind(split=pool[0], **common)
    except TypeError as error:
        for name in arguments.keys() - known.parameters.keys():
            choices = ", ".join(known.parameters)
            raise DataError(f"base_args: {name!r} is not one of {choices}") from error
        raise DataError(f"base_args: {made.__module__}: {error}") from error
    return [made(**{**common, "split": split}) for split in pool]


def _class_of(base: str) -> type:
    """The feeder class of a dotted name; names of other packages are not followed."""
    module_name, _, attribute = base.rpartition(".")
    if not module_name.startswith("feeders."):
        raise DataError(f"base: {base!r} is not a dotted name such as feeders.feeder_ntu.Feeder")
    try:
        found = getattr(__import__(module_name, fromlist=[attribute]), attribute, None)
    except ModuleNotFoundError as error:
        files = sorted(Path(__file__).parent.glob("feeder_*.py"))
        known = ", ".join(f"feeders.{file.stem}.Feeder" for file in files)
        raise DataError(f"base: {base!r} is not one of {known}") from error
    reads = isinstance(found, type) and issubclass(found, SkeletonDataset)
    if not reads or found is SkeletonDataset or issubclass(found, Feeder):  # type: ignore[arg-type]
        raise DataError(f"base: {base!r} reads no data set: it is no feeder of one")
    return found  # type: ignore[return-value]
