"""`dlmjoint completion`: a script by which bash and zsh complete commands and their settings.

The settings are written into the script, so that completing asks no Python: a parser needs seconds to
import what its types are.
"""

import io
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress

from dlmjoint.verbs import COMPLETION, LM_EVAL, VERBS

FLAG = re.compile(r"^ +(?:-\w,? ?(?:[A-Z]\w*, )?)?(--[\w.-]+)", re.MULTILINE)
"""A setting's line in a command's help."""
SCRIPT = """\
# Completion of dlmjoint's commands and settings, for bash and zsh.
#   bash: dlmjoint completion > ~/.local/share/bash-completion/completions/dlmjoint
#   zsh:  dlmjoint completion > ~/.dlmjoint-completion, and `source` that in ~/.zshrc
[ -z "$ZSH_VERSION" ] || { autoload -U +X compinit && compinit; autoload -U +X bashcompinit && bashcompinit; }

_dlmjoint() {
  local word="${COMP_WORDS[COMP_CWORD]}" known
  if [ "$COMP_CWORD" -eq 1 ]; then
    known="%(verbs)s --help --version"
  else
    case "${COMP_WORDS[1]}" in
%(cases)s
    esac
  fi
  COMPREPLY=()
  case "$word" in
    -*) COMPREPLY=($(compgen -W "$known" -- "$word")) ;;
    *) [ "$COMP_CWORD" -ne 1 ] || COMPREPLY=($(compgen -W "$known" -- "$word")) ;;
  esac
}
complete -o default -F _dlmjoint dlmjoint
"""


def completion(main: Callable[[Sequence[str]], None]) -> None:
    """Print the script; `main` is asked for the help of every command."""
    flags = {verb: flags_of(main, verb) for verb in VERBS if verb not in (LM_EVAL, COMPLETION)}
    sys.stdout.write(script(flags))


def script(flags: Mapping[str, Sequence[str]]) -> str:
    """The script that completes all commands, and the settings of these. Everything else, values
    among it, is completed as file names."""
    cases = [f'      {verb}) known="{" ".join(names)}" ;;' for verb, names in flags.items()]
    return SCRIPT % {"verbs": " ".join(VERBS), "cases": "\n".join(cases)}


def flags_of(main: Callable[[Sequence[str]], None], verb: str) -> list[str]:
    """The settings that a command's help names."""
    told = io.StringIO()
    with redirect_stdout(told), suppress(SystemExit), warnings.catch_warnings(action="ignore"):
        main([verb, "--help"])  # Lightning warns of arguments that are not the process's own
    found = sorted(set(FLAG.findall(told.getvalue())))
    assert found, f"the help of {verb} names no settings"
    return found
