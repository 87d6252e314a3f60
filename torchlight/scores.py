"""Score files: sample names, their class scores and labels, written and read without trust.

A test run leaves two files of one stem: ``<stem>.pkl`` as published (a pickled dict, sample name
-> float32 vector) and ``<stem>.npz`` (``names``, ``scores``, ``labels``, ``config_hash``), which
holds no pickle and is preferred when both are there.

A pickle is a program. Published ones are followed by a reader that knows no class and no function:
each global a NumPy array needs is replaced by a stand-in of ours that takes data and returns data,
every other global is refused by its dotted name. Sizes written in a file are compared with the
file's own size before memory is asked for.
"""

import math
import pickle
import pickletools
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from torchlight.errors import UserError, printable
from torchlight.files import atomic_write
from torchlight.untrusted import check_regular, open_archive, read_bounded

STEM = "epoch1_test_score"
SUFFIXES = (".npz", ".pkl")
NAMES_SHOWN = 3
DEEPEST_TUPLE = 8  # pickled arrays nest two
_LARGEST_FILE = 2**28  # bytes; 50,919 samples of 120 classes take 30 million
_MOST_OPCODES = 4_000_000  # some 5 seconds; 50,919 samples take a million
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LONGEST_NAME = 255  # characters, as of a file


@dataclass(frozen=True)
class ScoreTable:
    """Scores of n samples over c classes.

    Attributes:
        names: n distinct sample names.
        scores: (n, c) float32, finite; larger is likelier.
        labels: (n,) int64 in [0, c), or None where the file holds none.
        config_hash: hash of the configuration that made the scores, or None.
        path: the file they were read from.
    """

    names: list[str]
    scores: np.ndarray
    labels: np.ndarray | None
    config_hash: str | None
    path: Path

    @property
    def num_class(self) -> int:
        """c, the number of classes."""
        return self.scores.shape[1]


