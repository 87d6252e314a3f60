"""What a dataset must give; what is derived where it does not.

A plain map-style dataset will do. It needs:

* ``len(dataset)``, at least 1;
* ``dataset[i]``: ``(inputs, label)`` or ``(inputs, label, i)``. Inputs are numbers, an array or a
  tensor of any type (the model sees float32), of one shape within a batch and as the model takes
  them. A label is a whole number from 0 to ``num_class - 1``.

It may have:

* ``labels`` (or ``label``, or ``targets``): the labels of all n samples; without them every sample
  is read once to learn its label. ``sample_names`` (or ``sample_name``): n different names; without
  them train_0, train_1, ... ``len(dataset)`` may be a multiple of n, to see each sample several
  times; index i is then sample i % n, and a test takes the mean of a sample's scores;
* ``class_names``: ``num_class`` of them, for the reports; or ``num_class``, where there may be more
  than there are labels. ``subjects``: n whole numbers, for
  ``val_subjects``. ``set_epoch(epoch)``: called before an epoch, in the loading processes too.
  ``get_batch(indices)``: (inputs, labels, indices) stacked; faster where samples are cheap.
  ``description`` and ``described_by``: see ``torchlight.card``.

Random numbers should be drawn from (epoch, index) alone: a run then does not depend on the number
of loading processes, or on interruptions.

The model's ``num_class`` may be left to the data, and so may the arguments that ``from_data`` of
its class names: the class method ``arguments_of(shape of a sample, dataset)`` says what they are.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from .card import Card
from .config import Config
from .errors import UserError, printable, told
from .launch import launched_rank
from .loading import Dataset, read
from .registry import Target, as_json, binding_faults, decided_by_data

_LABELS = ("labels", "label", "targets")
_NAMES = ("sample_names", "sample_name")


class View:
    """Samples of a dataset, by names and labels of their own; repeats and randomness stay.

    Whatever else the dataset has (``set_epoch``, say) is to be had from the view as well.

    Args:
        split: what messages call it.
        dataset: of n samples, or a multiple where each is seen several times.
        names, labels: of all n samples.
        rows: the samples to show; None means all.
        class_names: by label; None means the dataset's, where it has some.
    """

    def __init__(
        self,
        split: str,
        dataset: Any,
        names: Sequence[str],
        labels: np.ndarray,
        rows: np.ndarray | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        rows = np.arange(len(names)) if rows is None else rows
        repeats = np.arange(len(dataset) // len(names))
        self._split, self._dataset = split, dataset
        self._indices = (repeats[:, None] * len(names) + rows).ravel()
        self.sample_names: Sequence[str] = [names[row] for row in rows.tolist()]
        self.labels = labels[rows]
        if hasattr(dataset, "subjects"):
            self.subjects = np.asarray(dataset.subjects)[rows]
        self.class_names = class_names or getattr(dataset, "class_names", None)
        for name in ("description", "described_by"):
            value = getattr(dataset, name, None)
            setattr(self, name, value if isinstance(value, Mapping) else {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also while a copy is made, before there is a dataset
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __len__(self) -> int:
        return len(self._indices)

    def get_batch(self, indices: Sequence[int]) -> tuple[Any, np.ndarray, np.ndarray]:
        """Inputs stacked, labels, and ``indices`` as they were asked for."""
        wanted = np.asarray(indices, dtype=np.int64)
        own = self._indices[wanted]
        labels = self.labels[wanted % len(self.labels)]
        if not hasattr(self._dataset, "get_batch"):
            return self._stacked(own.tolist(), labels.tolist()), labels, wanted
        try:
            return self._dataset.get_batch(own)[0], labels, wanted
        except Exception as error:
            if type(error).__module__ != "builtins":  # made for the user, as a rule
                raise
            first = self.sample_names[int(wanted[0]) % len(self.labels)]
            title = f"{self._split} split: a batch of {len(own)} samples from {first} on"
            raise UserError(f"{title} cannot be read: {told(error)}") from error

    def _stacked(self, indices: list[int], labels: list[int]) -> np.ndarray:
        samples: list[np.ndarray] = []
        for i, expected in zip(indices, labels, strict=True):
            title = sample_title(self._split, self.sample_names[i % len(self.labels)])
            inputs, label = _sample(self._dataset, i, title, len(self.labels))
            if _class_number(label) != expected:
                raise UserError(f"{title}: its label is {expected}, but dataset[{i}] says {label}")
            if samples and inputs.shape != samples[0].shape:
                raise UserError(
                    f"{title} has shape {inputs.shape}, others {samples[0].shape}; a batch needs "
                    f"samples of one shape"
                )
            samples.append(inputs)
        return np.stack(samples)


def prepared(split: str, dataset: Any) -> Dataset:
    """``dataset`` as the engine reads it: names and labels are derived where it has none."""
    count = _length(split, dataset)
    names, labels = _column(split, dataset, *_NAMES), _column(split, dataset, *_LABELS)
    subjects = _column(split, dataset, "subjects")
    first, counted = names or labels or ("len(dataset)", range(count))
    n = len(counted)
    for key, column in filter(None, (names, labels, subjects)):
        if len(column) != n or not n or count % n:
            other = f"{first} has {n}" if len(column) != n else f"len(dataset) is {count}"
            raise UserError(f"{split} split: {key} has {len(column)} entries, but {other}")
    named = [str(name) for name in names[1]] if names else [f"{split}_{i}" for i in range(n)]
    twice = [name for name, times in Counter(named).items() if times > 1]
    if twice:
        raise UserError(f"{split} split: {twice[0]} names several samples; names must differ")
    found = labels[1] if labels else _read_labels(split, dataset, named)
    classes = _column(split, dataset, "class_names")
    if classes is None and getattr(dataset, "class_names", None) is not None:
        raise UserError(f"{split} split: class_names is no list of names")
    class_names = classes and [str(c) for c in classes[1]]
    return View(split, dataset, named, _class_numbers(split, named, found), None, class_names)


def with_data(
    config: Config,
    model: Target,
    sets: Mapping[str, Dataset],
    start: Card,
    *,
    matched: bool = False,
) -> Config:
    """The configuration with what the data decide of the model's arguments.

    Args:
        sets: prepared, by split.
        start: card of the weights, for what the data do not say.
        matched: an evaluator scores what is tested, by classes of its own.
    """
    given, names = {**model.implied, **config.model_args}, decided_by_data(model)
    known = {} if config.ignore_card else start.free_args | start.model_args
    found = {name: known[name] for name in names if name in known}
    scored = [own for split, own in sets.items() if split == "train" or not matched]
    found |= _num_class(scored, found if config.phase == "test" else {})
    dataset = sets.get("train", sets["test"])
    shape = tuple(read(dataset, [0])[0].shape[1:])
    of_class: Any = getattr(model.cls, "arguments_of", lambda *_: {})
    of_sample = as_json(_asked(f"model: {model.name}", lambda: of_class(shape, dataset)))
    found |= of_sample
    faults = [
        f"{config.named(f'model_args.{name}')} is {given[name]}, but the data have {value} "
        f"(samples of shape {shape}); leave it out"
        for name, value in of_sample.items()
        if isinstance(value, int) and given.get(name, value) != value
    ]
    unsaid = [n for n in names if n in found and not {n, n.removesuffix("_args")} & given.keys()]
    arguments = {**config.model_args, **{name: found[name] for name in unsaid}}
    for fault in binding_faults("model_args", model, arguments, config.named):
        faults.append(f"{fault}, and the data (samples of shape {shape}) do not say it")
    if faults:
        raise UserError("; ".join(faults))
    return config.but(model_args=arguments)


def _num_class(scored: Sequence[Dataset], known: Mapping[str, Any]) -> dict[str, int]:
    """The number of classes: of names, or as ``known``, or as the data say, or of labels."""
    for name in ("class_names", "num_class"):
        for own in scored:
            found = getattr(own, name, None)
            number = len(found) if name == "class_names" and found is not None else found
            if isinstance(number, int | np.integer):
                return {"num_class": int(number)}
        if "num_class" in known:
            return {}
    labels = {label for own in scored for label in np.unique(own.labels).tolist()}
    return {"num_class": len(labels)} if labels else {}


def _asked(title: str, question: Callable[[], Any]) -> Any:
    """The answer of somebody's dataset; what it raises instead is one line."""
    try:
        return question()
    except Exception as error:
        raise UserError(f"{title}: {told(error)}") from error


