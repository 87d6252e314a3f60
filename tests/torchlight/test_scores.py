"""Score files: what is written comes back, and what is not a score table is refused by name."""

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import torchlight.fusion.unpickle
from torchlight.errors import UserError
from torchlight.fusion.reading import read_labels, read_scores
from torchlight.scores import some, write_scores

NAMES = ["c", "a", "b"]
SCORES = np.array([[0.5, -1.25], [2.0, 3.0], [-7.5, 0.0]], np.float32)
LABELS = np.array([0, 1, 1])


def _pickle(folder: Path, content: object, protocol: int = 4) -> Path:
    path = folder / "epoch1_test_score.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def _refusal(path: Path) -> str:
    """The one line that ``read_scores`` refuses ``path`` with."""
    with pytest.raises(UserError) as caught:
        read_scores(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


def test_both_forms_hold_the_same_table(tmp_path: Path) -> None:
    paths = write_scores(tmp_path / "epoch1_test_score", NAMES, SCORES, LABELS, "abc")
    table = read_scores(tmp_path)
    assert table.path == paths["npz"]
    assert table.names == NAMES
    np.testing.assert_array_equal(table.scores, SCORES)
    np.testing.assert_array_equal(table.labels, LABELS)
    assert (table.scores.dtype, table.labels.dtype) == ("f4", "i8")
    assert np.load(paths["npz"])["config_hash"] == "abc"

    assert read_scores(paths["pkl"]).path == paths["npz"]  # the safe form is preferred
    paths["npz"].unlink()
    published = read_scores(tmp_path)
    assert (published.path, published.labels) == (paths["pkl"], None)
    assert published.names == NAMES
    np.testing.assert_array_equal(published.scores, SCORES)


def test_written_pickle_is_the_published_form(tmp_path: Path) -> None:
    path = write_scores(tmp_path / "s", NAMES, SCORES, None, "")["pkl"]
    with path.open("rb") as file:  # our own file of a moment ago, as a published tool opens it
        content = pickle.Unpickler(file).load()
    assert type(content) is dict
    assert list(content) == NAMES
    assert all(v.dtype == np.float32 and v.shape == (2,) for v in content.values())


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("module", [b"numpy.core", b"numpy._core"])
def test_arrays_of_every_protocol_and_both_numpys(
    tmp_path: Path, protocol: int, module: bytes
) -> None:
    path = _pickle(tmp_path, dict(zip(NAMES, SCORES, strict=True)), protocol)
    data = path.read_bytes()
    for own in (b"numpy._core", b"numpy.core"):
        if protocol < 4:  # GLOBAL writes a line; above, the length stands before the name
            data = data.replace(b"c" + own + b".", b"c" + module + b".")
        for tail in (b".multiarray", b".numeric"):
            old, new = own + tail, module + tail
            data = data.replace(bytes([len(old)]) + old, bytes([len(new)]) + new)
    if protocol >= 4:  # the frame's length changes with the names
        start = data.index(b"\x95")
        frame = struct.pack("<Q", len(data) - start - 9)
        data = data[: start + 1] + frame + data[start + 9 :]
    path.write_bytes(data)
    np.testing.assert_array_equal(read_scores(path).scores, SCORES)


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8", ">f8"])
def test_other_float_types_become_float32(tmp_path: Path, dtype: str) -> None:
    path = _pickle(tmp_path, {n: v.astype(dtype) for n, v in zip(NAMES, SCORES, strict=True)})
    np.testing.assert_array_equal(read_scores(path).scores, SCORES)


NUMBERED = ["test_0", "test_1", "test_2"]
RECORDS = [{"pred_score": v, "gt_label": y} for v, y in zip(SCORES, LABELS, strict=True)]
FOREIGN = {
    "int keys": (dict(enumerate(SCORES)), NUMBERED, None),
    "numpy keys": (dict(zip(np.arange(3), SCORES, strict=True)), NUMBERED, None),
    "int keys in another order": ({2: SCORES[2], 0: SCORES[0], 1: SCORES[1]}, NUMBERED, None),
    "str_ keys": (dict(zip(np.array(NAMES), SCORES, strict=True)), NAMES, None),
    "ordered": (OrderedDict(zip(NAMES, SCORES, strict=True)), NAMES, None),
    "list": (list(SCORES), NUMBERED, None),
    "tuple": (tuple(SCORES), NUMBERED, None),
    "list of numbers": (SCORES.tolist(), NUMBERED, None),
    "pairs": (list(zip(NAMES, SCORES, strict=True)), NAMES, None),
    "names and scores": ((NAMES, SCORES), NAMES, None),
    "array": (SCORES, NUMBERED, None),
    "array in Fortran order": (np.asfortranarray(SCORES), NUMBERED, None),
    "tensors": (dict(zip(NAMES, torch.tensor(SCORES), strict=True)), NAMES, None),
    "tensor": (torch.tensor(SCORES).double(), NUMBERED, None),
    "records": (RECORDS, NUMBERED, LABELS),
    "records of tensors": (
        [
            {"pred_scores": {"item": torch.tensor(v)}, "gt_labels": {"item": torch.tensor([y])}}
            for v, y in zip(SCORES, LABELS, strict=True)
        ],
        NUMBERED,
        LABELS,
    ),
    "named records": (
        [{"frame_dir": n, "pred_score": v} for n, v in zip(NAMES, SCORES, strict=True)],
        NAMES,
        None,
    ),
}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("kind", FOREIGN)
def test_score_files_of_other_tools(tmp_path: Path, kind: str, protocol: int) -> None:
    content, names, labels = FOREIGN[kind]
    table = read_scores(_pickle(tmp_path, content, protocol))
    order = [table.names.index(name) for name in names]
    np.testing.assert_array_equal(table.scores[order], SCORES)
    assert table.numbered == (names is NUMBERED)
    np.testing.assert_array_equal(table.labels, labels)


def test_an_npy_is_read_whatever_its_order_and_name(tmp_path: Path) -> None:
    for order, name in (("C", "a.npy"), ("F", "b.pkl")):
        with (tmp_path / name).open("wb") as file:
            np.save(file, np.asarray(SCORES, order=order))
        table = read_scores(tmp_path / name)
        assert (table.names, table.numbered) == (NUMBERED, True)
        np.testing.assert_array_equal(table.scores, SCORES)
    data = (tmp_path / "a.npy").read_bytes()
    for length in range(0, len(data), 7):
        (tmp_path / "cut.npy").write_bytes(data[:length])
        _refusal(tmp_path / "cut.npy")
    np.save(tmp_path / "o.npy", np.array([{}]), allow_pickle=True)
    assert "objects" in _refusal(tmp_path / "o.npy")
    np.save(tmp_path / "i.npy", np.arange(6).reshape(3, 2))
    assert "'test_0'" in _refusal(tmp_path / "i.npy")


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ((NAMES, LABELS.tolist()), NAMES),
        ([{"file_name": n, "label": y} for n, y in zip(NAMES, LABELS, strict=True)], NAMES),
        (RECORDS, NUMBERED),
        (LABELS.tolist(), NUMBERED),
        (LABELS, NUMBERED),
        (dict(zip(NAMES, LABELS, strict=True)), NAMES),
    ],
)
def test_labels_of_other_tools(tmp_path: Path, content: object, names: list[str]) -> None:
    path = _pickle(tmp_path, content)
    expected = dict(zip(names, LABELS.tolist(), strict=True))
    assert read_labels(path, lambda names: None) == (expected, names is NUMBERED)
    assert read_labels(path, lambda names: np.arange(3))[0] == dict(
        zip(names, range(3), strict=True)
    )


