"""Causes: why the units of a run are dead, from its censuses and its evidence; no model is needed.

The rules and their order follow what was measured on injected faults (`experiments.benchmarks.causes`). They
propose: some causes cannot be told apart in one run (`python -m experiments.benchmarks.causes` shows which).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.attribution.events import Event, calm_before, events
from harness.attribution.evidence import PLAYERS, Evidence
from harness.detector.lifetimes import lifetimes
from harness.detector.states import Thresholds, classify
from harness.detector.verdict import last_census

LABELS = (
    "none",
    "bias_init",
    "weight_init",
    "input_offset",
    "input_shift",
    "bad_batch",
    "step_size",
    "labels",
    "decay",
    "bias_lr",
    "norm_stats",
    "surgery",
)
LEAST_DEAD = 0.1  # dead share below which nothing is blamed
CHANCE = 0.2  # likewise, where units were born dead by chance
NEGATIVE = -5  # standard errors of the weights' mean below which it is no chance
LARGE = 1.5  # deviation of the weights over He's from which they are large
TELLING = 0.2  # upper bound of a dead unit's rate above which its silence tells nothing (n below 14)
HARDLY = 0.01  # rate at birth below which a unit was as good as born dead


@dataclass(frozen=True)
class Findings:
    """What the rules decide from.

    Attributes:
        units: one row per unit: site, unit, dead, born, died_at, suddenness, and the columns of
            `Evidence.units`.
        events: every dated event.
        dead, total: units at the last good census.
        evidence: "probe" or "stream": whose last census that is.
        diverged_at: step, or None.
    """

    units: pd.DataFrame
    events: list[Event]
    dead: int
    total: int
    evidence: str
    diverged_at: int | None

    @property
    def deaths(self) -> pd.Series:
        """Steps at which the units that are dead at the end died; the born dead are not among them."""
        dead = self.units[self.units["dead"] & ~self.units["born"]]
        return dead["died_at"].dropna()


def find(history: pd.DataFrame, evidence: Evidence, thresholds: Thresholds | None = None) -> Findings:
    """Put censuses and evidence together, unit by unit.

    Args:
        history: every census of the run.
        evidence: its three tables.
        thresholds: of the states.
    """
    history = classify(history, thresholds)
    kind, rows = _telling(history)
    last = last_census(rows)
    lives = lifetimes(rows)
    units = lives[["site", "unit", "born_dead", "died_at"]].rename(columns={"born_dead": "born"})
    seen = (last["unit"] >= 0) & (last["state"] != "unobserved")
    now = last.loc[seen, ["site", "unit", "n", "rate_upper", "state"]]
    units = units.merge(now, on=["site", "unit"], how="inner")
    units["dead"] = units.pop("state").eq("dead")
    units["born"] = units["born"] & ~_revived(lives, units)
    units["died_at"] = _dated(history, units)
    units["suddenness"] = _suddenness(rows, units)
    shares = evidence.units.drop_duplicates(["site", "unit"]) if len(evidence.units) else None
    if shares is not None:
        units = units.merge(shares, on=["site", "unit"], how="left")
    for column in (*PLAYERS, *BIRTH, "spread", "rate_then", "rate_now"):
        if column not in units:
            units[column] = np.nan
    loss = evidence.steps["loss"].to_numpy(float) if len(evidence.steps) else np.empty(0)
    given = np.isfinite(loss).any()
    bad = np.flatnonzero(~np.isfinite(loss)) if given else np.empty(0, int)
    diverged = int(evidence.steps["step"].iloc[bad[0]]) if len(bad) else _broken(history)
    return Findings(
        units,
        events(evidence.steps),
        int(units["dead"].sum()),
        len(units),
        kind,
        diverged,
    )


def blame(units: pd.DataFrame) -> pd.DataFrame:
    """Share of every player in a unit's fall: max(0, -φ) / Σ max(0, -φ).

    NaN where nothing fell: the unit was born dead, or died after the last parameters that were kept.
    """
    falls = units[list(PLAYERS)].to_numpy(float).clip(max=0) * -1
    total = falls.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        fell = units["rate_now"].to_numpy(float) < np.maximum(HARDLY, units["rate_then"].to_numpy(float) / 2)
        shares = np.where((total > 0) & fell[:, None], falls / total, np.nan)
    return pd.DataFrame(shares, columns=pd.Index(PLAYERS), index=units.index)


def own_blame(units: pd.DataFrame) -> pd.DataFrame:
    """The same without what happened below: that is the own share of layers that have rows of their own."""
    return blame(units.assign(upstream=0.0))


def label(found: Findings, evidence: Evidence) -> tuple[str, list[Event]]:
    """The cause of a run, and the events that tell it.

    Returns:
        One of `LABELS`, and the dated events behind it (none for what was there from the start).
    """
    dead = found.units[found.units["dead"]]
    share = found.dead / found.total if found.total and not vague(dead) else 0.0
    if share < LEAST_DEAD and found.diverged_at is None:
        return "none", []
    born = dead[dead["born"] | (dead["rate_then"] < HARDLY)]
    if share >= LEAST_DEAD and len(born) > len(dead) / 2 and dead["born"].any():
        cause = of_birth(born, evidence.layers)
        return ("none" if share < CHANCE and by_chance(cause, evidence.layers) else cause), []
    shares = own_blame(dead)
    if _mean(shares["norm"]) > 0.4:
        return "norm_stats", []
    told = _telling_events(found, evidence.steps)
    if told:
        return told[0].label, told
    if _mean(blame(dead)["data"]) > 0.5:
        return "input_shift", []
    return _from_the_start(shares, evidence), []


def vague(dead: pd.DataFrame) -> bool:
    """Whether n is too small for silence to tell anything: most units may well be open on other inputs."""
    return bool(len(dead)) and float(dead["rate_upper"].median()) > TELLING


def by_chance(cause: str, layers: pd.DataFrame) -> bool:
    """Whether units were born dead although nothing about the weights is out of the ordinary.

    Every layer of a healthy network has units that are closed on all inputs by chance, the more the deeper it
    lies, since its inputs grow alike.
    """
    usual = (layers["weight_z"].fillna(0) > NEGATIVE).all() and (layers["gain"].fillna(1) < LARGE).all()
    return cause == "weight_init" and bool(usual)


def of_birth(born: pd.DataFrame, layers: pd.DataFrame) -> str:
    """Why units were born dead: read at the lowest layer that was hit, since all above it follows."""
    layers = layers.sort_values("depth")
    counts = born["site"].value_counts()
    known = layers[layers["site"].isin(counts.index)]
    if known.empty or born["spread"].isna().all():
        return "weight_init"
    hit = counts.reindex(known["site"]).to_numpy() / known["units"].to_numpy()
    lowest = known["site"].iloc[int(np.argmax(hit >= min(0.05, hit.max())))]
    here = born.loc[born["site"] == lowest, list(BIRTH)].median().to_frame().T.assign(site=lowest)
    cause = unit_births(here, layers)[0]
    return "weight_init" if cause == "upstream" else cause


def unit_births(born: pd.DataFrame, layers: pd.DataFrame) -> list[str]:
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


BIRTH = ("birth_bias", "birth_weight_mean", "birth_norm_mean", "birth_rest")


def _telling_events(found: Findings, steps: pd.DataFrame) -> list[Event]:
    """The story behind most of the deaths: calm before it, and at least half of the deaths from it on."""
    deaths = found.deaths.to_numpy(float)
    if found.diverged_at is not None and len(deaths) < LEAST_DEAD * found.total:
        deaths = np.array([float(found.diverged_at)])  # it then stands for the deaths that it forestalled
    if not len(deaths):
        return []
    best: list[tuple[float, int, Event]] = []
    for event in found.events:
        if event.inner:  # a symptom of what was there from the start
            continue
        after = deaths >= event.step - 1
        if after.mean() < 0.5 or not calm_before(steps, event.step):
            continue
        best.append(
            (float(((deaths >= event.step - 1) & (deaths <= event.step + 100)).sum()), -event.step, event)
        )
    return [event for _, _, event in sorted(best, reverse=True)]


def _from_the_start(shares: pd.DataFrame, evidence: Evidence) -> str:
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


# --- unit by unit -----------------------------------------------------------------------------------


def _telling(history: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The probe's censuses; the stream's, where units that are dead there are alive on the probe."""
    parts = {str(kind): rows for kind, rows in history.groupby("evidence", sort=False)}
    if "probe" not in parts or "stream" not in parts:
        kind = next(iter(parts), "stream")
        return kind, parts.get(kind, history)
    share = {kind: _share(last_census(rows)) for kind, rows in parts.items()}
    kind = "stream" if share["stream"] > share["probe"] + LEAST_DEAD else "probe"
    return kind, parts[kind]


