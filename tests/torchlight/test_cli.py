"""Who says what when a command of several ranks ends with a mistake."""

import time

import pytest

from torchlight import cli
from torchlight.errors import UserError


def mistaken(after_configuration: bool):
    """A command that ends with a user's mistake, while ranks are alike or afterwards."""

    def command(stage: cli.ConfigurationStage) -> int:
        if after_configuration:
            stage.over()
        raise UserError("no such file")

    return command


@pytest.mark.parametrize(
    ("rank", "after_configuration", "waits"), [("0", False, 0), ("1", False, 1), ("1", True, 0)]
)
def test_other_ranks_leave_the_first_word_to_rank_zero(
    monkeypatch, capsys, rank, after_configuration, waits
):
    slept: list[float] = []
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(time, "sleep", slept.append)
    assert cli.run(mistaken(after_configuration)) == 2
    assert slept == [cli.FIRST_WORD_S] * waits
    assert capsys.readouterr().err == "error: no such file\n"


def test_what_a_drive_refuses_is_one_line_with_the_file(capsys, tmp_path):
    assert cli.run(lambda stage: len((tmp_path / "absent").read_bytes())) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/absent: No such file or directory\n"


def test_an_error_of_no_file_keeps_its_traceback():
    def command(stage):
        raise OSError("the reading head is worn out")

    with pytest.raises(OSError, match="worn out"):
        cli.run(command)
