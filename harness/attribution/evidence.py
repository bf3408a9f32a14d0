"""Evidence: the tables that causes follow from, whoever gathered them."""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

#: What can have changed for a unit between two times.
FACTORS = ("weights", "decay", "bias", "norm", "upstream", "data")


class Evidence(NamedTuple):
    """Three tables.

    Attributes:
        steps: per step the scalars of `harness.attribution.step_metrics.COLUMNS`.
        units: per site × unit the parts of its mean pre-activation at birth (`birth_…`, in deviations), its
            rate then and now on the stream's inputs, and every factor's Shapley share in the change.
        layers: per site what feeds it: depth, weights at birth and their growth, inputs then and now.
    """

    steps: pd.DataFrame
    units: pd.DataFrame
    layers: pd.DataFrame

    @property
    def error(self) -> str:
        """Why the tables are incomplete; "" if they are not. Stored in the attributes of `steps`."""
        return str(self.steps.attrs.get("error", ""))

    @property
    def replayed(self) -> int:
        """On how many inputs the replays rest where these were cut to answer in time; else 0."""
        return int(self.steps.attrs.get("replayed", 0))

    @property
    def loss(self) -> dict[str, Any]:
        """What is known of the loss, as in `LossPath.facts`. Stored in the attributes of `steps`."""
        return dict(self.steps.attrs.get("loss", {}))
