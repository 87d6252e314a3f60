"""Completion of flags, their values and the files they take, by a shell (``shtab`` writes it)."""

import re
from typing import Any

from ..cli import NoShell, wing
from ..errors import UserError
from ..files import path_argument
from ..terminal import Parser

_FILES = ("weights", "work_dir")
_PREAMBLE = {
    "bash": """
_{name}_configurations() {{
  compgen -W "{words}" -- "$1"
  compgen -f -- "$1"
}}
""",
    "zsh": """
_{name}_configurations() {{
  compadd -- {words}
  _files
}}
""",
}
_BEHIND_PYTHON = {
    "bash": """
# What follows "python {script}" (torchrun, ...) is completed as what follows "{script}".
_behind_python() {{
  local i own
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    own="${{COMP_WORDS[i]##*/}}"
    own="_shtab_${{own//[^[:word:]]/_}}"
    if [[ "${{COMP_WORDS[i]}}" == *.py ]] && declare -F "$own" > /dev/null; then
      COMP_WORDS=("${{COMP_WORDS[@]:i}}")
      COMP_CWORD=$((COMP_CWORD - i))
      "$own"
      return
    fi
  done
}}
complete -o bashdefault -o default -F _behind_python python python3 torchrun
""",
    "fish": """
for command in python python3 torchrun
  complete -c $command -n 'string match -q "*{script} *" -- (commandline -cp)' \\
    -fa '(complete -C (string replace -r ".*?{script}" "{script}" -- (commandline -cp)))'
end
""",
}


def completion(parser: Parser, shell: str) -> str:
    """A script for ``shell`` that completes the command line of ``parser``; to be sourced."""
    try:
        import shtab
    except ImportError as error:
        raise UserError(
            '--completion needs the package shtab: pip install ".[completion]" (or shtab)'
        ) from error
    _add_flags_of_phases(parser)
    script = parser.prog = parser.prog.split()[0]  # of "main.py --phase predict", say
    words = " ".join(["list", *parser.values.get("config", ())])
    name = re.sub(r"\W", "_", script)
    actions: list[Any] = parser._actions
    for action in actions:
        if action.dest == "config":
            action.complete = dict.fromkeys(_PREAMBLE, f"_{name}_configurations")
            action.complete["fish"] = f"{words} {shtab.FILE['fish']}"
        elif action.dest in _FILES or action.type is path_argument:
            action.complete = shtab.FILE
        elif action.dest in parser.values:
            action.choices = parser.values[action.dest]
    preamble = _PREAMBLE.get(shell, "").format(name=name, words=words)
    made = shtab.complete(parser, shell=shell, preamble=preamble)
    return made + _BEHIND_PYTHON.get(shell, "").format(script=script)


def _add_flags_of_phases(parser: Parser) -> None:
    """Let ``parser`` have the flags of the phases that are tools; in completion alone."""
    for phase, tool in parser.tools.items():
        try:
            wing(f"--phase {phase}", tool)(["--phase", phase, "--completion", "none"])
        except NoShell as asked:
            for action in asked.parser._actions:
                if not {*action.option_strings} & parser._option_string_actions.keys():
                    parser._add_action(action)
        except UserError:  # the wing was taken out
            continue
