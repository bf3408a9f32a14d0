"""Evidence: the tables from which causes are found."""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

#: The factors that may have changed for a unit between two times.
FACTORS = ("weights", "decay", "bias", "norm", "upstream", "data")


class Evidence(NamedTuple):
    """Three tables.

    Attributes:
        steps: one row per step, with the scalars of `harness.attribution.step_metrics.COLUMNS`.
        units: one row per site and unit: the parts of its mean pre-activation at birth (`birth_…`, in
            deviations), its rate then and now on the stream's inputs, and each factor's Shapley share.
        layers: one row per site: what feeds it, depth, weights at birth and their growth, inputs then and
            now.
    """

    steps: pd.DataFrame
    units: pd.DataFrame
    layers: pd.DataFrame

    @property
    def error(self) -> str:
        """Why the tables are incomplete; "" if they are complete. Stored in the attributes of `steps`."""
        return str(self.steps.attrs.get("error", ""))

    @property
    def replayed(self) -> int:
        """Number of inputs used by replays if it was limited to save time; else 0."""
        return int(self.steps.attrs.get("replayed", 0))

    @property
    def loss(self) -> dict[str, Any]:
        """Facts about the loss, as in `LossPath.facts`. Stored in the attributes of `steps`."""
        return dict(self.steps.attrs.get("loss", {}))