def _length(split: str, dataset: Any) -> int:
    kind = type(dataset)
    for method in ("__len__", "__getitem__"):
        if not hasattr(kind, method):
            raise UserError(
                f"feeder: {kind.__module__}.{kind.__name__} has no {method}; a dataset needs "
                f"__len__ and __getitem__ (see torchlight/contract.py)"
            )
    count = _asked(f"{split} split: its length", lambda: len(dataset))
    if count == 0:
        raise UserError(f"the {split} split has no samples")
    return count


def _column(split: str, dataset: Any, *names: str) -> tuple[str, list[Any]] | None:
    """The first of the attributes ``names`` that lists something, and what it lists."""
    for name in names:
        value = _asked(f"{split} split: its {name}", partial(getattr, dataset, name, None))
        if isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim:
            return name, value.tolist()
        if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
            return name, list(value)
    return None


def _plain(value: Any) -> Any:
    """``value``, of an array or a tensor the numbers alone."""
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        value = value.tolist()
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _class_number(value: Any) -> int | None:
    """``value`` as a class, a whole number from 0; None where it is none."""
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if 0 <= value < 2**31 and value == int(value) else None


def _class_numbers(split: str, names: Sequence[str], values: Sequence[Any]) -> np.ndarray:
    numbers = [_class_number(value) for value in values]
    if None in numbers:
        row = numbers.index(None)
        raise UserError(
            f"{split} split: sample {names[row]} (row {row}) has label "
            f"{printable(repr(_plain(values[row])))}; labels are whole numbers from 0"
        )
    return np.array(numbers, dtype=np.int64)


