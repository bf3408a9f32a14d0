"""Lu et al. 2019: collapse of narrow deep networks on |x|. Measured by the claim collapse_in_training."""

from pathlib import Path

import pandas as pd

from experiments.claims.collapse_in_training import measure
from experiments.contrasts import level
from experiments.paper import Row, share, word_of
from experiments.verdicts import judge


def run(root: Path) -> pd.DataFrame:
    """No data set is needed."""
    return measure("small")


def decide(table: pd.DataFrame) -> str:
    """He's share of collapsed networks against 90 %."""
    return word_of(judge(level(table, "collapsed_share", {"init": "he"}, 0.9, label="He", at_least=0.0)))


ROWS = (
    Row(
        name="lu_2019",
        source="Lu, Shin, Su & Karniadakis 2019, 1903.06733: |x| on [-√3, √3], width 2, 10 layers",
        read="secondary",
        theirs="over 90 % of He-initialised networks collapse in training",
        setting="He's normal initialisation, 300 networks (12 seeds of 25), full-batch Adam at 0.002, 2,500 "
        "steps on 60 points; collapsed: the output's deviation over the points is below 0.001. RAI "
        "beside it.",
        measure=run,
        tell=lambda table: (
            f"He {share(table, 'collapsed_share', init='he')}; "
            f"RAI {share(table, 'collapsed_share', init='rai')}"
        ),
        decide=decide,
    ),
)
