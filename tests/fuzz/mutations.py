"""Damage to files: of bytes, of text, and of what an archive holds.

Every function takes a ``random.Random`` and the sound content, and returns damaged content; the
same seed gives the same damage. ``mutate`` chooses one for a kind of file.
"""

import hashlib
import io
import json
import os
import pickle
import random
import re
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import yaml

Mutation = Callable[[random.Random, bytes], bytes]

_EXTREMES = (
    0,
    1,
    0x7F,
    0xFF,
    0x7FFF,
    0xFFFF,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63 - 1,
    2**64 - 1,
)
_NUMBERS = (
    "nan", "inf", "-inf", "-1", "0", "1e999", "1e308", "-1e39", "9" * 20, "9" * 5000, "1.5", "0x10",
    "1_000", "true", "null", '"5"', "[]", "{}", "2147483648", "1e-400", "٣",
)  # fmt: skip
_WORDS = (
    "../../escape", "/etc/passwd", "a\nb", "a\x1b[31mb", "a\x00b", "\ud7ff", "x" * 5000, "",
    "!!python/object/apply:os.system [touch executed]", "os.system", "subprocess.Popen",
    "feeders.feeder_ucla.os", "feeders.feeder_ntu.Path", "&a [*a]", "? [a]", "%s%s%n",
    "NUL", "\u2028",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**70, -0.5, float("nan"), float("inf"), 1e300, "", "text", "../../x",
    "a\nb", "a\x1bb", [], [[]], {}, [None], {"a": 1}, [1, "a"], "os.system", "x" * 3000,
)  # fmt: skip


# ---- bytes ----


def cut(r: random.Random, data: bytes) -> bytes:
    return data[: r.randrange(len(data) + 1)]


