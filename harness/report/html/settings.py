"""A run's settings, what to do next, and how to run it again."""

from __future__ import annotations

import shlex
from typing import Any

from harness.compare.frames import word
from harness.config import ConfigError, changes, command_of, flatten
from harness.report.html.page import Block, Section, Table, Words
from harness.report.html.parts import Diagnosis, commands
from harness.store.runs import Run

OPEN = 12  # largest number of a custom loop's settings that are shown unfolded


def answer(run: Run, why: Diagnosis | str, *, sick: bool, stays: bool) -> list[Block]:
    """The cause and the next step, as far as they are known.

    Args:
        run: a run on disk.
        why: its diagnosis, or why there is none.
        sick: whether the dead share is above what is healthy.
        stays: whether the run stays where it is, so that commands can refer to it.
    """
    ours, folder = stays and _asked(run) is not None, shlex.quote(str(run.path))
    if isinstance(why, str):
        find = Words("Next: find the cause."), commands([f"harness-tools diagnose {folder}"])
        return [*find] if sick and ours else []
    step = f"Next: {why.next_step}" if why.next_step else ""
    blocks: list[Block] = [Words(text) for text in (why.cause, step) if text]
    if ours and why.label != "none":
        test = f"harness-tools confirm {folder}    # tests it: one thing at a time is made normal"
        blocks.append(commands([test]))
    return blocks


def settings(run: Run) -> list[Section]:
    """The configuration: differences from the defaults first, next to the defaults."""
    plain = flatten(run.config)
    if not plain:
        return [Section("Settings", [])]
    changed = _asked(run)
    if changed is None:  # a custom loop's: there are no defaults to compare with
        fold = f"All {len(plain)} settings" if len(plain) > OPEN else ""
        return [Section("Settings", [_listed(plain, fold)])]
    rows = [[key, word(value), word(default)] for key, (value, default) in changed.items()]
    first: Block = Words("Every setting is at its default.")
    if rows:
        first = Table(
            ["differs from the default", "value", "default"],
            rows,
            frozenset({0, 1, 2}),
            caption="What the run changes",
        )
    rest = {key: value for key, value in plain.items() if key not in changed}
    return [Section("Settings", [first, _listed(rest, f"The other {len(rest)} settings")])]


def rerun_sections(run: Run) -> list[Section]:
    """Commands that train the run again and show it again."""
    folder = shlex.quote(str(run.path))
    lines = [f"harness-tools report {folder}", f"harness-tools dashboard {folder}"]
    blocks: list[Block] = [commands(lines)]
    if run.is_own_loop:
        blocks.append(
            Words("The loop that trained it is not stored here: its own script trains it again.", "note")
        )
    elif _asked(run) is not None:
        try:
            blocks.insert(0, commands([command_of(run.config, str(run.path.parent))]))
            note = "The first trains it again in the place of this result; another output=… keeps both."
            blocks.append(Words(note, "note"))
        except ConfigError:  # a user-defined group, unknown here
            pass
    return [Section("Again", blocks)]


def _asked(run: Run) -> dict[str, tuple[Any, Any]] | None:
    """Settings of a run that differ from the defaults; None if the harness cannot train it."""
    if run.is_own_loop or not run.config:
        return None
    try:
        return changes(run.config)
    except ConfigError:
        return None


def _listed(flat: dict[str, Any], fold: str) -> Table:
    rows = [[key, word(value)] for key, value in flat.items()]
    return Table(["key", "value"], rows, frozenset({0, 1}), fold, caption="" if fold else "Settings")
