"""Skip connections keep units alive."""

from functools import partial
from typing import Any

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import Arm, contrast
from experiments.figures import doses
from experiments.tuning import TUNING, chosen, judged, tuned
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "Skip connections keep the units of deep networks alive."
DEPTH, RATES = 16, (0.003, 0.01, 0.03, 0.1)
#: Words → skip and norm.
KINDS: dict[str, tuple[str, str]] = {
    "plain": ("none", "none"),
    "sum, then ReLU": ("post_add", "none"),
    "LayerNorm in the branch": ("pre_norm", "none"),
    "branch that starts at 0": ("zero_init", "none"),
    "plain, batch norm": ("none", "batch"),
    "sum, then ReLU, batch norm": ("post_add", "batch"),
}
PLAIN = {"none": "plain", "batch": "plain, batch norm"}  # norm → what it is held against


def arm(kind: str) -> dict[str, Any]:
    skip, norm = KINDS[kind]
    return {"model.skip": skip, "model.norm": norm}


def rates_of(table: pd.DataFrame) -> dict[str, float]:
    """Kind → its own learning rate."""
    return tuned(table, {kind: arm(kind) for kind in KINDS})


def decide(table: pd.DataFrame) -> Verdict:
    """Each residual network against the plain one with the same norm, each at its own learning rate."""
    rates = rates_of(table)
    others = judged(table)

    def part(kind: str, outcome: str = "dead", words: str = "", **asked: Any) -> Part:
        plain = PLAIN[KINDS[kind][1]]
        sides: tuple[Arm, Arm] = (
            arm(kind) | {"optim.lr": rates[kind]},
            arm(plain) | {"optim.lr": rates[plain]},
        )
        return contrast(others, outcome, *sides, label=f"{kind}{words}", **(asked or {"at_most": -0.02}))

    skips = [kind for kind in KINDS if kind not in PLAIN.values()]
    return judge(
        *map(part, skips),
        also=[
            *(part(kind, "born_dead", ": before training") for kind in skips),
            *(part(kind, "accuracy", ": accuracy", at_least=0.02) for kind in skips),
        ],
    )


CLAIM = Claim(
    name="skip_connections",
    sentence=SENTENCE,
    source="textbook folklore after He et al. 2015 (1512.03385)",
    metric="Dead share on the held-out probe after training; before training, and test accuracy, beside it.",
    interest="2 points of dead share.",
    design=f"{DEPTH} activations of 64 units each: a plain chain; relu(x + linear(x)); x + "
    "linear(relu(linear(LayerNorm(x)))); x + linear(relu(linear(x))) with the outer linear map at 0, as "
    "SkipInit and Fixup start; and the first two with batch normalisation before each ReLU, as in a ResNet. "
    "“A skip connection” is not one thing: normalisation and a branch that starts at 0 are told apart from "
    f"the sum itself. SGD at four rates; seeds 0 to {TUNING - 1} choose one for each kind by test accuracy, "
    "the others judge. Changed after a first run of eight layers, without batch normalisation, at one rate "
    "for all (0.03), at which most residual sums diverged.",
    sweeps=tuple(
        Sweep(
            (
                f"model.depth={DEPTH}",
                f"model.skip={skips}",
                f"model.norm={norm}",
                f"optim.lr={','.join(map(str, RATES))}",
            ),
            budgets={"small": ("seed=range(16)",)},
        )
        for skips, norm in (("none,post_add,pre_norm,zero_init", "none"), ("none,post_add", "batch"))
    ),
    decide=decide,
    beside=lambda table: chosen(rates_of(table)),
    figure=partial(
        doses,
        along="optim.lr",
        groups={kind: arm(kind) for kind in KINDS},
        outcomes=("dead", "accuracy"),
        title=SENTENCE,
    ),
)
