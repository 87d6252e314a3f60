"""What a command reads and says on a terminal: flags, what a mistyped word meant, colours."""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TextIO

RED, GREEN = 31, 32
_CHOICES = (
    r"'(?P<word>[^']*)' is (?:not|neither .* nor) one of (?P<known>.*)",
    r"invalid choice: '(?P<word>[^']*)' \(choose from (?P<known>[^)]*)\)",
    r"input should be (?P<known>'.*), got '(?P<word>[^']*)'",
    r"'(?P<word>[^']*)': input should be (?P<known>'.*)",
)
"""How messages say that a word is no choice, whoever wrote them."""


def printable(found: object) -> str:
    """What a file holds, or what a library says of it, fit for a message: short, on one line."""
    text = " ".join(str(found).split()) or type(found).__name__
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:200])
    return shown + ("..." if len(text) > 200 else "")


def nearest(name: str, known: Iterable[str], also: Mapping[str, str] | None = None) -> str:
    """``' (did you mean "x"?)'``, or nothing where no known name is near.

    Args:
        also: what others call known names.
    """
    names = list(known)
    lower = {n.lower(): n for n in names}
    close = [(also or {}).get(name.lower(), "")]
    if close[0] not in names:
        found = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
        close = [lower[n] for n in found]
    if not close:  # lr_scheduler: a setting with a word in common, such as base_lr
        words = set(re.findall(r"[^\W_]+", name))
        related = [n for n in names if words & set(re.findall(r"[^\W_]+", n))]
        close = difflib.get_close_matches(name, related, n=1, cutoff=0)
    return f' (did you mean "{close[0]}"?)' if close else ""


def suggested(message: str) -> str:
    """``message``, with what was meant where it says that a word is none of those it lists."""
    return "; ".join(part + _meant(part) for part in message.split("; "))


def _meant(part: str) -> str:
    for pattern in _CHOICES:
        found = re.search(pattern, part)
        if found and "did you mean" not in part:
            quoted = re.findall(r"'([^']*)'", found["known"])
            return nearest(found["word"], quoted or re.findall(r"[\w./+-]+", found["known"]))
    return ""


def painted(text: str, colour: int, stream: TextIO) -> str:
    """``text`` in colour where ``stream`` is a terminal that has some, and nobody forbids it."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain or not stream.isatty() else f"\033[{colour}m{text}\033[0m"


def complain(text: str) -> None:
    """Print an error."""
    print(painted("error:", RED, sys.stderr), text, file=sys.stderr, flush=True)


def run(command: Callable[[], None], *mistakes: type[Exception]) -> int:
    """Run a command that needs no torch; return its exit status, 2 after one of ``mistakes``."""
    try:
        command()
    except OSError as error:
        told = error.strerror or str(error)
        complain(f"{error.filename}: {told}" if error.filename else told)
        return 2
    except mistakes as error:
        complain(str(error))
        return 2
    except KeyboardInterrupt:
        print("stopped; files that are not complete are not there", file=sys.stderr)
        return 130
    return 0


class Parser(argparse.ArgumentParser):
    """Prints a description as it is written; a wrong command line is one line, as elsewhere.

    Attributes:
        also: what others call its flags. values: what a flag takes, where that is known.
        tools: functions behind phases that have flags of their own.
    """

    def __init__(self, *, also: Mapping[str, str] | None = None, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)
        self.also = also
        self.values: dict[str, list[str]] = {}
        self.tools: Mapping[str, str] = {}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; flags may be spelled with underscores."""
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args([dashed(word) for word in words], namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; all unknown flags are said at once, before what else is wrong."""
        known = self._option_string_actions
        words = [dashed(word) for word in (sys.argv[1:] if args is None else args)]
        flags = [word.partition("=")[0] for word in words if re.match(r"--\w", word)]
        if unknown := [flag for flag in flags if flag not in known]:
            told = [f"{flag}: unknown flag{nearest(flag, known, self.also)}" for flag in unknown]
            self.error("; ".join(told))
        found, rest = self.parse_known_args(words, namespace)
        if rest:
            self.error("; ".join(f"{word}: unexpected argument" for word in rest))
        return found

    def error(self, message: str) -> NoReturn:
        """Print, in one line, what argparse would below a page of usage, and exit."""
        complain(self.told(message))
        sys.exit(2)

    def told(self, message: str) -> str:
        """An error of argparse's in our words."""
        return f"{suggested(message.removeprefix('argument '))} (--help lists the flags)"


def dashed(word: str) -> str:
    """A flag with dashes for underscores; any other word as it is."""
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value if word.startswith("--") else word