def flip(r: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(r.choice((1, 1, 2, 8, 64))):
        out[r.randrange(len(out))] ^= 1 << r.randrange(8)
    return bytes(out)


def insert(r: random.Random, data: bytes) -> bytes:
    place = r.randrange(len(data) + 1)
    return data[:place] + r.randbytes(r.choice((1, 3, 16, 500))) + data[place:]


def delete(r: random.Random, data: bytes) -> bytes:
    place = r.randrange(len(data))
    return data[:place] + data[place + r.choice((1, 2, 16, 500)) :]


def duplicate(r: random.Random, data: bytes) -> bytes:
    a, b = sorted(r.randrange(len(data) + 1) for _ in "ab")
    return data[:b] + data[a:b] * r.choice((1, 2, 5)) + data[b:]


def zero(r: random.Random, data: bytes) -> bytes:
    place, size = r.randrange(len(data)), r.choice((1, 8, 64, 4096))
    return (data[:place] + bytes(size) + data[place + size :])[: len(data)]


def overwrite(r: random.Random, data: bytes) -> bytes:
    """Put an extreme number where a size or an offset may be; often near the head or the end."""
    form = r.choice(("B", "<H", "<I", "<Q", ">I", ">Q"))
    value = r.choice(_EXTREMES) & (256 ** struct.calcsize(form) - 1)
    near = r.choice((len(data), 512, 2048))
    place = r.randrange(min(near, len(data)))
    place = place if r.random() < 0.6 else len(data) - 1 - place
    packed = struct.pack(form, value)
    return data[:place] + packed + data[place + len(packed) :]


def swap(r: random.Random, data: bytes) -> bytes:
    a, b, c = sorted(r.randrange(len(data) + 1) for _ in "abc")
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def junk(r: random.Random, data: bytes) -> bytes:
    return r.choice(
        (b"", b"\n", b"\x00" * 4096, r.randbytes(2000), data + r.randbytes(100), b" " * 99)
    )


BYTES: tuple[Mutation, ...] = (
    cut, cut, flip, flip, flip, insert, delete, duplicate, zero, overwrite, overwrite, swap, junk,
)  # fmt: skip


# ---- text ----


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def replace_number(r: random.Random, data: bytes) -> bytes:
    return _replace(r, data, rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", _NUMBERS)


def replace_word(r: random.Random, data: bytes) -> bytes:
    return _replace(r, data, rb"[A-Za-z_][\w.]*", _WORDS)


def _replace(r: random.Random, data: bytes, pattern: bytes, choices: Sequence[str]) -> bytes:
    found = list(re.finditer(pattern, data))
    if not found:
        return data
    # Half of the time among the first, where headers are.
    match = r.choice(found[:20] if r.random() < 0.5 else found)
    return data[: match.start()] + _encoded(r.choice(choices)) + data[match.end() :]


def edit_lines(r: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    place = r.randrange(len(lines))
    how = r.randrange(4)
    if how == 0:
        del lines[place]
    elif how == 1:
        lines[place] *= r.choice((2, 3, 100))
    elif how == 2:
        lines[place] = lines[place].rstrip() + _encoded(r.choice(_WORDS)) + b"\n"
    else:
        other = r.randrange(len(lines))
        lines[place], lines[other] = lines[other], lines[place]
    return b"".join(lines)


def spoil_encoding(r: random.Random, data: bytes) -> bytes:
    place = r.randrange(len(data) + 1)
    bad = r.choice(
        (b"\xff", b"\x00", b"\xc3\x28", b"\x1b[2J", b"\r", b"\xed\xa0\x80", b"\xef\xbb\xbf")
    )
    return data[:place] + bad + data[place:]


def nest(r: random.Random, data: bytes) -> bytes:
    """Thousands of open brackets, or aliases that double."""
    depth = r.choice((50, 2000, 100_000))
    bombs = (
        b"[" * depth,
        b'{"a":' * depth,
        b"[" * depth + b"]" * depth,
        b"a: " + b"{a: " * depth,
        b"a: &a [x,x]\n" + b"".join(b"b%d: &b%d [*a,*a]\n" % (i, i) for i in range(40)),
        b"- " * depth,
        b"? " * depth,
    )
    bomb = r.choice(bombs)
    return r.choice((bomb, data + b"\n" + bomb, data.replace(b"1", bomb, 1)))


TEXT: tuple[Mutation, ...] = (
    replace_number, replace_number, replace_word, replace_word, edit_lines, spoil_encoding, nest,
)  # fmt: skip


# ---- trees: JSON and YAML ----


def _edit_tree(r: random.Random, tree: Any) -> Any:
    """Replace, remove or rename one node of nested lists and mappings, in place."""
    node, parent, key = tree, None, None
    while isinstance(node, (list, dict)) and node and (parent is None or r.random() < 0.75):
        parent, key = node, r.choice(list(node) if isinstance(node, dict) else range(len(node)))
        node = parent[key]
    if parent is None:
        return r.choice(_VALUES)
    how = r.random()
    if how < 0.7:
        parent[key] = r.choice(_VALUES)
    elif how < 0.8:
        del parent[key]
    elif isinstance(parent, dict):
        parent[r.choice(("", "x" * 300, "../x", "a\nb", "extra", f"{key}s"))] = parent.pop(key)
    else:
        parent.extend([node] * r.choice((1, 1000)))
    return tree


def edit_json(r: random.Random, data: bytes) -> bytes:
    return json.dumps(_edit_tree(r, json.loads(data))).encode()


def edit_yaml(r: random.Random, data: bytes) -> bytes:
    return yaml.dump(_edit_tree(r, yaml.safe_load(data)), allow_unicode=True).encode()


# ---- npz ----


def edit_npz(r: random.Random, data: bytes) -> bytes:
    """An archive that is sound as such, one of whose arrays is not."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = r.choice(list(members))
    how = r.randrange(5)
    method = r.choice((0, 0, 0, 8, 8, 12, 14)) if how == 0 else 0
    if how <= 1:
        members[name] = _damaged_array(r, members[name])
    elif how == 2:
        members[name] = _damaged_header(r, members[name])
    elif how == 3:
        content = members.pop(name)
        if r.random() < 0.5:
            members[r.choice(("../../x.npy", "/x.npy", "a\nb.npy", "", "x" * 9000))] = content
    else:
        members[name] = r.choice(BYTES)(r, members[name])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for key, content in members.items():
            archive.writestr(key, content)
    return out.getvalue()


def _damaged_array(r: random.Random, npy: bytes) -> bytes:
    array = np.lib.format.read_array(io.BytesIO(npy))
    how = r.randrange(8)
    if how == 0:
        array = array.astype(
            r.choice(("<f8", ">f4", "<i4", "<u1", "<c8", "U9", "S3", "?")), copy=True
        )
    elif how == 1:
        array = r.choice((array.ravel(), array[None], array[:0], array[:-1], array[..., :1]))
    elif how == 2:
        array = np.concatenate([array, array]) if array.ndim else np.stack([array] * 2)
    elif how == 3:
        array = np.array([["x"], None], dtype=object)
    elif how == 4 and array.ndim > 1:
        array = np.asfortranarray(array)
    elif array.size:
        array = array.copy()
        values = {
            "f": (np.nan, np.inf, -np.inf, 1e38, -1e38),
            "i": (-1, 2**62, -(2**63), 10**9, 0),
            "u": (0, 255),
            "S": (b"", b"\xff\xfe", b"../../../x", b"S001C001P001R001A999", b"a\nb"),
            "U": ("", "../../../x", "a\nb", "\x1b[2J"),
        }.get(array.dtype.kind, (0,))
        places = np.array([r.randrange(array.size) for _ in range(r.choice((1, 1, 5)))])
        array.ravel()[places] = r.choice(values)
    out = io.BytesIO()
    np.lib.format.write_array(out, array)
    return out.getvalue()


def _damaged_header(r: random.Random, npy: bytes) -> bytes:
    """Rewrite what the array says about itself, but not its numbers."""
    stream = io.BytesIO(npy)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0
    shape, _, dtype = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(stream)
    shapes = (
        f"({10**12},)",
        "(-1,)",
        "(10**9,)",
        "()",
        "(3.5,)",
        f"({2**62}, 2)",
        "'x'",
        f"{shape}",
    )
    types = (
        "'<f4'",
        "'|O'",
        f"'<U{2**29}'",
        "'V0'",
        "'V2000000000'",
        "[('a','<f4')]",
        "1",
        "'<M8[s]'",
    )
    kind = r.choice((*types, repr(dtype.str)))
    order = r.choice(("False", "True", "1"))
    text = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {r.choice(shapes)}, }}"
    if r.random() < 0.2:
        text = r.choice(
            ("(" * 3000, "{" * 500, "__import__('os').system('touch executed')", "", "{}")
        )
    body = text.encode() + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(body)) + body + stream.read()


# ---- HDF5 ----


def edit_store(r: random.Random, data: bytes) -> bytes:
    """A sound HDF5 file, one of whose parts is not as in a store."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.h5"
        path.write_bytes(data)
        with h5py.File(path, "r+") as file:
            names = [*file, *(f"splits/{b}/{s}" for b in file["splits"] for s in file["splits"][b])]
            if r.random() < 0.2:
                _edit_attribute(r, file)
            else:
                _edit_dataset(r, file, r.choice(names))
        return path.read_bytes()


def _edit_attribute(r: random.Random, file: h5py.File) -> None:
    name = r.choice(list(file.attrs))
    values = (
        0,
        -1,
        10**9,
        2**62,
        "x",
        "a\nb",
        b"\xff",
        np.nan,
        np.arange(9),
        np.array("x", "O"),
        "",
    )
    if r.random() < 0.2:
        del file.attrs[name]
    else:
        file.attrs[name] = r.choice(values)


def _edit_dataset(r: random.Random, file: h5py.File, name: str) -> None:
    old = file[name]
    array = old[:] if isinstance(old, h5py.Dataset) else np.arange(3)
    how = r.randrange(9)
    del file[name]
    if how == 0:
        return
    if how == 1:
        array = array.astype(r.choice(("<f8", "<i4", "S5", "u1")))
    elif how == 2:
        array = r.choice((array[:-1], array[:0], array[None], np.concatenate([array, array])))
    elif how == 3:
        shape = (r.choice((10**6, 10**9, 10**12)), *array.shape[1:])
        chunks = (1024, *array.shape[1:]) if r.random() < 0.7 else None
        file.create_dataset(
            name, shape, array.dtype, chunks=chunks, compression="gzip" if chunks else None
        )
        return
    elif how == 4:
        file.create_dataset(name, data=array, chunks=True, compression="gzip")
        return
    elif how == 5:
        file[name] = r.choice(
            (
                h5py.SoftLink("/" + name),
                h5py.SoftLink("/names"),
                h5py.ExternalLink("/etc/passwd", "/"),
            )
        )
        return
    elif how == 6:
        kept = [(os.devnull, 0, h5py.h5f.UNLIMITED)]
        file.create_dataset(name, array.shape, array.dtype, external=kept)
        return
    elif how == 7:
        file.create_group(name)
        return
    elif array.size and array.dtype.kind in "iufS":
        flat = array.ravel()
        extreme = {"S": b"../../../x", "f": np.nan, "u": 255}.get(array.dtype.kind, 2**62)
        values = (
            extreme,
            flat[r.randrange(len(flat))],
            *((-1, 0) if array.dtype.kind in "if" else ()),
        )
        flat[r.randrange(len(flat))] = r.choice(values)
    file[name] = array


# ---- torch ----


def edit_weights(r: random.Random, data: bytes) -> bytes:
    """A sound torch file of something else than these weights."""
    content: Any = torch.load(io.BytesIO(data), weights_only=True)
    return _saved(r, _edit_weights(r, dict(content)))


def _edit_weights(r: random.Random, content: dict[Any, Any]) -> Any:
    key = r.choice(list(content))
    value = content[key]
    shape = tuple(value.shape)
    strange = (
        lambda: torch.full(shape, float("nan")),
        lambda: torch.full(shape, 1e38),
        lambda: value.to(torch.complex64),
        lambda: value.to(torch.float16),
        lambda: value[None],
        lambda: torch.zeros(0),
        lambda: torch.zeros(1).expand(10**9),
        lambda: torch.zeros(1).expand(10**6, 10**6, 10**3),
        lambda: torch.empty(10**12, device="meta"),
        lambda: torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1), (10**9,)),
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        lambda: torch.zeros(4, dtype=torch.bool),
        lambda: {"nested": value},
        lambda: r.choice(_VALUES),
    )
    how = r.random()
    if how < 0.7:
        content[key] = r.choice(strange)()
    elif how < 0.8:
        del content[key]
    elif how < 0.9:
        content[r.choice(("../../x", "a\nb", "\x1b[2J", 5, None, (1, 2), "module."))] = content.pop(
            key
        )
    else:
        return r.choice((list(content.values()), value, None, {}, {"state_dict": content}))
    return content


def _saved(r: random.Random, content: Any) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=r.random() < 0.7)
    return out.getvalue()


