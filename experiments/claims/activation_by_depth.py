"""Activation rates after training, from input to output."""

from collections.abc import Mapping
from functools import partial

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import level
from experiments.figures import arms
from experiments.verdicts import Verdict, judge
from harness.store.runs import Run

SENTENCE = (
    "After training a ReLU unit is active on less than half of the inputs, and the less the deeper it lies."
)


def read(run: Run) -> Mapping[str, float]:
    """Mean activation rates of the first and the last hidden layer, and of all, on the probe."""
    census = run.census
    census = census[(census["evidence"] == "probe") & (census["step"] == census["step"].max())]
    rates = census.groupby("site", sort=False)["rate"].mean()
    return {
        "rate": float(census["rate"].mean()),
        "rate_first": float(rates.iloc[0]),
        "rate_last": float(rates.iloc[-1]),
        "fall": float(rates.iloc[-1] - rates.iloc[0]),
    }


def decide(table: pd.DataFrame) -> Verdict:
    """The mean rate against a half, and the last layer's against the first's."""
    plain, skip = {"sweep": "plain"}, {"sweep": "skip"}
    return judge(
        level(table, "rate", plain, 0.5, label="mean activation rate, less ½", at_most=-0.05),
        level(table, "fall", plain, 0.0, label="last hidden layer less first", at_most=-0.05),
        also=[level(table, "fall", skip, 0.0, label="with skip connections, last less first", at_most=-0.05)],
    )


CLAIM = Claim(
    name="activation_by_depth",
    sentence=SENTENCE,
    source="Douglas & Yu 2018, 1812.05981",
    metric="Activation rate on the held-out probe after training, by layer.",
    interest="5 points.",
    design="Six hidden layers of 64 units, SGD with momentum at 0.02 to a high training accuracy, on "
    "standardised inputs; the same with "
    "skip connections, for which the paper finds no such fall.",
    sweeps=(
        Sweep(("model.depth=6", "optim=momentum", "optim.lr=0.02", "data.standardise=true"), "plain"),
        Sweep(
            (
                "model.depth=6",
                "model.skip=pre_norm",
                "model.norm=layer",
                "optim=momentum",
                "optim.lr=0.02",
                "data.standardise=true",
            ),
            "skip",
        ),
    ),
    read=read,
    decide=decide,
    figure=partial(
        arms,
        arms={"plain": {"sweep": "plain"}, "skip connections": {"sweep": "skip"}},
        outcomes=("rate_first", "rate_last", "accuracy"),
        title=SENTENCE,
    ),
    kind="paper",
)
