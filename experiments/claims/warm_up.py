"""Learning-rate warm-up keeps units alive."""

from functools import partial
from typing import Any

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import contrast
from experiments.figures import arms
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "Warming the learning rate up keeps units alive that a high learning rate would kill."
#: Optimizer → its name, and the high learning rate of the claim high_learning_rate.
HIGH = {"sgd": ("SGD", 1.0), "momentum": ("momentum", 0.2), "adam": ("Adam", 0.03)}
STEPS = 220


def decide(table: pd.DataFrame) -> Verdict:
    """For each optimizer, warm-up against none, at the same final learning rate."""

    def part(optimizer: str, outcome: str = "dead", **asked: Any) -> Part:
        sides = ({"optim.name": optimizer, "schedule.name": name} for name in ("warmup", "constant"))
        name, lr = HIGH[optimizer]
        return contrast(table, outcome, *sides, label=f"{name} {lr:g}: {outcome}", **asked)

    return judge(
        *(part(optimizer, at_most=-0.05) for optimizer in HIGH),
        also=[part(optimizer, "accuracy", at_least=0.05) for optimizer in HIGH],
    )


CLAIM = Claim(
    name="warm_up",
    sentence=SENTENCE,
    source="practitioners' folklore",
    metric="Dead share on the held-out probe after training, with test accuracy.",
    interest="5 points of dead share.",
    design=f"The three learning rates that the claim high_learning_rate judges, at once or reached "
    f"linearly over {STEPS} steps (half of the training of the small budget); same initial weights and "
    f"batches.",
    sweeps=tuple(
        Sweep((f"optim={name}", f"optim.lr={lr}", *schedule))
        for name, (_, lr) in HIGH.items()
        for schedule in (("schedule=constant",), ("schedule=warmup", f"schedule.steps={STEPS}"))
    ),
    decide=decide,
    figure=partial(
        arms,
        arms={
            f"{name} {lr:g}, {words}": {"optim.name": optimizer, "schedule.name": schedule}
            for optimizer, (name, lr) in HIGH.items()
            for schedule, words in (("constant", "at once"), ("warmup", "warm-up"))
        },
        title=SENTENCE,
    ),
)
