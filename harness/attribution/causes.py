"""Causes: why the units of a run are dead, from its censuses and its evidence, without the model.

The rules and their order were derived from injected faults (`experiments.benchmarks.causes`). They are
proposals: one run cannot distinguish some causes (`python -m experiments.benchmarks.causes` shows which).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.attribution.birth_causes import (
    LARGE,
    are_tiny_or_alike,
    birth_causes,
    hardly_vary,
    has_odd_inputs,
    is_by_chance,
    reading,
)
from harness.attribution.events import DRIFT, EPISODE, LONG_STEP, OUTSIDE, SETTLED, Event, calm_before
from harness.attribution.evidence import FACTORS, Evidence
from harness.attribution.findings import LEAST_DEAD, Findings
from harness.detector.states import rate_upper

#: What each label means.
MEANING = {
    "none": "nothing is wrong",
    "bias_init": "the biases were too low from the start",
    "weight_init": "the weights, as drawn or as an earlier training left them, kept units closed",
    "input_offset": "the inputs are too large, too far off centre, or hardly vary",
    "input_shift": "the inputs moved and stayed there",
    "bad_batch": "a bad batch, or several",
    "step_size": "steps that were too long",
    "labels": "the labels, or the loss itself, changed",
    "decay": "weight decay",
    "bias_lr": "the learning rate of the biases",
    "norm_stats": "the running statistics of a norm",
    "constant": "a constant of the model's own code behind a layer: an offset or a threshold, no parameter",
    "surgery": "somebody wrote into the parameters",
    "unbounded_loss": "the loss falls far below 0 and keeps falling, as one without a lower bound does",
    "loss_penalty": "a part of the loss that acts on hidden layers or weights, past the final outputs",
    "target_scale": "targets that are far larger than the outputs",
    "unknown": "none of the causes that are known here",
}
LABELS = tuple(MEANING)
CHANCE = 0.2  # dead share below which units born dead by chance need no cause
UNINFORMATIVE = 0.2  # upper bound of a dead unit's rate above which its silence is uninformative (n below 14)
TINY = 8  # sites with fewer units are not mostly dead at one half
LONGEST_STEP = 0.2  # ‖Δθ‖ / ‖θ‖ from which a single early step may kill by its length
VERY_LONG_STEP = 0.02  # the same, from which a penalty in the loss is indistinguishable from long steps
PENALTY = 0.1  # share of the first gradient's power from which a penalty is blamed
MOST_OF_IT = 0.9  # the same, from which it is blamed although steps are long
DOWNWARD = 0.7  # downward share of its pull on the biases from which a penalty closes units
FAR_TARGETS = (
    10.0  # rms of targets - outputs over that of the outputs (at least 1) from which they are blamed
)
MOSTLY = 0.8  # if no unit was born dead, share of units nearly born dead that is enough
FROM_OUTSIDE = 1.25  # weight of the deaths after an event from outside: others may follow from it
SOON = 100  # steps in which deaths follow from an event; a quarter of them must, unless it lasts
OFTEN = 0.02  # rate in training at which a unit that held-out inputs never open is contradictory
MUCH_DECAY = 0.02  # share of a parameter that decay takes in a step, from which it is blamed
DRIFTED = 0.25  # share of the inputs in the units' fall from which their slow drift is blamed
ODD_INPUTS = 10  # times their usual size that inputs are in a bad batch
FALLEN = 10  # times its first size that a loss without a bound falls below 0
BELOW_HE = 0.7  # deviation of the weights over He's, below which signals shrink from layer to layer
HARDLY = 0.01  # rate at birth below which a unit was nearly born dead


class Cause(NamedTuple):
    """The cause of a run.

    Attributes:
        label: one of `LABELS`.
        events: the dated events behind it (none for what was present from the start).
        sites: the sites it applies to, if not to the run as a whole: those that are mostly dead.
        chance: whether it closed units although their weights and biases are not unusual.
    """

    label: str
    events: list[Event] = []  # noqa: RUF012
    sites: tuple[str, ...] = ()
    chance: bool = False


def cause_of(found: Findings, evidence: Evidence) -> Cause:
    """The cause of a run; if it has none as a whole, that of the layers that are mostly dead."""
    units = informative(found.units)
    dead = units[units["dead"]]
    lost = len(dead) + (found.cut_off if len(dead) else 0)
    cause = _cause(dead, lost / max(1, len(units)), found, evidence)
    sites = mostly_dead(units, evidence.layers)
    if cause.label != "none" or not sites:
        return cause
    units = units[units["site"].isin(sites)]
    dead = units[units["dead"]]
    return _cause(dead, len(dead) / len(units), found, evidence)._replace(sites=sites)


def explained_by(cause: Cause, event: Event, found: Findings) -> Event:
    """An event, relabelled if the run's cause explains it.

    If a loss rises before most of the deaths, and something other than the labels explains these, the rise
    does not indicate changed labels.
    """
    other = cause.label not in ("labels", "none", "unknown") and not cause.sites
    if event.label != "labels" or not other or 2 * len(found.deaths_from(event)) < max(1, len(found.deaths)):
        return event
    return event._replace(label=cause.label, text=f"{event.text}; it is put down to the cause of the run")


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


def _cause(dead: pd.DataFrame, share: float, found: Findings, evidence: Evidence) -> Cause:
    """The cause of some dead units.

    Args:
        dead: their rows.
        share: their share among the units considered.
        found: the findings of the run.
        evidence: the tables.
    """
    if share < LEAST_DEAD and found.diverged_at is None:
        return Cause("none")
    if share >= LEAST_DEAD and found.evidence == "probe" and is_only_evaluated(dead).mean() > 0.5:
        return Cause("norm_stats")
    born = dead[dead["born"] | (dead["rate_then"] < HARDLY)]
    differ = do_inputs_differ(dead, found)
    most = 0.5 if dead["born"].any() else MOSTLY
    early = found.diverged_at is None or share >= 0.5  # else births do not tell why it diverged
    if share >= LEAST_DEAD and len(born) > most * len(dead) and early:
        if differ:
            return Cause("unknown")  # training inputs open them, so it is the held-out inputs that differ
        return _cause_of_births(born, share, evidence.layers)
    own = factor_shares(dead.assign(upstream=0.0))  # changes below are another layer's own share
    if _mean(own["norm"]) > 0.4:
        return Cause("norm_stats")
    causal = _causal_events(found, evidence.steps)
    data = _mean(factor_shares(dead)["data"])
    if data < DRIFTED:  # inputs may drift without harm
        causal = [event for event in causal if event.column != DRIFT]
    if causal and has_far_targets(evidence):  # loss and gradient follow from the far targets
        others = [event for event in causal if event.column not in ("loss", "grad_norm", "update_norm")]
        causal = others or [event for event in causal if event.step >= SETTLED]
    named = bool(causal) and (causal[0].column in OUTSIDE or causal[0].label == "loss_penalty")
    if is_falling(evidence.steps, diverged=found.diverged_at is not None) and not named:
        return Cause("unbounded_loss", [event for event in causal if event.label == "labels"])
    if causal:
        return Cause(causal[0].label, causal)
    if data > 0.5:
        return Cause("input_shift")
    if differ:
        return Cause("unknown")
    return Cause(_lasting_cause(own, evidence, found.deaths))


def _cause_of_births(born: pd.DataFrame, share: float, layers: pd.DataFrame) -> Cause:
    """The cause if most of the dead units were born dead."""
    chance = is_by_chance(born, layers)
    if chance.any() and hardly_vary(born, layers):
        return Cause("input_offset")
    if share < CHANCE and chance.mean() > 0.5:
        return Cause("none")
    if not chance.all():
        return Cause(_birth_cause(born[~chance], layers))
    known = bool(born["spread"].notna().any())
    below = layers["gain"].median() < BELOW_HE  # biases that are usual are large beside such weights
    return Cause("weight_init" if known and below else _birth_cause(born, layers), chance=known)


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


def has_known_layer(units: pd.DataFrame, layers: pd.DataFrame) -> np.ndarray:
    """Which units are made by a single layer; for others, `upstream` is the rest of the network."""
    known = layers.loc[layers["layer"].notna(), "site"] if "layer" in layers else layers["site"]
    return units["site"].isin(known).to_numpy()


def _birth_cause(born: pd.DataFrame, layers: pd.DataFrame) -> str:
    """Why most units were born dead, from the lowest affected layer, since all above follows from it."""
    layers = layers.sort_values("depth")
    counts = born["site"].value_counts()
    known = layers[layers["site"].isin(counts.index)]
    if known.empty or born["spread"].isna().all():
        return "unknown"
    hit = counts.reindex(known["site"]).to_numpy() / known["units"].to_numpy()
    for site in known["site"][hit >= min(0.05, hit.max())]:
        causes = pd.Series(birth_causes(born[born["site"] == site], layers))
        causes = causes[~causes.isin(("upstream", "unknown"))]
        if len(causes):
            return str(causes.mode().iloc[0])
    return "unknown"


def _causal_events(found: Findings, steps: pd.DataFrame) -> list[Event]:
    """Events preceded by calm and followed by half of the deaths; most deaths soon after first."""
    deaths = found.deaths.to_numpy(float)
    few = len(deaths) < LEAST_DEAD * found.total
    if found.before is not None:  # most of what died may not be finite any more
        few &= found.before[1] < LEAST_DEAD * found.before[2]
    standing = found.diverged_at if few else None
    if standing is not None:
        deaths = np.array([float(standing)])  # it represents the deaths that it prevented
    if not len(deaths):
        return []
    ranked: list[tuple[float, int, Event]] = []
    for event in found.events:
        after = deaths[deaths >= event.step - 1] if standing else found.deaths_from(event).to_numpy(float)
        # an inner event is a symptom of a cause present from the start
        if event.inner or len(after) < 0.5 * len(deaths) or not calm_before(steps, event.step):
            continue
        if standing or are_followed(event, after):
            weight = FROM_OUTSIDE if event.column in OUTSIDE else 1.0
            ranked.append((weight * int((after <= event.step + SOON).sum()), -event.step, event))
    return [event for _, _, event in sorted(ranked, reverse=True)]


def are_followed(event: Event, deaths: np.ndarray) -> bool:
    """Whether enough of the deaths after an event come soon; what comes from outside may last."""
    return event.column in OUTSIDE or (deaths <= event.step + SOON).sum() >= len(deaths) / 4


def _lasting_cause(shares: pd.DataFrame, evidence: Evidence, deaths: pd.Series) -> str:
    """A cause present from the start that killed units not born dead."""
    layers, steps, loss = evidence.layers, evidence.steps, evidence.loss
    if are_behind(odd_steps(steps), deaths):
        return "bad_batch"
    if has_odd_inputs(reading(layers)).any():
        return "input_offset"
    if len(layers) and (layers["gain"].max() > LARGE or are_tiny_or_alike(layers)):
        return "weight_init"
    decay = steps["weight_decay"].max() if len(steps) else 0.0
    a_step = float((steps["lr"] * steps["weight_decay"]).median()) if decay > 0 else 0.0
    shrunk = _mean(shares["decay"]) > 0.5 or layers["growth"].median() < 0.7
    if decay > 0 and (shrunk or a_step > MUCH_DECAY):
        return "decay"
    if _mean(shares["bias"]) > 0.4 and _fast_biases(steps):
        return "bias_lr"
    if has_far_targets(evidence):
        return "target_scale"
    moved = early_step(steps)
    if loss.get("penalty_share", 0.0) >= PENALTY and loss.get("penalty_down", 0.0) >= DOWNWARD:
        whole = loss["penalty_share"] >= MOST_OF_IT  # then it is what makes the steps long
        return "unknown" if moved >= VERY_LONG_STEP and not whole else "loss_penalty"
    long = moved >= LONG_STEP or longest_step(steps, deaths) >= LONGEST_STEP
    return "step_size" if long else "unknown"


def odd_steps(steps: pd.DataFrame) -> np.ndarray:
    """Steps whose inputs are far larger than usual, again and again; empty if there are few, or many."""
    rms = steps["input_rms"].to_numpy(float) if len(steps) else np.empty(0)
    usual = float(np.nanmedian(rms)) if np.isfinite(rms).any() else 0.0
    odd = steps["step"].to_numpy(float)[rms > ODD_INPUTS * usual] if usual > 0 else np.empty(0)
    return odd if 3 <= len(odd) <= len(steps) / 5 else odd[:0]


def are_behind(odd: np.ndarray, deaths: pd.Series) -> bool:
    """Whether most deaths come soon after one of some steps."""
    times = deaths.to_numpy(float)
    last = odd[np.maximum(np.searchsorted(odd, times + 1, "right") - 1, 0)] if len(odd) else times
    soon = (last <= times + 1) & (times <= last + SOON)
    return len(odd) > 0 and len(times) > 0 and bool(soon.mean() > 0.5)


def is_falling(steps: pd.DataFrame, *, diverged: bool) -> bool:
    """Whether the loss falls far below 0 and does not slow down: it may have no lower bound."""
    loss = steps["loss"][np.isfinite(steps["loss"])].to_numpy(float) if len(steps) else np.empty(0)
    if len(loss) < 3 or (len(loss) < 2 * EPISODE and not diverged):
        return False
    few, half = max(1, min(EPISODE, len(loss) // 10)), len(loss) // 2
    start, middle, end = (float(np.median(part[:few])) for part in (loss, loss[half:], loss[-few:]))
    return end < -FALLEN * max(1.0, abs(start)) and middle - end > (start - middle) / 2


def has_far_targets(evidence: Evidence) -> bool:
    """Whether the first outputs missed their targets by far more than their own size."""
    loss = evidence.loss
    return bool(loss.get("target_error", 0.0) > FAR_TARGETS * max(1.0, loss.get("output_rms", 1.0)))


def early_step(steps: pd.DataFrame) -> float:
    """Median ‖Δθ‖ / ‖θ‖ of early steps, infinite if not finite; NaN if none was observed."""
    ratios = _early_steps(steps)
    return float(ratios.median()) if len(ratios) else float("nan")


def longest_step(steps: pd.DataFrame, deaths: pd.Series) -> float:
    """Largest ‖Δθ‖ / ‖θ‖ of early steps, since one may kill; the median if most units died later."""
    ratios = _early_steps(steps)
    late = len(deaths) and len(ratios) and float(deaths.median()) > ratios.index[-1] + EPISODE
    return early_step(steps) if late or ratios.empty else float(ratios.max())


def _early_steps(steps: pd.DataFrame) -> pd.Series:
    moved = steps[steps["update_norm"].fillna(0.0) != 0]  # an agent counts steps before it learns
    steps = moved.head(max(20, len(moved) // 10))
    steps = steps.set_index("step")
    return (steps["update_norm"] / steps["weight_norm"]).mask(np.isinf(steps["update_norm"]), np.inf)


def _fast_biases(steps: pd.DataFrame) -> bool:
    """Whether biases had their own learning rate, well above the weights'."""
    ratio = (steps["lr_bias"] / steps["lr"]).replace([np.inf, -np.inf], np.nan).dropna()
    return bool(len(ratio) and ratio.median() > 3)


def _mean(values: pd.Series) -> float:
    known = values.dropna()
    return float(known.mean()) if len(known) else 0.0
