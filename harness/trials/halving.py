"""Spend a budget: train all cures briefly, the better half longer, and a few to the end."""

from __future__ import annotations

from dataclasses import dataclass

SHARES = (0.2, 0.3, 0.5)  # shares of the budget, round by round
FEWEST = 5  # least number of arms in the first round, including the unchanged run
FINALISTS = 3  # cures in the last round, besides one combination of two of them
CONTROLS = 2  # arms of the last round that change nothing: the run on its own seeds and on other seeds


@dataclass(frozen=True)
class Round:
    """One round of trainings.

    Attributes:
        arms: largest number of arms, including those that change nothing.
        steps: length of each training.
        seeds: seeds per arm; one seed is enough to drop the worse half.
    """

    arms: int
    steps: int
    seeds: int


def rounds(cures: int, seeds: int, total: int, least: int, budget: float, fixed: int = 0) -> list[Round]:
    """Plan successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943) in at most three rounds.

    Args:
        cures: number of cures that could be tried.
        seeds: seeds per arm, from the second round on.
        total: steps of the whole run.
        least: least number of steps after which the problem is visible.
        budget: total work, in whole runs.
        fixed: cost of a training besides its steps, in steps.

    Returns:
        The rounds; only one if the budget covers every training in full.

    Raises:
        ValueError: the budget is below one run.

    Example:
        >>> for one in rounds(19, seeds=3, total=900, least=50, budget=24.0):
        ...     print(one)
        Round(arms=20, steps=196, seeds=1)
        Round(arms=11, steps=200, seeds=3)
        Round(arms=6, steps=615, seeds=3)
    """
    if not budget >= 1:  # also rejects NaN
        raise ValueError(f"budget: expected at least one run's own time, but got {budget:g} of it")
    work = budget * (total + fixed)  # steps
    least = min(max(least, total // 20, 1), total)

    def longest(trials: int, share: float, least: int) -> int:
        return max(least, min(total, int(share * work / trials - fixed)))

    if (cures + CONTROLS) * seeds * (total + fixed) <= work:
        return [Round(cures + CONTROLS, total, seeds)]
    trials = work / (least + fixed)  # how many of the shortest trainings the budget covers
    first = int(min(SHARES[0] * trials, 2 * SHARES[1] * trials / seeds))  # half must be affordable later
    first = min(cures + 1, max(first, FEWEST))
    second = first // 2 + 1
    last = min(second - 1, FINALISTS) + 1 + CONTROLS
    handful = second <= FEWEST  # a second round would show nothing that the last one does not
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
