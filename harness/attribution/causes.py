"""Causes: why the units of a run are dead, from its censuses and its evidence, without the model.

The rules and their order were derived from injected faults (`experiments.benchmarks.causes`). They are
proposals: one run cannot distinguish some causes (`python -m experiments.benchmarks.causes` shows which).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.attribution.birth_causes import are_mostly_flat, birth_causes, hardly_vary, is_by_chance, normed
from harness.attribution.event import DRIFT, EPISODE, OUTSIDE, UNTRAINED, Event
from harness.attribution.events import FAR, SETTLED, calm_before
from harness.attribution.evidence import FACTORS, Evidence
from harness.attribution.findings import LEAST_DEAD, Findings
from harness.attribution.lasting_causes import (
    LARGE_OUTPUTS,
    ORDERED,
    SOON,
    first_of,
    has_far_targets,
    lasting_cause,
    mean,
    order_of_inputs,
)
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
    "norm_stats": "the statistics of a norm, as they run or as they are taken",
    "constant": "a constant of the model's own code behind a layer: an offset or a threshold, no parameter",
    "surgery": "somebody wrote into the parameters",
    "forward": "what the forward does changed: a setting, a buffer, the mode, or a branch of its code",
    "unbounded_loss": "the loss falls far below 0 and keeps falling, as one without a lower bound does",
    "loss_penalty": "a part of the loss that acts on hidden layers or weights, past the final outputs",
    "target_scale": "targets that are far larger than the outputs, or a loss as steep as that",
    "unknown": "none of the causes that are known here",
}
LABELS = tuple(MEANING)
CHANCE = 0.2  # dead share below which units born dead by chance need no cause
UNINFORMATIVE = 0.2  # upper bound of a dead unit's rate above which its silence is uninformative (n below 14)
TINY = 8  # sites with fewer units are not mostly dead at one half
MOSTLY = 0.8  # if no unit was born dead, share of units nearly born dead that is enough
FROM_OUTSIDE = 1.25  # weight of the deaths after an event from outside: others may follow from it
OFTEN = 0.02  # rate in training at which a unit that held-out inputs never open is contradictory
DRIFTED = 0.25  # share of the inputs in the units' fall from which their slow drift is blamed
MOST_BELOW = 0.75  # the same for layers below, from which a buffer is blamed that changes on and on
SOME_DATA = 0.15  # the same if held-out inputs still open most of the units
FALLEN = 10  # times its first size that a loss without a bound falls below 0
BELOW_HE = 0.7  # deviation of the weights over He's, below which signals shrink from layer to layer
HARDLY = 0.01  # rate at birth below which a unit was nearly born dead
OPEN = 0.1  # rate in the first census from which a unit was open
OTHERWISE = 0.25  # share of such units that the first network, run again, must close: its forward changed


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
    # a forward that has changed since does not show the start, nor do norms in evaluation mode
    opened = dead["rate_first"].ge(HARDLY) & dead["rate_eval"].isna()
    born = dead[dead["born"] | ((dead["rate_then"] < HARDLY) & ~opened)]
    differ = do_inputs_differ(dead, found)
    most = 0.5 if dead["born"].any() else MOSTLY
    early = found.diverged_at is None or share >= 0.5  # else births do not tell why it diverged
    if share >= LEAST_DEAD and len(born) > most * len(dead) and early:
        if differ:
            return Cause("unknown")  # training inputs open them, so it is the held-out inputs that differ
        return _cause_of_births(born, share, evidence)
    if are_mostly_flat(dead, evidence.layers):
        behind = evidence.layers[evidence.layers["site"].isin(dead["site"])]
        return Cause("norm_stats" if (normed(behind) != "").any() else "constant")
    own = factor_shares(dead.assign(upstream=0.0))  # changes below are another layer's own share
    if mean(own["norm"]) > 0.4:
        return Cause("norm_stats")
    causal = _causal_events(found, evidence.steps)
    shares = factor_shares(dead)
    data, below = mean(shares["data"]), mean(shares["upstream"])
    if data < DRIFTED:  # inputs may drift a little without harm
        causal = [event for event in causal if event.column != DRIFT or event.ratio >= FAR]
    if below < MOST_BELOW:  # what is written on and on, an average of parameters, say, is seldom to blame
        causal = [event for event in causal if event.column != UNTRAINED or event.ratio > 0]
    if causal and has_far_targets(evidence):  # loss and gradient follow from the far targets
        others = [event for event in causal if event.column not in ("loss", "grad_norm", "update_norm")]
        causal = others or [event for event in causal if event.step >= SETTLED]
    if causal and causal[0].label == "bad_batch" and order_of_inputs(evidence.steps) > ORDERED:
        return Cause("input_shift")  # batches that differ as the data are sorted
    named = bool(causal) and (causal[0].column in OUTSIDE or causal[0].label == "loss_penalty")
    if is_falling(evidence.steps, diverged=found.diverged_at is not None) and not named:
        return Cause("unbounded_loss", [event for event in causal if event.label == "labels"])
    if runs_otherwise(dead).mean() > OTHERWISE and not named:
        return Cause("forward", [event for event in causal if event.column == "loss"])
    if causal:
        return Cause(causal[0].label, causal)
    if are_outputs(dead, evidence).mean() > 0.5:
        return Cause("constant")
    if data > 0.5 or (data > SOME_DATA and is_on_stream_alone(found)):
        return Cause("input_shift")
    if differ:
        return Cause("unknown")
    label = lasting_cause(own, evidence, found.deaths, found.diverged_at)
    spoilt = label == "unknown" and opens_with_first_buffers(dead).mean() > OTHERWISE
    return Cause("forward" if spoilt else label)


def _cause_of_births(born: pd.DataFrame, share: float, evidence: Evidence) -> Cause:
    """The cause if most of the dead units were born dead."""
    layers = evidence.layers
    chance = is_by_chance(born, layers)
    if chance.any() and hardly_vary(born, layers):
        return Cause("input_offset")
    if share < CHANCE and chance.mean() > 0.5:
        return Cause("none")
    if not chance.all():
        label = _birth_cause(born[~chance], layers)
        large = label == "unknown" and first_of(evidence.steps, "output_rms") > LARGE_OUTPUTS
        return Cause("weight_init" if large else label)
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
    """Whether enough of the deaths after an event come soon, unless it lasts."""
    return event.lasts or (deaths <= event.step + SOON).sum() >= len(deaths) / 4


def runs_otherwise(dead: pd.DataFrame) -> pd.Series:
    """Which units the first network, run again, closes, though the first census shows them open.

    Norms in evaluation mode, as in a census, are no comparison.
    """
    opened = dead["rate_first"].astype(float).ge(OPEN) & dead["rate_eval"].isna()
    return opened & dead["rate_then"].astype(float).lt(HARDLY)


def opens_with_first_buffers(dead: pd.DataFrame) -> pd.Series:
    """Which units open on the latest inputs if no buffer had changed but those of norms."""
    return dead["rate_buffers"].astype(float).ge(OPEN) & dead["rate_now"].astype(float).lt(HARDLY)


def are_outputs(dead: pd.DataFrame, evidence: Evidence) -> pd.Series:
    """Which units are the model's outputs: a ReLU comes last."""
    last = evidence.layers["site"].iloc[-1:] if evidence.loss.get("rectified") else []
    return dead["site"].isin(last)


def is_on_stream_alone(found: Findings) -> bool:
    """Whether held-out inputs open most of the units that the training's own leave closed."""
    return found.evidence == "stream" and found.on_probe is not None and 2 * found.on_probe[0] < found.dead


def is_falling(steps: pd.DataFrame, *, diverged: bool) -> bool:
    """Whether the loss falls far below 0 and does not slow down: it may have no lower bound."""
    loss = steps["loss"][np.isfinite(steps["loss"])].to_numpy(float) if len(steps) else np.empty(0)
    if len(loss) < 3 or (len(loss) < 2 * EPISODE and not diverged):
        return False
    few, half = max(1, min(EPISODE, len(loss) // 10)), len(loss) // 2
    start, middle, end = (float(np.median(part[:few])) for part in (loss, loss[half:], loss[-few:]))
    least = 1 if diverged else FALLEN
    return end < -least * max(1.0, abs(start)) and middle - end > (start - middle) / 2
