"""Task after task: what the claims about continual learning share: arms, readings, decision, figure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from experiments.claim import Sweep
from experiments.contrasts import contrast, level
from experiments.figures import tasks
from experiments.readings import both, gradients
from experiments.verdicts import Part, Verdict, judge
from harness.store.runs import Run

EPOCHS = 25  # of a task
STEPS = 7  # of an epoch: 500 inputs in batches of 64
TASK = EPOCHS * STEPS  # steps of a task
COMMON = (
    "optim=adam",
    "optim.lr=0.005",
    "train.batch_size=64",
    "data.standardise=true",
    "data.subset=500",
    f"record.census_every={TASK}",
)
LENGTHS = {
    "toy": (),
    "small": (f"train.epochs={10 * EPOCHS}",),
    "standard": (f"train.epochs={30 * EPOCHS}",),
    "full": (f"train.epochs={60 * EPOCHS}",),
}
EVERY = 50  # steps between two acts of ReDo
#: Of its placebo. Random resets leave most dead units dead, which are counted again at the next act: on the
#: digits, as often as ReDo the placebo reset twice as many units; half as often, 1.5 times as many.
SELDOM = 2 * EVERY
PLACEBO = "random resets"
CURES = {
    "ReDo": ("remedy=redo", f"remedy.every={EVERY}"),
    PLACEBO: ("remedy=redo", f"remedy.every={SELDOM}", "remedy.choose=random"),
    "continual backprop": ("remedy=continual_backprop", "remedy.rate=0.001", "remedy.maturity=50"),
    "shrink and perturb": ("remedy=shrink_perturb", f"remedy.every={TASK}"),
    "layer norm": ("model.norm=layer",),
    "weight decay": ("optim.weight_decay=0.001",),
}
ONE, CHANGING = "one task", "new tasks"
CHANGED = (
    "Changed after a run on three data sets: accuracy was that at the end of a task, which nearly every arm "
    "learned by heart, and ReDo was held against no resets alone."
)


def sweeps(changing: str) -> tuple[Sweep, ...]:
    """The runs: one task throughout; a new one every `EPOCHS`, without and with each cure.

    Args:
        changing: the key that says after how many epochs a new task begins.
    """
    arms = {CHANGING: (), **CURES}
    return (
        Sweep((*COMMON, f"{changing}=0"), ONE, LENGTHS),
        *(Sweep((*COMMON, f"{changing}={EPOCHS}", *words), name, LENGTHS) for name, words in arms.items()),
    )


def after_tasks(run: Run) -> Mapping[str, float]:
    """Task by task: the dead share on the probe at its end, and its online accuracy.

    Online accuracy is the mean training accuracy over all steps of a task (Dohare et al. 2024). It has no
    ceiling that every arm reaches, as the accuracy at the end of a task has.

    Columns dead_after_k_share and online_k_share for task k from 1; online_last_share is the last one's,
    online_lost_share the second's less the last's (the first task has data as they are), lost_share the same
    of the accuracy in a task's last epoch; reset_share is the mean share of all units that ReDo or its
    placebo resets in 50 steps.
    """
    steps, probe = run.steps, run.census
    probe = probe[(probe["evidence"] == "probe").to_numpy()]
    found, ended = {}, []
    units = int((probe["step"] == probe["step"].min()).sum())
    last = int(steps["step"].max())
    ends = np.arange(TASK, last + 1, TASK) if last >= TASK else np.array([last])
    for k, end in enumerate(ends, 1):
        state = probe.loc[probe["step"] == end, "state"]
        task = steps[(steps["step"] > end - TASK) & (steps["step"] <= end)]
        found[f"dead_after_{k}_share"] = float((state == "dead").mean())
        found[f"online_{k}_share"] = float(task["accuracy"].mean())
        ended.append(float(task["accuracy"].tail(STEPS).mean()))
    second = min(2, len(ends))
    events = run.events
    reset = events.loc[(events["kind"] == "redo").to_numpy(), "units"].sum()
    return {
        **found,
        "online_last_share": found[f"online_{len(ends)}_share"],
        "online_lost_share": found[f"online_{second}_share"] - found[f"online_{len(ends)}_share"],
        "lost_share": ended[second - 1] - ended[-1],
        "reset_share": float(reset / max(1, (last - 1) // EVERY) / units),
    }


read = both(after_tasks, gradients)


def decide(table: pd.DataFrame) -> Verdict:
    """New tasks against one; the last task against the second; ReDo against as many random resets."""
    plain = {"sweep": CHANGING}
    words = {"dead": "dead", "online_last_share": "accuracy in the last task"}

    def against(arm: str, outcome: str, other: str = CHANGING, **asked: Any) -> Part:
        to = "" if other == CHANGING else f" against {other}"
        label = f"{words[outcome]}, {arm}{to}"
        return contrast(table, outcome, {"sweep": arm}, {"sweep": other}, label=label, **asked)

    def more(outcome: str, label: str) -> Part:
        return contrast(table, outcome, plain, {"sweep": ONE}, label=label, at_least=0.1)

    def lost(outcome: str, label: str) -> Part:
        return level(table, outcome, plain, 0.0, label=f"{label}, second task to last", at_least=0.05)

    return judge(
        more("dead", "dead, new tasks against one"),
        lost("online_lost_share", "accuracy lost"),
        against("ReDo", "dead", PLACEBO, at_most=-0.1),
        against("ReDo", "online_last_share", PLACEBO, at_least=0.05),
        against("continual backprop", "dead", at_most=-0.1),
        also=[
            more("gradient_dormant_share", "dormant, new tasks against one"),
            lost("lost_share", "accuracy lost at the end of tasks"),
            *(against(arm, "dead", at_most=-0.1) for arm in CURES if arm != "continual backprop"),
            *(against(arm, "online_last_share", at_least=0.05) for arm in CURES),
        ],
    )


def resets(table: pd.DataFrame) -> str:
    """How many units ReDo and its placebo reset."""
    shares = table.groupby("sweep")["reset_share"].mean()
    return (
        f"In {EVERY} steps ReDo resets {shares['ReDo']:.1%} of the units, and the placebo "
        f"{shares[PLACEBO]:.1%}."
    )


def figure(title: str) -> partial:
    """Dead share and accuracy, task by task, one line per arm."""
    arms = {name: {"sweep": name} for name in (ONE, CHANGING, *CURES)}
    return partial(
        tasks,
        arms=arms,
        outcomes={"dead_after": "dead units after each task", "online": "accuracy over each task"},
        title=title,
    )
