"""How a command ends: status 0, or one line and status 2 for a mistake that the user can mend."""

import argparse
import contextlib
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

from . import distributed, terminal
from .distributed import SharedError
from .errors import PeersMissing, RunFailed, Stopped, UserError
from .files import print_any_text, reason
from .launch import launched_rank
from .loading import end_workers
from .registry import import_if_there
from .terminal import complain, dashed, suggested

FIRST_WORD_S = 30.0
"""How long the other ranks leave it to rank 0 to say what is wrong with the configuration."""

_one_at_a_time = threading.RLock()
"""Commands share the process: its generators of random numbers, loggers, processes, workers."""

_under_way: list[Callable[..., int]] = []
"""A command, and the one that it runs in turn: a request to stop ends both."""


class Parser(terminal.Parser):
    """One whose errors a command tells as all others, and whose flags a shell can complete."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.add_help:  # it is no part of another
            told = "bash, zsh or fish: print what makes it complete flags and files"
            self.add_argument("--completion", action=_Completion, metavar="SHELL", help=told)

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong."""
        raise UserError(self.told(message))


class NoShell(UserError):
    """``--completion`` of another shell than those known; whoever catches it has the ``parser``."""

    def __init__(self, shell: str, parser: Parser) -> None:
        super().__init__(f"--completion: {shell!r} is not one of {', '.join(SHELLS)}")
        self.parser = parser


SHELLS = ("bash", "zsh", "fish")


class _Completion(argparse.Action):
    """Prints the script of a shell, as ``--help`` does its page."""

    def __call__(self, parser: Any, namespace: Any, shell: Any, option: Any = None) -> None:
        if shell not in SHELLS:
            raise NoShell(shell, parser)
        print(wing("--completion", "torchlight.comforts.completion")(parser, shell))
        parser.exit()


def tool_asked_for(
    argv: Sequence[str] | None, tools: Mapping[str, str]
) -> Callable[..., int] | None:
    """The function behind the last ``--phase`` of a command line, or behind another flag, if it is
    one of ``tools``.

    Args:
        tools: dotted names of functions (argv, ...) -> exit status by phase ("predict") or flag
            ("--seeds"); each parses its own flags.
    """
    words = [dashed(word) for word in (sys.argv[1:] if argv is None else argv)]
    joined = " ".join(words).replace("--phase=", "--phase ").split()
    phases = [after for word, after in itertools.pairwise(joined) if word == "--phase"]
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    asked = next((word for word in (*phases[-1:], *flags) if word in tools), None)
    if asked is None:
        return None
    return wing(asked if asked[:2] == "--" else f"--phase {asked}", tools[asked])


def wing(asked_by: str, name: str) -> Callable[..., Any]:
    """The function of that dotted name, which ``asked_by`` cannot do without."""
    package, _, function = name.rpartition(".")
    module = import_if_there(package)
    if module is None:
        raise UserError(f"{asked_by}: the wing {package} was taken out")
    return getattr(module, function)


class ConfigurationStage:
    """Marks the part of a command that every process runs alike.

    An error in it is the same on all ranks as a rule, so that rank 0 has the first word.
    """

    def __init__(self) -> None:
        self.active = True

    def over(self) -> None:
        """From here on processes differ: each prints its own errors."""
        self.active = False


def run(
    command: Callable[[ConfigurationStage], int], user_errors: tuple[type[Exception], ...] = ()
) -> int:
    """Run ``command``; turn a mistake of the user's into one line on standard error.

    Args:
        command: takes the stage marker, returns an exit status.
        user_errors: exception types of other packages that stand for a user's mistake.

    Returns:
        The exit status: the command's own; 2 after a mistake; 1 after a run that failed; that of
        the request after a run that was asked to stop; 130 after an interrupt.

    Any thread may call it; of several at once, each waits for the one before.
    """
    print_any_text()
    if not _one_at_a_time.acquire(blocking=False):
        print("note: waits for another run of this process to end", file=sys.stderr, flush=True)
        _one_at_a_time.acquire()
    _under_way.append(command)
    try:
        return _run(command, user_errors)
    finally:
        _under_way.pop()
        _one_at_a_time.release()


def _run(
    command: Callable[[ConfigurationStage], int], user_errors: tuple[type[Exception], ...]
) -> int:
    mistakes: tuple[type[Exception], ...] = (UserError, *user_errors)
    stage = ConfigurationStage()
    last_words: str | None = None
    try:
        with _leaving_on_request():
            return command(stage)
    except Stopped as stopped:
        if len(_under_way) > 1:
            raise
        if launched_rank() == 0:
            print(stopped, file=sys.stderr, flush=True)
        return stopped.status
    except RunFailed as error:
        if launched_rank() == 0 or isinstance(error, PeersMissing):
            complain(one_line(error))
        return 1
    except mistakes as error:
        shared = isinstance(error, SharedError)
        if stage.active and launched_rank() != 0:
            _leave_the_word_to_rank_zero()
        if launched_rank() == 0 or not shared:
            complain(one_line(error))
        last_words = None if shared or stage.active else one_line(error)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        last_words = "interrupted"
        return 130
    except BrokenPipeError:  # whoever read the output has left; say no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # of a drive that could not be read or written, whoever asked it
        last_words = f"{type(error).__name__}: {one_line(error)}"
        if error.filename is None or error.errno is None:
            raise
        complain(f"{error.filename}: {reason(error)}")
        return 2
    except Exception as error:
        last_words = f"{type(error).__name__}: {one_line(error)}"
        raise
    finally:
        end_workers()
        distributed.stop(last_words)


def _leave_the_word_to_rank_zero() -> None:
    """Wait for the launcher to end this process, as it does with all when one has ended.

    So no rank that is quicker takes rank 0's word from it. If rank 0 has found nothing wrong by
    then, the fault is this rank's own.
    """
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(FIRST_WORD_S)


@contextlib.contextmanager
def _leaving_on_request() -> Iterator[None]:
    """Before (and without) training there is nothing to save: SIGTERM leaves, SIGUSR1 is passed
    over. ``Signals`` takes over while a run trains. Off the main thread nothing is handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise Stopped(0, "stopped on request; nothing was under way that needs saving")

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, leave)}
    if hasattr(signal, "SIGUSR1"):  # not on Windows
        before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def one_line(error: BaseException) -> str:
    """The message of ``error``, with what may have been meant; of one that a loading worker
    re-raised, the original's alone."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and "DataLoader worker" in lines[0]:
        return lines[-1].split(": ", 1)[-1]
    return suggested(" ".join(lines))
