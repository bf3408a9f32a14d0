"""How the evidence of units and of layers becomes tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.attribution.evidence import FACTORS
from harness.attribution.initial_state import PARTS, ROW_COLUMNS
from harness.attribution.layer_inputs import COLUMNS as INPUT_COLUMNS
from harness.attribution.replay import Rates
from harness.attribution.shapley import shapley

UNIT_COLUMNS = (
    *("site", "unit", *(f"birth_{part}" for part in PARTS), "spread", *ROW_COLUMNS),
    *("rate_eval", "rate_buffers", "starved_by"),
)
SHARE_COLUMNS = ("rate_then", "rate_now", *FACTORS)
LAYER_COLUMNS = (
    *("site", "depth", "units", "layer", "source", "normed", "trained", "weight_z", "gain", "growth"),
    *INPUT_COLUMNS,
)
NOW_COLUMNS = tuple(f"{name}_now" for name in INPUT_COLUMNS)


def unit_table(
    births: pd.DataFrame | None = None,
    rates: Mapping[str, Rates] | None = None,
    rows: Sequence[pd.DataFrame] = (),
    others: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    starved: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Each unit's parts at birth, its initial incoming weights, and its shares where computed.

    Args:
        births: the parts.
        rates: site → rates from which the shares follow.
        rows: tables of the incoming weights.
        others: name of a column → site → rates that are a column of their own.
        starved: why units are starved.
    """
    table = pd.DataFrame(columns=pd.Index(["site", "unit"])) if births is None else births
    more = [[_shares(site, value) for site, value in (rates or {}).items()], list(rows)]
    for name, sites in (others or {}).items():
        more.append([_column(name, site, rate) for site, rate in sites.items()])
    more.append([] if starved is None or starved.empty else [starved])
    for frames in more:
        if frames:
            other = pd.concat(frames, ignore_index=True)
            table = table.merge(other, on=["site", "unit"], how="outer", sort=False)
    return table.reindex(columns=pd.Index([*UNIT_COLUMNS, *SHARE_COLUMNS]))


def _column(name: str, site: str, values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"site": site, "unit": np.arange(len(values)), name: values})


def _shares(site: str, value: Rates) -> pd.DataFrame:
    factors = [f for f in FACTORS if any(f in coalition for coalition in value)]
    then, now = value[frozenset()], value[frozenset(factors)]
    columns = dict.fromkeys(FACTORS, np.zeros(len(then))) | shapley(value, factors)
    return pd.DataFrame(
        {"site": site, "unit": np.arange(len(then)), "rate_then": then, "rate_now": now, **columns}
    )


def layer_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Each site's layer, its weights and its inputs."""
    return pd.DataFrame(rows, columns=pd.Index([*LAYER_COLUMNS, *NOW_COLUMNS]))
