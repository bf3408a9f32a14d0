"""How a budget is spent: short trainings of all cures, longer ones of the better half, the whole of a few."""

from __future__ import annotations

from dataclasses import dataclass

SHARES = (0.2, 0.2, 0.6)  # of the budget, round by round
FEWEST = 5  # arms of the first round at least, the untouched run among them
FINALISTS = 3  # cures of the last round, beside a combination of the best two
CONTROLS = 2  # arms of the last round that change nothing: the run as it was, and on other seeds


@dataclass(frozen=True)
class Round:
    """One round of trainings.

    Attributes:
        arms: that take part at most, those that change nothing among them.
        steps: of each training.
    """

    arms: int
    steps: int


def rounds(cures: int, seeds: int, total: int, least: int, budget: float) -> list[Round]:
    """Successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943) in at most three rounds.

    Args:
        cures: that could be tried.
        seeds: of every arm.
        total: steps of the whole run.
        least: steps after which something can be seen at all.
        budget: how many whole runs' steps may be trained.

    Returns:
        The rounds; one alone if the budget pays for the whole of every training.

    Raises:
        ValueError: the budget is below one run.

    Example:
        >>> rounds(19, seeds=3, total=900, least=50, budget=32.0)
        [Round(arms=20, steps=96), Round(arms=11, steps=174), Round(arms=6, steps=900)]
    """
    if not budget >= 1:  # nor what is no number
        raise ValueError(f"budget: expected at least one run's own time, but got {budget:g} of it")
    work = budget * total  # steps
    least = min(max(least, total // 20, 1), total)
    if (cures + CONTROLS) * seeds * total <= work:
        return [Round(cures + CONTROLS, total)]
    first = int(SHARES[0] * work / (seeds * least))
    first = min(cures + 1, max(first, FEWEST))
    begun = _between(least, SHARES[0] * work / (first * seeds), total)
    work -= first * seeds * begun
    second = first // 2 + 1
    longer = _between(begun, SHARES[1] / (1 - SHARES[0]) * work / (second * seeds), total)
    last = min(second - 1, FINALISTS) + 1 + CONTROLS
    if second <= FEWEST:  # a round for a handful tells nothing that the last one does not
        return [Round(first, begun), Round(last, _between(begun, work / (last * seeds), total))]
    work -= second * seeds * longer
    return [
        Round(first, begun),
        Round(second, longer),
        Round(last, _between(longer, work / (last * seeds), total)),
    ]


def _between(least: int, steps: float, total: int) -> int:
    return max(least, min(total, int(steps)))