def some(names: Iterable[str]) -> str:
    """The first few names and how many more there are, for a one-line message."""
    listed = sorted(names)
    rest = len(listed) - NAMES_SHOWN
    return ", ".join(listed[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def write_scores(
    stem: str | Path,
    names: Sequence[str],
    scores: np.ndarray,
    labels: np.ndarray | None,
    config_hash: str,
) -> dict[str, Path]:
    """Write ``<stem>.pkl`` and ``<stem>.npz``, each atomically, in the order given.

    Args:
        stem: path without suffix, such as ``work_dir/epoch1_test_score``.
        names: n distinct sample names.
        scores: (n, c), stored as float32.
        labels: (n,) integers in [0, c), or None where nobody knows them.
        config_hash: hash of the configuration that made the scores.

    Returns:
        The two paths, by ``"pkl"`` and ``"npz"``.

    Raises:
        UserError: the table is not one (shapes, duplicate names, NaN, labels out of range).
    """
    paths = {suffix[1:]: Path(f"{stem}{suffix}") for suffix in SUFFIXES}
    values = np.ascontiguousarray(scores, dtype=np.float32)
    table = _checked(list(names), values, labels, config_hash, paths["npz"])
    arrays = {"names": np.array(table.names, dtype=np.str_), "scores": table.scores}
    if table.labels is not None:
        arrays["labels"] = table.labels
    with atomic_write(paths["pkl"]) as temporary, temporary.open("wb") as file:
        pickle.dump(dict(zip(table.names, table.scores, strict=True)), file, protocol=4)
    with atomic_write(paths["npz"]) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, config_hash=np.array(config_hash), **arrays)
    return paths


def read_scores(path: str | Path) -> ScoreTable:
    """Read a score table from a work dir, a score file, or a path without its suffix.

    A directory stands for its ``epoch1_test_score``; where an ``.npz`` lies beside a ``.pkl`` of
    the same stem, the ``.npz`` is read.

    Raises:
        UserError: the file is missing, truncated, of another shape or not admitted.
    """
    found = _find(Path(path))
    try:
        return _read_npz(found) if found.suffix == ".npz" else _read_pickle(found)
    except OSError as error:
        raise UserError(f"{found}: cannot be read: {error.strerror or error}") from None


def score_stem(path: str | Path) -> Path:
    """The path without suffix that ``path`` stands for; a folder is that of a test run."""
    given = Path(path)
    if given.is_dir():
        return given / STEM
    return given.with_suffix("") if given.suffix in SUFFIXES else given


def is_score_file(path: str | Path) -> bool:
    """Whether ``path`` stands for a pickle, or for an ``.npz`` that has ``scores`` in it."""
    try:
        found = _find(Path(path))
        if found.suffix == ".pkl":
            return True
        with open_archive(found, _METHODS) as archive:
            return "scores.npy" in archive.namelist()
    except (UserError, OSError, zipfile.BadZipFile):
        return False


def _find(path: Path) -> Path:
    """The score file that ``path`` stands for."""
    stem = score_stem(path)
    for suffix in SUFFIXES:
        candidate = stem.with_name(stem.name + suffix)
        if candidate.is_file():
            return candidate
    raise UserError(
        f"{path}: no score file {stem.name}.npz or {stem.name}.pkl there; "
        "make one by a test run with --save-score True"
    )


def _checked(
    names: list[str],
    scores: np.ndarray,
    labels: np.ndarray | None,
    config_hash: str | None,
    path: Path,
) -> ScoreTable:
    """A table whose parts agree, or a UserError with the file's name."""
    if scores.ndim != 2 or 0 in scores.shape:
        raise UserError(f"{path}: scores have shape {scores.shape}, expected (samples, classes)")
    if len(names) != len(scores):
        raise UserError(f"{path}: {len(names)} sample names for {len(scores)} rows of scores")
    if len(set(names)) != len(names):
        repeated = [name for name, times in Counter(names).items() if times > 1]
        raise UserError(f"{path}: sample names occur twice: {some(repeated)}")
    odd = next((n for n in names if not n.isprintable() or not 0 < len(n) <= _LONGEST_NAME), None)
    if odd is not None:
        raise UserError(f"{path}: {odd[:40]!a} is no name of a sample")
    broken = ~np.isfinite(scores).all(axis=1)
    if broken.any():
        bad = [names[i] for i in np.flatnonzero(broken)]
        raise UserError(f"{path}: scores are NaN or infinite for {some(bad)}")
    if labels is not None:
        labels = np.ascontiguousarray(labels, dtype=np.int64)
        if labels.shape != (len(names),):
            raise UserError(f"{path}: labels have shape {labels.shape}, expected ({len(names)},)")
        if labels.min() < 0 or labels.max() >= scores.shape[1]:
            raise UserError(
                f"{path}: labels run from {labels.min()} to {labels.max()}, "
                f"but the scores are of {scores.shape[1]} classes"
            )
    return ScoreTable(names, scores, labels, config_hash, path)


# --- npz ------------------------------------------------------------------------------------


def _read_npz(path: Path) -> ScoreTable:
    """Read the safe form."""
    try:
        if check_regular(path) > _LARGEST_FILE:
            raise UserError(f"{path}: larger than {_LARGEST_FILE} bytes; not a score file")
        with open_archive(path, _METHODS) as archive:
            members = {info.filename: info for info in archive.infolist()}
            for needed in ("names.npy", "scores.npy"):
                if needed not in members:
                    raise UserError(f"{path}: not a score file, it has no {needed[:-4]!r}")
            arrays = {
                key: _read_member(archive, members[f"{key}.npy"], path)
                for key in ("names", "scores", "labels", "config_hash")
                if f"{key}.npy" in members
            }
    except (UserError, OSError):
        raise
    except Exception as error:  # zipfile and numpy raise a dozen kinds on damaged files
        raise UserError(f"{path}: damaged or not a score file: {printable(error)}") from None
    kinds = {"names": "U", "scores": "f", "labels": "iu", "config_hash": "U"}
    for key, array in arrays.items():
        if array.dtype.kind not in kinds[key]:
            raise UserError(
                f"{path}: {key!r} is of type {printable(array.dtype)}, not as in a score file"
            )
    if arrays["names"].ndim != 1:
        raise UserError(f"{path}: 'names' has shape {arrays['names'].shape}, expected (samples,)")
    config_hash = str(arrays["config_hash"]) if "config_hash" in arrays else None
    scores = arrays["scores"].astype(np.float32, copy=False)
    return _checked(arrays["names"].tolist(), scores, arrays.get("labels"), config_hash, path)


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> np.ndarray:
    """One array of the archive, its declared sizes checked before it is allocated."""
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > path.stat().st_size:
        raise UserError(
            f"{path}: {info.filename} is compressed or longer than the file; score files are "
            "written by numpy.savez, uncompressed"
        )
    with archive.open(info) as file:
        shape, dtype, header_size = _array_header(file)
    declared = math.prod(shape) * dtype.itemsize + header_size
    if dtype.hasobject or declared != info.file_size:
        raise UserError(
            f"{path}: {info.filename} declares {printable(dtype)} {shape}, {declared} bytes, "
            f"but holds {info.file_size}"
        )
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _array_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, type and header length of an ``.npy`` stream."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype, file.tell()


# --- pickle ---------------------------------------------------------------------------------


class _Refused(Exception):
    """The pickle asks for something a score file does not need."""


class _NoName(Exception):
    """The key of an entry is no text."""


class _DataType:
    """What a pickled ``numpy.dtype`` carries: a code such as ``f4`` and a byte order."""

    __slots__ = ("code", "order")
    CODES = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"})

    def __init__(self, code: object) -> None:
        if code not in self.CODES:
            raise _Refused(f"an array of type {str(code)[:40]!r}")
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|"):
            raise _Refused("a malformed array type")
        self.order = str(state[1])

    def numpy(self) -> np.dtype:
        """The NumPy type it stands for."""
        return np.dtype(self.order + self.code)


class _Array:
    """A pickled array before and after its contents arrive."""

    __slots__ = ("value",)

    def __init__(self, value: np.ndarray | None = None) -> None:
        self.value = value

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused("a malformed array")
        _, shape, data_type, _, buffer = state
        self.value = _array(buffer, data_type, shape)


class _StandIn:
    """Takes the place of one admitted global; can be called, and nothing else."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *arguments: object) -> object:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise _Refused("a change to a global")


def _array(buffer: object, data_type: object, shape: object) -> np.ndarray:
    """A view of bytes that the pickle itself contains: nothing is allocated.

    Memory order is left out: scores are vectors, and other shapes are refused later.
    """
    if not isinstance(buffer, bytes | bytearray) or not isinstance(data_type, _DataType):
        raise _Refused("an array of objects")
    if not isinstance(shape, tuple):
        raise _Refused("a malformed array")
    return np.frombuffer(buffer, dtype=data_type.numpy()).reshape(shape)


def _latin1(text: object, encoding: object) -> bytes:
    """How pickle protocols 0 to 2 spell bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _Refused("_codecs.encode with another encoding than latin1")
    return text.encode("latin1")


def _admitted() -> dict[str, _StandIn]:
    """Globals in pickles of arrays by NumPy 1 (``numpy.core``) and 2 (``numpy._core``)."""
    admitted = {
        "numpy.dtype": _StandIn(lambda code, *_: _DataType(code)),
        "numpy.ndarray": _StandIn(lambda *_: _Array()),
        "_codecs.encode": _StandIn(_latin1),
    }
    for core in ("numpy.core", "numpy._core"):
        admitted[f"{core}.multiarray._reconstruct"] = _StandIn(lambda *_: _Array())
        admitted[f"{core}.multiarray.scalar"] = _StandIn(
            lambda data_type, buffer: _array(buffer, data_type, ()).item()
        )
        admitted[f"{core}.numeric._frombuffer"] = _StandIn(
            lambda buffer, data_type, shape, *_: _Array(_array(buffer, data_type, shape))
        )
    return admitted


_MARK = object()
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_TEXTS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_LITERALS = _NUMBERS | _TEXTS | _BYTES
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Reader:
    """Follows the opcodes of a pickle that only data need; nothing is looked up or called.

    The standard unpickler, even with its globals restricted, lets a small file nest tuples until
    hashing one overflows the stack or takes forever, or ask for tables of any size.
    """

    ADMITTED = _admitted()

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self, data: bytes) -> object:
        """The object that a whole pickle describes.

        Raises:
            _Refused: the pickle asks for what no score file needs.
            Exception: it is damaged, in one of many ways.
        """
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count > _MOST_OPCODES:
                raise _Refused(f"more than {_MOST_OPCODES} steps")
            if opcode.name == "STOP":
                return self._stack.pop()
            self._follow(opcode.name, argument)
        raise EOFError("no end")

    def _follow(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[argument])
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[argument] = stack[-1]
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _TUPLES:
            count = _TUPLES[name]
            self._push_tuple([stack.pop() for _ in range(count)][::-1])
        elif name == "TUPLE":
            self._push_tuple(self._to_mark())
        elif name == "REDUCE":
            arguments = stack.pop()
            stack[-1] = self._stand_in(stack[-1])(*arguments)
        elif name == "BUILD":
            state = stack.pop()
            self._buildable(stack[-1]).__setstate__(state)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        else:
            self._follow_rare(name, argument)

    def _follow_rare(self, name: str, argument: Any) -> None:
        """Opcodes of which a score file has few."""
        stack = self._stack
        if name == "EMPTY_DICT":
            stack.append({})
        elif name == "DICT":
            items = self._to_mark()
            stack.append({})
            self._set(items)
        elif name == "SETITEMS":
            self._set(self._to_mark())
        elif name == "SETITEM":
            value = stack.pop()
            self._set([stack.pop(), value])
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name in ("LIST", "APPEND", "APPENDS"):
            # A table has no lists; this one is refused later, whatever is in it.
            items = [stack.pop()] if name == "APPEND" else self._to_mark()
            stack.extend([[]] if name == "LIST" else [])
            if not isinstance(stack[-1], list):
                raise ValueError("an item for what is no list")
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            words = [stack.pop(), stack.pop()][::-1] if name == "STACK_GLOBAL" else [argument]
            self._push_global(".".join(str(word) for word in words).replace(" ", "."))
        elif name not in ("PROTO", "FRAME"):
            raise _Refused(f"the operation {name}")

    def _to_mark(self) -> list[Any]:
        """Take everything above the last mark, and the mark."""
        for place in range(len(self._stack) - 1, -1, -1):
            if self._stack[place] is _MARK:
                items = self._stack[place + 1 :]
                del self._stack[place:]
                return items
        raise ValueError("no mark")

    def _push_tuple(self, items: list[Any]) -> None:
        depth = 1 + max((item.depth for item in items if isinstance(item, _Tuple)), default=0)
        if depth > DEEPEST_TUPLE:
            raise _Refused("deeply nested tuples")
        self._stack.append(_Tuple(items))
        self._stack[-1].depth = depth

    def _push_global(self, name: str) -> None:
        stand_in = self.ADMITTED.get(name)
        if stand_in is None:
            raise _Refused(name)
        self._stack.append(stand_in)

    def _stand_in(self, found: object) -> _StandIn:
        if not isinstance(found, _StandIn):
            raise ValueError("a call of what is no function")
        return found

    def _buildable(self, found: object) -> Any:
        if not isinstance(found, _StandIn | _Array | _DataType):
            raise ValueError("a state for what has none")
        return found

    def _set(self, items: list[Any]) -> None:
        table = self._stack[-1]
        if not isinstance(table, dict):
            raise ValueError("an entry for what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                raise _NoName(f"{key!r:.40}" if isinstance(key, int | float | bytes) else "?")
            table[key] = value


class _Tuple(tuple):
    """A tuple that knows how deep it nests."""

    depth: int


def _unpickle(data: bytes, path: Path) -> object:
    """The data in a pickle, or a UserError with the offending name."""
    try:
        return _Reader().read(data)
    except _NoName as error:
        raise UserError(f"{path}: entry '{error}' is not a name with float scores") from None
    except _Refused as refused:
        raise UserError(
            f"{path}: refused, it asks for {printable(refused)}; a score file holds names and "
            f"arrays only"
        ) from None
    except Exception as error:  # of a dozen kinds
        raise UserError(f"{path}: damaged or not a score file: {printable(error)}") from None


def _read_pickle(path: Path) -> ScoreTable:
    """Read the published form, a dict of sample name -> score vector.

    A name that the dict was given twice shows only once: the format cannot tell.
    """
    data = read_bounded(path, _LARGEST_FILE)
    content = _unpickle(data, path)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: expected a dict of sample name -> scores, and at least one")
    vectors = []
    for name, stub in content.items():
        vector = stub.value if isinstance(stub, _Array) else None
        if vector is None or vector.dtype.kind != "f":
            raise UserError(f"{path}: entry {name[:40]!a} is not a name with float scores")
        vectors.append(vector)
    shapes = {vector.shape for vector in vectors}
    if len(shapes) > 1 or vectors[0].ndim != 1:
        raise UserError(f"{path}: score vectors of differing or wrong shapes {sorted(shapes)[:3]}")
    if sum(vector.nbytes for vector in vectors) > len(data):
        raise UserError(f"{path}: its arrays repeat one another; a score file has one a sample")
    return _checked(list(content), np.stack(vectors).astype(np.float32), None, None, path)
