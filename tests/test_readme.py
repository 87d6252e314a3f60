"""Every command of the README (and docs), as it stands: each parses; those of chains run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from launch import ENVIRONMENT, ROOT
from toy_ucla import write_ucla

import eigen_normalization
import ensemble
import main_multigpu
import test_oneshot
from data.demo import __main__ as demo
from koopman_pooling.several import _planned
from torchlight.config import Config
from torchlight.flags import parse

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
SPANS = [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`", TEXT)]
COMMANDS = {
    "main_multigpu.py": main_multigpu.main,
    "test_oneshot.py": test_oneshot.main,
    "eigen_normalization.py": eigen_normalization.main,
    "ensemble.py": ensemble.main,
}
LAUNCHER = ("--max-restarts", "--nnodes", "--rdzv", "--logdir")  # of torchrun and TensorBoard
ABSENT = "no such|No such file|cannot be read|make it:|no score file"


def _lines(block: str) -> list[list[str]]:
    """The commands of a block, word by word, with the block's own variables filled in."""
    joined = re.sub(r"\\\n\s*", " ", block)
    variables: dict[str, str] = {}
    found = []
    for line in joined.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&()")  # which in quotes are text
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set(";&()"):
                words.append(word)
                continue
            if len(words) == 1 and re.fullmatch(r"\w+=\S+", words[0]):
                name, _, variables[name] = words[0].partition("=")
            elif words:
                found.append([_filled(word, variables) for word in words])
            words = []
    return found


def _filled(word: str, variables: dict[str, str]) -> str:
    for name, value in variables.items():
        word = word.replace(f"${name}", value)
    return word


INLINE = [s for s in SPANS if s.startswith(("python ", "torchrun ")) and "..." not in s]
LINES = [words for text in [*BLOCKS, *INLINE] for words in _lines(text)]
OURS = [(w[i], w[i + 1 :]) for w in LINES for i in range(len(w)) if w[i] in COMMANDS]
SCRIPTS = [
    (w[1], w[2:]) for w in LINES if w[0] == "python" and w[1] not in COMMANDS and w[1][0] != "-"
]


def test_there_are_commands_to_test() -> None:
    assert len(OURS) >= 15
    assert {script for script, _ in OURS} == set(COMMANDS)


@pytest.mark.parametrize(("script", "words"), OURS, ids=lambda value: str(value)[-60:])
def test_a_command_parses_and_stops_at_what_is_absent(
    script: str,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In an empty folder; what needs no data is only parsed, and run by the chains below."""
    (tmp_path / "config").symlink_to(ROOT / "config")
    monkeypatch.chdir(tmp_path)
    if "--help" in words or words == ["--config", "list"]:
        with pytest.raises(SystemExit) as left:
            COMMANDS[script](words)
        assert left.value.code == 0
        return
    if any("config/demo/koopman.yaml" in word for word in words):
        _planned(words) if "--seeds" in words else parse(words, "")
        return
    assert COMMANDS[script](words) == 2
    error = capsys.readouterr().err
    assert re.search(ABSENT, error), error
    assert error.count("\n") == 1


def test_scripts_are_there_and_know_the_flags() -> None:
    assert SCRIPTS
    for script, words in SCRIPTS:
        (path, *_) = [p for p in (ROOT / script, ROOT / "data/ntu" / script) if p.exists()] or [0]
        assert path, script
        sources = path.read_text() + "".join(p.read_text() for p in ROOT.glob("data/*/command.py"))
        sources += "".join(p.read_text() for p in path.parent.glob("*.py"))
        for word in words:
            assert word[:2] != "--" or f'"{word}"' in sources, (script, word)


def test_the_generator_takes_the_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generators = [words[3:] for words in LINES if words[:3] == ["python", "-m", "data.demo"]]
    assert len(generators) == 2
    for words in generators:
        small = ["--performers", "1", "--cameras", "1", "--replications", "1", "--limit", "1"]
        assert demo.main([*words, *small]) == 0


def test_flags_named_in_the_text_exist() -> None:
    spans = [shlex.split(span) for span in SPANS if re.match(r"--[a-z]", span)]
    assert len(spans) > 10
    rooms = ("", "data/", "feeders/", "koopman_pooling/", "model/", "tests/", "torchlight/")
    files = (path for room in rooms for path in ROOT.glob(f"{room}{'**/' if room else ''}*.py"))
    sources = "".join(path.read_text(encoding="utf-8") for path in files)
    demo_config = str(ROOT / "config/demo/koopman.yaml")
    for flag, *words in spans:
        if flag[2:].replace("-", "_") not in Config.model_fields:
            assert f'"{flag.partition("=")[0]}"' in sources or flag.startswith(LAUNCHER), flag
        elif flag == "--phase":  # what else it needs is not beside it
            assert words[0] in {*main_multigpu.TOOLS, "test", "summary"}, words
        elif words and not any(word.isupper() or "..." in word for word in words):
            parse(["--config", demo_config, flag, *words], "")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project as it is cloned, with a made-up NW-UCLA."""
    copy = tmp_path_factory.mktemp("project") / "main"
    ignored = ("work_dir", ".*", "__pycache__", "nturgbd_raw", "NW-UCLA", "*_data", "*.h5")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*ignored))
    write_ucla(copy / "data/NW-UCLA/all_sqe", actions=(1, 2, 3, 4), views=(1, 3))
    return copy


def _run(block: str, checkout: Path) -> None:
    """Run a block in bash, stopping at the first command that fails."""
    binaries = Path(sys.executable).parent
    environment = {
        **ENVIRONMENT,
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "PYTHONPATH": "",
        "XDG_CACHE_HOME": str(checkout / "cache"),
    }
    done = subprocess.run(
        ["bash", "-e", "-c", block],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    "mark", ["config/demo/chain_koopman.yaml", "nturgbd120-oneshot/koopman_oneshot.yaml"]
)
def test_a_chain_without_data_runs_as_it_stands(mark: str, checkout: Path) -> None:
    (block,) = [block for block in BLOCKS if mark in block]
    _run(block, checkout)


@pytest.mark.slow
def test_the_tutorial_runs_as_it_stands(checkout: Path) -> None:
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 6
    _run("".join(blocks), checkout)
    assert (checkout / "work_dir/demo/koopman/normalized_spectrum.png").exists()


@pytest.mark.slow
def test_the_ucla_chain_runs_as_it_stands(checkout: Path) -> None:
    (block,) = [block for block in BLOCKS if "ensemble.py --dataset NW-UCLA" in block]
    _run(block, checkout)


@pytest.mark.slow
def test_the_demo_runs_as_it_stands(checkout: Path) -> None:
    (block,) = [block for block in BLOCKS if "pip install -r requirements.txt" in block]
    _run(block.splitlines()[-1], checkout)