@pytest.mark.parametrize("content", [list(SCORES), [0.5], [True, False], ["a"], [], 3, [-(2**40)]])
def test_what_holds_no_labels_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(UserError, match=r"epoch1_test_score\.pkl"):
        read_labels(_pickle(tmp_path, content), lambda names: None)


class _Call:
    """Pickles as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


class _Own:
    """Any class of the user's."""


ATTACKS = [
    ({"a": _Call(os.system, "touch executed")}, f"{os.system.__module__}.system"),
    ({"a": _Call(exec, "open('executed', 'w')")}, ".exec"),
    ({"a": _Call(open, "executed", "w")}, "io.open"),
    ({"a": _Own()}, "test_scores._Own"),
    (_Call(getattr, "a", "join"), ".getattr"),
    ({"a": np.ma.masked_array([1.0])}, "numpy.ma"),
    ({"a": np.array([_Own()], dtype=object)}, "'O8'"),
    ({"a": np.array([1j])}, "'c16'"),
]


@pytest.mark.parametrize(("content", "name"), ATTACKS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_refused_pickles_are_named_and_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, name: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    path = _pickle(tmp_path, content, protocol)
    assert name in _refusal(path)
    assert sorted(tmp_path.iterdir()) == [path]


def test_admitted_globals_cannot_be_changed(tmp_path: Path) -> None:
    """BUILD on an admitted global must not rewrite it for the next file."""
    path = tmp_path / "epoch1_test_score.pkl"
    for state in (b"}(X\x09\x00\x00\x00_functionK\x01u", b"(N}(X\x09\x00\x00\x00_functionK\x01ut"):
        path.write_bytes(b"\x80\x02cnumpy\ndtype\n" + state + b"b.")
        assert "change to a global" in _refusal(path)
    _pickle(tmp_path, dict(zip(NAMES, SCORES, strict=True)))
    np.testing.assert_array_equal(read_scores(path).scores, SCORES)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "at least one"),
        ([1, 2], "'test_0'"),
        ("text", "at least one"),
        (1.5, "at least one"),
        ((), "at least one"),
        (np.float32(2), "at least one"),
        (["a", "b"], "'test_0'"),
        ((["a", "b"], np.float32([[1, 2]])), "a name, or none, for each"),
        ([("a", np.float32([1, 2])), ("a", np.float32([1, 2]))], "occur twice: a"),
        ({"a": np.array(["x"])}, "'a'"),
        ({"a": [1, 2]}, "'a'"),
        ({-1: np.float32([1, 2])}, "an entry -1"),
        ({1.5: np.float32([1, 2])}, "an entry 1.5"),
        ({2**40: np.float32([1, 2])}, "an entry 1099511627776"),
        ({None: np.float32([1, 2])}, "an entry NoneType"),
        ({0: np.float32([1, 2]), "test_0": np.float32([1, 2])}, "occur twice: test_0"),
        ([{"gt_label": 1}], "'test_0'"),
        ([{"pred_score": np.float32([1, 2]), "gt_label": [0, 1]}], "label of entry 'test_0'"),
        ([{"pred_score": np.float32([1, 2]), "gt_label": 0.5}], "label of entry 'test_0'"),
        ([{"pred_score": np.float32([1, 2]), "gt_label": 2**80}], "label of entry 'test_0'"),
        ([{"pred_score": np.float32([1, 2]), "gt_label": 2}], "labels run from 2 to 2"),
        ([{"pred_score": np.float32([1, 2]), "name": 3.5}], "a name, or none, for each"),
        (np.float32([[[1, 2]]]), "shapes [(1, 2)]"),
        ([{"pred_score": np.float32([1, 2]), "name": 2**99999}], "a name, or none, for each"),
        ([np.float32(1), np.float32(2)], "'test_0'"),
        ([torch.tensor(1.0), torch.tensor(2.0)], "'test_0'"),
        (torch.ones(2, 2).t(), "not contiguous"),
        (torch.ones(2, 2, dtype=torch.bfloat16), "no plain numbers"),
        (torch.ones(2, 2, requires_grad=True).to_sparse(), "refused"),
        ({"a": np.float32([1, np.nan]), "b": np.float32([1, 2])}, "NaN or infinite for a"),
        ({"a": np.float32([1, 2]), "b": np.float32([np.inf, 2])}, "NaN or infinite for b"),
        ({"a": np.float32([1, 2]), "b": np.float32([1, 2, 3])}, "shapes [(2,), (3,)]"),
        ({"a": np.float32([[1, 2]])}, "shapes [(1, 2)]"),
        ({"a": np.float32([])}, "shape (1, 0)"),
        ({"a": 1.5}, "'a'"),
        ({"a": np.int64([1, 2])}, "'a'"),
        ({"a": np.float32(1.5)}, "'a'"),
    ],
)
def test_a_pickle_that_is_no_table_is_refused(tmp_path: Path, content: object, said: str) -> None:
    assert said in _refusal(_pickle(tmp_path, content))


