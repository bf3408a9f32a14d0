"""Starved units in words: how many there are, and what stops their gradient."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from harness.attribution.evidence import Evidence
from harness.attribution.findings import ELSEWHERE, LOSS, SELECTION, UNUSED, ZEROS, Findings
from harness.detector.counts import on, starved_words
from harness.formats import place_words

MOST_SITES = 5  # largest number of sites whose starved units are explained


def starved_text(found: Findings) -> list[str]:
    """How many units are starved, and what stops their gradient."""
    starved = found.starved
    parts = [starved_words(len(starved), on("stream")).strip()] if len(starved) else []
    dead = found.units[found.units["dead_stream"]]  # it is the stream's gradient that they stop
    counts = starved.groupby(["site", "starved_by"], sort=False).size().rename("units").reset_index()
    counts = counts.sort_values("units", ascending=False, kind="stable")
    for site, by, count in counts.head(MOST_SITES).itertuples(index=False):
        sites = str(by).split("\n")
        if by == LOSS:
            why = "the loss gave no open unit a gradient"
        elif by == ELSEWHERE:
            why = (
                "on other inputs a gradient comes; those that opened them gave none (what follows was closed "
                "on them, positions that are not read, a dropout, inputs that cost no loss)"
            )
        elif by == UNUSED:
            why = (
                "the way to the outputs is open, but no census saw a gradient: the loss leaves out what they "
                "lead to, or gives it no weight"
            )
        elif by == ZEROS:
            why = "the weights behind them are exactly 0"
        elif str(by).startswith(SELECTION):
            name = str(by).removeprefix(f"{SELECTION}: ")
            why = f"they are never selected ({name} stands behind them)"
        elif by:
            why = f"{_dead_behind(sites, dead, found)}, and all their gradient comes through {_those(sites)}"
        else:
            why = "it is not known what stops it"
        parts.append(f"{count:,} of them at {place_words(site)}: {why}.")
    if len(counts) > MOST_SITES:
        parts.append(f"The other {counts['units'].iloc[MOST_SITES:].sum():,} are not listed.")
    return parts


def unreached_text(found: Findings, evidence: Evidence) -> list[str]:
    """The units that no backward pass ever reached, though their layer is trained."""
    layers = evidence.layers
    frozen = layers.loc[layers["trained"].eq(False), "site"] if "trained" in layers else []
    units = found.units[found.units["unreached"] & ~found.units["site"].isin(frozen)]
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
