"""One sentence on several data sets: those that nobody had looked at when its rule was fixed decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.claim import LOOKED_AT
from experiments.verdicts import Verdict, Word


def confirming(data: Sequence[str], looked_at: Sequence[str] = LOOKED_AT) -> list[str]:
    """The data sets that decide: those not looked at before; all, if there are none of these.

    Args:
        data: names of data sets with a result.
        looked_at: names of those whose results were known when the design was fixed.

    Example:
        >>> confirming(["digits", "mnist", "fashion_mnist"]), confirming(["digits"])
        (['fashion_mnist'], ['digits'])
    """
    return [one for one in data if one not in looked_at] or list(data)


def together(
    verdicts: Mapping[str, Verdict], looked_at: Sequence[str] = LOOKED_AT
) -> tuple[Word, float, list[str]]:
    """The verdict over data sets, its p, and the data sets that it rests on.

    All supported: supported. All refuted: refuted. Any contrast refuted on one of them: mixed. None refuted,
    and some undecided: partly open, or undecided if nothing was decided. p is the largest where the data
    sets agree (intersection–union), else the largest of the decided ones times their number.

    Args:
        verdicts: name of the data set → verdict; at least one.
        looked_at: names of the data sets whose results were known when the design was fixed.

    Example:
        >>> import numpy as np
        >>> from experiments.verdicts import Part, judge
        >>> seeds = np.array([0.30, 0.32, 0.28, 0.31, 0.29, 0.33, 0.30, 0.27])
        >>> yes, no = judge(Part("a", seeds, 0.1)), judge(Part("a", seeds - 0.3, 0.1))
        >>> together({"mnist": no, "fashion_mnist": yes, "cifar10": yes})[0]
        'supported'
        >>> together({"fashion_mnist": yes, "cifar10": no})[0]
        'mixed'
        >>> together({"fashion_mnist": yes, "cifar10": no}, ("fashion_mnist",))[0]
        'refuted'
    """
    on = confirming(list(verdicts), looked_at)
    chosen = [verdicts[one] for one in on]
    words = {verdict.word for verdict in chosen}
    if len(words) == 1:
        return chosen[0].word, max(verdict.p for verdict in chosen), on
    decided = [verdict.p for verdict in chosen if verdict.word != "undecided"]
    word: Word = "mixed" if words & {"refuted", "mixed"} else "partly open"
    return word, min(1.0, len(chosen) * max(decided)), on
