"""How a budget is spent: short trainings of all cures, longer ones of the better half, the whole of a few."""

from __future__ import annotations

from dataclasses import dataclass

SHARES = (0.2, 0.3, 0.5)  # of the budget, round by round
FEWEST = 5  # arms of the first round at least, the untouched run among them
FINALISTS = 3  # cures of the last round, beside a combination of the best two
CONTROLS = 2  # arms of the last round that change nothing: the run as it was, and on other seeds


@dataclass(frozen=True)
class Round:
    """One round of trainings.

    Attributes:
        arms: that take part at most, those that change nothing among them.
        steps: of each training.
        seeds: of every arm: one where the worse half is only to be left behind.
    """

    arms: int
    steps: int
    seeds: int


def rounds(cures: int, seeds: int, total: int, least: int, budget: float, fixed: int = 0) -> list[Round]:
    """Successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943) in at most three rounds.

    Args:
        cures: that could be tried.
        seeds: of every arm, from the second round on.
        total: steps of the whole run.
        least: steps after which something can be seen at all.
        budget: how many whole runs' work may be done.
        fixed: what a training costs besides its steps, in steps.

    Returns:
        The rounds; one alone if the budget pays for the whole of every training.

    Raises:
        ValueError: the budget is below one run.

    Example:
        >>> for one in rounds(19, seeds=3, total=900, least=50, budget=24.0):
        ...     print(one)
        Round(arms=20, steps=196, seeds=1)
        Round(arms=11, steps=200, seeds=3)
        Round(arms=6, steps=615, seeds=3)
    """
    if not budget >= 1:  # nor what is no number
        raise ValueError(f"budget: expected at least one run's own time, but got {budget:g} of it")
    work = budget * (total + fixed)  # steps
    least = min(max(least, total // 20, 1), total)

    def longest(trials: int, share: float, least: int) -> int:
        return max(least, min(total, int(share * work / trials - fixed)))

    if (cures + CONTROLS) * seeds * (total + fixed) <= work:
        return [Round(cures + CONTROLS, total, seeds)]
    trials = work / (least + fixed)  # of the shortest
    first = int(min(SHARES[0] * trials, 2 * SHARES[1] * trials / seeds))  # so that half of them can go on
    first = min(cures + 1, max(first, FEWEST))
    second = first // 2 + 1
    last = min(second - 1, FINALISTS) + 1 + CONTROLS
    handful = second <= FEWEST  # for which a round tells nothing that the last one does not
    later = [longest(last * seeds, SHARES[2], least)]  # no later round is shorter than the first
    later += [] if handful else [longest(second * seeds, SHARES[1], least)]
    begun = min(longest(first, SHARES[0], least), *later)
    work -= first * (begun + fixed)
    if handful:
        return [Round(first, begun, 1), Round(last, longest(last * seeds, 1, begun), seeds)]
    longer = longest(second * seeds, SHARES[1] / (1 - SHARES[0]), begun)
    work -= second * seeds * (longer + fixed)
    return [
        Round(first, begun, 1),
        Round(second, longer, seeds),
        Round(last, longest(last * seeds, 1, longer), seeds),
    ]
