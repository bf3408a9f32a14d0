"""Starved units in words: how many there are, and what stops their gradient."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from harness.attribution.evidence import Evidence
from harness.attribution.findings import ELSEWHERE, LOSS, MASKS, SELECTION, UNREAD, UNUSED, ZEROS, Findings
from harness.detector.counts import on, starved_words
from harness.formats import place_words

MOST_SITES = 5  # largest number of sites whose starved units are explained

#: Reason for starvation that is not a site → in words.
REASONS = {
    "": "it is not known what stops it",
    LOSS: "the loss gave no open unit a gradient",
    ELSEWHERE: "on other inputs a gradient comes; those that opened them gave none (what follows was closed "
    "on them, positions that are not read, a dropout, inputs that cost no loss)",
    UNUSED: "the way to the outputs is open, but no census saw a gradient: the loss leaves out what they "
    "lead to, or gives it no weight, or what they lead to hardly ever opens",
    ZEROS: "the weights behind them are exactly 0",
    UNREAD: "no output changes with them: what they lead to is left out, detached, constant or far too small",
    MASKS: "what they lead to is masked, or multiplied by exactly 0, on every input (a mask, or a gate or "
    "router that never chooses it)",
}


def starved_text(found: Findings) -> list[str]:
    """How many units are starved, and what stops their gradient; a reason is told once for all its sites."""
    starved = found.starved
    parts = [starved_words(len(starved), on("stream")).strip()] if len(starved) else []
    dead = found.units[found.units["dead_stream"]]  # it is the stream's gradient that they stop
    counts = starved.groupby(["site", "starved_by"], sort=False).size().rename("units").reset_index()
    counts = counts.sort_values("units", ascending=False, kind="stable")
    counts["why"] = [_why(str(by), dead, found) for by in counts["starved_by"]]
    listed = counts.head(MOST_SITES)
    for why, rows in listed.groupby("why", sort=False):
        own = [f" ({units:,})" if len(rows) > 1 else "" for units in rows["units"]]
        sites = ", ".join(place_words(str(s)) + count for s, count in zip(rows["site"], own, strict=True))
        parts.append(f"{rows['units'].sum():,} of them at {sites}: {why}.")
    if len(counts) > MOST_SITES:
        parts.append(f"The other {counts['units'].iloc[MOST_SITES:].sum():,} are not listed.")
    return parts


def _why(by: str, dead: pd.DataFrame, found: Findings) -> str:
    """One reason in words."""
    if by in REASONS:
        return REASONS[by]
    if by.startswith(SELECTION):
        return f"they are never selected ({by.removeprefix(f'{SELECTION}: ')} stands behind them)"
    sites = by.split("\n")
    return f"{_dead_behind(sites, dead, found)}, and all their gradient comes through {_those(sites)}"


def unreached_text(found: Findings, evidence: Evidence) -> list[str]:
    """The units that no backward pass ever reached, though what makes them is known, and trained."""
    layers = evidence.layers
    trained = layers.loc[layers["trained"].eq(True), "site"] if "trained" in layers else []
    units = found.units[found.units["unreached"] & found.units["site"].isin(trained)]
    counts = units.groupby("site", sort=False).size().sort_values(ascending=False, kind="stable")
    if counts.empty:
        return []
    named = ", ".join(
        f"{place_words(str(site))} ({count:,})" for site, count in counts.head(MOST_SITES).items()
    )
    more = f" and {len(counts) - MOST_SITES} more" if len(counts) > MOST_SITES else ""
    count = f"{len(units):,} unit{'s' * (len(units) > 1)}"
    return [f"No backward pass reached {count} at any step: {named}{more}; what they lead to is in no loss."]


def _dead_behind(sites: Sequence[str], dead: pd.DataFrame, found: Findings) -> str:
    """Which units are dead at some sites."""
    named = []
    for site in sites[:3]:
        units, size = dead.loc[dead["site"] == site, "unit"], int((found.units["site"] == site).sum())
        if size == 1:
            named.append(f"the one unit of {place_words(site)}")
        elif len(units) == size:
            named.append(f"all {size:,} units of {place_words(site)}")
        elif 0 < len(units) <= 3:
            named.append(
                f"unit{'s' * (len(units) > 1)} {', '.join(str(u) for u in units)} of {place_words(site)}"
            )
        else:
            named.append(f"{len(units):,} of {size:,} units of {place_words(site)}")
    more = f" and those of {len(sites) - 3} sites more" if len(sites) > 3 else ""
    single = len(sites) == 1 and named[0].startswith(("the one", "unit "))
    where = on("stream") if found.evidence == "probe" else ""  # distinguishes it from a count on the probe
    return f"{', '.join(named)}{more} {'is' if single else 'are'} dead{where}"


def _those(sites: Sequence[str]) -> str:
    return "there" if len(sites) == 1 else "these"
