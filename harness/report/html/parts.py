"""Blocks shared by several reports: figures if there are data, tables of sites, causes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pandas as pd
from matplotlib.figure import Figure

from harness.detector.counts import head, on
from harness.detector.verdict import Verdict
from harness.formats import dead_share_text, per_cent
from harness.report.html.page import Block, Code, Link, Row, Section, Table, Tiles, Words
from harness.report.html.pictures import Picture, picture
from harness.report.tables import COUNTS

EVENTS = 20  # largest number of shown rows of an event table


class Diagnosis(Protocol):
    """The interface of `harness.diagnose` that a report needs; print(diagnosis) shows the text."""

    @property
    def label(self) -> str: ...

    @property
    def cause(self) -> str: ...

    @property
    def next_step(self) -> str: ...

    @property
    def units(self) -> pd.DataFrame: ...

    @property
    def events(self) -> pd.DataFrame: ...


Diagnose = Callable[[Any], Diagnosis]


def drawn(*draws: Callable[[], Figure]) -> list[Block]:
    """The figures; a figure without data is replaced by a sentence that says so."""
    blocks: list[Block] = []
    for draw in draws:
        try:
            blocks.append(picture(draw))
        except ValueError as error:
            blocks.append(Words(f"Not drawn: {str(error).partition(': ')[2] or error}.", "note"))
    return blocks


def beside(*draws: Callable[[], Figure]) -> list[Block]:
    """Figures of one kind in a row; for those without data, sentences follow below."""
    blocks = drawn(*draws)
    pictures = [block for block in blocks if isinstance(block, Picture)]
    rest = [block for block in blocks if not isinstance(block, Picture)]
    return [*([Row(pictures)] if pictures else []), *rest]


def frame_table(
    frame: pd.DataFrame,
    *,
    formats: dict[str, Callable[[Any], str]] | None = None,
    fold: str = "",
    caption: str = "",
) -> Table:
    """A table of a frame, with text on the left and numbers on the right."""
    formats = formats or {}
    names = [str(name) for name in frame.columns]
    left = frozenset(k for k, name in enumerate(names) if not pd.api.types.is_numeric_dtype(frame[name]))
    rows = [
        [
            value if isinstance(value, Link) else formats.get(name, _plain)(value)
            for name, value in zip(names, row, strict=True)
        ]
        for row in frame.itertuples(index=False, name=None)
    ]
    return Table([name.replace("_", " ") for name in names], rows, left, fold, caption)


def site_rows(table: pd.DataFrame, evidence: str = "", *, diverged: bool = False) -> Table:
    """One row per site and their total; states that never occur have no column.

    Args:
        table: result of `detector.verdict.site_table` or `detector.states.summarise`.
        evidence: evidence of a run's dead units; "" for a scan, which has no end.
        diverged: whether the run diverged, so that its last census is not its end.
    """
    counts = [
        name
        for name in COUNTS
        if name in table and (name in ("dead", "born_dead", "died", "revived") or table[name].any())
    ]
    heads = [
        "site",
        "units",
        "dead share",
        *(head(name, evidence, diverged=diverged) if evidence else name.replace("_", " ") for name in counts),
        "n",
        "median rate",
        "gradient",
    ]
    rows = []
    for row in table.to_dict("records"):
        seen = row["units"] > row.get("unobserved", 0)
        finite = row["units"] > row.get("unobserved", 0) + row.get("non_finite", 0)  # else no statement
        cells = [f"{row[name]:,.0f}" if seen else "–" for name in counts]
        gradient = "–" if pd.isna(row["grad_rms"]) else f"{row['grad_rms']:.1e}"
        rate = per_cent(row["rate"]) if finite and pd.notna(row["rate"]) else "–"
        rows.append(
            [
                str(row["site"]),
                f"{row['units']:,}",
                dead_share_text(row),
                *cells,
                f"{row['n']:,}",
                rate,
                gradient,
            ]
        )
    if len(table) > 1:
        seen = table[table["units"] > table.get("unobserved", 0)]
        total = seen[["units", *{"dead", "unobserved", "non_finite"}.intersection(seen)]].sum().to_dict()
        rows.append(
            [
                "all",
                f"{total['units']:,}",
                dead_share_text(total),
                *(f"{seen[name].sum():,.0f}" for name in counts),
                "",
                "",
                "",
            ]
        )
    where = f"; dead units{on(evidence)}, starved and gradient{on('stream')}" if evidence else ""
    return Table(heads, rows, caption=f"Units of every site{where}")


def numbers(found: Verdict, accuracy: float | None, *, diverged: bool = False) -> Tiles:
    """The verdict's numbers as tiles."""
    when = head("dead", diverged=diverged)
    items = [
        (per_cent(found.dead_fraction), f"{when}: {found.dead:,} of {found.units:,} units"),
        (f"{found.born_dead:,}", head("born_dead", found.evidence)),
        (f"{found.died:,}", head("died")),
        (f"{found.revived:,}", head("revived")),
    ]
    if found.starved:
        items.append((f"{found.starved:,}", f"starved{on('stream')}"))
    if accuracy is not None:
        items.append((per_cent(accuracy), "test accuracy"))
    return Tiles(items)