def test_sizes_are_checked_before_memory_is_asked_for(tmp_path: Path) -> None:
    """Files of a hundred bytes that declare gigabytes."""
    path = tmp_path / "epoch1_test_score.pkl"
    shape = b"X\x01\x00\x00\x00aK\x00\x85"
    attacks = [
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 33) + b"x.",  # BINBYTES8 of 8 GiB
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 26) + b"x.",  # BYTEARRAY8 of 64 MiB
        b"\x80\x02}r" + struct.pack("<I", 1 << 30) + b".",  # memo entry number 2^30
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 33) + b"}.",  # a frame of 8 GiB
        b"\x80\x02}" + shape + b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
        b"J\xff\xff\xff\x7f\x85U\x01btR0s.",  # an empty array of 2^31 numbers
    ]
    tracemalloc.start()
    for attack in attacks:
        path.write_bytes(attack)
        _refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_copying_out_of_a_pickle_is_bounded(tmp_path: Path) -> None:
    """A text of a megabyte that is asked for again and again, by a few bytes each time."""
    path = tmp_path / "epoch1_test_score.pkl"
    text = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20)
    again = b"h\x00h\x01h\x02\x86R"
    head = b"\x80\x02c_codecs\nencode\nq\x00" + text + b"q\x01X\x06\x00\x00\x00latin1q\x02"
    path.write_bytes(head + again * 10_000 + b".")
    tracemalloc.start()
    assert "more data than it holds" in _refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20


