"""Shell completion: install a script, and a line in the shell's startup file that reads it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.config import ConfigError

#: Shell → path of the script below the home folder, and the startup file that must read it.
PLACES = {
    "bash": (".bash_completions/{}.sh", ".bashrc"),
    "zsh": (".zsh_completions/{}.zsh", ".zshrc"),
    "fish": (".config/fish/completions/{}.fish", ""),  # fish reads that folder by itself
}


def install(program: str, given: Sequence[str], script_of: Callable[[str], str]) -> str:
    """Install completion for a program, active from the shell's next start (idempotent).

    Args:
        program: name of the program.
        given: the shell; empty: the one in the environment variable SHELL.
        script_of: shell → completion script.

    Returns:
        A message that says what was done.

    Raises:
        ConfigError: the shell is unknown, or the home folder cannot be written.
    """
    shell = given[0] if given else Path(os.environ.get("SHELL", "")).name
    if shell not in PLACES or len(given) > 1:
        raise ConfigError(
            "--install-completion", expected=f"one of {', '.join(PLACES)}", came=" ".join(given) or shell
        )
    place, start = PLACES[shell]
    script, home = script_of(shell), Path.home()
    path = home / place.format(program)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script)
        line = f"source '{path}'\n"
        if start and line not in ((home / start).read_text() if (home / start).is_file() else ""):
            with (home / start).open("a") as file:
                file.write(f"\n{line}")
    except OSError as error:
        raise ConfigError("--install-completion", f"{path} cannot be written ({error.strerror})") from None
    return f"{shell} completes {program} from its next start on ({path})"
