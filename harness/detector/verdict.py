"""The verdict on a run: how many units are dead, how sure that is, when they died."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.detector.lifetimes import lifetimes, one_evidence
from harness.detector.states import Thresholds, classify, dead_fraction, sentence, states, summarise

HEALTHY = 0.1  # dead share below which a network is called healthy


@dataclass(frozen=True)
class Verdict:
    """Numbers of a run's last good census and of its history; shares are of the observed units.

    Attributes:
        step: of the last good census.
        evidence: "probe" or "stream".
        units: observed units.
        dead, starved, rare, born_dead, died, revived: how many of them; died and revived ever.
        dead_fraction: dead / units; NaN if nothing was observed.
        born_dead_fraction, died_fraction: likewise.
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
        """The numbers alone, plain values; NaN becomes None."""
        numbers = {k: v for k, v in asdict(self).items() if k not in ("text", "evidence", "step")}
        return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in numbers.items()}


def verdict(
    history: pd.DataFrame,
    thresholds: Thresholds | None = None,
    *,
    healthy: float = HEALTHY,
    diverged_at: int | None = None,
) -> Verdict:
    """What the censuses of one run say.

    Args:
        history: its censuses.
        thresholds: of the states; the stored ones are made anew.
        healthy: dead share below which the network is called healthy.
        diverged_at: step at which the loss stopped being finite, None if it never did.
    """
    history = _slim(history, thresholds)
    last = classify(last_census(history), thresholds)
    lives = lifetimes(history)
    died, born = lives[lives["died_at"].notna()], lives[lives["born_dead"]]
    fraction = dead_fraction(last)
    count = Counter(last["state"].tolist())
    units = len(last) - count["unobserved"]
    return Verdict(
        step=int(last["step"].iloc[0]) if len(last) else 0,
        evidence=str(last["evidence"].iloc[0]) if len(last) else "stream",
        units=units,
        dead=count["dead"],
        starved=_stream_states(history)["starved"],
        rare=count["rare"],
        born_dead=len(born),
        died=len(died),
        revived=int(lives["revived_at"].notna().sum()),
        dead_fraction=fraction,
        born_dead_fraction=len(born) / units if units else float("nan"),
        died_fraction=len(died) / units if units else float("nan"),
        text=_words(last, lives, fraction, healthy, diverged_at),
    )


def last_census(history: pd.DataFrame) -> pd.DataFrame:
    """The rows of the latest census, of the probe where there is one; of a finite one, if there is any."""
    rows = one_evidence(history)
    finite = rows[~rows["state"].isin(("unobserved", "non_finite"))]
    latest = (finite if len(finite) else rows)["step"].max()
    return rows[rows["step"] == latest]


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
        latest = summarise(stream[stream["step"] == stream["step"].max()]).set_index("site")
        table["starved"] = latest["starved"].reindex(table.index).fillna(0).astype(int)
        table["grad_rms"] = latest["grad_rms"].reindex(table.index)
    return table.reset_index()


def _slim(history: pd.DataFrame, thresholds: Thresholds | None) -> pd.DataFrame:
    """What a verdict needs of a history, with the states made anew.

    Words are Python objects: comparing them takes a fraction of what Arrow's strings take.
    """
    state = states(history, thresholds).astype(object)
    words = {name: history[name].to_numpy(object) for name in ("evidence", "site")}
    numbers = ("step", "unit", "n", "active", "non_finite", "grad_rms")
    kept = {name: history[name].to_numpy() for name in numbers if name in history}
    return pd.DataFrame({**words, **kept, "state": state})


def _stream_states(history: pd.DataFrame) -> Counter[str]:
    """State → units in the stream's latest census."""
    stream = (history["evidence"] == "stream").to_numpy()
    step, state = history["step"].to_numpy()[stream], history["state"].to_numpy()[stream]
    return Counter(state[step == step.max()].tolist()) if len(step) else Counter()


def _words(
    last: pd.DataFrame, lives: pd.DataFrame, fraction: float, healthy: float, diverged_at: int | None
) -> str:
    parts = []
    if diverged_at is not None:
        at = f"step {int(last['step'].iloc[0]):,}" if len(last) else "none"
        parts.append(
            f"Diverged: the loss was not finite at step {diverged_at:,}. At the last good census ({at}):"
        )
    elif np.isnan(fraction):
        parts.append("No verdict:")
    elif fraction >= 0.5:
        parts.append("Most units are dead:")
    elif fraction > healthy:
        parts.append("Unhealthy:")
    else:
        parts.append("Healthy:")
    parts.append(sentence(last))
    born, died, revived = (
        int(lives["born_dead"].sum()),
        int(lives["died_at"].notna().sum()),
        int(lives["revived_at"].notna().sum()),
    )
    if born:
        first = int(lives["first"].min())
        when = "before the first step" if first == 0 else f"at the first census, step {first:,}"
        parts.append(f"{born:,} {'was' if born == 1 else 'were'} born dead (dead {when}).")
    if died:
        steps = lives["died_at"].dropna().astype(int)
        first, half, end = int(steps.min()), int(steps.quantile(0.5, "lower")), int(steps.max())
        when = (
            f"at step {first:,}"
            if first == end
            else f"in steps {first:,} to {end:,}, half of them by {half:,}"
        )
        parts.append(f"{died:,} died {when}.")
    if revived:
        parts.append(f"{revived:,} revived at some time.")
    return " ".join(parts)
