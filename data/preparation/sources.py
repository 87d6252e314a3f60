"""Which recordings lie under a folder, and why anything else there is not read."""

import filecmp
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from data.errors import DataError, printable
from data.preparation.chunks import Remark
from data.splits import NTU120, DataSet, parse_name

SUFFIX = ".skeleton"
_PACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_LIKE_A_SAMPLE = re.compile(r"S\d{3}C\d{3}P\d{3}R\d{3}A\d{3}(?!_)", re.ASCII | re.IGNORECASE)
_VIDEO = (".avi", ".mp4", ".mat", ".npy", ".png", ".jpg")
_ARCHIVES = {  # as the makers of NTU RGB+D distribute the skeletons, by the setups in them
    range(1, 18): "nturgbd_skeletons_s001_to_s017.zip",
    range(18, 33): "nturgbd_skeletons_s018_to_s032.zip",
}


@dataclass(frozen=True)
class Source:
    """A raw file, and what tells whether it has changed."""

    name: str
    path: str
    size: int
    modified: int


def find_sources(dataset: DataSet, folder: Path) -> tuple[list[Source], list[Remark]]:
    """The recordings of a data set under a folder, at any depth, in name order.

    Links are followed. Each file that is or may be a recording and is not returned has a remark.

    Raises:
        DataError: there is no such folder, or no recording in it; or one sample is there twice
            with different content.
    """
    if not folder.is_dir():
        what = "a file, not a folder" if folder.exists() else "no such folder"
        raise DataError(
            f"{folder.absolute()}: {what}; unpack the raw skeletons there, or name the folder "
            "above them by --input"
        )
    remarks: list[Remark] = []
    sources: list[Source] = []
    others: set[str] = set()
    for path in _walk(folder, remarks):
        found = _judge(dataset, folder, path)
        if isinstance(found, Source):
            sources.append(found)
        elif found is not None:
            remarks.append(found)
        else:
            others.add(os.path.splitext(path)[1].lower())
    sources.sort(key=lambda source: (source.name, source.path))
    sources = list(_without_copies(sources, remarks))
    if not sources:
        raise DataError(f"{folder}: {_nothing(dataset, remarks, others)}")
    remarks.sort(key=lambda remark: (remark.sample, remark.reason))
    if others:
        reason = f"other files, by their names no recordings: {_kinds(others)}"
        remarks.insert(0, _skip(folder, os.fspath(folder), reason, "note"))
    return sources, [*_missing_setups(dataset, sources, folder), *remarks]


def _kinds(suffixes: set[str]) -> str:
    return ", ".join(sorted(suffix or "without suffix" for suffix in suffixes))


def _nothing(dataset: DataSet, remarks: list[Remark], others: set[str]) -> str:
    """Why there is nothing to read, by the first file that might have been something."""
    what = f"no {SUFFIX} file of {dataset.stem} in it or below"
    if remarks:
        more = f", and {len(remarks) - 1} more" if len(remarks) > 1 else ""
        return f"{what}; not read: {remarks[0].sample} ({remarks[0].reason}){more}"
    holds = f"other files are there: {_kinds(others)}" if others else "nothing is there"
    return f"{what} ({holds}); name the folder above the raw skeletons by --input"


def _walk(folder: Path, remarks: list[Remark]) -> Iterator[str]:
    """Paths of all files below, each folder once, whatever links lead to it."""

    def unreadable(error: OSError) -> None:
        reason = f"folder cannot be read ({error.strerror})"
        remarks.append(_skip(folder, error.filename, reason))

    seen: set[str] = set()
    for place, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        if os.path.realpath(place) in seen:
            folders.clear()
        else:
            seen.add(os.path.realpath(place))
            yield from (os.path.join(place, name) for name in files)


def _judge(dataset: DataSet, folder: Path, path: str) -> Source | Remark | None:
    """A file as a source, or why it is none; None if nobody would take it for a recording."""
    name = os.path.basename(path)
    stem, suffix = os.path.splitext(name)
    if name.startswith("._"):  # beside each file that macOS has copied to a foreign disk
        return _skip(folder, path, "what macOS notes of another file", "left out")
    if not os.path.exists(path):
        return _skip(folder, path, "a link that leads nowhere")
    if suffix.lower() in _PACKED:
        return _skip(folder, path, "an archive; unpack it")
    if suffix.lower() != SUFFIX:
        if _LIKE_A_SAMPLE.match(name) and suffix.lower() not in _VIDEO:
            return _skip(folder, path, f"named like a recording, but its name ends not in {SUFFIX}")
        return None
    if os.sep + "." in path.removeprefix(os.fspath(folder)):
        return _skip(folder, path, "hidden: its name or a folder's begins with a dot")
    try:
        sample = parse_name(stem.upper())
        status = os.stat(path)
    except DataError as error:
        return _skip(folder, path, str(error).removeprefix(f"{stem.upper()}: "))
    except OSError as error:
        return _skip(folder, path, f"cannot be read ({error.strerror})")
    if sample.setup > dataset.last_setup:
        reason = f"setups above {dataset.last_setup} belong to {NTU120.stem}, not {dataset.stem}"
        return _skip(folder, path, reason, "left out")
    if sample.action > dataset.num_class:
        reason = f"class A{sample.action:03d} is none of the {dataset.num_class} of {dataset.stem}"
        return _skip(folder, path, reason)
    return Source(sample.name, path, status.st_size, status.st_mtime_ns)


def _skip(folder: Path, path: str, reason: str, verdict: str = "skipped") -> Remark:
    return Remark("read", printable(os.path.relpath(path, folder)), None, reason, verdict)


def _without_copies(sources: list[Source], remarks: list[Remark]) -> Iterator[Source]:
    """Each sample once; its copies become remarks.

    Raises:
        DataError: a sample is there twice with different content.
    """
    for _, group in groupby(sources, key=lambda source: source.name):
        first, *copies = group
        yield first
        for copy in copies:
            one, other = printable(first.path), printable(copy.path)
            try:
                same = filecmp.cmp(first.path, copy.path, shallow=False)
            except OSError as error:
                reason = f"cannot be compared with {one} ({error.strerror})"
                remarks.append(Remark("read", other, None, reason))
                continue
            if not same:
                raise DataError(
                    f"{one} and {other}: the same sample with different content; remove one of "
                    "the two, or name a smaller folder by --input"
                )
            reason = f"the same, byte by byte, as {one}"
            remarks.append(Remark("read", other, None, reason, "left out"))


def _missing_setups(dataset: DataSet, sources: list[Source], folder: Path) -> list[Remark]:
    """A note if a data set lacks whole setups, with what to do."""
    there = {int(source.name[1:4]) for source in sources}
    missing = [setup for setup in range(1, dataset.last_setup + 1) if setup not in there]
    if not missing:
        return []
    whole = [name for setups, name in _ARCHIVES.items() if set(setups) <= set(missing)]
    advice = f"unpack {' and '.join(whole)} under" if whole else "add what is missing to"
    reason = (
        f"no recording of setup {_ranges(missing)}, while a whole {dataset.stem} has 1 to "
        f"{dataset.last_setup}; {advice} {printable(folder)}, or name the folder above all "
        "recordings by --input"
    )
    return [Remark("read", dataset.stem, None, reason, "note")]


def _ranges(numbers: list[int]) -> str:
    """Rising numbers in words: "2 to 4, 7"."""
    first = [n for n in numbers if n - 1 not in numbers]
    last = [n for n in numbers if n + 1 not in numbers]
    runs = zip(first, last, strict=True)
    return ", ".join(f"{one} to {end}" if end > one else f"{one}" for one, end in runs)
