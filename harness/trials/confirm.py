"""Confirm a diagnosis: repeat the beginning of a run with one setting made normal at a time.

One run cannot always tell causes apart; an experiment can. The arms are ordinary runs: one short sweep of
seeds × factors in the run's own folder, so an interrupted confirmation can be continued.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Group
from rich.text import Text
from scipy import stats

from harness.attribution.findings import LEAST_DEAD
from harness.config import RunSpec, restore, run_folder
from harness.config import schema as s
from harness.formats import per_cent
from harness.report.console_parts import plain_table
from harness.store.folder import read_status
from harness.store.runs import Run
from harness.sweeps.diagnose import diagnose
from harness.sweeps.sweep import Teller, plan_sweep, run_sweep
from harness.trials.cures import Cure, cures
from harness.trials.median_death import LEAST_STEPS, median_death

FOLDER = "confirm"
ORIGINAL = "as it was"
WARM_UP = 100  # steps

#: The cures that make one setting normal.
NORMAL = (
    *("learning rate / 10", "warm-up", "centred inputs", "standardised inputs", "He weights"),
    *("zero bias", "no decay", "true labels", "one order of the inputs"),
)


@dataclass(frozen=True)
class Confirmation:
    """Result of the experiment, next to the run's own diagnosis.

    Attributes:
        observed: label of the run's own diagnosis.
        label: cause of the factor that removes the most deaths; "none" if no interval lies above 0.
        steps: length of the arms.
        arms: one row per factor: factor, label, seeds, dead (mean share; a diverged run counts as 1),
            diverged (number of runs), removed (mean share of the original arm's deaths that it prevents,
            paired by seed), low and high (95 % interval, Student's t over the seeds).
        text: summary in words.
    """

    observed: str
    label: str
    steps: int
    arms: pd.DataFrame
    text: str

    def __str__(self) -> str:
        return self.text


def normal(spec: RunSpec, mean: float) -> list[Cure]:
    """List the settings that can be made normal, without those that already are.

    Args:
        spec: the run.
        mean: mean of the inputs, as the network sees them.
    """
    return [cure for cure in cures(spec, "", mean, 10 * WARM_UP) if cure.name in NORMAL]


def factors(spec: RunSpec, mean: float) -> dict[str, RunSpec]:
    """Map each factor to the run with that one setting made normal (see `normal`)."""
    return {cure.name: cure.apply(spec) for cure in normal(spec, mean)}


def confirm(run: Run, seeds: int = 3, tell: Callable[[Any], Teller | None] | None = None) -> Confirmation:
    """Repeat a run up to its median death, with one setting made normal per arm.

    Args:
        run: a run from `open_runs`.
        seeds: number of seeds per arm: the run's own and the following ones.
        tell: function from the sweep to a callback that reports its progress.

    Raises:
        ValueError: `seeds` is below 2, nothing was recorded, too few units are dead, or an arm failed.
    """
    if seeds < 2:
        raise ValueError(f"seeds: expected at least 2, since an interval needs them, but got {seeds}")
    diagnosis = diagnose(run)
    spec = restore(run.config)
    if diagnosis.label == "none":
        raise ValueError(f"{run.path}: there is nothing to confirm. {diagnosis}")
    whole = int(run.status.get("steps") or LEAST_STEPS)
    steps = median_death(run.census, whole, run.status.get("diverged_at"))
    short, mean = _shortened(spec, steps, run.path / FOLDER), input_mean(spec)
    arms = {ORIGINAL: short, **factors(short, mean)}
    labels = {cure.name: cure.labels[0] for cure in normal(short, mean)}
    named = {
        (name, seed): replace(arm, seed=seed)
        for name, arm in arms.items()
        for seed in range(spec.seed, spec.seed + seeds)
    }
    sweep = plan_sweep(list(named.values()))
    run_sweep(sweep, tell=None if tell is None else tell(sweep))
    shares = {key: _bad(arm) for key, arm in named.items()}
    table = pd.DataFrame(
        [_row(name, labels.get(name, ""), shares, range(spec.seed, spec.seed + seeds)) for name in arms]
    )
    table = table.sort_values("removed", ascending=False, kind="stable").reset_index(drop=True)
    return _concluded(diagnosis.label, steps, table, seeds)


def _concluded(observed: str, steps: int, arms: pd.DataFrame, seeds: int) -> Confirmation:
    tried = arms[arms["factor"] != ORIGINAL]
    sure = tried[tried["low"] > 0]
    before = float(arms.loc[arms["factor"] == ORIGINAL, "dead"].iloc[0])
    share = f"{100 * before:.1f} % of the units"
    lost = int(arms.loc[arms["factor"] == ORIGINAL, "diverged"].iloc[0])
    counted = f"; {lost} diverged, counted as all units dead" if lost else ""
    text = f"As it was, {share} are dead after {steps:,} steps (mean of {seeds} seeds{counted})."
    if sure.empty:
        label = "none"
        text += " No single factor removes deaths for sure."
    else:
        best = sure.iloc[0]
        label = str(best["label"])
        text += (
            f" On average over the seeds, {best['factor']} removes {100 * best['removed']:.0f} % of that "
            f"(95 % interval {100 * best['low']:.0f} to {100 * best['high']:.0f} %): {label}."
        )
        rivals = sure[(sure["high"] >= best["low"]) & (sure["label"] != label)]
        if len(rivals):
            names = ", ".join(f"{r['factor']} ({100 * r['removed']:.0f} %)" for _, r in rivals.iterrows())
            text += f" Not told apart from it: {names}."
    if observed != label:
        text += f" The run's own evidence had said: {observed}."
    else:
        text += " The run's own evidence had said the same."
    return Confirmation(observed, label, steps, arms, text)


def _row(
    name: str, label: str, shares: dict[tuple[str, int], tuple[float, bool]], seeds: range
) -> dict[str, Any]:
    bad = np.array([shares[name, seed][0] for seed in seeds])
    before = np.array([shares[ORIGINAL, seed][0] for seed in seeds])
    clear = before >= LEAST_DEAD / 2
    removed = 1 - bad[clear] / before[clear]
    mean = float(removed.mean()) if clear.any() else float("nan")
    low = high = mean
    if clear.sum() < 2:
        low = high = float("nan")
    elif removed.std() > 0:
        low, high = (float(v) for v in stats.t.interval(0.95, clear.sum() - 1, mean, stats.sem(removed)))
    return {
        "factor": name,
        "label": label,
        "seeds": len(bad),
        "dead": float(bad.mean()),
        "diverged": int(sum(shares[name, seed][1] for seed in seeds)),
        "removed": mean if name != ORIGINAL else 0.0,
        "low": low if name != ORIGINAL else 0.0,
        "high": min(1.0, high) if name != ORIGINAL else 0.0,
    }


def _shortened(spec: RunSpec, steps: int, folder: Path) -> RunSpec:
    """Cut a run down to its first steps, where a cosine schedule is still near its peak."""
    schedule = spec.schedule
    if isinstance(schedule, s.Cosine):
        warm = schedule.warmup_steps
        schedule = s.Warmup(name="warmup", steps=warm) if warm else s.Schedule(name="constant")
    return replace(of_trial(spec, steps, folder), schedule=schedule)


def of_trial(spec: RunSpec, steps: int, folder: Path) -> RunSpec:
    """Cut a run down to its first steps, with a census of the probe at the end."""
    train = replace(spec.train, max_steps=steps, stop_when_dead=None)
    record = replace(spec.record, evidence=False, tensorboard=False, probe=True, enabled=True)
    return replace(spec, train=train, record=record, output=str(folder), force=False)


def input_mean(spec: RunSpec, batches: int = 20) -> float:
    """Mean of the training inputs over the first batches, as the network sees them."""
    import torch

    from harness.training.data import load

    data = load(spec, torch.device("cpu"), torch.float32)
    few = range(min(batches, data.steps_per_epoch))
    return float(torch.stack([data.batch(0, k)[0].mean() for k in few]).mean())


def _bad(spec: RunSpec) -> tuple[float, bool]:
    """Return the dead share at the end of an arm (1 if it diverged), and whether it diverged."""
    status = read_status(run_folder(spec)) or {}
    if status.get("state") == "diverged":
        return 1.0, True
    final = status.get("final") or {}
    if status.get("state") != "finished" or final.get("dead_fraction") is None:
        reason = status.get("error") or "it has no dead share"
        raise ValueError(f"confirm: the arm {run_folder(spec)} cannot be used ({reason})")
    return float(final["dead_fraction"]), False


def view(found: Confirmation) -> Group:
    """Render the summary and the table."""
    table = plain_table()
    for name in ("made normal", "stands for", "dead %", "diverged", "deaths removed", "95 % interval"):
        table.add_column(name, justify="left" if name in ("made normal", "stands for") else "right")
    for _, arm in found.arms.iterrows():
        original = arm["factor"] == ORIGINAL
        interval = f"{100 * arm['low']:.0f} to {100 * arm['high']:.0f} %"
        table.add_row(
            str(arm["factor"]),
            str(arm["label"]),
            f"{100 * arm['dead']:.1f}",
            f"{arm['diverged']} of {arm['seeds']}",
            "" if original else per_cent(arm["removed"], 0, missing="-"),
            "" if original or np.isnan(arm["low"]) else interval,
        )
    return Group(Text(found.text), table)