def diagnosed(run: Any, diagnose: Diagnose | None) -> Diagnosis | str:
    """Why the units of a run died, or why that is unknown."""
    if diagnose is None:
        return "no diagnosis was asked for."
    try:
        return diagnose(run)
    except (ValueError, OSError) as error:
        return str(error)


def causes(found: Diagnosis | str) -> Section:
    """The section on causes, as far as there is evidence."""
    title = "Causes"
    if isinstance(found, str):
        return Section(title, [Words(f"No cause is named: {found}", "note")])
    blocks: list[Block] = [Words(text) for text in str(found).split("\n") if text.strip()]
    units = found.units
    if len(units) and {"site", "cause"} <= set(units):
        count = pd.crosstab(units["site"], units["cause"])
        count = count.loc[units["site"].unique(), count.sum().sort_values(ascending=False).index]
        blocks.append(frame_table(count.reset_index(), caption="Dead units of every site, by cause"))
    if len(found.events):
        more = f" (the first {EVENTS} of {len(found.events):,})" if len(found.events) > EVENTS else ""
        rows = found.events.head(EVENTS).rename(columns={"deaths": "dated deaths from then on"})
        blocks.append(frame_table(rows, fold=f"Dated events{more}"))
    return Section(title, blocks)


def events_section(events: pd.DataFrame) -> Section:
    """The log of a run in short; a unit that dies twice makes two changes."""
    if events.empty:
        return Section("Events", [])
    events = events.assign(kind=events["kind"].replace({"died": "deaths", "revived": "revivals"}))
    kinds = events.groupby("kind", sort=False).agg(
        events=("step", "size"),
        changes=("units", "sum"),
        first_step=("step", "min"),
        last_step=("step", "max"),
    )
    more = f"The first {EVENTS} of {len(events):,}" if len(events) > EVENTS else f"All {len(events):,}"
    rows = events.head(EVENTS)
    rows = rows.loc[:, [name for name in rows if not (rows[name].astype(str) == "").all()]]
    return Section(
        "Events",
        [
            frame_table(kinds.reset_index(), caption="What happened, by kind"),
            frame_table(rows, fold=f"{more} events"),
        ],
    )


def commands(lines: Sequence[str]) -> Code:
    """Commands that show more."""
    return Code("\n".join(lines))


def or_dash(share: float) -> str:
    """A share in words for a table; – if there is none."""
    return per_cent(share, missing="–")


def _plain(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–" if value is None or value is pd.NA else str(value)
    if pd.isna(value):
        return "–"
    return f"{value:,}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"
