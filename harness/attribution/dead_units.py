"""What the rules of causes ask about dead units, one row each in `Findings.units`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.attribution.evidence import FACTORS, Evidence
from harness.attribution.findings import Findings
from harness.detector.states import rate_upper

UNINFORMATIVE = 0.2  # upper bound of a dead unit's rate above which its silence is uninformative (n below 14)
TINY = 8  # sites with fewer units are not mostly dead at one half
OFTEN = 0.02  # rate in training at which a unit that held-out inputs never open is contradictory
HARDLY = 0.01  # rate at birth below which a unit was nearly born dead
OPEN = 0.1  # rate in the first census from which a unit was open


def informative(units: pd.DataFrame) -> pd.DataFrame:
    """The units seen on enough inputs for silence to be informative."""
    return units[rate_upper(np.zeros(len(units)), units["n"].to_numpy()) <= UNINFORMATIVE]


def mostly_dead(units: pd.DataFrame, layers: pd.DataFrame) -> tuple[str, ...]:
    """The sites whose units are all dead, or at least half of them if not tiny; without frozen ones."""
    counts = units.groupby("site", sort=False)["dead"].agg(["sum", "size"])
    half = (counts["sum"] >= counts["size"] / 2) & (counts["size"] >= TINY)
    sites = counts.index[half | (counts["sum"] == counts["size"])]
    frozen = layers.loc[layers["trained"].eq(False), "site"] if "trained" in layers else []
    return tuple(str(site) for site in sites[~sites.isin(frozen)])


def do_inputs_differ(dead: pd.DataFrame, found: Findings) -> bool:
    """Whether the training's own inputs open most of the units that held-out inputs leave closed."""
    known = found.evidence == "probe" and not found.is_after_divergence
    return known and bool(len(dead)) and bool(opens_in_training(dead).mean() > 0.5)


def opens_in_training(units: pd.DataFrame) -> pd.Series:
    """Which units open on so many training inputs now that held-out inputs should open them, too.

    Both the replayed inputs and the last window of training must show it.
    """
    least = (2 * units["rate_upper"]).clip(lower=OFTEN)
    return (units["rate_now"].astype(float) > least) & (units["rate_stream"].astype(float) > least)


def is_only_evaluated(units: pd.DataFrame) -> pd.Series:
    """Which units open in training, but not on the same inputs with the norms' running statistics."""
    return opens_in_training(units) & (units["rate_eval"].astype(float) == 0)


def runs_otherwise(dead: pd.DataFrame) -> pd.Series:
    """Which units the first network, run again, closes, though the training shows them open at first."""
    return dead["rate_first"].astype(float).ge(OPEN) & dead["rate_then"].astype(float).lt(HARDLY)


def opens_with_first_buffers(dead: pd.DataFrame) -> pd.Series:
    """Which units open on the latest inputs if no buffer had changed but those of norms."""
    return dead["rate_buffers"].astype(float).ge(OPEN) & dead["rate_now"].astype(float).lt(HARDLY)


def are_outputs(dead: pd.DataFrame, evidence: Evidence) -> pd.Series:
    """Which units are the model's outputs: a ReLU comes last."""
    last = evidence.layers["site"].iloc[-1:] if evidence.loss.get("rectified") else []
    return dead["site"].isin(last)


def has_known_layer(units: pd.DataFrame, layers: pd.DataFrame) -> np.ndarray:
    """Which units are made by a single layer; for others, `upstream` is the rest of the network."""
    known = layers.loc[layers["layer"].notna(), "site"] if "layer" in layers else layers["site"]
    return units["site"].isin(known).to_numpy()


def factor_shares(units: pd.DataFrame) -> pd.DataFrame:
    """Share of every factor in a unit's fall: max(0, -φ) / Σ max(0, -φ).

    NaN if the rate did not fall: the unit was born dead, or died after the last snapshot.
    """
    falls = units[list(FACTORS)].to_numpy(float).clip(max=0) * -1
    total = falls.sum(axis=1, keepdims=True)
    fell = units["rate_now"].to_numpy(float) < np.maximum(HARDLY, units["rate_then"].to_numpy(float) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where((total > 0) & fell[:, None], falls / total, np.nan)
    return pd.DataFrame(shares, columns=pd.Index(FACTORS), index=units.index)


def is_on_stream_alone(found: Findings) -> bool:
    """Whether held-out inputs open most of the units that the training's own leave closed."""
    return found.evidence == "stream" and found.on_probe is not None and 2 * found.on_probe[0] < found.dead
