"""Diagnosis: label, units, events, and what can honestly be said, each sentence with its number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.attribution.causes import Findings, blame, find, label, unit_births, vague
from harness.attribution.events import Event
from harness.attribution.evidence import PLAYERS, Evidence
from harness.detector.states import Thresholds

#: What each label means, as the last words of a sentence.
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
ORDINARY = 0.01  # ‖Δθ‖ / ‖θ‖ of a step below which it is none that kills by its length
#: What one run cannot tell apart, and what would tell.
ALIKE = {
    "labels": "labels that are wrong, and a task that changed on purpose",
    "input_offset": "off-centre inputs and a learning rate that is too high for them: they multiply",
}


@dataclass(frozen=True)
class Diagnosis:
    """Why the units of a run are dead.

    Attributes:
        label: the run's cause, one of `harness.attribution.causes.LABELS`.
        units: one row per dead unit: site, unit, cause, born, died_at, the share of every player
            (weights, decay, bias, norm, upstream, data) in its fall, suddenness (share of the fall from its
            largest margin that came in the window that killed it).
        events: one row per dated event: step, label, column, ratio, deaths (from there on), text.
        text: the sentences.
    """

    label: str
    units: pd.DataFrame
    events: pd.DataFrame
    text: str

    def __str__(self) -> str:
        return self.text


def diagnose(history: pd.DataFrame, evidence: Evidence, thresholds: Thresholds | None = None) -> Diagnosis:
    """Why the units of a run are dead.

    Args:
        history: every census of the run.
        evidence: the tables of `Recorder.evidence()`, or of a stored run.
        thresholds: of the states.

    Raises:
        ValueError: the history is empty.
    """
    if history.empty:
        raise ValueError("diagnose: expected a history with at least one census, but it is empty")
    found = find(history, evidence, thresholds)
    name, told = label(found, evidence)
    dead = found.units[found.units["dead"]]
    units = dead[["site", "unit", "born", "died_at", "suddenness"]].copy()
    units.insert(2, "cause", _unit_causes(dead, evidence))
    units["died_at"] = units["died_at"].round().astype("Int64")
    units = pd.concat([units, blame(dead)], axis=1)[
        ["site", "unit", "cause", "born", "died_at", *PLAYERS, "suddenness"]
    ].reset_index(drop=True)
    listed = pd.DataFrame(found.events, columns=pd.Index(Event._fields))
    deaths = found.deaths.to_numpy(float)
    listed["deaths"] = [int((deaths >= event.step - 1).sum()) for event in found.events]
    listed = listed[["step", "label", "column", "ratio", "deaths", "text"]]
    return Diagnosis(name, units, listed, _sentences(name, told, found, units, evidence))


def _unit_causes(dead: pd.DataFrame, evidence: Evidence) -> list[str]:
    """Of the born dead the part that closed them, of the others the player that took most of their rate."""
    causes: dict[int, str] = {}
    born = dead[dead["born"] & dead["spread"].notna()]
    causes |= dict(zip(born.index, unit_births(born, evidence.layers), strict=True))
    shares = blame(dead[~dead["born"]]).dropna(how="all")
    causes |= dict(zip(shares.index, shares.idxmax(axis=1).astype(str), strict=True))
    return [causes.get(index, "unknown") for index in dead.index]


# --- the sentences ----------------------------------------------------------------------------------


def _sentences(name: str, told: list[Event], found: Findings, units: pd.DataFrame, evidence: Evidence) -> str:
    parts = [_count(found)]
    if found.diverged_at is not None:
        parts.append(f"Training diverged at step {found.diverged_at:,}; this is the last census before.")
    if name == "none":
        born = int(found.units.loc[found.units["dead"], "born"].sum())
        if vague(found.units[found.units["dead"]]):
            parts.append(
                "No cause is told: n is too small; a unit that is silent on so few inputs may be alive."
            )
            return " ".join(parts)
        chance = f" ({born:,} of them were born so, which chance does)" if born > found.dead / 2 else ""
        parts.append(f"Nothing to explain: too few units are dead for a cause to be told{chance}.")
        return " ".join(parts)
    parts += _deaths(units, found)
    parts += _births(units, evidence)
    parts.append(f"Cause: {name} ({MEANING[name]}){_because(name, told, units, evidence)}.")
    doubts = _doubts(name, told, evidence)
    if doubts:
        parts.append(f"Not told apart in one run: {'; '.join(doubts)}.")
    return " ".join(parts)


def _count(found: Findings) -> str:
    if not found.total:
        return "Nothing was observed: no statement about dead units can be made."
    dead = found.units[found.units["dead"]]
    n = int(dead["n"].min()) if len(dead) else int(found.units["n"].min())
    bound = f", rate < {100 * dead['rate_upper'].max():.2g} %" if len(dead) else ""
    where = "held-out probe" if found.evidence == "probe" else "training stream"
    share = 100 * found.dead / found.total
    return f"{found.dead:,} of {found.total:,} units dead ({share:.1f} %; n = {n:,} on the {where}{bound})."


def _deaths(units: pd.DataFrame, found: Findings) -> list[str]:
    died = units[~units["born"]]
    if died.empty:
        return []
    parts = []
    when = died["died_at"].dropna()
    text = f"{len(died):,} died"
    if len(when):
        first, last = int(when.quantile(0.05, "lower")), int(when.quantile(0.95, "higher"))
        text += f" at step {first:,}" if first == last else f" in steps {first:,} to {last:,} (nine in ten)"
    parts.append(text + ".")
    sudden = died["suddenness"].dropna()
    if len(sudden) >= 5:
        middle = float(sudden.median())
        how = "jumped" if middle >= 0.8 else "drifted" if middle < 0.3 else "fell in a few windows"
        parts.append(
            f"They {how}: half of them lost at least {100 * middle:.0f} % of their margin in one window."
        )
    shares = died[list(PLAYERS)].mean().dropna()
    if len(shares) and shares.max() > 0:
        top = shares.sort_values(ascending=False)
        told = ", ".join(f"{_player(str(p))} {100 * s:.0f} %" for p, s in top.items() if s >= 0.1)
        parts.append(f"Of the rate they lost: {told} (exact Shapley shares).")
    return parts


def _player(name: str) -> str:
    return {
        "weights": "their weights",
        "decay": "weight decay",
        "bias": "their bias",
        "norm": "norm statistics",
        "upstream": "layers below",
        "data": "the inputs themselves",
    }[name]


def _births(units: pd.DataFrame, evidence: Evidence) -> list[str]:
    born = units[units["born"]]
    if born.empty:
        return []
    parts = evidence.units.merge(born[["site", "unit"]], on=["site", "unit"]) if len(evidence.units) else born
    was = "was" if len(born) == 1 else "were"
    text = f"{len(born):,} {was} born dead"
    if "birth_bias" in parts and parts["birth_bias"].notna().any():
        bias, weights, rest = (
            float(parts[f"birth_{name}"].median()) for name in ("bias", "weight_mean", "rest")
        )
        text += (
            f" (medians, in deviations of their pre-activation: bias {bias:+.1f}, "
            f"mean of the weights {weights:+.1f}, the rest {rest:+.1f})"
        )
    return [text + "."]


def _because(name: str, told: list[Event], units: pd.DataFrame, evidence: Evidence) -> str:
    first = evidence.layers.iloc[0] if len(evidence.layers) else None
    if told:
        event = told[0]
        when = units.loc[~units["born"], "died_at"].dropna()
        after = int((when >= event.step - 1).sum())
        dated = f"; {after:,} of {len(when):,} dated deaths came at or after it" if len(when) else ""
        return f"; {event.text}{dated}"
    if name == "input_shift":
        return "; they drifted: no single step stands out"
    if name == "step_size" and len(evidence.steps):
        steps = evidence.steps.head(max(20, len(evidence.steps) // 10))
        ratio = float((steps["update_norm"] / steps["weight_norm"]).median())
        if np.isnan(ratio):
            return "; no event stands before the deaths"
        moved = f"an early step moved {100 * ratio:.2g} % of ‖θ‖ (median)"
        usual = ", which is nothing out of the ordinary: the cause may be none of those known here"
        return f"; no event stands before the deaths; {moved}{usual if ratio < ORDINARY else ''}"
    if name == "input_offset" and first is not None:
        return (
            f"; rms of the first layer's inputs {first['input_rms']:.3g}, "
            f"their mean makes {100 * first['off_centre']:.0f} % of their power"
        )
    if name == "weight_init" and evidence.layers.empty:
        return (
            "; a guess: the network of the start could not be run again, so nothing is known of their births"
        )
    if name == "weight_init":
        z, gain = evidence.layers["weight_z"].min(), evidence.layers["gain"].max()
        return f"; lowest layer mean of weights {z:+.1f} standard errors, largest gain {gain:.2g}× He"
    if name == "decay" and len(evidence.steps):
        growth, decay = evidence.layers["growth"].median(), evidence.steps["weight_decay"].max()
        return f"; weight decay {decay:.3g}, layers' ‖W‖ at {growth:.2g}× their start (median)"
    if name == "bias_lr" and len(evidence.steps):
        lr, bias = evidence.steps["lr"].median(), evidence.steps["lr_bias"].median()
        return f"; learning rate {bias:.3g} for biases, {lr:.3g} for weights"
    return ""


def _doubts(name: str, told: list[Event], evidence: Evidence) -> list[str]:
    first = evidence.layers.iloc[0] if len(evidence.layers) else None
    doubts = [ALIKE[name]] if name in ALIKE else []
    if name == "step_size" and not told:
        if first is not None and np.isfinite(first["off_centre"]) and first["off_centre"] > 0.2:
            share = 100 * first["off_centre"]
            doubts.append(f"step size and off-centre inputs (mean² is {share:.0f} % of the inputs' power)")
        doubts.append("step size and labels that were wrong from the start")
    if name in ("step_size", "labels") and len(evidence.steps) and evidence.steps["loss"].isna().all():
        doubts.append("labels (no loss was given: recorder.step(loss=loss))")
    return doubts
