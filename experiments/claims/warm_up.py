"""Learning-rate warm-up keeps units alive."""

from functools import partial
from typing import Any

import pandas as pd

from experiments.claim import EVERY_SET, SEEN, Claim, Sweep
from experiments.contrasts import Arm, contrast, per_seed, rows_of
from experiments.figures import doses
from experiments.tuning import RATE, TUNING, judged
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "Warming the learning rate up keeps units alive that a high learning rate would kill."
#: Title → optimizer and its rates.
GRIDS: dict[str, tuple[str, tuple[float, ...]]] = {
    "SGD": ("sgd", (0.1, 0.2, 0.3, 0.5, 0.7)),
    "momentum": ("momentum", (0.03, 0.05, 0.1, 0.15)),
    "Adam": ("adam", (0.01, 0.03, 0.05, 0.1)),
}
WARM, STEPS = 220, 440  # steps of the warm-up, and of the whole training with it
AT_ONCE = STEPS - WARM // 2  # steps without it: the same sum of learning rates
MOST = 0.5  # of the units that a rate may kill on the tuning seeds: more cannot be saved
ARMS = {"at once": "constant", "warm-up": "warmup"}


def arm(title: str, schedule: str) -> dict[str, Any]:
    """The runs of an optimizer with a schedule, at all rates."""
    return {"optim.name": GRIDS[title][0], "schedule.name": ARMS[schedule]}


def savable(table: pd.DataFrame) -> dict[str, float]:
    """Title → the largest rate that, at once, kills at most half of the units on the tuning seeds.

    A diverged run counts as wholly dead. Where every rate kills more, it is the smallest.
    """
    seeds = table[table["seed"] < TUNING]
    counted = seeds.assign(dead=seeds["dead"].where(seeds["diverged"] != 1, 1.0))
    found = {}
    for title in GRIDS:
        killed = rows_of(counted, arm(title, "at once")).groupby(RATE)["dead"].mean()
        rates = killed.index.to_numpy(float)
        found[title] = float(rates[(killed <= MOST).to_numpy()].max(initial=rates.min()))
    return found


def decide(table: pd.DataFrame) -> Verdict:
    """For each optimizer, warm-up against none, with the same sum of learning rates."""
    rates, others = savable(table), judged(table)

    def part(title: str, outcome: str, **asked: Any) -> Part:
        sides = ({**arm(title, schedule), RATE: rates[title]} for schedule in ("warm-up", "at once"))
        return contrast(others, outcome, *sides, label=f"{title}: {outcome}", **asked)

    def killed(title: str) -> Part:
        high, low = ({**arm(title, "at once"), RATE: rate} for rate in (rates[title], min(GRIDS[title][1])))
        label = f"{title}: dead at once, against the lowest rate"
        return contrast(others, "dead", high, low, label=label, at_least=0.05)

    return judge(
        *(part(title, "dead", at_most=-0.05) for title in GRIDS),
        also=[
            *(part(title, "accuracy", at_least=0.05) for title in GRIDS),
            *(killed(title) for title in GRIDS),
        ],
    )


def beside(table: pd.DataFrame) -> str:
    """The rates that were chosen, and the accuracy at once there."""
    others = judged(table)
    chosen = []
    for title, rate in savable(table).items():
        side: Arm = {**arm(title, "at once"), RATE: rate}
        chosen.append(f"{title} {rate:g} ({per_seed(others, 'accuracy', side).mean():.0%} accurate at once)")
    return f"Learning rates chosen: {', '.join(chosen)}."


CLAIM = Claim(
    name="warm_up",
    sentence=SENTENCE,
    source="practitioners' folklore",
    metric="Dead share on the held-out probe after training, with test accuracy.",
    interest="5 points of dead share.",
    design=f"For each optimizer a rate at which there is something to be saved: seeds 0 to {TUNING - 1} "
    f"choose the largest that, at once, kills at most half of the units (a diverged run counts as wholly "
    f"dead); the others judge. The rate is reached linearly over {WARM} of {STEPS} steps, or at once and for "
    f"{AT_ONCE} steps, which makes the sum of learning rates the same; same initial weights and batches. "
    "Changed after a first run on three data sets at rates that mostly killed everything (SGD 1, momentum "
    "0.2, Adam 0.03), with as many steps at once as with warm-up, and so with a third more exposure.",
    sweeps=tuple(
        Sweep(
            (
                f"optim={name}",
                f"optim.lr={','.join(map(str, rates))}",
                "train.epochs=10",
                *schedule,
            ),
            budgets={"small": ("seed=range(24)",)},
        )
        for name, rates in GRIDS.values()
        for schedule in (
            ("schedule=constant", f"train.max_steps={AT_ONCE}"),
            ("schedule=warmup", f"schedule.steps={WARM}", f"train.max_steps={STEPS}"),
        )
    ),
    data_sets=EVERY_SET,
    looked_at=SEEN,
    decide=decide,
    beside=beside,
    figure=partial(
        doses,
        along=RATE,
        groups={f"{title}, {schedule}": arm(title, schedule) for title in GRIDS for schedule in ARMS},
        title=SENTENCE,
    ),
)
