"""Console view of a comparison: sentences first, then the tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from harness.compare.comparison import Comparison
from harness.compare.frames import ALL_RUNS, missing, setting_words, word
from harness.formats import p_is, p_value, per_cent, points
from harness.report.console_parts import plain_table

LOST = ("diverged", "failed", "unfinished")
ROWS = 40  # rows per table
FEW = 4  # largest number of settings that are listed even without any critical value
TOLD_APART = 8  # largest number of settings of `by`
SURE = 0.05
OUTCOME_WORDS = {"born_dead": "born dead"}


def view(found: Comparison, share: float = 0.5) -> RenderableType:
    """A comparison: sentences, tables, and the methods.

    Args:
        found: result of `harness.compare.comparison.compare_runs`.
        share: share of the outcome at its critical values.
    """
    parts: list[RenderableType] = [*(Text(sentence) for sentence in found.sentences), Text("")]
    if found.ranking is not None:
        parts += [ranking_table(found.ranking), Text("")]
    if found.effects is not None and len(found.effects):
        for name, rows in found.effects.groupby("factor", sort=False):
            parts += effects_tables(rows, str(name), found.by)
    if found.survival is not None and found.logrank is not None:
        for (name, *setting), rows in found.survival.groupby(["factor", *found.by], sort=False, dropna=False):
            tests = _where(found.logrank, ["factor", *found.by], [name, *setting])
            parts += [survival_table(rows, tests, str(name), setting_words(found.by, setting)), Text("")]
    if found.critical is not None:
        for name, rows in found.critical.groupby("axis", sort=False):
            parts += [critical_table(rows, str(name), share), Text("")]
    parts += [Text(f"Note: {note}") for note in found.notes]
    parts.append(Text(methods(found), style="dim"))
    return Group(*parts)


def methods(found: Comparison) -> str:
    """How the numbers were computed."""
    adjusted = found.correction != "none"
    name = "Benjamini and Hochberg's method" if found.correction == "fdr" else "Holm's method"
    joint = "joint flips, Westfall and Young's max-T" if found.correction == "max_t" else name
    over = f", adjusted over all differences, and over the ranking, by {joint}" if adjusted else ""
    rest = f", adjusted within each table by {name}" if adjusted else ""
    return (
        "Seeds are the unit of analysis. Differences: means of pairs that share seed and all other factors; "
        f"interval: bootstrap-t, {100 * found.confidence:g} %; p: sign flips, exact up to 20 seeds{over}. "
        f"Ranking: jackknife over seeds. Survival: Kaplan–Meier, log-rank with sign flips of seeds{rest}. "
        f"*: {'adjusted ' if adjusted else ''}p < 0.05. "
        "Runs that diverged, failed or are not finished are counted, never 0 %."
    )


def ranking_table(rows: pd.DataFrame) -> RenderableType:
    """Terms by their share of the variance."""
    facts = rows.attrs
    title = f"What the {_outcome(facts.get('outcome', 'dead'))} depends on"
    seeds = "one seed" if facts.get("seeds") == 1 else f"{facts.get('seeds', 0):,} seeds"
    used = f"{facts['used']:,} of {facts['runs']:,} runs, {seeds}" if "used" in facts else ""
    table = plain_table(title, used)
    table.add_column("term", overflow="fold")
    for name in ("levels", "share of variance", "interval", "p", "adjusted"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows.head(ROWS).to_dict("records"):
        table.add_row(
            escape(row["term"]),
            f"{row['levels']:,}",
            _dashed(row["share"]),
            _span(row["low"], row["high"], _dashed),
            p_value(row["p"], missing="-"),
            _adjusted(row["p_adjusted"]),
        )
    for name in ("seed", "rest"):
        if facts.get(name) is not None and not np.isnan(facts[name]) and rows["share"].notna().any():
            table.add_row(f"[dim]{name}[/]", "", f"[dim]{_dashed(facts[name])}[/]", "", "", "")
    return table


def effects_tables(rows: pd.DataFrame, factor: str, by: Sequence[str] = ()) -> Iterator[RenderableType]:
    """Each level against the baseline: one table per setting of `by`."""
    groups = rows.groupby(list(by), sort=False, dropna=False) if by else [((), rows)]
    for k, (setting, part) in enumerate(groups):
        if k == TOLD_APART:
            yield Text(f"… and further settings of {', '.join(by)}: --json or --csv has all.\n", style="dim")
            return
        yield effects_table(part, factor, setting_words(by, setting) if by else "")
        yield Text("")


def effects_table(rows: pd.DataFrame, factor: str, within: str = "") -> RenderableType:
    """Each level against the baseline."""
    base = word(rows["baseline"].iloc[0])
    title = f"{factor}: effects against {base}" + (f", with {within}" if within else "")
    table = plain_table(title, "differences in percentage points")
    lost = [name for name in LOST if rows[name].any() or rows[f"baseline_{name}"].any()]
    table.add_column("level", overflow="fold")
    table.add_column("outcome", no_wrap=True)
    for name in ("runs", *lost, "seeds", "mean", f"at {base}", "difference", "interval", "p", "adjusted"):
        table.add_column(escape(name), justify="right", no_wrap=True)
    if lost:
        counts = [f"[dim]{rows[f'baseline_{name}'].iloc[0]:,}[/]" for name in ("runs", *lost)]
        table.add_row(f"[dim]{escape(base)}[/]", "[dim]baseline[/]", *counts, *[""] * 7)
    marks: dict[str, str] = {}
    for row in rows.head(ROWS).to_dict("records"):
        mark = f" {marks.setdefault(row['note'], chr(ord('a') + len(marks) % 26))}" if row["note"] else ""
        table.add_row(
            escape(word(row["level"])),
            OUTCOME_WORDS.get(row["outcome"], row["outcome"]),
            *(f"{row[name]:,}" for name in ("runs", *lost)),
            f"{row['pairs']:,}{mark}",
            _dashed(row["mean"]),
            _dashed(row["baseline_mean"]),
            points(row["difference"]),
            _span(row["low"], row["high"], points),
            p_value(row["p"], missing="-"),
            _adjusted(row["p_adjusted"]),
        )
    notes = [Text(f"{mark}: {note}", style="dim") for note, mark in marks.items()]
    return Group(table, *notes, *_more(rows))


def survival_table(rows: pd.DataFrame, tests: pd.DataFrame, factor: str, within: str = "") -> RenderableType:
    """The end of each survival curve, and its log-rank test."""
    title = f"{factor}: survival of units" + (f", with {within}" if within and within != ALL_RUNS else "")
    overall = tests[tests["a"] == "all"]
    under = "share of the units alive at first that had not died by the last step; p: log-rank test"
    if len(overall) and not np.isnan(overall["p"].iloc[0]):
        under += f", of all settings {p_is(overall['p'].iloc[0])}"
    table = plain_table(title, under)
    lost = [name for name in LOST if rows[name].any()]
    table.add_column("setting", overflow="fold")
    for name in ("units", "born dead", *lost, "last step", "not died", "interval", "p", "adjusted"):
        table.add_column(name, justify="right", no_wrap=True)
    tested = {row["a"]: row for row in tests.to_dict("records")}
    for row in rows.head(ROWS).to_dict("records"):
        test = tested.get(row["setting"], {"p": np.nan, "p_adjusted": np.nan})
        table.add_row(
            escape(row["setting"]),
            f"{row['units']:,}",
            _dashed(row["born_dead"] / row["units"]) if row["units"] else "-",
            *(f"{row[name]:,}" for name in lost),
            f"{row['step']:,}",
            _dashed(row["survival"]),
            _span(row["low"], row["high"], _dashed),
            p_value(test["p"], missing="-"),
            _adjusted(test["p_adjusted"]),
        )
    return Group(table, *_more(rows))


def critical_table(rows: pd.DataFrame, axis: str, share: float) -> RenderableType:
    """Critical values, including settings without one."""
    outcome = f"{100 * share:g} %"
    if len(rows) > FEW and rows["critical"].isna().all():
        lowest, highest = _dashed(rows["lowest"].min()), _dashed(rows["highest"].max())
        return Text(
            f"{axis}: in none of {len(rows):,} settings of the other factors does the mean cross {outcome} "
            f"along it (means from {lowest} to {highest})."
        )
    table = plain_table(
        f"{axis} at which the mean crosses {outcome}", "interval: of the values that were run"
    )
    table.add_column("setting", overflow="fold")
    for name in ("critical", "seen between", "interval", "runs", "diverged"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    for row in rows.head(ROWS).to_dict("records"):
        none = np.isnan(row["critical"]) or bool(row["missing"])
        table.add_row(
            escape(row["setting"]),
            "-" if none else f"{row['critical']:.3g}",
            "-" if none else f"{_end(row['below'])} … {_end(row['above'])}",
            "-" if none else _span(row["low"], row["high"], _end),
            f"{row['runs']:,}",
            f"{row['diverged']:,}",
            escape(row["note"]),
        )
    return Group(table, *_more(rows))


def _where(table: pd.DataFrame, names: Sequence[str], wanted: Sequence[Any]) -> pd.DataFrame:
    """The rows with these values."""
    for name, value in zip(names, wanted, strict=True):
        same = table[name].isna() if missing(value) else table[name] == value
        table = table[same]
    return table


def _more(rows: pd.DataFrame) -> Iterator[Text]:
    if len(rows) > ROWS:
        yield Text(f"… and {len(rows) - ROWS:,} more rows: --json or --csv has all of them.", style="dim")


def _outcome(name: str) -> str:
    return {"dead": "dead share", "born_dead": "share born dead"}.get(name, name)


def _adjusted(p: float) -> str:
    """An adjusted p, bold and with a star if it is sure; the others are aligned with it."""
    return f"[bold]{p_value(p)}*[/]" if p < SURE else f"{p_value(p, missing='-')} "


def _end(value: float) -> str:
    return {np.inf: "beyond", -np.inf: "before"}.get(value, word(float(f"{value:.4g}")))


def _span(low: float, high: float, form: Any) -> str:
    return "-" if np.isnan(low) or np.isnan(high) else f"{form(low)} … {form(high)}"


def _dashed(share: float) -> str:
    return per_cent(share, missing="-")
