"""Npz files written in pieces and read through a map."""

import zipfile

import numpy as np
import pytest

from data.errors import DataError
from data.npz import open_array, write_npz


def test_numpy_reads_what_is_written_in_pieces(tmp_path):
    x = np.arange(60, dtype=np.float32).reshape(10, 6)
    pieces = (x[i : i + 3] for i in range(0, 10, 3))
    write_npz(tmp_path / "a.npz", [("x", x.shape, "<f4", pieces), ("empty", (0, 5), "<f8", [])])
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["x"].tobytes() == x.tobytes()
        assert arrays["x"].shape == x.shape
        assert arrays["empty"].shape == (0, 5)


def test_equal_arrays_give_equal_files(tmp_path):
    for name in "ab":
        write_npz(tmp_path / name, [("x", (3,), "<f8", [np.ones(3)])])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_wrong_number_of_rows(tmp_path):
    with pytest.raises(ValueError, match="too few"):
        write_npz(tmp_path / "a.npz", [("x", (3, 2), "<f4", [np.ones((2, 2))])])


@pytest.mark.parametrize("order", ["C", "F"])
def test_maps_what_numpy_saved(tmp_path, order):
    x = np.random.default_rng(0).normal(size=(7, 5, 3)).astype(np.float32, order=order)
    np.savez(tmp_path / "a.npz", y=np.arange(3), x=x)
    found = open_array(tmp_path / "a.npz", "x")
    assert np.array_equal(found, x)
    assert isinstance(found.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0


def test_compressed_arrays_are_read_but_not_mapped(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((4, 3)))
    assert open_array(tmp_path / "a.npz", "x").shape == (4, 3)
    monkeypatch.setattr("torchlight.untrusted._UNPACK_LIMIT", 100)
    with pytest.raises(DataError, match=r"a\.npz: x is compressed and 224 bytes large"):
        open_array(tmp_path / "a.npz", "x")


def test_an_array_that_claims_to_be_huge_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.npz"
    header = (
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}".ljust(117)
        + b"\n"
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header)
    with pytest.raises(DataError, match=r"bomb\.npz: x announces float32"):
        open_array(path, "x")


@pytest.mark.parametrize("cut", [0, 10, 200, -1, -30])
def test_damaged_files_are_named(tmp_path, cut):
    path = tmp_path / "cut.npz"
    np.savez(path, x=np.ones((10, 10)))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"cut\.npz"):
        open_array(path, "x")


def test_missing_array_and_object_array(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="no array y"):
        open_array(tmp_path / "a.npz", "y")
    with pytest.raises(DataError, match="objects"):
        open_array(tmp_path / "a.npz", "x")
