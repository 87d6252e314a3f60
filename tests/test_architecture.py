"""The house stays in order: who imports whom, thin scripts, tested configurations, quiet files."""

import ast
import inspect
import re
import tomllib
from pathlib import Path

import pytest

from model.published import ALIASES
from torchlight.config import build
from torchlight.layers import read_layers
from torchlight.registry import binding_faults, decided_by_data, resolve

ROOT = Path(__file__).resolve().parents[1]
OURS = {"data", "feeders", "model", "torchlight", "koopman_pooling", "tests"}
SCRIPTS = ("main_multigpu", "eigen_normalization", "ensemble", "test_oneshot")
ALLOWED = {
    "data": {
        *("data", "torchlight.files", "torchlight.terminal", "torchlight.untrusted"),
        "torchlight.fusion.unpickle",
    },
    "model": {"model", "data.skeletons"},
    "feeders": {"feeders", "data"},
    "torchlight": {"torchlight"},
    "koopman_pooling": {"koopman_pooling", "data", "feeders", "model", "torchlight"},
}
WITHOUT_TORCH = (
    *("__init__.py", "errors.py", "files.py", "terminal.py", "untrusted.py"),
    *("fusion/__init__.py", "fusion/unpickle.py"),
)
"""What data uses of the engine, and what that imports."""
WINGS = (
    *("data.preparation", "data.demo", "data.custom", "data.show"),
    *(
        "torchlight.checks",
        "torchlight.comforts",
        "torchlight.fusion",
        "torchlight.measures",
        "torchlight.reports",
    ),
    *("torchlight.resilience", "torchlight.compare", "koopman_pooling"),
)
PLUGS = ("data/ntu", "data/ntu120", "feeders/feeder_demo.py")
"""What plugs a wing in: the command lines, and the demo's feeder, which nothing else imports."""
CONFIGS = sorted(p for p in (ROOT / "config").rglob("*.yaml") if p.parent.name != "_base_")


def imported(path: Path) -> set[str]:
    """Dotted names of the modules that a file imports, relative ones made absolute."""
    names: set[str] = set()
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_rooms_import_only_what_they_may(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        for name in imported(path):
            top = name.split(".")[0]
            assert top not in SCRIPTS, f"{path} imports a root script"
            if top in OURS:
                inside = any((name + ".").startswith(f"{ok}.") for ok in ALLOWED[room])
                parent = any(f"{ok}.".startswith(name + ".") for ok in ALLOWED[room])
                assert inside or parent, f"{path.relative_to(ROOT)} imports {name}"


def test_the_core_imports_no_wing():
    for room in ALLOWED:
        for path in (ROOT / room).rglob("*.py"):
            place = path.relative_to(ROOT).as_posix()
            if not place.startswith(PLUGS) and not place.replace("/", ".").startswith(WINGS):
                found = {name for name in imported(path) if name.startswith(WINGS)}
                assert not found, f"{path.relative_to(ROOT)} imports {found}"


def test_every_package_of_torchlight_is_installed():
    listed = tomllib.loads((ROOT / "torchlight" / "pyproject.toml").read_text())
    there = {path.parent.relative_to(ROOT) for path in (ROOT / "torchlight").rglob("__init__.py")}
    expected = {place.as_posix().replace("/", ".") for place in there}
    assert set(listed["tool"]["setuptools"]["packages"]) == expected


def test_every_package_of_ours_is_installed_under_one_name():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {p.parent.relative_to(ROOT) for r in ALLOWED for p in (ROOT / r).rglob("__init__.py")}
    names = {place.as_posix().replace("/", ".") for place in there}
    assert {name.removeprefix("koopman_pooling.") for name in listed} == names


def test_the_core_of_the_model_knows_no_engine():
    for path in (ROOT / "model").glob("*.py"):
        assert not [name for name in imported(path) if f"{name}.".startswith("model.cpu.")], path


def test_data_knows_no_torch_and_the_engine_no_field():
    files = [*(ROOT / "data").rglob("*.py"), *(ROOT / "torchlight" / f for f in WITHOUT_TORCH)]
    for path in files:
        assert not {n for n in imported(path) if n.split(".")[0] == "torch"}, path
    for path in (ROOT / "torchlight").rglob("*.py"):
        found = re.search(r"skelet|joint|\bntu|ucla|koopman", path.read_text(), re.IGNORECASE)
        assert found is None, (path, found)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_thin_and_do_nothing_when_imported(script):
    path = ROOT / f"{script}.py"
    assert len(path.read_text().splitlines()) <= 150
    for node in ast.parse(path.read_text()).body:
        allowed = (
            ast.Import,
            ast.ImportFrom,
            ast.FunctionDef,
            ast.ClassDef,
            ast.Assign,
            ast.If,
        )
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert docstring or isinstance(node, allowed), ast.unparse(node)


def test_every_module_says_what_it_is():
    for room in ALLOWED:
        for path in (ROOT / room).rglob("*.py"):
            assert ast.get_docstring(ast.parse(path.read_text())), path


def test_nothing_is_evaluated_or_unpickled():
    for path in [*ROOT.glob("*.py"), *(p for r in ALLOWED for p in (ROOT / r).rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "pickle.load", "pickle.loads"), path
                if called == "torch.load":
                    words = {k.arg: ast.unparse(k.value) for k in node.keywords}
                    assert words.get("weights_only") == "True", path
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path}: bare except"


def test_there_are_configurations():
    assert len(CONFIGS) >= 5


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_configuration_resolves_and_binds(path):
    config = build({"weights": "given by flag", **read_layers(path)[0]}, str(path))
    allowed = ("feeders", "model")
    feeder = resolve("feeder", config.feeder, ALIASES, allowed)
    model = resolve("model", config.model, ALIASES, allowed)
    faults = binding_faults("test_feeder_args", feeder, config.test_feeder_args)
    if config.phase == "train":
        faults += binding_faults("train_feeder_args", feeder, config.train_feeder_args)
    left = decided_by_data(model)
    faults += binding_faults("model_args", model, config.model_args, elsewhere=left)
    assert faults == []
    if config.evaluator is not None:
        evaluator = resolve("evaluator", config.evaluator, ALIASES, allowed)
        given = {**dict.fromkeys(("exemplars",)), **config.evaluator_args}
        assert binding_faults("evaluator_args", evaluator, given) == []


def test_every_alias_leads_to_a_class_that_takes_its_arguments():
    for name in ALIASES:
        target = resolve("name", name, ALIASES, ("feeders", "model"))
        parameters = inspect.signature(target.cls).parameters
        assert set(target.implied) <= set(parameters), name
