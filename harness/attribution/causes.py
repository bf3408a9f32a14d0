"""Causes: why the units of a run are dead, from its censuses and its evidence; no model is needed.

The rules and their order follow what was measured on injected faults (`experiments.benchmarks.causes`). They
propose: one run cannot distinguish some causes (`python -m experiments.benchmarks.causes` shows which).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.attribution.events import Event, calm_before
from harness.attribution.evidence import FACTORS, Evidence
from harness.attribution.findings import BIRTH, LEAST_DEAD, Findings

#: What each label means.
MEANING = {
    "none": "nothing is wrong",
    "bias_init": "the biases were drawn too low",
    "weight_init": "the weights were drawn so that units start closed",
    "input_offset": "the inputs are too large or too far off centre",
    "input_shift": "the inputs moved and stayed there",
    "bad_batch": "one bad batch",
    "step_size": "steps that were too long",
    "labels": "the labels, or what the loss compares with, changed",
    "decay": "weight decay",
    "bias_lr": "the learning rate of the biases",
    "norm_stats": "the running statistics of a norm",
    "surgery": "somebody wrote into the parameters",
}
LABELS = tuple(MEANING)
CHANCE = 0.2  # dead share below which nothing is blamed, where units were born dead by chance
NEGATIVE = -5  # standard errors of the weights' mean below which it is no chance
LARGE = 1.5  # deviation of the weights over He's from which they are large
UNINFORMATIVE = 0.2  # upper bound of a dead unit's rate above which its silence says nothing (n below 14)
HARDLY = 0.01  # rate at birth below which a unit was as good as born dead


def label(found: Findings, evidence: Evidence) -> tuple[str, list[Event]]:
    """The cause of a run, and the events behind it.

    Returns:
        One of `LABELS`, and its dated events (none for what was there from the start).
    """
    dead = found.units[found.units["dead"]]
    share = found.dead / found.total if found.total and not is_inconclusive(dead) else 0.0
    if share < LEAST_DEAD and found.diverged_at is None:
        return "none", []
    born = dead[dead["born"] | (dead["rate_then"] < HARDLY)]
    if share >= LEAST_DEAD and len(born) > len(dead) / 2 and dead["born"].any():
        cause = _birth_cause(born, evidence.layers)
        return ("none" if share < CHANCE and _is_chance(cause, evidence.layers) else cause), []
    own = factor_shares(dead.assign(upstream=0.0))  # what happened below is the own share of another layer
    if _mean(own["norm"]) > 0.4:
        return "norm_stats", []
    causal = _causal_events(found, evidence.steps)
    if causal:
        return causal[0].label, causal
    if _mean(factor_shares(dead)["data"]) > 0.5:
        return "input_shift", []
    return _lasting_cause(own, evidence), []


def is_inconclusive(dead: pd.DataFrame) -> bool:
    """Whether n is so small that most of these units may well be open on other inputs."""
    return bool(len(dead)) and float(dead["rate_upper"].median()) > UNINFORMATIVE


def factor_shares(units: pd.DataFrame) -> pd.DataFrame:
    """Share of every factor in a unit's fall: max(0, -φ) / Σ max(0, -φ).

    NaN where nothing fell: the unit was born dead, or died after the last parameters that were copied.
    """
    falls = units[list(FACTORS)].to_numpy(float).clip(max=0) * -1
    total = falls.sum(axis=1, keepdims=True)
    fell = units["rate_now"].to_numpy(float) < np.maximum(HARDLY, units["rate_then"].to_numpy(float) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where((total > 0) & fell[:, None], falls / total, np.nan)
    return pd.DataFrame(shares, columns=pd.Index(FACTORS), index=units.index)


def birth_causes(born: pd.DataFrame, layers: pd.DataFrame) -> list[str]:
    """Why each unit was born dead: the part of its mean pre-activation that closed it.

    Where all parts are 0 nothing came in: what is below is dead, and the cause is "upstream".
    """
    parts = (-born[list(BIRTH)].to_numpy(float)).clip(min=0)
    bias, weight_mean, norm_mean, rest = parts.T
    total = parts.sum(axis=1)
    layer = layers.set_index("site").reindex(born["site"])
    negative = (layer["weight_z"].to_numpy(float) < NEGATIVE) & (weight_mean > rest / 2)
    offset = (layer["depth"] == layers["depth"].min()).to_numpy() & _off_centre(layer)
    conditions = [~(total > 0), bias > total / 2, norm_mean > total / 2, negative, offset]
    causes = ["upstream", "bias_init", "norm_stats", "weight_init", "input_offset"]
    return [str(cause) for cause in np.select(conditions, causes, "weight_init")]


def _birth_cause(born: pd.DataFrame, layers: pd.DataFrame) -> str:
    """Why most units were born dead: read at the lowest layer that was hit, since all above it follows."""
    layers = layers.sort_values("depth")
    counts = born["site"].value_counts()
    known = layers[layers["site"].isin(counts.index)]
    if known.empty or born["spread"].isna().all():
        return "weight_init"
    hit = counts.reindex(known["site"]).to_numpy() / known["units"].to_numpy()
    lowest = known["site"].iloc[int(np.argmax(hit >= min(0.05, hit.max())))]
    here = born.loc[born["site"] == lowest, list(BIRTH)].median().to_frame().T.assign(site=lowest)
    cause = birth_causes(here, layers)[0]
    return "weight_init" if cause == "upstream" else cause


def _is_chance(cause: str, layers: pd.DataFrame) -> bool:
    """Whether units were born dead although nothing about the weights is out of the ordinary.

    Every layer of a healthy network has units that are closed on all inputs by chance, the more the deeper it
    lies, since its inputs grow alike.
    """
    usual = (layers["weight_z"].fillna(0) > NEGATIVE).all() and (layers["gain"].fillna(1) < LARGE).all()
    return cause == "weight_init" and bool(usual)


def _causal_events(found: Findings, steps: pd.DataFrame) -> list[Event]:
    """Events with calm before and half of the deaths after them; most deaths within 100 steps first."""
    deaths = found.deaths.to_numpy(float)
    if found.diverged_at is not None and len(deaths) < LEAST_DEAD * found.total:
        deaths = np.array([float(found.diverged_at)])  # it then stands for the deaths that it forestalled
    if not len(deaths):
        return []
    ranked: list[tuple[int, int, Event]] = []
    for event in found.events:
        after = deaths >= event.step - 1
        # an inner event is a symptom of what was there from the start
        if not event.inner and after.mean() >= 0.5 and calm_before(steps, event.step):
            ranked.append((int((after & (deaths <= event.step + 100)).sum()), -event.step, event))
    return [event for _, _, event in sorted(ranked, reverse=True)]


def _lasting_cause(shares: pd.DataFrame, evidence: Evidence) -> str:
    """What was there from the start and killed units that were not born dead."""
    layers, steps = evidence.layers, evidence.steps
    first = layers.sort_values("depth").head(1)
    if len(first) and (first["input_rms"].iloc[0] > 5 or _off_centre(first)[0]):
        return "input_offset"
    if len(layers) and layers["gain"].max() > LARGE:
        return "weight_init"
    decay = steps["weight_decay"].max() if len(steps) else 0.0
    if decay > 0 and (_mean(shares["decay"]) > 0.5 or layers["growth"].median() < 0.7):
        return "decay"
    if _mean(shares["bias"]) > 0.4 and _fast_biases(steps):
        return "bias_lr"
    return "step_size"


def _fast_biases(steps: pd.DataFrame) -> bool:
    """Whether biases had a learning rate of their own, well above the weights'."""
    ratio = (steps["lr_bias"] / steps["lr"]).replace([np.inf, -np.inf], np.nan).dropna()
    return bool(len(ratio) and ratio.median() > 3)


def _off_centre(layers: pd.DataFrame) -> np.ndarray:
    """Inputs whose mean outweighs their spread, and is large against what an initialisation expects."""
    return (layers["off_centre"].to_numpy(float) > 0.5) & (layers["input_mean"].to_numpy(float) > 0.7)


def _mean(values: pd.Series) -> float:
    known = values.dropna()
    return float(known.mean()) if len(known) else 0.0
