"""The verdict on a run: how many units are dead, with what confidence, and when they died."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.detector.counts import (
    birth_words,
    died_words,
    on,
    revived_words,
    sentence,
    starved_words,
    uncounted_words,
    when_counted,
)
from harness.detector.grid import census_grid, latest, uncounted
from harness.detector.lifetimes import NEVER, Lives, lifetimes, lives_of
from harness.detector.states import (
    Thresholds,
    classify,
    dead_fraction,
    rate_upper,
    states,
    summarise,
)

HEALTHY = 0.1  # dead share below which a network is called healthy


@dataclass(frozen=True)
class Verdict:
    """Numbers from a run's last good census and from its history; shares are of the observed units.

    Attributes:
        step: step of the last good census.
        evidence: "probe" or "stream".
        units: number of observed units.
        dead, rare: how many of them are dead or rare in that census.
        starved: number of starved units in the stream's latest census.
        born_dead, died, revived: how many were born dead, ever died, ever revived.
        dead_fraction: dead / units; NaN if no unit was observed and finite.
        born_dead_fraction, died_fraction: likewise; NaN if no unit was observed.
        text: the verdict in plain words.
    """

    step: int
    evidence: str
    units: int
    dead: int
    starved: int
    rare: int
    born_dead: int
    died: int
    revived: int
    dead_fraction: float
    born_dead_fraction: float
    died_fraction: float
    text: str

    def metrics(self) -> dict[str, Any]:
        """The numbers alone, as plain values; NaN becomes None."""
        numbers = {k: v for k, v in asdict(self).items() if k not in ("text", "evidence", "step")}
        return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in numbers.items()}


def verdict(
    history: pd.DataFrame,
    thresholds: Thresholds | None = None,
    *,
    healthy: float = HEALTHY,
    diverged_at: int | None = None,
) -> Verdict:
    """The verdict on the censuses of one run.

    Args:
        history: its censuses.
        thresholds: thresholds of the states, which are recomputed.
        healthy: dead share below which the network is called healthy.
        diverged_at: step at which the loss stopped being finite, None if it never did.
    """
    thresholds = thresholds or Thresholds()
    columns = _columns(history, thresholds)
    at = latest(columns)
    last = {name: column[at] for name, column in columns.items()}
    last["rate_upper"] = rate_upper(last["active"], last["n"], thresholds.confidence)
    lives = lives_of(census_grid(columns))
    died, born = int((lives.died_at != NEVER).sum()), int(lives.born_dead[lives.seen].sum())
    fraction = dead_fraction(last)
    step = int(last["step"][0]) if at.any() else 0
    since = uncounted(columns, step, str(last["evidence"][0])) if at.any() else None
    count = Counter(last["state"].tolist())
    units = int(at.sum()) - count["unobserved"]
    starved = _stream_states(columns)["starved"]
    return Verdict(
        step=step,
        evidence=str(last["evidence"][0]) if at.any() else "stream",
        units=units,
        dead=count["dead"],
        starved=starved,
        rare=count["rare"],
        born_dead=born,
        died=died,
        revived=int((lives.revived_at != NEVER).sum()),
        dead_fraction=fraction,
        born_dead_fraction=born / units if units else float("nan"),
        died_fraction=died / units if units else float("nan"),
        text=_words(last, lives, np.unique(columns["step"]), starved, since, healthy, diverged_at),
    )


def last_census(history: pd.DataFrame) -> pd.DataFrame:
    """The rows of the latest census: of the probe if there is one, and of a finite one if there is any."""
    return history[latest(history)]


def site_table(history: pd.DataFrame, thresholds: Thresholds | None = None) -> pd.DataFrame:
    """One row per site: the last census, births and deaths, and the stream's gradients.

    Returns:
        The columns of `summarise`, with born_dead, died, revived; starved and grad_rms from the latest
        census of the stream, since a probe has no backward.
    """
    history = classify(history, thresholds)
    table = summarise(last_census(history)).set_index("site")
    lives = lifetimes(history)
    for name, flag in (
        ("born_dead", lives["born_dead"]),
        ("died", lives["died_at"].notna()),
        ("revived", lives["revived_at"].notna()),
    ):
        table[name] = flag.groupby(lives["site"]).sum().reindex(table.index).fillna(0).astype(int)
    stream = history[history["evidence"] == "stream"]
    if len(stream):
        streamed = summarise(stream[stream["step"] == stream["step"].max()]).set_index("site")
        table["starved"] = streamed["starved"].reindex(table.index).fillna(0).astype(int)
        table["grad_rms"] = streamed["grad_rms"].reindex(table.index)
    return table.reset_index()


def _columns(history: pd.DataFrame, thresholds: Thresholds) -> dict[str, np.ndarray]:
    """The columns of a history that a verdict needs, as arrays, with recomputed states."""
    words = {name: history[name].to_numpy(object) for name in ("evidence", "site")}
    numbers = ("step", "unit", "n", "active", "non_finite", "grad_rms")
    kept = {name: history[name].to_numpy() for name in numbers if name in history}
    return {**words, **kept, "state": states(history, thresholds).astype(object)}


def _stream_states(columns: dict[str, np.ndarray]) -> Counter[str]:
    """State → number of units in the stream's latest census."""
    stream = columns["evidence"] == "stream"
    step, state = columns["step"][stream], columns["state"][stream]
    return Counter(state[step == step.max()].tolist()) if len(step) else Counter()


def _words(
    last: dict[str, np.ndarray],
    lives: Lives,
    censuses: np.ndarray,
    starved: int,
    since: int | None,
    healthy: float,
    diverged_at: int | None,
) -> str:
    parts, state = [], last["state"]
    fraction, observed = dead_fraction(last), int((state != "unobserved").sum())
    hungry = starved / max(1, observed)
    if diverged_at is not None:
        at = int(last["step"][0]) if len(last["step"]) else None
        shown = "none" if at is None else f"step {at:,}"
        good = at is None or at < diverged_at
        census = f"At the last census {'before' if good else 'after'} that ({shown})"
        parts.append(f"Diverged: the loss was not finite at step {diverged_at:,}. {census}:")
    elif np.isnan(fraction):
        parts.append("No verdict:")
    elif fraction >= 0.5:
        parts.append("Most units are dead:")
    elif fraction + hungry >= 0.5:
        parts.append("Most units are dead or starved:")
    elif max(fraction, hungry) > healthy:
        parts.append("Unhealthy:")
    elif (state == "non_finite").any():
        parts.append("Not finite:")
    else:
        parts.append("Healthy:")
    where = on(str(last["evidence"][0])) if len(last["evidence"]) else ""
    counted = int(last["step"][0]) if len(last["step"]) else 0
    parts.append(sentence(last, when_counted(counted, since) if diverged_at is None else "", where))
    parts.append(uncounted_words(counted, since))
    born = lives.born_dead[lives.seen].sum()
    if born:
        how = birth_words(lives.first[lives.seen & lives.born_dead], int(lives.first[lives.seen].min()))
        how += " (dead before the first step)" if how == "born dead" else ""
        parts.append(f"{born:,} {'was' if born == 1 else 'were'} {how}.")
    parts += [died_words(lives.died_at[lives.died_at != NEVER], censuses)]
    parts += [revived_words(int((lives.revived_at != NEVER).sum()))]
    if starved and not (state == "starved").any():  # a probe has no backward
        parts.append(starved_words(starved, on("stream")).strip())
    return " ".join(filter(None, parts))
