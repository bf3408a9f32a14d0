"""Shell completion: a script in the user's own folder, and the line that has it read when a shell starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.config import ConfigError

#: Shell → the script's place below the home folder, and the file of the shell that has to read it.
PLACES = {
    "bash": (".bash_completions/{}.sh", ".bashrc"),
    "zsh": (".zsh_completions/{}.zsh", ".zshrc"),
    "fish": (".config/fish/completions/{}.fish", ""),  # fish reads that folder by itself
}


def install(program: str, given: Sequence[str], script_of: Callable[[str], str]) -> str:
    """Make a shell complete a program's words from its next start on; a second time changes nothing.

    Args:
        program: its name.
        given: the shell, or nothing: that of the environment's SHELL.
        script_of: shell → what it has to read.

    Returns:
        What was done.

    Raises:
        ConfigError: an unknown shell, or a home folder that cannot be written.
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
