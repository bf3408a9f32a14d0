"""Findings: censuses and evidence of a run, combined unit by unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.attribution.dates import death_steps, of_units
from harness.attribution.event import Event
from harness.attribution.events import events
from harness.attribution.evidence import FACTORS, Evidence
from harness.detector.grid import telling, uncounted
from harness.detector.lifetimes import lifetimes
from harness.detector.states import Thresholds, classify
from harness.detector.transitions import UNIT
from harness.detector.verdict import last_census

#: Reasons for starvation that are not sites.
LOSS, ELSEWHERE, ZEROS, SELECTION = "the loss", "other inputs", "zero weights", "selection"
UNUSED, MASKS, UNREAD = "not in the loss", "masks", "not read"
ENOUGH = 30  # inputs that opened a unit without a gradient, from which this is not an accident
LEAST_DEAD = 0.1  # dead share below which nothing is blamed
ROWS = ("row_z", "row_size", "bias_size")
BIRTH = ("birth_bias", "birth_weight_mean", "birth_norm_mean", "birth_constant", "birth_rest")


@dataclass(frozen=True)
class Findings:
    """The facts from which the rules decide.

    Attributes:
        units: one row per observed unit: site, unit, n, rate_upper, state, dead, born, first (step of the
            first census that saw it), died_at (step of its last death, as in `death_steps`), suddenness,
            dead_stream (dead in the last census of the training stream), starved_by (why it is starved, None
            if it is not), unreached (no backward pass ever reached its site, though some reached others), and
            the columns of `Evidence.units`.
        events: every dated event.
        dead, total: numbers of dead and of all units at the last census with a finite unit.
        evidence: "probe" or "stream": the evidence of that census.
        diverged_at: step of the divergence, or None.
        at: step of the last census that counted something.
        uncounted: step of the last census, if it and all after `at` counted nothing; else None.
        before: step, dead units and observed units of the last census before the divergence; None if there is
            none.
        rows: the censuses of `evidence`, with their states.
        on_probe: numbers of dead and of all units on the held-out probe, if `evidence` is the stream although
            there is one.
    """

    units: pd.DataFrame
    events: list[Event]
    dead: int
    total: int
    evidence: str
    diverged_at: int | None
    at: int
    uncounted: int | None
    before: tuple[int, int, int] | None
    rows: pd.DataFrame
    on_probe: tuple[int, int] | None = None

    @property
    def is_after_divergence(self) -> bool:
        """Whether the last census is later than the divergence, and so than any copy of the parameters."""
        return self.diverged_at is not None and self.at >= self.diverged_at

    @property
    def deaths(self) -> pd.Series:
        """Steps at which the units that are dead at the end died, without those born dead."""
        dead = self.units[self.units["dead"] & ~self.units["born"]]
        return dead["died_at"].dropna()

    def deaths_from(self, event: Event) -> pd.Series:
        """Those of `deaths` that an event may have caused.

        An event kills only units that were alive before it. The census of the previous step may have come
        after a write into the parameters, so an earlier one decides which were alive.
        """
        deaths, first = self.deaths, event.step - (event.column == "written_norm")
        deaths = deaths[deaths.astype(float) >= first]
        if len(deaths):
            before = self.rows[self.rows["step"] < first]
            before = before[before["step"] == before["step"].max()]
            gone = pd.MultiIndex.from_frame(before.loc[before["state"].eq("dead"), UNIT])
            deaths = deaths[~pd.MultiIndex.from_frame(self.units.loc[deaths.index, UNIT]).isin(gone)]
        return deaths

    @property
    def starved(self) -> pd.DataFrame:
        """The rows of the starved units."""
        return self.units[self.units["starved_by"].notna()]

    @property
    def cut_off(self) -> int:
        """Number of starved units whose gradient is stopped by dead units."""
        by = self.starved["starved_by"]
        others = by.isin(("", LOSS, UNUSED, ELSEWHERE, ZEROS, MASKS, UNREAD)) | by.str.startswith(SELECTION)
        return int((~others).sum())


def find(history: pd.DataFrame, evidence: Evidence, thresholds: Thresholds | None = None) -> Findings:
    """Combine censuses and evidence.

    Args:
        history: every census of the run.
        evidence: its three tables.
        thresholds: thresholds of the states.
    """
    history = whole = classify(history, thresholds)
    kind, rows = _informative(history)
    last = last_census(rows)
    lives = lifetimes(rows)
    lives = lives[[*UNIT, "born_dead", "first", "revived_at"]].rename(columns={"born_dead": "born"})
    observed = (last["unit"] >= 0) & (last["state"] != "unobserved")
    units = last.loc[observed, [*UNIT, "n", "rate_upper", "state"]]
    units = units.merge(lives, on=UNIT, how="left").sort_values(UNIT, kind="stable", ignore_index=True)
    units["dead"] = units["state"].eq("dead")
    units["born"] = units["born"].eq(True) & units.pop("revived_at").isna()  # never finite: unknown
    if len(evidence.units):
        units = units.merge(evidence.units.drop_duplicates(UNIT), on=UNIT, how="left")
    for column in (*FACTORS, *BIRTH, *ROWS, "spread", "rate_then", "rate_now", "rate_eval", "rate_buffers"):
        if column not in units:
            units[column] = np.nan
    units["birth_constant"] = units["birth_constant"].fillna(0 * units["birth_rest"])  # of earlier versions
    # without a probe, a unit may have died before the first census
    units["born"] &= ~((units["first"] > 0) & (units["rate_then"].astype(float) > 0))
    dead, diverged = int(units["dead"].sum()), _divergence(history, evidence.steps)
    at = int(last["step"].max())
    history = history[history["step"] <= at]  # non-finite values open no gate either
    died = death_steps(rows[rows["step"] <= at], history[history["evidence"] == "stream"], units)
    begun, first = int(evidence.steps.attrs.get("resumed", 0)), int(rows["step"].min()) if len(rows) else 0
    if 0 < begun <= first:  # it is not known when units died that were dead at the first census after it
        died = np.where(died <= first, np.nan, died)
    units["died_at"] = died if diverged is None else np.where(died > diverged, np.nan, died)
    units["rate_stream"] = _stream_rate(history, units)
    units["rate_first"] = _first_rate(rows, history, units, evidence)
    units["suddenness"] = _suddenness(rows, units)
    units = _with_starved(units, whole)
    before = _census_before(rows, diverged)
    steps = evidence.steps if diverged is None else evidence.steps[evidence.steps["step"] <= diverged]
    since = uncounted(whole, at, kind)
    on_probe = _on_probe(history) if kind == "stream" else None
    return Findings(units, events(steps), dead, len(units), kind, diverged, at, since, before, rows, on_probe)


def _on_probe(history: pd.DataFrame) -> tuple[int, int] | None:
    """Dead and observed units of the probe's last census; None if there is none."""
    probe = history[history["evidence"] == "probe"]
    if probe.empty:
        return None
    last = last_census(probe)
    last = last[(last["unit"] >= 0) & (last["state"] != "unobserved")]
    return int(last["state"].eq("dead").sum()), len(last)


