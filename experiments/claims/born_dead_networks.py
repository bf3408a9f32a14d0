"""Born-dead networks: narrow and deep, with the closed form beside the simulation."""

from functools import partial

import numpy as np
import pandas as pd
import torch

from experiments.claim import Claim
from experiments.contrasts import level
from experiments.figures import doses
from experiments.verdicts import Verdict, judge

SENTENCE = (
    "A deep and narrow ReLU network is likely to be born dead; the probability falls fast with the width."
)
HIDDEN = (1, 3, 6, 9, 14, 20)
WIDTHS = (2, 3, 5)
NETWORKS = {"toy": 200, "small": 4000, "standard": 20_000, "full": 50_000}
SEEDS = {"toy": 3, "small": 12, "standard": 12, "full": 24}


def closed_form(width: int, hidden: np.ndarray | int) -> np.ndarray:
    """P(born dead on one input) = 1 - (1 - 2^-N)^H for zero biases (Lu et al. 2019, 1903.06733)."""
    return 1 - (1 - 0.5**width) ** np.asarray(hidden, float)


def measure(budget: str) -> pd.DataFrame:
    """Random He networks of every width: the share that is dead on one input after so many hidden layers."""
    rows = []
    for seed in range(SEEDS[budget]):
        draw = torch.Generator().manual_seed(seed)
        for width in WIDTHS:
            x = torch.ones(NETWORKS[budget], 1, 1)
            for depth in range(1, max(HIDDEN) + 1):
                weight = torch.randn(len(x), width, x.shape[1], generator=draw)
                x = torch.relu(weight @ x * (2 / x.shape[1]) ** 0.5)
                if depth in HIDDEN:
                    dead = float((x.amax((1, 2)) == 0).float().mean())
                    expected = float(closed_form(width, depth))
                    rows.append((seed, width, depth, dead, expected, dead - expected, len(x), 1))
    columns = ["seed", "width", "hidden", "dead_share", "expected", "off", "networks", "n"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def decide(table: pd.DataFrame) -> Verdict:
    """The probability at nine hidden layers, and every point against its closed form."""
    return judge(
        level(
            table,
            "dead_share",
            {"width": 2, "hidden": 9},
            0.5,
            label="width 2, 9 hidden layers",
            at_least=0.3,
        ),
        level(
            table,
            "dead_share",
            {"width": 5, "hidden": 9},
            0.5,
            label="width 5, 9 hidden layers",
            at_most=-0.2,
        ),
        level(table, "off", {}, 0.0, label="simulation less closed form, all points", within=0.005),
        also=[
            level(
                table, "off", {"width": n}, 0.0, label=f"simulation less closed form, width {n}", within=0.01
            )
            for n in WIDTHS
        ],
    )


GRID = np.arange(1, max(HIDDEN) + 1)
CLAIM = Claim(
    name="born_dead_networks",
    sentence=SENTENCE,
    source="Lu et al. 2019, 1903.06733",
    metric="Share of random networks whose every unit of some layer is closed on one input.",
    interest="More than 80 % at width 2 and less than 30 % at width 5, as the paper's figure shows; the "
    "closed form is to be met within half a point.",
    design="He initialisation, zero biases, one input, widths 2, 3, 5, up to 20 hidden layers; "
    "P = 1 - (1 - 2^-N)^H is drawn over it.",
    measure=measure,
    decide=decide,
    figure=partial(
        doses,
        along="hidden",
        groups={f"width {n}": {"width": n} for n in WIDTHS},
        outcomes=("dead_share",),
        overlay={f"1 - (1 - 2^-{n})^H": (GRID, closed_form(n, GRID)) for n in WIDTHS},
        title=SENTENCE,
        log=False,
    ),
    kind="paper",
)