def edit_torch_zip(r: random.Random, data: bytes) -> bytes:
    """Damage a record of the archive and close it again with sound check sums, or compress it."""
    if not data.startswith(b"PK"):
        return r.choice(BYTES)(r, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = r.choice([*members, *(n for n in members if n.endswith("data.pkl"))])
    method = zipfile.ZIP_STORED
    how = r.randrange(4)
    if how == 0:
        method = zipfile.ZIP_DEFLATED
        members[name] += bytes(r.choice((1000, 10**7)))
    elif how == 1:
        del members[name]
    elif how == 2:
        members[name] = r.choice((cut, flip, insert, overwrite))(r, members[name])
    else:
        members = {key.replace("archive/", "../../"): value for key, value in members.items()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for key, content in members.items():
            archive.writestr(key, content)
    return out.getvalue()


_HEAD = 8 + 32  # of a state file: the magic, the digest


def resealed(mutation: Mutation) -> Mutation:
    """Damage what a state file holds, and give it the check sum that fits."""

    def damage(r: random.Random, data: bytes) -> bytes:
        payload = data[_HEAD : _HEAD + 8] + mutation(r, data[_HEAD + 8 :])
        return data[:8] + hashlib.sha256(payload).digest() + payload

    return damage


def edit_state(r: random.Random, data: bytes) -> bytes:
    """A state with a wrong value somewhere, otherwise sound."""
    content = torch.load(io.BytesIO(data), weights_only=True)
    tree = _edit_tree(r, content)
    return _saved(r, tree)


# ---- score pickles ----


def edit_scores(r: random.Random, data: bytes) -> bytes:
    """A pickle of something else than a table; written, never read, by ``pickle``."""
    names = [f"n{i}" for i in range(6)]
    table: dict[Any, Any] = {
        name: np.arange(4, dtype=np.float32) + i for i, name in enumerate(names)
    }
    key = r.choice(names)
    strange = (
        np.full(4, np.nan, np.float32), np.zeros(5, np.float32), np.zeros((2, 2)), np.arange(4),
        np.array(["x"]), np.array([None]), np.float32(1), 1.5, "text", b"bytes", None, [0.5] * 4,
        np.zeros(0), np.zeros(4, ">f8"), np.zeros(4, "c8"), {"a": 1}, (1, (2, (3,))), {1, 2}, 2**80,
    )  # fmt: skip
    how = r.random()
    if how < 0.6:
        table[key] = r.choice(strange)
    elif how < 0.9:
        table[r.choice(("../../x", "a\nb", "\x1b[2J", "", 1, None, (1, 2), b"x", "\ud800"))] = (
            table.pop(key)
        )
    else:
        return pickle.dumps(r.choice(strange), protocol=r.randrange(6))
    return pickle.dumps(table, protocol=r.randrange(6))


def edit_tree(r: random.Random, data: bytes) -> bytes:
    """JSON with one of its values, at any depth, gone or another."""
    content = json.loads(data)
    place, key = content, r.choice(list(content))
    while isinstance(place[key], dict | list) and place[key] and r.random() < 0.8:
        place = place[key]
        key = r.choice(list(place)) if isinstance(place, dict) else r.randrange(len(place))
    strange = (
        None,
        True,
        -1,
        0,
        2**31,
        2**70,
        1e30,
        1.5,
        "",
        "x",
        "os.system",
        "a\nb",
        [],
        {},
        [[]],
    )
    if r.random() < 0.2:
        del place[key]
    else:
        place[key] = r.choice(strange)
    return json.dumps(content).encode()


# ---- choice ----

_ZIP = (edit_npz,) * 13
KINDS: dict[str, tuple[Mutation, ...]] = {
    "configuration": (*TEXT, *BYTES, *(edit_yaml,) * 20),
    "recording": (*TEXT * 2, *BYTES),
    "skip list": (*TEXT, *BYTES),
    "raw index": (*TEXT, *BYTES),
    "denoised index": (*TEXT, *BYTES),
    "raw chunk": (*TEXT, *BYTES),
    "denoised chunk": (*TEXT, *BYTES),
    "store": (*BYTES, *(edit_store,) * 20),
    "published npz": (*BYTES, *_ZIP),
    "sequence": (*TEXT * 2, *BYTES, *(edit_json,) * 10),
    "sequence cache": BYTES,
    "score npz": (*BYTES, *_ZIP),
    "score pickle": (*BYTES, *(edit_scores,) * 13),
    "weights": (*BYTES, *(edit_weights,) * 13, *(edit_torch_zip,) * 10),
    "operators": (*BYTES, *(edit_weights,) * 13, *(edit_torch_zip,) * 10),
    "state": (
        *BYTES,
        *(resealed(edit_state),) * 16,
        *(resealed(edit_torch_zip),) * 8,
        *(resealed(flip), resealed(cut), resealed(junk)),
    ),
    "package config": (*TEXT, *BYTES, *(edit_tree,) * 30),
    "package weights": BYTES,
}


def mutate(kind: str, data: bytes, seed: str) -> tuple[str, bytes]:
    """The name of the damage and the damaged content, a function of ``seed``."""
    r = random.Random(seed)
    mutation = r.choice(KINDS[kind])
    try:
        out = mutation(r, data)
    except (ValueError, TypeError, OverflowError, RuntimeError, LookupError):
        out = (flip if data else insert)(r, data)  # this damage does not fit these values
    if r.random() < 0.15 and out:  # twice over
        out = r.choice(BYTES)(r, out)
    return getattr(mutation, "__name__", "damage"), out


def fingerprint(data: bytes) -> int:
    """A number that tells contents apart, for reports."""
    return zlib.crc32(data)
