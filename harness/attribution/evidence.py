"""Evidence: the tables from which causes are found."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

#: The factors that may have changed for a unit between two times.
FACTORS = ("weights", "decay", "bias", "norm", "upstream", "data")

OTHER = 0.2  # relative difference of outputs, run again, from which the forward is another
ALIKE = 1.2  # ratio of outputs, run again, at which the forward is the same


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

    @property
    def has_loss(self) -> bool:
        """Whether the losses were given, finite or not."""
        return bool(self.steps.attrs.get("given") or self.steps["loss"].notna().any())

    @property
    def has_other_forward(self) -> bool:
        """Whether the network, run again, gives the latest outputs, but not the first ones."""
        first, last = (float(self.loss.get(f"again_{when}", np.nan)) for when in ("first", "last"))
        return first > OTHER and last < ALIKE
