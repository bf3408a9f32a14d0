"""Skip connections keep units alive."""

from functools import partial
from typing import Any

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import Arm, contrast
from experiments.figures import doses
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "Skip connections keep the units of deep networks alive."
DEPTH, RATES, TUNING = 16, (0.003, 0.01, 0.03, 0.1), 4  # seeds 0 to 3 choose the rates, the others judge
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


def tuned(table: pd.DataFrame) -> dict[str, float]:
    """Kind → the rate with the best mean accuracy on the tuning seeds; a diverged run counts as 0."""
    seeds = table[table["seed"] < TUNING]
    score = seeds.assign(accuracy=seeds["accuracy"].fillna(0.0)).groupby(
        ["model.skip", "model.norm", "optim.lr"]
    )["accuracy"]
    means = score.mean()
    return {kind: float(means.loc[skip, norm].idxmax()) for kind, (skip, norm) in KINDS.items()}


def decide(table: pd.DataFrame) -> Verdict:
    """Each residual network against the plain one with the same norm, each at its own learning rate."""
    rates = tuned(table)
    judged = table[table["seed"] >= TUNING] if (table["seed"] >= TUNING).any() else table

    def part(kind: str, outcome: str = "dead", words: str = "", **asked: Any) -> Part:
        plain = PLAIN[KINDS[kind][1]]
        sides: tuple[Arm, Arm] = (
            arm(kind) | {"optim.lr": rates[kind]},
            arm(plain) | {"optim.lr": rates[plain]},
        )
        return contrast(judged, outcome, *sides, label=f"{kind}{words}", **(asked or {"at_most": -0.02}))

    skips = [kind for kind in KINDS if kind not in PLAIN.values()]
    return judge(
        *map(part, skips),
        also=[
            *(part(kind, "born_dead", ": before training") for kind in skips),
            *(part(kind, "accuracy", ": accuracy", at_least=0.02) for kind in skips),
        ],
    )


def chosen(table: pd.DataFrame) -> str:
    """The learning rates that were chosen."""
    return f"Learning rates chosen: {', '.join(f'{kind} {rate:g}' for kind, rate in tuned(table).items())}."


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
    beside=chosen,
    figure=partial(
        doses,
        along="optim.lr",
        groups={kind: arm(kind) for kind in KINDS},
        outcomes=("dead", "accuracy"),
        title=SENTENCE,
    ),
)
