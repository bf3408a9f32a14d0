"""Show the edges and the progress of a search on the console."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from harness.report.console_parts import plain_table, progress_bar
from harness.sweeps.sweep import Sweep
from harness.sweeps.threshold_search.arms import in_words
from harness.sweeps.threshold_search.found import SearchResult
from harness.sweeps.threshold_search.seeds import ArmEdge
from harness.sweeps.threshold_search.train import Rounds

KINDS = {
    "death": ("dead",),
    "divergence": ("diverged",),
    "no crossing": ("below", "above"),
    "no result": ("unobserved",),
}


def view(found: SearchResult) -> RenderableType:
    """Render one row per arm, and notes below the table."""
    share = f"{100 * found.threshold:g} %"
    source = "searched" if found.grid else "stored runs"
    scale = "logarithmic" if found.log else "linear"
    table = plain_table(
        f"{found.axis} at which {share} of the units are dead or training diverges",
        f"{source} between {found.low:g} and {found.high:g}, {scale} scale",
    )
    table.add_column("arm", overflow="fold")
    for name in ("edge\n(median)", "interval\n(coverage)", "seeds", "dead at\nits sides"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("runs", justify="right")
    for arm in found.arms:
        table.add_row(escape(in_words(arm.arm)), *_cells(found, arm))
    parts: list[RenderableType] = [table]
    for arm in found.arms:
        parts += [Text(f"{in_words(arm.arm)}: {line}") for line in found.notes(arm)]
    parts.append(Text(_closing(found)))
    return Group(*parts)


@contextmanager
def progress() -> Iterator[Callable[[Rounds, Sweep], None]]:
    """Show progress on stderr if it is a terminal."""
    bar = progress_bar("values tried  {task.fields[words]}")
    line = bar.add_task("", total=None, words="")

    def tell(rounds: Rounds, sweep: Sweep) -> None:
        done = rounds.tried + len(sweep.outcomes) + sweep.under_way
        words = f"round {rounds.number}  {len(sweep.specs)} runs"
        bar.update(line, completed=int(done), total=max(rounds.most, int(done)), words=words)

    with bar:
        yield tell


def _cells(found: SearchResult, arm: ArmEdge) -> list[str]:
    edges = [edge for edge in arm.seeds.values() if edge.found]
    sides = ""
    if edges:
        below = sorted(edge.share_below for edge in edges)[len(edges) // 2]
        above = sorted(edge.share_above for edge in edges)[len(edges) // 2]
        sides = f"{100 * below:.0f} | {'-' if math.isnan(above) else f'{100 * above:.0f}'} %"
    none = math.isnan(arm.low) or bool(arm.missing)
    ends = f"{_number(found, arm.low)} … {_number(found, arm.high)}"
    interval = "-" if none else f"{ends}\n({100 * arm.coverage:.1f} %)"
    kinds = {word: sum(arm.count(state) for state in states) for word, states in KINDS.items()}
    seeds = "\n".join(f"{count} {word}" for word, count in kinds.items() if count)
    edge = "-" if arm.missing else _number(found, arm.median)
    return [edge, interval, seeds, sides or "-", f"{arm.tried:,}"]


def _number(found: SearchResult, value: float) -> str:
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return f"> {found.high:g}" if value > 0 else f"< {found.low:g}"
    return f"{value:.4g}"


def _closing(found: SearchResult) -> str:
    lines = ["Interval: exact, from order statistics over seeds; a seed's neighbours stand for its edge."]
    if found.grid:
        lines.append(
            f"{found.tried:,} runs, {found.trained:,} of them trained now; "
            f"a grid of the same resolution has {found.grid:,}."
        )
    else:
        lines.append(f"{found.tried:,} stored runs; nothing was trained.")
    lines += [f"Left out: {count:,} run(s) {reason}." for reason, count in (found.left_out or {}).items()]
    lines += [f"failed {error}" for error in found.errors]
    return "\n" + "\n".join(lines)
