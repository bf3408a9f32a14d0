"""Task after task: dead units, plasticity, and what keeps both."""

from collections.abc import Mapping
from functools import partial

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import contrast, level
from experiments.figures import arms
from experiments.verdicts import Part, Verdict, judge
from harness.store.runs import Run

SENTENCE = (
    "Networks that learn task after task fill up with dead units and lose plasticity; resetting units helps."
)
TASK = 25  # epochs of a task: then all labels are drawn anew
STEPS = 7  # of an epoch: 500 inputs in batches of 64
COMMON = ("optim=adam", "optim.lr=0.005", "train.batch_size=64", "data.standardise=true", "data.subset=500")
LONG = {
    "toy": (),
    "small": ("train.epochs=250",),
    "standard": ("train.epochs=750",),
    "full": ("train.epochs=1500",),
}
ARMS = {
    "fixed labels": ("data.reshuffle_labels_every=0",),
    "reshuffled": (),
    "ReDo": ("remedy=redo", "remedy.every=50"),
    "continual backprop": ("remedy=continual_backprop", "remedy.rate=0.001", "remedy.maturity=50"),
    "shrink and perturb": ("remedy=shrink_perturb", "remedy.every=175"),
    "layer norm": ("model.norm=layer",),
    "weight decay": ("optim.weight_decay=0.001",),
}


def read(run: Run) -> Mapping[str, float]:
    """Training accuracy at the end of the second task (the first has the true labels) and of the last."""
    steps = run.steps
    end = 2 * TASK * STEPS
    second = steps[(steps["step"] > end - STEPS) & (steps["step"] <= end)]
    last = steps[steps["step"] > steps["step"].max() - STEPS]
    begin, end = float(second["accuracy"].mean()), float(last["accuracy"].mean())
    return {"second_task": begin, "last_task": end, "loss_of_plasticity": begin - end}


def decide(table: pd.DataFrame) -> Verdict:
    """Reshuffled against fixed labels; the last task against the first; every cure against none."""
    plain = {"sweep": "reshuffled"}

    def against(arm: str, outcome: str, at_least: float | None = None, at_most: float | None = None) -> Part:
        label = f"{'dead' if outcome == 'dead' else 'last task'}, {arm}"
        return contrast(
            table, outcome, {"sweep": arm}, plain, label=label, at_least=at_least, at_most=at_most
        )

    return judge(
        contrast(
            table,
            "dead",
            plain,
            {"sweep": "fixed labels"},
            label="dead, reshuffled against fixed",
            at_least=0.1,
        ),
        level(
            table, "loss_of_plasticity", plain, 0.0, label="accuracy lost, second task to last", at_least=0.05
        ),
        against("ReDo", "dead", at_most=-0.1),
        against("continual backprop", "dead", at_most=-0.1),
        also=[
            *(against(arm, "dead", at_most=-0.1) for arm in list(ARMS)[4:]),
            *(against(arm, "last_task", at_least=0.05) for arm in list(ARMS)[2:]),
        ],
    )


CLAIM = Claim(
    name="continual_learning",
    sentence=SENTENCE,
    source="Sokar et al. 2023, 2302.12902; Dohare et al. 2024, Nature 632:768",
    metric="Dead share on the held-out probe; training accuracy at the end of the second and the last task.",
    interest="10 points of dead share, 5 points of accuracy.",
    design="500 digits, ten tasks of 25 epochs: the true labels first, then all labels drawn anew each time. "
    "Adam. Controls: the same steps with fixed labels; layer norm; weight decay.",
    sweeps=tuple(
        Sweep((*COMMON, f"data.reshuffle_labels_every={TASK}", *words), name, LONG)
        for name, words in ARMS.items()
    ),
    read=read,
    decide=decide,
    figure=partial(
        arms,
        arms={name: {"sweep": name} for name in ARMS},
        outcomes=("dead", "second_task", "last_task"),
        title=SENTENCE,
    ),
    kind="paper",
)