def _stream_rate(history: pd.DataFrame, units: pd.DataFrame) -> np.ndarray:
    """The rate of each unit in its last training window; NaN if none was observed."""
    stream = history[(history["evidence"] == "stream") & (history["n"] > 0)]
    if uncounted(history, int(stream["step"].max()) if len(stream) else 0, "stream") is not None:
        stream = stream[:0]  # training went on, but not in the observed mode
    last = of_units(stream.drop_duplicates(UNIT, keep="last").set_index(UNIT), units)
    return (last["active"] / last["n"]).to_numpy(float)


def _first_rate(
    rows: pd.DataFrame, history: pd.DataFrame, units: pd.DataFrame, evidence: Evidence
) -> np.ndarray:
    """The rate of each unit before the first step, to be held against that of a replay; NaN if unknown.

    It is that of a census before the first step, if norms run there as in training; otherwise that of the
    first training window, if the replay does not show the start.
    """
    first = rows[(rows["step"] == 0) & (rows["n"] > 0)].drop_duplicates(UNIT).set_index(UNIT)
    first = of_units(first, units)
    rate = (first["active"] / first["n"]).where(units["rate_eval"].isna().to_numpy()).to_numpy(float)
    if evidence.has_other_forward:
        seen = history[(history["evidence"] == "stream") & (history["n"] > 0)]
        seen = of_units(seen.drop_duplicates(UNIT).set_index(UNIT), units)
        rate = np.where(np.isnan(rate), (seen["active"] / seen["n"]).to_numpy(float), rate)
    return rate


