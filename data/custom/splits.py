"""Which clips train and which test: as the source says, by subject, camera, list, or at random."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data.custom.labels import Facts, natural
from data.custom.tables import read_rows
from data.errors import DataError, printable

KINDS = ("source", "subject", "camera", "list", "random")


def split_clips(
    kind: str | None,
    names: Sequence[str],
    facts: Sequence[Facts],
    labels: np.ndarray,
    given: dict[str, list[str]],
    test: Sequence[str],
    *,
    ratio: float,
    seed: int,
) -> tuple[dict[str, np.ndarray], str]:
    """Sample numbers by split, and how they were split, in words.

    Args:
        kind: one of ``KINDS``; None for the source's, or else by subject, or else at random.
        given: names of clips by split, as the source has them.
        test: subjects, cameras, or a file of names; of none, some are drawn.
        ratio: of clips, or subjects, that test. seed: of all that is drawn.

    Raises:
        DataError: what it takes is not known, or a split is left without a clip.
    """
    row_of = {name: row for row, name in enumerate(names)}
    told = {split: [n for n, f in zip(names, facts, strict=True) if f.split == split]
            for split in sorted({f.split for f in facts if f.split})}  # fmt: skip
    given = {split: [n for n in chosen if n in row_of] for split, chosen in (given or told).items()}
    everyone = {what: all(getattr(f, what) for f in facts) for what in ("subject", "camera")}
    if kind is None:
        several = everyone["subject"] and len({f.subject for f in facts}) > 1
        kind = "source" if given and not test else "subject" if several else "random"
        kind = "list" if test and kind == "random" else kind
    if test and kind in ("source", "random"):
        raise DataError(f"--test: has no meaning with --split {kind}")
    if kind == "source":
        if not given:
            raise DataError("--split source: the source has none; choose another")
        rows = {split: np.array([row_of[n] for n in chosen]) for split, chosen in given.items()}
        return {
            split: np.sort(r).astype(np.int64) for split, r in rows.items()
        }, "as the source has it"
    if kind == "random":
        tests, how = _at_random(labels, ratio, seed), f"at random, seed {seed}"
    elif kind == "list":
        listed = _listed(test, row_of)
        tests, how = np.array([name in listed for name in names]), f"by {' '.join(test)}"
    elif not everyone[kind]:
        unknown = next(n for n, f in zip(names, facts, strict=True) if not getattr(f, kind))
        raise DataError(
            f"--split {kind}: {unknown} has none; give a table with a column {kind}, or "
            f"--names '(?P<{kind}>...)'"
        )
    else:
        values = [str(getattr(f, kind)) for f in facts]
        chosen = _chosen(kind, values, test, ratio, seed)
        tests = np.array([value in chosen for value in values])
        how = f"by {kind}, {', '.join(sorted(chosen, key=natural))} in test"
    for split, members in (("test", tests), ("train", ~tests)):
        if not members.any():
            raise DataError(f"--split {kind}: no clip is left for {split}")
    return {"train": np.flatnonzero(~tests), "test": np.flatnonzero(tests)}, how


def pair(splits: Mapping[str, np.ndarray], wanted: str | None) -> tuple[str, str]:
    """Names of a training and of a test split that belong together: xsub_train and xsub_val.

    Raises:
        DataError: there are none; or several, and ``wanted``, a word in their names, is none.
    """
    pairs = [
        (train, other)
        for train in splits
        for end in ("test", "val")
        if "train" in train and (other := train.replace("train", end)) in splits
        if len(splits[train]) and len(splits[other])
    ]
    fitting = [p for p in pairs if wanted in (None, *p, p[0].replace("train", "").strip("_- "))]
    if not fitting:
        there = ", ".join(sorted(splits))
        word = "" if wanted is None else f" of {wanted!r}"
        raise DataError(f"--benchmark: no train and test split{word} with clips; it has {there}")
    return fitting[0]


def _at_random(labels: np.ndarray, ratio: float, seed: int) -> np.ndarray:
    """Of each class about the same ratio, at least one where it has two."""
    rng = np.random.default_rng(seed)
    tests = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        count = round(ratio * len(rows))
        tests[rows[: min(max(count, 1), len(rows) - 1)]] = True
    return tests


def _listed(test: Sequence[str], row_of: dict[str, int]) -> set[str]:
    if len(test) != 1:
        raise DataError("--split list: name the file of test clips by --test FILE")
    listed = {row[0] for row in read_rows(Path(test[0]))}
    unknown = sorted(listed - set(row_of))
    if unknown:
        raise DataError(f"{test[0]}: {printable(unknown[0])} is no clip")
    return listed


def _chosen(
    kind: str, values: Sequence[str], test: Sequence[str], ratio: float, seed: int
) -> set[str]:
    known = sorted(set(values), key=natural)
    unknown = [value for value in test if value not in known]
    if unknown:
        raise DataError(
            f"--test {unknown[0]}: there is no such {kind}; there are {', '.join(known)}"
        )
    if test:
        return set(test)
    if len(known) < 2:
        raise DataError(f"--split {kind}: there is but one, {known[0]}")
    count = min(max(round(ratio * len(known)), 1), len(known) - 1)
    drawn = np.random.default_rng(seed).permutation(len(known))[:count]
    return {known[i] for i in drawn.tolist()}
