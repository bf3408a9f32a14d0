"""HTML table of a census, with which a Recorder and a Report display themselves in notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import pandas as pd

from harness.detector.counts import sentence
from harness.detector.states import dead_fraction, summarise
from harness.graph.plan import Site


def census_html(rows: pd.DataFrame | None, sites: Sequence[Site], head: str) -> str:
    """Format a census as an HTML table, one row per site.

    Args:
        rows: rows of one evidence and one step; None before the first census.
        sites: the sites, with the layers that feed them.
        head: heading.
    """
    if rows is None:
        return f"<p>{escape(head)}</p>"
    producers = {site.name: ", ".join(site.producers) for site in sites}
    table = summarise(rows)
    shares = {site: dead_fraction(units) for site, units in rows.groupby("site")}
    shown = pd.DataFrame(
        {
            "site": table["site"],
            "made by": [producers.get(site, "") for site in table["site"]],
            "units": table["units"],
            "n": [f"{n:,}" for n in table["n"]],
            "dead": table["dead"],
            "dead share": ["–" if (s := shares[site]) != s else f"{100 * s:.1f} %" for site in table["site"]],
            "rare": table["rare"],
            "median rate": ["–" if pd.isna(r) else f"{100 * r:.1f} %" for r in table["rate"]],
        }
    )
    return f"<p>{escape(head)}<br>{escape(sentence(rows))}</p>{shown.to_html(index=False, border=0)}"