def _read_labels(split: str, dataset: Any, names: Sequence[str]) -> list[Any]:
    """The labels of all samples, which only the samples themselves know."""
    silent = None if launched_rank() == 0 else True
    rows = tqdm(range(len(names)), f"labels of the {split} split", disable=silent, leave=False)
    return [_sample(dataset, i, sample_title(split, names[i]), len(names))[1] for i in rows]


def sample_title(split: str, name: str) -> str:
    """What messages call a sample."""
    return f"{split} split: sample {name}"


def _sample(dataset: Any, index: int, title: str, n: int) -> tuple[np.ndarray, Any]:
    """Inputs and label of ``dataset[index]``."""
    found = _asked(f"{title} cannot be read", lambda: dataset[index])
    if not isinstance(found, (tuple, list)) or len(found) not in (2, 3):
        size = f" of {len(found)}" if isinstance(found, (tuple, list)) else ""
        raise UserError(
            f"{title}: dataset[{index}] is a {type(found).__name__}{size}, expected "
            f"(inputs, label) or (inputs, label, index)"
        )
    if len(found) == 3 and _class_number(found[2]) not in (index, index % n):
        raise UserError(
            f"{title}: the third part of dataset[{index}] is {printable(found[2])}, expected the "
            f"index {index}; (inputs, label) will do as well"
        )
    return _numbers(found[0], title), found[1]


def _numbers(inputs: Any, title: str) -> np.ndarray:
    """Inputs as an array of numbers."""
    if isinstance(inputs, torch.Tensor):
        inputs = inputs.detach().cpu().float()
    array = _asked(f"{title}: its inputs are no array", lambda: np.asarray(inputs))
    if array.dtype.kind not in "fiub":
        raise UserError(f"{title}: its inputs are {array.dtype} {array.shape}, expected numbers")
    return array
