"""Unit causes: what closed each dead unit, as one word for tables and in words for sentences."""

from __future__ import annotations

import pandas as pd

from harness.attribution.birth_causes import birth_causes, hardly_vary, is_by_chance, is_empty, is_flat
from harness.attribution.dead_units import (
    HARDLY,
    factor_shares,
    has_known_layer,
    is_only_evaluated,
    opens_in_training,
)
from harness.attribution.evidence import FACTORS, Evidence
from harness.attribution.findings import Findings

#: Why units were born dead.
BIRTH_REASONS = {
    "norm_eval": "by the running statistics of a norm that evaluation uses, and open in training",
    "probe": "on the held-out inputs alone, as the training's own opened them",
    "chance": "by chance, as the weights of any initialisation fall",
    "constant": "by a constant of the model's own code behind their layer, an offset or a threshold",
    "bias_init": "by their bias",
    "weight_init": "by their weights",
    "empty": "since all their incoming weights are 0",
    "norm_stats": "by the running mean of a norm",
    "flat": "by what stands behind their layer and leaves nothing of it (a norm of one value, say)",
    "input_offset": "by inputs that are off centre, or hardly vary",
    "upstream": "since nothing that varies comes in from below",
    "unknown": "by something that is not known",
}
#: The word in `Diagnosis.units` for a reason, if it differs.
CAUSE_OF_REASON = {
    "norm_eval": "norm_stats",
    "probe": "held_out_inputs",
    "empty": "weight_init",
    "flat": "constant",
}
#: Every cause of a unit.
UNIT_CAUSES = {
    "bias_init": "its bias, from the start",
    "weight_init": "its weights, from the start",
    "norm_stats": "the running statistics of a norm",
    "input_offset": "inputs that are off centre, or hardly vary, from the start",
    "constant": "a constant of the model's own code behind its layer, an offset or a threshold",
    "chance": "chance, as the weights of any initialisation fall",
    "held_out_inputs": "the held-out inputs: the training's own open it",
    "upstream": "what lies below",
    "weights": "its weights, as they were trained",
    "decay": "weight decay",
    "bias": "its bias, as it was trained",
    "norm": "norm statistics, as they moved",
    "data": "the inputs themselves, which changed",
    "unknown": "not known",
}


def birth_reasons(born: pd.DataFrame, found: Findings, evidence: Evidence) -> pd.Series:
    """Why units were born dead: a key of `BIRTH_REASONS` for each unit whose birth is known."""
    known = born[born["spread"].notna()]
    chance = is_by_chance(known, evidence.layers)
    reasons = pd.Series(birth_causes(known, evidence.layers), index=known.index, dtype=object)
    drawn = chance & reasons.ne("upstream")
    reasons = reasons.mask(drawn, "input_offset" if hardly_vary(known, evidence.layers) else "chance")
    reasons = reasons.mask(reasons.eq("weight_init") & is_empty(known, evidence.layers), "empty")
    reasons = reasons.mask(is_flat(known, evidence.layers), "flat")
    opened = opens_at_birth(known, found)
    return reasons.mask(opened, "probe").mask(opened & is_only_evaluated(known), "norm_eval")


def opens_at_birth(born: pd.DataFrame, found: Findings) -> pd.Series:
    """Which units training inputs opened at the start, unlike the held-out inputs."""
    return born["rate_then"].astype(float).ge(HARDLY) & (found.evidence == "probe")


def unit_causes(dead: pd.DataFrame, found: Findings, evidence: Evidence) -> pd.Series:
    """What closed each dead unit: its birth, or the factor that took most of its rate.

    Returns:
        A key of `UNIT_CAUSES` for each unit.
    """
    causes = pd.Series("unknown", index=dead.index, dtype=object)
    shares = factor_shares(dead[~dead["born"]]).dropna(how="all")
    largest = shares.idxmax(axis=1).astype(str)
    own = has_known_layer(dead.loc[shares.index], evidence.layers)
    causes.update(largest.where(own | largest.ne("upstream"), "unknown"))
    if found.evidence == "probe" and not found.is_after_divergence:
        later = ~dead["born"]
        causes = causes.mask(later & opens_in_training(dead), "held_out_inputs")
        causes = causes.mask(later & is_only_evaluated(dead), "norm_stats")
    causes.update(birth_reasons(dead[dead["born"]], found, evidence).replace(CAUSE_OF_REASON))
    return causes


def unit_cause_words(units: pd.DataFrame, site: str, unit: int) -> str:
    """Why one unit is dead.

    Args:
        units: `Diagnosis.units`.
        site: name of its site.
        unit: its number.
    """
    row = units[units["site"].eq(site) & units["unit"].eq(unit)]
    if row.empty:
        return "none: on the evidence that the diagnosis rests on it is not dead"
    cause, evidence = row[["cause", "evidence"]].iloc[0]
    part = float(row[cause].iloc[0]) if cause in FACTORS else float("nan")  # NaN if it was born dead
    share = "" if part != part else f" ({100 * part:.0f} % of its fall)"
    where = "probe" if evidence == "probe" else "training stream"
    return f"{UNIT_CAUSES[cause]}{share}; dead on the {where}"
