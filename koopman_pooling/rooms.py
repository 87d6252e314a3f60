"""One name for all of this project, beside a user's own ``data`` and ``model``.

The rooms (data, feeders, model, torchlight) import each other by these plain names, as they are
read and run at the project's root. Elsewhere these names are anybody's. There the rooms are
``koopman_pooling.data`` and so on, and in their modules an import of a room means that: each is
executed with an ``__import__`` of its own, so that imports in functions are covered too.

Where the plain names lead here (a script of the root), ``koopman_pooling.data`` is the plain module
itself, and nothing is loaded twice.
"""

import builtins
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

ROOMS = ("data", "feeders", "model", "torchlight")
HOME = __name__.partition(".")[0]
HERE = Path(__file__).resolve().parent
ROOT = HERE if (HERE / ROOMS[0]).is_dir() else HERE.parent
"""Where the rooms lie: within this package where it is installed for good, else beside it."""


def settle() -> None:
    """Decide what the rooms' names mean from here on."""
    plain = all(_leads_here(room) for room in ROOMS)
    sys.meta_path.insert(0, _SameModules() if plain else _OwnModules())


def _leads_here(room: str) -> bool:
    try:
        found = sys.modules.get(room) or importlib.util.find_spec(room)
    except (ImportError, ValueError):
        return False
    place = getattr(found, "__file__", None) or getattr(found, "origin", None)
    return place is not None and Path(place).resolve().parent == ROOT / room


def _room_of(name: str) -> str | None:
    """The plain name of a module of a room, or None."""
    home, _, plain = name.partition(".")
    return plain if home == HOME and plain.partition(".")[0] in ROOMS else None


class _SameModules(MetaPathFinder):
    """Rooms under this package's name are the plain ones."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        plain = _room_of(name)
        if plain is None or importlib.util.find_spec(plain) is None:
            return None
        return ModuleSpec(name, _SameModule(plain), is_package=True)


class _SameModule(Loader):
    def __init__(self, plain: str) -> None:
        self._module = importlib.import_module(plain)
        self._spec = self._module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # which importing it again has changed


class _OwnModules(MetaPathFinder):
    """All modules of this package, and the rooms as parts of it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(f"{HOME}."):
            return None
        is_room = _room_of(name) in ROOMS
        spec = PathFinder.find_spec(name, [str(ROOT)] if is_room else path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _OwnModule(spec.loader.name, spec.loader.path)
        return spec


class _OwnModule(SourceFileLoader):
    _imported = False

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"], self._imported = _BUILTINS, True
        super().exec_module(module)

    def get_code(self, fullname: str) -> CodeType | None:
        """That of the module; for ``python -m``, which runs it elsewhere, a call of its main."""
        if self._imported:
            return super().get_code(fullname)
        call = f"import importlib, sys; sys.exit(importlib.import_module({fullname!r}).main())"
        return compile(call, fullname, "exec")


def _import(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """What ``import`` does in the rooms' modules."""
    room = name.partition(".")[0]
    if level or room not in ROOMS:
        return builtins.__import__(name, globals, locals, fromlist or (), level)
    try:
        found = builtins.__import__(f"{HOME}.{name}", globals, locals, fromlist or ("_",), 0)
    except ModuleNotFoundError as error:
        error.name = (error.name or "").removeprefix(f"{HOME}.")
        raise
    return found if fromlist else sys.modules[f"{HOME}.{room}"]


_BUILTINS = {**vars(builtins), "__import__": _import}
