"""Task after task: what the claims about continual learning share: arms, readings, decision, figure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

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
CURES = {
    "ReDo": ("remedy=redo", "remedy.every=50"),
    "continual backprop": ("remedy=continual_backprop", "remedy.rate=0.001", "remedy.maturity=50"),
    "shrink and perturb": ("remedy=shrink_perturb", f"remedy.every={TASK}"),
    "layer norm": ("model.norm=layer",),
    "weight decay": ("optim.weight_decay=0.001",),
}
ONE, CHANGING = "one task", "new tasks"


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
    """At the end of every task: the dead share on the probe, the training accuracy of its last epoch.

    Columns dead_after_k_share and learned_k_share for task k from 1; learned_first_share is the second
    task's (the first has data as they are), learned_last_share the last one's, lost_share their difference.
    """
    steps, probe = run.steps, run.census
    probe = probe[(probe["evidence"] == "probe").to_numpy()]
    found = {}
    last = int(steps["step"].max())
    ends = np.arange(TASK, last + 1, TASK) if last >= TASK else np.array([last])
    for k, end in enumerate(ends, 1):
        state = probe.loc[probe["step"] == end, "state"]
        epoch = steps[(steps["step"] > end - STEPS) & (steps["step"] <= end)]
        found[f"dead_after_{k}_share"] = float((state == "dead").mean())
        found[f"learned_{k}_share"] = float(epoch["accuracy"].mean())
    first, final = found[f"learned_{min(2, len(ends))}_share"], found[f"learned_{len(ends)}_share"]
    return {
        **found,
        "learned_first_share": first,
        "learned_last_share": final,
        "lost_share": first - final,
    }


read = both(after_tasks, gradients)


def decide(table: pd.DataFrame) -> Verdict:
    """New tasks against one; the last task against the second; the cures by resetting against none."""
    plain = {"sweep": CHANGING}

    def against(arm: str, outcome: str, at_least: float | None = None, at_most: float | None = None) -> Part:
        said = {"dead": "dead", "gradient_dormant_share": "dormant", "learned_last_share": "last task"}
        sides = ({"sweep": arm}, plain)
        return contrast(
            table, outcome, *sides, label=f"{said[outcome]}, {arm}", at_least=at_least, at_most=at_most
        )

    def more(outcome: str, label: str) -> Part:
        return contrast(table, outcome, plain, {"sweep": ONE}, label=label, at_least=0.1)

    lost = level(table, "lost_share", plain, 0.0, label="accuracy lost, second task to last", at_least=0.05)
    return judge(
        more("dead", "dead, new tasks against one"),
        lost,
        against("ReDo", "dead", at_most=-0.1),
        against("continual backprop", "dead", at_most=-0.1),
        also=[
            more("gradient_dormant_share", "dormant, new tasks against one"),
            *(against(arm, "dead", at_most=-0.1) for arm in list(CURES)[2:]),
            *(against(arm, "learned_last_share", at_least=0.05) for arm in CURES),
        ],
    )


def figure(title: str) -> partial:
    """Dead share and accuracy, task by task, one line per arm."""
    arms = {name: {"sweep": name} for name in (ONE, CHANGING, *CURES)}
    return partial(
        tasks,
        arms=arms,
        outcomes={"dead_after": "dead units after each task", "learned": "accuracy in each task"},
        title=title,
    )