def test_the_number_of_steps_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchlight.fusion.unpickle, "MOST_STEPS", 1000)
    path = tmp_path / "epoch1_test_score.pkl"
    path.write_bytes(b"\x80\x02" + b"]" * 2000 + b".")
    assert "steps" in _refusal(path)


def test_deeply_nested_tuples_do_not_overflow_the_stack(tmp_path: Path) -> None:
    path = tmp_path / "epoch1_test_score.pkl"
    path.write_bytes(b"\x80\x02})" + b"\x85" * 2_000_000 + b"K\x01s.")
    assert "an entry tuple" in _refusal(path)


def test_one_array_under_many_names_is_refused(tmp_path: Path) -> None:
    vector = np.zeros(20_000, np.float32)
    path = _pickle(tmp_path, {str(i): vector for i in range(2_000)})
    tracemalloc.start()
    assert "repeat" in _refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20  # stacking them would take 160 MB


def _npz(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "epoch1_test_score.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"names": np.array(["a", "a", "b"])}, "occur twice: a"),
        ({"names": np.array(["a", "b"])}, "2 sample names for 3 rows"),
        ({"names": np.array([["a", "b", "c"]])}, "'names' is <U1 (1, 3)"),
        ({"names": np.arange(3)}, "'names' is int64"),
        ({"names": np.array(["a", "b", "c"], object)}, "names holds objects"),
        ({"scores": SCORES[0]}, "shape (2,)"),
        ({"scores": SCORES[:, :0]}, "shape (3, 0)"),
        ({"scores": SCORES.astype(np.complex64)}, "complex64"),
        ({"scores": SCORES * np.nan}, "NaN or infinite for a, b, c"),
        ({"labels": np.array([0, 1, 2])}, "labels run from 0 to 2"),
        ({"labels": np.array([0, -1, 1])}, "labels run from -1 to 1"),
        ({"labels": np.array([0, 1])}, "labels have shape (2,)"),
        ({"labels": np.array([0.0, 1.0, 1.0])}, "'labels' is float64"),
    ],
)
def test_an_npz_that_is_no_table_is_refused(
    tmp_path: Path, changed: dict[str, np.ndarray], said: str
) -> None:
    arrays = {"names": np.array(["a", "b", "c"]), "scores": SCORES, "labels": LABELS}
    read_scores(_npz(tmp_path, **arrays))
    assert said in _refusal(_npz(tmp_path, **{**arrays, **changed}))