def _with_starved(units: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """Add why units are starved on the training stream, and whether a backward pass reached them."""
    stream = history[(history["evidence"] == "stream") & (history["n"] > 0)]
    gradient = stream["grad_rms"].astype(float) if "grad_rms" in stream else pd.Series(np.nan, stream.index)
    lives = stream.assign(some=gradient > 0).groupby(UNIT, sort=False)
    lives = of_units(lives[["active", "some"]].agg({"active": "sum", "some": "any"}), units)
    unused = (lives["some"].eq(False) & lives["active"].ge(ENOUGH)).to_numpy()
    silent = (gradient.isna() & stream["non_finite"].eq(0)).groupby(stream["site"]).all()
    reached = bool(gradient.notna().any())
    unreached = units["site"].isin(silent.index[silent]).to_numpy() & reached
    last = stream[stream["step"] == stream["step"].max()].drop_duplicates(UNIT, keep="last")
    last = of_units(last.set_index(UNIT), units)
    known = units["starved_by"] if "starved_by" in units else pd.Series("", units.index, dtype=object)
    reasons = known.astype(object).fillna("")
    reasons = reasons.mask(reasons.eq(UNUSED) & ~unused, ELSEWHERE)
    starved = last["state"].eq("starved").to_numpy()
    shut = last["state"].eq("dead").to_numpy()
    return units.assign(starved_by=reasons.where(starved, None), unreached=unreached, dead_stream=shut)


def _informative(history: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The probe's censuses; the stream's, if units that are dead there are alive on the probe."""
    parts = {str(kind): rows for kind, rows in history.groupby("evidence", sort=False)}
    if len(parts) < 2:
        kind = next(iter(parts), "stream")
        return kind, parts.get(kind, history)
    share = {kind: _dead_share(last_census(rows)) for kind, rows in parts.items()}
    kind = "stream" if share["stream"] > share["probe"] + LEAST_DEAD else "probe"
    return kind, parts[kind]


def _dead_share(census: pd.DataFrame) -> float:
    known = telling(census)
    return float(known["state"].eq("dead").mean()) if len(known) else 0.0


def _divergence(history: pd.DataFrame, steps: pd.DataFrame) -> int | None:
    """Step from which no loss is finite; without losses, no update; or the first census with such a unit."""
    steps = steps.reindex(columns=["step", "loss", "update_norm", "lr"])
    finite = np.isfinite(steps["loss"].to_numpy(float))
    if not finite.any():
        steps = steps[steps["lr"].notna()]  # of the others nothing is known
        finite = np.isfinite(steps["update_norm"].to_numpy(float))
    if finite.any():
        end = int(np.flatnonzero(finite)[-1]) + 1  # a loss that became finite again had not diverged
        return int(steps["step"].iloc[end]) if end < len(steps) else None
    bad = history.loc[history["state"] == "non_finite", "step"]
    if bad.empty or steps.empty:
        return None if bad.empty else int(bad.min())
    return int(steps["step"].iloc[0])  # no step was finite


def _census_before(rows: pd.DataFrame, diverged: int | None) -> tuple[int, int, int] | None:
    """Step, dead and observed units of the last census before a divergence."""
    rows = rows[(rows["step"] < diverged) & (rows["state"] != "unobserved")] if diverged else rows[:0]
    if rows.empty:
        return None
    last = last_census(rows)
    return int(last["step"].max()), int(last["state"].eq("dead").sum()), len(last)


def _suddenness(rows: pd.DataFrame, units: pd.DataFrame) -> np.ndarray:
    """Share of the fall from a unit's largest margin (max z) in the window that killed it."""
    table = rows[rows["unit"] >= 0].pivot_table(index=UNIT, columns="step", values="max", sort=False)
    margins = of_units(table, units).to_numpy(float)
    sudden = np.full(len(units), np.nan)
    for row in np.flatnonzero(units["dead"].to_numpy() & ~units["born"].to_numpy()):
        z = margins[row]
        alive = np.flatnonzero(z > 0)
        if not len(alive) or alive[-1] + 1 >= len(z):
            continue
        before, after, peak = z[alive[-1]], z[alive[-1] + 1], np.nanmax(z[: alive[-1] + 1])
        if np.isfinite(after) and peak > after:
            sudden[row] = (before - after) / (peak - after)
    return sudden
