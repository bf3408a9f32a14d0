"""A change of task under Adam, whose second moments are of the old task."""

import copy
from collections.abc import Iterable
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from experiments.budgets import SEEDS, one_run
from experiments.claim import Claim
from experiments.contrasts import contrast
from experiments.edges import closed
from experiments.figures import arms
from experiments.threads import one_thread
from experiments.verdicts import Part, Verdict, judge
from harness.config import RunSpec
from harness.training.data import Dataset, load
from harness.training.initialisation import initialise
from harness.training.models import build
from harness.training.tasks import permutation

SENTENCE = (
    "At a change of task Adam's stale second moments make steps that kill units; a smaller β2, a larger ε or "
    "fresh moments prevent it."
)
LR = 0.001
USUAL, FRESH = "β2 0.999", "β2 0.999, fresh moments"
#: Arm → β2, ε, and whether the optimizer begins anew with the second task.
ARMS = {
    USUAL: (0.999, 1e-8, False),
    "β2 0.99": (0.99, 1e-8, False),
    "β2 0.9": (0.9, 1e-8, False),
    "β2 0.999, ε 1e-4": (0.999, 1e-4, False),
    FRESH: (0.999, 1e-8, True),
}
CHANGES = ("new inputs", "new labels", "no change")
FIRST = {"toy": 3, "small": 1000, "standard": 1000, "full": 2000}
AFTER, INPUTS = 50, 992  # steps of the second task; images, 31 batches of 32


def measure(budget: str, data_set: str) -> pd.DataFrame:
    """One row per seed, arm and change: the share of the units that the second task's first steps killed."""
    rows = []
    words = (f"data.subset={INPUTS}", "train.batch_size=32")
    with one_thread():
        for seed in range(SEEDS[budget]):
            spec = one_run(words, budget, data_set, seed)
            for arm, settings in ARMS.items():
                found = changed(spec, *settings, FIRST[budget])
                row = {"seed": seed, "arm": arm, "n": INPUTS}
                rows += [row | {"change": change} | outcome for change, outcome in found.items()]
    return pd.DataFrame(rows)


def changed(spec: RunSpec, beta2: float, eps: float, fresh: bool, steps: int) -> dict[str, dict[str, float]]:
    """The first task, and from where it ends each change: what the steps after it did."""
    data = load(spec, torch.device("cpu"), torch.float32)
    model = build(spec, data.shape, data.classes)
    initialise(model, spec)
    optimizer = Adam(model.parameters(), LR, (0.9, beta2), eps, fused=True)
    pixels = permutation(data.shape, spec.seed, 1)
    train(model, optimizer, (turned(data, step, "no change", pixels) for step in range(steps)))
    found = {}
    for change in CHANGES:
        x = torch.cat([turned(data, step, change, pixels)[0] for step in range(data.steps_per_epoch)])
        twin = copy.deepcopy(model)
        follower = Adam(twin.parameters(), LR, (0.9, beta2), eps, fused=True)
        if not fresh:
            follower.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        before, later = closed(twin, x), range(steps, steps + AFTER)
        train(twin, follower, (turned(data, step, change, pixels) for step in later))
        killed = (closed(twin, x) & ~before).float().mean()
        found[change] = {"killed_share": float(killed), "dead_before_share": float(before.float().mean())}
    return found


def turned(data: Dataset, step: int, change: str, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """A batch of a task: flat inputs, for new inputs with reordered pixels, and labels."""
    x, y = data.batch(*divmod(step, data.steps_per_epoch))
    x = x.flatten(1)
    if change == "new labels":
        y = (y + 1) % data.classes
    return (x[:, pixels] if change == "new inputs" else x), y


def train(model: nn.Module, optimizer: Adam, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """One step per batch, of the cross-entropy."""
    for x, y in batches:
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def decide(table: pd.DataFrame) -> Verdict:
    """At each change: the usual moments against short and fresh ones, and a larger ε against the usual."""

    def part(arm: str, against: str, change: str, **asked: Any) -> Part:
        sides = ({"arm": name, "change": change} for name in (arm, against))
        return contrast(table, "killed_share", *sides, label=f"{change}: {arm} against {against}", **asked)

    changes = CHANGES[:2]
    return judge(
        *(part(USUAL, other, change, at_least=0.03) for change in changes for other in (FRESH, "β2 0.9")),
        *(part("β2 0.999, ε 1e-4", USUAL, change, at_most=-0.03) for change in changes),
        also=[
            *(part(USUAL, "β2 0.99", change, at_least=0.03) for change in changes),
            part(USUAL, FRESH, CHANGES[2], within=0.03),
        ],
    )


CLAIM = Claim(
    name="adam_task_change",
    sentence=SENTENCE,
    source="Lyle et al. 2023, 2303.01486",
    metric=f"Share of the units that open on some of the {INPUTS} training inputs of the new task before the "
    f"change, and on none {AFTER} steps after it.",
    interest="3 points of all units, in so few steps.",
    design=f"A 3 × 64 MLP, Adam at {LR:g}, 1,000 steps of the first task in batches of 32; then the pixels "
    "in a new order, every class with the next one's label, or no change. Fresh moments begin at 0 with "
    "Adam's own bias correction, from the same network. Margins and length were fixed after a rehearsal on "
    "seeds 100 to 102.",
    measure=measure,
    data_sets=("digits", "mnist", "fashion_mnist"),
    comments={
        "mixed": "After so many steps the root of the second moments is some 0.004, far above either ε."
    },
    decide=decide,
    figure=partial(
        arms,
        arms={f"{change}, {arm}": {"change": change, "arm": arm} for change in CHANGES for arm in ARMS},
        outcomes=("killed_share", "dead_before_share"),
        title=SENTENCE,
    ),
    kind="paper",
)
