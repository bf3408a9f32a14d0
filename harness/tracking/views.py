"""Views of a recorder: figures and an HTML page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.detector.states import Thresholds

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Plots:
    """The figures of a recorder, each a matplotlib figure.

    Args:
        history: returns the censuses so far.
    """

    def __init__(self, history: Callable[[], pd.DataFrame]) -> None:
        self._history = history

    def rate_map(self, **options: Any) -> Figure:
        """Unit × time: the activation rate of every unit at every census."""
        return self._draw("rate_map", options)

    def rate_histogram(self, **options: Any) -> Figure:
        """Distribution of the units' rates at the first and the last census."""
        return self._draw("rate_histogram", options)

    def state_bars(self, **options: Any) -> Figure:
        """Number of units of each site in each state."""
        return self._draw("state_bars", options)

    def gradients(self, **options: Any) -> Figure:
        """Gradients of the units of each site."""
        return self._draw("gradients", options)

    def _draw(self, name: str, options: Mapping[str, Any]) -> Figure:
        from harness.report.plots import units

        return getattr(units, name)(self._history(), **options)


def write_page(save: Callable[[Path], Any], path: str | Path, thresholds: Thresholds) -> Path:
    """Write the report of a recorder as one HTML file.

    Args:
        save: writes the recorded data as a run into a folder.
        path: path of the file.
        thresholds: thresholds of the states.
    """
    from harness.report.html.run import run_report
    from harness.report.report_command import stored_diagnosis
    from harness.store.runs import Run

    with TemporaryDirectory() as folder:
        run = Run(Path(folder) / "run")
        save(run.path)
        page = run_report(run, thresholds=thresholds, diagnose=stored_diagnosis, stays=False)
        return replace(page, subtitle="recorded so far").write(Path(path).expanduser())
