"""What a page takes from the code: `<!-- generated: NAME --> *…*` in it is replaced at each build.

The text between the asterisks is for readers of the plain page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

from sphinx.application import Sphinx
from typer.main import get_command

from harness.config.choices import composed
from harness.config.explanation import explain
from harness.config.tree import our_groups
from harness.console import about
from harness.report.plots import CAPTIONS
from harness.tools import app as tools

MARK = re.compile(r"<!-- generated: (\w+) -->(?: \*[^*]+\*)?")
KEY = re.compile(
    r"(?P<key>[\w.]+)(?: \(of [^)]*\))?:? ?(?P<about>.*)\n"
    r"  takes    (?P<takes>.*)\n  default  ?(?P<default>.*)"
)
BARS = re.compile(r"(?<![`\w])\|(\w[^|`]*)\|")
GENERAL = ("seed", "device", "dtype", "output", "force")
HYDRAS = ("hydra.launcher.workers", "hydra.launcher.stack", "hydra.launcher.cohort")


def configuration() -> str:
    """Every group with its choices, and every key with type, range, default and meaning."""
    parts = []
    for group, choices in our_groups().items():
        if not group.startswith("hydra"):
            parts += [f"## {group}", "", *_group(group, choices), ""]
    parts += ["## A run as a whole", "", *_table(map(explain, GENERAL)), ""]
    return "\n".join([*parts, "## Workers of a sweep", "", *_table(map(explain, HYDRAS))])


def _group(group: str, choices: list[str]) -> Iterator[str]:
    """First sentence and choices of a group, then the keys of all choices, each once."""
    usual = composed(()).hydra.runtime.choices.get(group)
    texts: dict[str, list[str]] = {}
    for choice in [usual, *choices] if usual in choices else choices:
        head, *keys = explain(group, [f"{group}={choice}"]).split("\n\n")
        lines = head.splitlines()
        if not texts:
            about = lines[0].partition(": ")[2]
            yield about
            yield ""
            yield from (_choice(line, about) for line in lines[1:])
            yield ""
            texts["\n"] = []  # what comes first is told once
        for text in keys:
            texts.setdefault(text.partition(":")[0].partition(" ")[0], []).append(text)
    yield from _table(found[0] for found in texts.values() if found)


def _choice(line: str, about: str) -> str:
    name, _, said = line.lstrip("* ").partition("  ")
    return f"- `{name}`" + (f": {said.strip()}" if said.strip() not in ("", about) else "")


def _table(texts: Iterable[str]) -> Iterator[str]:
    rows = [found for text in texts if (found := KEY.match(text))]
    if rows:
        yield from ("| key | meaning | takes | default |", "|---|---|---|---|")
    for row in rows:
        cells = (f"`{row['key']}`", row["about"], row["takes"], row["default"])
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def harness_help() -> str:
    """What `harness --help` prints."""
    return f"```text\n{about()}\n```"


def tools_help() -> str:
    """What `harness-tools COMMAND --help` prints, for every command."""
    tools.rich_markup_mode = None
    command: Any = get_command(tools)
    context = command.context_class(
        command, info_name="harness-tools", max_content_width=100, terminal_width=100
    )
    parts = []
    for name in command.list_commands(context):
        one = command.get_command(context, name)
        words = one.context_class(one, parent=context, info_name=name)
        parts += [f"## harness-tools {name}", "", "```text", one.get_help(words), "```", ""]
    return "\n".join(parts)


def names(module: str) -> str:
    """An entry for each public function and class of a package."""
    found = import_module(module)
    public = [name for name in found.__all__ if callable(getattr(found, name))]
    return "\n".join(
        ["```{eval-rst}", *(_entry(module, getattr(found, name), name) for name in public), "```"]
    )


def _entry(module: str, found: Any, name: str) -> str:
    if not isinstance(found, type):
        return f".. autofunction:: {module}.{name}\n"
    kind = "autoexception" if issubclass(found, Exception) else "autoclass"
    return f".. {kind}:: {module}.{name}\n   :members:\n"


def gallery() -> str:
    """Every chart: its picture, the line that tells how to read it, its function."""
    return "\n\n".join(
        f"## {name}\n\n{line}\n\n![{name}](_build/gallery/{name}.svg)\n\n"
        f"`harness.report.plots.{name}`: see [the reference](reference/plots.md)."
        for name, line in sorted(CAPTIONS.items())
    )


GENERATED: dict[str, Callable[[], str]] = {
    "configuration": configuration,
    "harness_help": harness_help,
    "tools_help": tools_help,
    "gallery": gallery,
    "public_names": partial(names, "harness"),
    "compare_names": partial(names, "harness.compare"),
    "remedies_names": partial(names, "harness.remedies"),
    "plots_names": partial(names, "harness.report.plots"),
}


def fill(_: Sphinx, __: str, source: list[str]) -> None:
    """Put what is generated in the place of its mark."""
    source[0] = MARK.sub(lambda found: GENERATED[found[1]](), source[0])


def escape(_: Sphinx, __: str, ___: str, ____: object, _____: object, lines: list[str]) -> None:
    """`|z|` of a docstring is a magnitude, not a substitution of reStructuredText."""
    lines[:] = [line if ">>>" in line else BARS.sub(r"\\|\1\\|", line) for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", fill)
    app.connect("autodoc-process-docstring", escape)
    return {"parallel_read_safe": True}
