"""Activations in place of ReLU: what the claims about them share: the list, the arms, the comparison."""

from __future__ import annotations

from typing import Any

import pandas as pd

from experiments.contrasts import contrast
from experiments.verdicts import Part

OTHERS = ("leaky_relu", "prelu", "elu", "selu", "silu", "gelu", "crelu")
ARMS = {name: {"activation.name": name} for name in ("relu", *OTHERS)}
SWEPT = f"activation={','.join(ARMS)}"  # ReLU first


def against_relu(table: pd.DataFrame, name: str, outcome: str, words: str = "", **asked: Any) -> Part:
    """An activation's outcome against ReLU's.

    Args:
        table: tidy, one row per run.
        name: of the activation.
        outcome: column of numbers.
        words: what the label says after the name.
        asked: the question, as `contrast` has it.
    """
    return contrast(table, outcome, ARMS[name], ARMS["relu"], label=f"{name}{words}", **asked)