def test_an_npz_of_other_content_is_refused_and_a_compressed_one_is_read(tmp_path: Path) -> None:
    assert "no array scores; it has x_test" in _refusal(_npz(tmp_path, x_test=SCORES))
    path = tmp_path / "epoch1_test_score.npz"
    np.savez_compressed(path, names=np.array(NAMES), scores=SCORES)
    assert read_scores(path).names == NAMES
    np.savez(path, scores=SCORES)
    assert read_scores(path).numbered


def test_an_npz_that_declares_gigabytes_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f4", "fortran_order": False, "shape": (1 << 20, 1 << 12)}
    )
    path = _npz(tmp_path, names=np.array(NAMES))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("scores.npy", buffer.getvalue())
    tracemalloc.start()
    assert "announces float32 (1048576, 4096)" in _refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("suffix", ["npz", "pkl"])
def test_every_truncation_is_refused(tmp_path: Path, suffix: str) -> None:
    paths = write_scores(tmp_path / "whole", NAMES, SCORES, LABELS, "abc")
    data = paths[suffix].read_bytes()
    path = tmp_path / f"cut.{suffix}"
    for length in range(0, len(data) - 1, 7):
        path.write_bytes(data[:length])
        _refusal(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_byte_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """No flip of a byte ends in anything but a table or a UserError."""
    folder = tmp_path_factory.mktemp("flip", numbered=True)
    suffix = data.draw(st.sampled_from(["npz", "pkl"]))
    path = write_scores(folder / "s", NAMES, SCORES, LABELS, "abc")[suffix]
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = folder / f"damaged.{suffix}"
    damaged.write_bytes(content)
    try:
        table = read_scores(damaged)
    except UserError:
        return
    assert np.isfinite(table.scores).all()
    assert len(set(table.names)) == len(table.scores)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"epoch1_test_score\.npz.*--save-score True"):
        read_scores(tmp_path)
    with pytest.raises(UserError, match=r"other\.pkl"):
        read_scores(tmp_path / "other.pkl")


@pytest.mark.parametrize(
    ("names", "scores", "labels"),
    [
        (["a", "a", "b"], SCORES, LABELS),
        (NAMES, SCORES * np.nan, LABELS),
        (NAMES, SCORES, LABELS + 1),
        (NAMES[:2], SCORES, LABELS),
    ],
)
def test_nothing_is_written_for_a_table_that_is_none(
    tmp_path: Path, names: list[str], scores: np.ndarray, labels: np.ndarray
) -> None:
    with pytest.raises(UserError):
        write_scores(tmp_path / "s", names, scores, labels, "")
    assert not list(tmp_path.iterdir())


def test_some_names_are_shown_and_the_rest_counted() -> None:
    assert some({"b", "a"}) == "a, b"
    assert some("edcba") == "a, b, c and 2 more"