def _share(census: pd.DataFrame) -> float:
    seen = census[~census["state"].isin(("unobserved", "non_finite"))]
    return float(seen["state"].eq("dead").mean()) if len(seen) else 0.0


def _revived(lives: pd.DataFrame, units: pd.DataFrame) -> np.ndarray:
    both = units[["site", "unit"]].merge(
        lives[["site", "unit", "revived_at"]], on=["site", "unit"], how="left"
    )
    return both["revived_at"].notna().to_numpy()


def _dated(history: pd.DataFrame, units: pd.DataFrame) -> np.ndarray:
    """When each dead unit's gate closed for good: by `silent_for` to the step, else by the census.

    silent_for counts inputs since the gate last opened, so that the step follows from the number of inputs
    that each window saw.
    """
    died = units["died_at"].astype("float64").to_numpy()
    stream = history[(history["evidence"] == "stream") & (history["unit"] >= 0)]
    if stream.empty:
        return died
    last = stream[stream["step"] == stream["step"].max()]
    last = last.iloc[np.argsort(last["n"].to_numpy() > 0, kind="stable")]  # an empty window closes nothing
    last = last.drop_duplicates(["site", "unit"], keep="last").set_index(["site", "unit"])
    found = died.copy()
    for site, rows in units.groupby("site", sort=False):
        own = stream[stream["site"] == site]
        windows = own[own["unit"] == own["unit"].iloc[0]].groupby("step")["n"].sum()
        total = np.concatenate([[0], windows.cumsum().to_numpy()])
        steps = np.concatenate([[0], windows.index.to_numpy()])
        keys = pd.MultiIndex.from_arrays([rows["site"], rows["unit"]])
        silent = last["silent_for"].reindex(keys).to_numpy(float)
        closed = last["active"].reindex(keys).to_numpy(float) == 0
        at = np.interp(total[-1] - silent, total, steps)
        places = rows.index.to_numpy()
        fine = closed & (silent < total[-1]) & rows["dead"].to_numpy()
        found[places[fine]] = np.ceil(at[fine] - 1e-9) + 1
    found[~units["dead"].to_numpy() & np.isnan(died)] = np.nan
    return np.where(units["dead"].to_numpy() & units["born"].to_numpy(), np.nan, found)


