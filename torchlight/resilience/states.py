"""The full state of a run, from which it is resumed."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from torchlight.checkpoint import load_archive
from torchlight.errors import UserError
from torchlight.files import atomic_write, reason
from torchlight.untrusted import open_regular, size_of

_MAGIC = b"TLSTATE1"
_DIGEST_BYTES = hashlib.sha256().digest_size
_SERIAL_BYTES = 8
_ZIP_END, _ZIP_END_BYTES = b"PK\x05\x06", 22


class StateFile:
    """The full state of a run, in two generations with checksums.

    Two slots are written in turn, so that the newest whole state is never touched while the next
    one is written. A file is the magic, the SHA-256 of the rest, a serial number (8 bytes, big
    endian) and a ``torch.save`` archive of tensors and plain values.
    """

    def __init__(self, folder: Path) -> None:
        self.slots = (folder / "resume.0.state", folder / "resume.1.state")
        self._next = 0

    def exists(self) -> bool:
        """Whether any generation is there."""
        return any(slot.exists() for slot in self.slots)

    def save(self, state: Mapping[str, Any], serial: int) -> None:
        """Write ``state`` over the older generation; a larger ``serial`` is newer.

        Raises:
            OSError: the disk is full or read-only; both generations are then as they were.
        """
        buffer = io.BytesIO()
        buffer.write(serial.to_bytes(_SERIAL_BYTES, "big"))
        torch.save(dict(state), buffer)
        payload = buffer.getbuffer()
        with atomic_write(self.slots[self._next]) as temporary, open(temporary, "wb") as file:
            file.write(_MAGIC + hashlib.sha256(payload).digest())
            file.write(payload)
        self._next = 1 - self._next

    def load(self) -> tuple[dict[str, Any], list[str]]:
        """The newest generation that is whole, and a warning for each one that is not.

        Raises:
            UserError: none is whole, or one cannot be read.
        """
        whole: dict[int, tuple[int, dict[str, Any]]] = {}
        warnings = []
        for slot, path in enumerate(self.slots):
            try:
                serial, content = _read_state(path)
                whole[serial] = slot, content
            except FileNotFoundError:
                continue
            except UserError as error:
                warnings.append(str(error))
            except OSError as error:  # no word about what is in it
                raise UserError(
                    f"{path}: cannot be read ({reason(error)}); the run is kept, and the same "
                    f"command resumes it once that can be read"
                ) from error
        if not whole:
            warnings = warnings or [f"{self.slots[0]}: no such file"]
            raise UserError(f"{'; '.join(warnings)}; start over with --overwrite")
        newest, content = whole[max(whole)]
        self._next = 1 - newest
        return content, warnings


def _read_state(path: Path) -> tuple[int, dict[str, Any]]:
    """Serial number and content of a state file.

    Raises:
        UserError: it is no state, or its checksum does not fit.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:  # its ends are looked at before all of it is read into memory
        head = file.read(len(_MAGIC))
        file.seek(max(size_of(file) - _ZIP_END_BYTES, 0))
        if head != _MAGIC or file.read(len(_ZIP_END)) != _ZIP_END:
            raise UserError(f"{path}: damaged (it is no state, or cut off)")
        file.seek(len(_MAGIC))
        digest, payload = file.read(_DIGEST_BYTES), memoryview(file.read())
    if hashlib.sha256(payload).digest() != digest:
        raise UserError(f"{path}: damaged (its checksum does not fit)")
    content = load_archive(io.BytesIO(payload[_SERIAL_BYTES:]), path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no state")
    return int.from_bytes(payload[:_SERIAL_BYTES], "big"), content
