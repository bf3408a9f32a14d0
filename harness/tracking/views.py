"""What a recorder shows of itself: a table for notebooks, figures, a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.detector.states import Thresholds, dead_fraction, sentence, summarise
from harness.detector.verdict import last_census

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Plots:
    """The figures of one record, by name; each is a matplotlib figure.

    Args:
        history: gives the censuses so far.
    """

    def __init__(self, history: Callable[[], pd.DataFrame]) -> None:
        self._history = history

    def rate_map(self, **options: Any) -> Figure:
        """Unit × time: the activation rate of every unit at every census."""
        return self._draw("rate_map", options)

    def rate_histogram(self, **options: Any) -> Figure:
        """How the rates of the units are spread, at the first and the last census."""
        return self._draw("rate_histogram", options)

    def state_bars(self, **options: Any) -> Figure:
        """How many units of each site are in each state."""
        return self._draw("state_bars", options)

    def gradients(self, **options: Any) -> Figure:
        """Gradients of the units of each site."""
        return self._draw("gradients", options)

    def _draw(self, name: str, options: Mapping[str, Any]) -> Figure:
        from harness.report.plots import units

        return getattr(units, name)(self._history(), **options)


def census_html(census: pd.DataFrame | None, producers: Mapping[str, str], head: str) -> str:
    """A census as an HTML table, one row per site.

    Args:
        census: its rows; None before the first.
        producers: site → the layers that make its units.
        head: what it is of.
    """
    if census is None:
        return f"<p>{escape(head)}</p>"
    rows = last_census(census)
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


def write_page(save: Callable[[Path], Any], path: str | Path, thresholds: Thresholds) -> Path:
    """The report of a record as one HTML file.

    Args:
        save: writes the record as a run into a folder.
        path: of the file.
        thresholds: of the states.
    """
    from harness.report.html.run import run_report
    from harness.report.report_command import stored_diagnosis
    from harness.store.runs import Run

    with TemporaryDirectory() as folder:
        run = Run(Path(folder) / "run")
        save(run.path)
        page = run_report(run, thresholds=thresholds, diagnose=stored_diagnosis, stays=False)
        return replace(page, subtitle="recorded so far").write(Path(path).expanduser())