def _suddenness(rows: pd.DataFrame, units: pd.DataFrame) -> np.ndarray:
    """Share of the fall from a unit's largest margin (max z) that came in the window that killed it."""
    table = rows[rows["unit"] >= 0].pivot_table(
        index=["site", "unit"], columns="step", values="max", sort=False
    )
    keys = pd.MultiIndex.from_arrays([units["site"], units["unit"]])
    margins = table.reindex(keys).to_numpy(float)
    found = np.full(len(units), np.nan)
    if not margins.size or margins.shape[1] < 2:
        return found
    for row in np.flatnonzero(units["dead"].to_numpy() & ~units["born"].to_numpy()):
        z = margins[row]
        alive = np.flatnonzero(z > 0)
        if not len(alive) or alive[-1] + 1 >= len(z):
            continue
        before, after = z[alive[-1]], z[alive[-1] + 1]
        peak = np.nanmax(z[: alive[-1] + 1])
        if np.isfinite(after) and peak > after:
            found[row] = (before - after) / (peak - after)
    return found


def _broken(history: pd.DataFrame) -> int | None:
    bad = history[history["state"] == "non_finite"]
    return None if bad.empty else int(bad["step"].min())


def _mean(values: pd.Series) -> float:
    known = values.dropna()
    return float(known.mean()) if len(known) else 0.0
