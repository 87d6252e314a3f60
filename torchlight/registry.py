"""From a dotted name in a configuration to a class, without running anything else on the way.

A name may only lead into packages that the project or the user allows, and only to a class that
is defined there: a YAML of a stranger cannot reach ``os.system``. Arguments are bound to the
real signature before anything is built, so that a typing error costs a second, not an epoch.
"""

import contextlib
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import UserError, printable, told
from .terminal import nearest
from .values import fitted_argument, meaning, type_fault

HOME = (__package__ or "").removesuffix("torchlight")
"""What comes before the name of this package, and of those beside it, where it is part of another:
"" or "project.", say. Names in configurations and cards are without it."""

Aliases = Mapping[str, tuple[str, Mapping[str, Any]]]
"""Published name to (our name, the arguments it implies)."""


@dataclass(frozen=True)
class Target:
    """A class and the arguments that its (published) name implies."""

    name: str
    cls: type
    implied: Mapping[str, Any]

    @property
    def path(self) -> str:
        """The dotted name of the class itself, whatever name led to it."""
        return f"{self.cls.__module__}.{self.cls.__qualname__}".removeprefix(HOME)

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """Those of the class, by name."""
        return inspect.signature(self.cls).parameters

    def build(self, arguments: Mapping[str, Any]) -> Any:
        """Instantiate; what the user writes wins over what the name implies."""
        return self.cls(**{**self.implied, **arguments})

    def built(
        self, key: str, arguments: Mapping[str, Any], mistakes: tuple[type[Exception], ...]
    ) -> Any:
        """Instantiate from the value of ``key``; what a class of somebody's raises is one line.

        Args:
            mistakes: exceptions that are such a line already.
        """
        try:
            return self.build(arguments)
        except Exception as error:
            if isinstance(error, (UserError, *mistakes)):
                raise
            raise UserError(f"{key}: {self.name}: {told(error)}") from error

    def spelled_out(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """``arguments`` with those that the name implies and the defaults, as JSON has them."""
        defaults = {p.name: p.default for p in self.parameters.values() if p.default is not p.empty}
        return as_json({**defaults, **self.implied, **arguments})


def decided_by_data(model: Target) -> tuple[str, ...]:
    """Arguments of a model that a configuration may leave to the data: ``num_class``, if it must
    be said, and those that ``from_data`` of its class names."""
    number = model.parameters.get("num_class")
    needed = ("num_class",) if number is not None and number.default is number.empty else ()
    return (*needed, *getattr(model.cls, "from_data", ()))


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that JSON can hold, as they come back from it: tuples as lists."""
    plain = {}
    for name, value in values.items():
        with contextlib.suppress(TypeError, ValueError):  # an object of a class, say
            plain[name] = json.loads(json.dumps(value, allow_nan=False))
    return plain


def look_beside(packages: Iterable[str], folders: Iterable[Path]) -> None:
    """Let Python find ``packages``, which the user allowed, in ``folders``, as the last of all.

    So nothing in a folder can take the place of a module that is found without it; and a folder
    that has none of the packages is not looked into.
    """
    names = [name for name in packages if name.isidentifier()]
    for folder in folders:
        there = any((folder / n).is_dir() or (folder / f"{n}.py").is_file() for n in names)
        if there and str(folder) not in sys.path:
            sys.path.append(str(folder))


def resolve(
    key: str,
    name: str,
    aliases: Aliases,
    allowed: Iterable[str],
    *,
    within: str = "",
    kind: tuple[type, ...] = (object,),
) -> Target:
    """Find the class that ``name`` (the value of the configuration's ``key``) stands for.

    Args:
        allowed: top-level packages that names may lead into.
        within: module whose classes are allowed, and plain names are of.
        kind: what the class must be.
    """
    ours, implied = aliases.get(name, (name, {}))
    within = within.removeprefix(HOME)
    ours = f"{within}.{ours}" if within and ours and "." not in ours else ours.removeprefix(HOME)
    (package, *_), (module_name, _, attribute) = ours.split("."), ours.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in ours.split(".")):
        shown, known = printable(name), _names(aliases, allowed, key.strip("-").title())
        told = f'{key}: "{shown}" is not a dotted name such as package.module.Class'
        raise UserError(told + nearest(shown, known))
    allowed = {*allowed, *([package] if module_name == within else [])}
    if package not in allowed:
        raise UserError(
            f'{key}: "{name}" is outside of the allowed packages ({", ".join(sorted(allowed))})'
            f"{nearest(name, _names(aliases, allowed, attribute))}; to import it, say "
            f"--allow-import {package}"
        )
    known = _names(aliases, allowed, attribute)
    module = _imported(f'{key}: "{name}"', name, module_name, known)
    found = getattr(module, attribute, None)
    if not isinstance(found, type):
        types = [(n, v) for n, v in vars(module).items() if isinstance(v, type)]
        classes = [n for n, v in types if issubclass(v, kind)]
        classes += list(aliases) if module_name == within else []
        near = nearest(attribute, classes)
        raise UserError(f'{key}: module "{module_name}" has no class "{attribute}"{near}')
    if found.__module__.removeprefix(HOME).split(".")[0] not in allowed:
        raise UserError(f'{key}: "{name}" is defined in {found.__module__}, which is not allowed')
    if not issubclass(found, kind):
        raise UserError(f'{key}: "{name}" is no {kind[-1].__module__}.{kind[-1].__qualname__}')
    return Target(name, found, implied)


def _names(aliases: Aliases, allowed: Iterable[str], attribute: str) -> list[str]:
    """Names that may be meant: published ones, ours, the class in modules of the packages."""
    names = [*aliases, *(ours for ours, _ in aliases.values())]
    for package in allowed:
        with contextlib.suppress(Exception):  # somebody's
            for place in getattr(import_if_there(package), "__path__", ()):
                files = [
                    f for f in Path(place).glob("*.py") if f"class {attribute}" in f.read_text()
                ]
                names += [f"{package}.{file.stem}.{attribute}" for file in files]
    return names


def _imported(where: str, name: str, module: str, known: Iterable[str]) -> ModuleType:
    """The module; whatever somebody's module does when it is imported is one line."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):  # something that the module needs
            raise UserError(f"{where}: {told(error)}") from error
        package = module.split(".")[0]
        there = ", ".join(sorted({n for n in known if n.split(".")[0] == package}))
        advice = f"{package} has {there}" if there else "put it beside the YAML"
        raise UserError(f"{where} is not here ({error}){nearest(name, known)}; {advice}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"{where}: {told(error)}") from error


def plug(name: str, *, wanted: bool = True) -> Callable[..., Any]:
    """Return the function of that dotted name; or, unless it is wanted and where its package was
    taken out, one that gives its first argument back."""
    package, _, function = name.rpartition(".")
    module = import_if_there(package) if wanted else None
    return (lambda given, *_, **__: given) if module is None else getattr(module, function)


def import_if_there(name: str) -> ModuleType | None:
    """The module, or None where it, or a package that it is in, was taken out."""
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if f"{name}.".startswith(f"{error.name}."):
            return None
        raise
    return module if module.__spec__ and module.__spec__.origin else None  # a folder without code


def import_module(name: str) -> ModuleType:
    """The module of a dotted name, which means here what it means in an ``import``: unlike
    ``importlib.import_module``."""
    return __import__(name, fromlist=["_"])


def with_parts(
    key: str,
    target: Target,
    arguments: Mapping[str, Any],
    aliases: Aliases,
    allowed: Iterable[str],
    where: Callable[[str], str] = str,
) -> dict[str, Any]:
    """``arguments`` (the value of ``key``) with the classes that its dotted names stand for.

    Which of the target's arguments are such names, the attribute ``parts`` of its class says, and
    how many of their arguments the target gives itself. ``<part>_args`` are the others.
    """
    result = {**target.implied, **arguments}
    for part, count in getattr(target.cls, "parts", {}).items():
        name = result.get(part, getattr(target.parameters.get(part), "default", None))
        if isinstance(name, str) and "." in name:
            found, own = resolve(where(f"{key}.{part}"), name, aliases, allowed), f"{part}_args"
            given = result.get(own) or {}
            if not isinstance(given, Mapping):
                raise UserError(f"{key}.{own}: {given!r:.80} is no mapping of names to values")
            _refuse(
                binding_faults(f"{key}.{own}", found, given, where, [*found.parameters][:count])
            )
            result |= {part: found.cls, own: {**found.implied, **given}}
    return result


def with_each_built(
    key: str,
    arguments: Mapping[str, Any],
    homes: Mapping[str, str | None],
    allowed: Iterable[str],
) -> dict[str, Any]:
    """``arguments`` (the value of ``key``) with each item of the lists in ``homes`` built.

    An item is a name or a mapping of ``name`` and arguments. A plain name is one of the module that
    is the list's home; where that is None, what is no dotted name stays. Arguments within
    ``..._args`` are treated likewise.
    """
    result = dict(arguments)
    for name, value in arguments.items():
        inner = f"{key}.{name}"
        items = [value] if isinstance(value, str) and "." in value else value
        if name in homes and isinstance(items, list):
            home = homes[name]
            result[name] = [built(f"{inner}[{i}]", v, home, allowed) for i, v in enumerate(items)]
        elif name.endswith("_args") and isinstance(value, Mapping):
            result[name] = with_each_built(inner, value, homes, allowed)
    return result


def built(where: str, item: Any, home: str | None, allowed: Iterable[str]) -> Any:
    """What an item of a list names, built of its arguments; see ``with_each_built``."""
    own = dict(item) if isinstance(item, Mapping) else {"name": item}
    name = own.pop("name", None)
    if home is None and not (isinstance(name, str) and "." in name):
        return item
    if not isinstance(name, str):
        raise UserError(f"{where}: {item!r:.80} is neither a name nor name and arguments")
    target = resolve(where, name if "." in name else f"{home}.{name}", {}, allowed)
    _refuse(binding_faults(where, target, own))
    return target.build(own)


def _refuse(faults: list[str]) -> None:
    if faults:
        raise UserError("; ".join(faults))


def fitted_arguments(
    target: Target, written: Mapping[str, Any], aliases: Aliases, allowed: Iterable[str]
) -> dict[str, Any]:
    """``written`` as the types of the target's parameters mean it.

    ``<part>_args`` is meant for the class that ``<part>`` names, where it does.

    Raises:
        ValueError: a path with a variable that is not set, and the argument's name before it.
    """
    result: dict[str, Any] = {}
    for name, value in written.items():
        part = name.removesuffix("_args")
        inner = written.get(part, getattr(target.parameters.get(part), "default", None))
        try:
            if name != part and isinstance(inner, str) and isinstance(value, dict):
                owner = resolve(part, inner, aliases, allowed)
                result[name] = fitted_arguments(owner, value, aliases, allowed)
            elif name in target.parameters:
                result[name] = fitted_argument(target.parameters[name], value)
            else:
                result[name] = meaning(value)
        except UserError:  # said where the part is built
            result[name] = meaning(value)
        except ValueError as error:
            raise ValueError(f"{name}.{error}" if name != part else f"{name}: {error}") from error
    return result


def binding_faults(
    key: str,
    target: Target,
    arguments: Mapping[str, Any],
    where: Callable[[str], str] = str,
    elsewhere: Iterable[str] = (),
) -> list[str]:
    """What is wrong with ``arguments`` (the value of ``key``) for ``target``, a line each.

    Args:
        where: how the user wrote an argument whose dotted name it is given.
        elsewhere: names of arguments that need not be there, as they come from elsewhere.
    """
    parameters = target.parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return []
    faults = [
        f"{where(f'{key}.{name}')}: {target.name} takes no such argument{nearest(name, parameters)}"
        for name in arguments
        if name not in parameters
    ]
    there = {*target.implied, *arguments, *elsewhere}
    faults += [
        f"{key}.{name}: {target.name} needs it"
        for name, p in parameters.items()
        if p.default is p.empty and p.kind is not p.VAR_POSITIONAL and name not in there
    ]
    typed = {name: p.annotation for name, p in parameters.items() if name in arguments}
    return faults + [
        f"{where(f'{key}.{name}')}: {arguments[name]!r:.80}: {fault}"
        for name, annotation in typed.items()
        if (fault := type_fault(annotation, arguments[name]))
    ]
