"""``~`` and ``$NAME`` in the paths of every command."""

from pathlib import Path

import pytest

import ensemble
import main_multigpu
import test_oneshot
from data.demo import __main__ as demo
from data.preparation import command
from eigen_normalization import main as normalise
from torchlight.files import expanded


def _config(*words: str) -> list[str]:
    return ["--config", "config/demo/koopman.yaml", "--device", "cpu", *words]


COMMANDS = {
    "--config": lambda path: main_multigpu.main(["--config", path]),
    "--weights": lambda path: main_multigpu.main(_config("--phase", "test", "--weights", path)),
    "--test-feeder-args base_args.root": lambda path: main_multigpu.main(
        ["--config", "config/ucla-oneshot/koopman_oneshot.yaml", "--device", "cpu",
         "--test-feeder-args", f"base_args.root={path}"]
    ),
    "--test-feeder-args data_path": lambda path: main_multigpu.main(
        ["--config", "config/nturgbd-cross-view/tune.yaml", "--device", "cpu",
         "--test-feeder-args", f"data_path={path}"]
    ),
    "--test-feeder-args root": lambda path: test_oneshot.main(
        ["--config", "config/ucla/ctrgcn.yaml", "--device", "cpu", "--weights", "w.pt",
         "--test-feeder-args", f"root={path}"]
    ),
    "--load-path": lambda path: normalise(["--load-path", path, "--save-path", "x.pt"]),
    "--joint-dir1": lambda path: ensemble.main(["--joint-dir1", path]),
    "--scores": lambda path: ensemble.main(["--scores", path]),
    "--input": lambda path: command.read("ntu60", ["--input", path]),
    "--output": lambda path: command.transform("ntu60", ["--input", path, "--output", "/tmp/x"]),
}  # fmt: skip


@pytest.mark.parametrize("flag", COMMANDS)
@pytest.mark.parametrize("spelling", ["~/absent", "$HOME/absent", "${HOME}/absent"])
def test_a_path_is_looked_for_where_it_leads(
    flag: str,
    spelling: str,
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "config").symlink_to(root / "config")
    assert COMMANDS[flag](spelling) == 2
    assert f"{tmp_path}/absent" in capsys.readouterr().err
    assert not any(path.name != "config" for path in (tmp_path / "here").iterdir())


@pytest.mark.parametrize("flag", [f for f in COMMANDS if f != "--output"])
def test_a_variable_that_is_not_set_is_named(
    flag: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.delenv("NOWHERE", raising=False)
    try:
        status = COMMANDS[flag]("$NOWHERE/x")
    except SystemExit as left:  # of argparse
        status = left.code  # type: ignore[assignment]
    error = capsys.readouterr().err
    assert status == 2
    assert "'$NOWHERE/x': the environment variable NOWHERE is not set" in error
    assert error.startswith(f"error: {flag}") or f" {flag}: " in error


def test_the_generator_writes_where_the_path_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert demo.main(["--out", "~/raw", "--limit", "1"]) == 0
    assert len(list((tmp_path / "raw").rglob("*.skeleton"))) == 1


def test_what_is_there_by_that_very_name_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a$b").mkdir()
    assert expanded("a$b") == "a$b"
    assert expanded("cost 5$") == "cost 5$"
    with pytest.raises(ValueError, match="control character"):
        expanded("D:\new")
