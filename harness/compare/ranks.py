"""Which factors matter: main effects and two-way interactions by the share of variance they explain."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse, stats

from harness.compare.correction import adjust_tests, check_correction
from harness.compare.design import matrix, seed_codes
from harness.compare.frames import codes, columns_of, need, tally, values, word
from harness.compare.permutation import centred, flip_tables, free_labels
from harness.compare.survivors import enough
from harness.compare.variance import Groups, explained, residuals

MOST = 12  # levels of a number above which it is divided into bins
BINS = 8
GROUPS = 20  # largest number of groups of seeds, each left out in turn
STREAM = 20_240_609


def ranking(
    frame: pd.DataFrame,
    outcome: str = "dead",
    *,
    factors: Sequence[str] | None = None,
    confidence: float = 0.95,
    correction: str = "max_t",
) -> pd.DataFrame:
    """Main effects and two-way interactions of all swept factors, the largest first.

    A share is the sum of squares that a term adds to a model of all other main effects (an interaction: to
    all main effects), divided by the total; designs may be unbalanced. A factor that another one determines
    (an optimizer with learning rates of its own) is not asked what it adds to that one. In a balanced design
    the shares, those of the seed and of the rest (`attrs`) add up to 1. A share is never below 0 and has an
    upward bias of about (levels - 1) / runs: p decides whether there is an effect at all. Runs without the
    outcome (diverged, failed) are left out and counted in `attrs`.

    Args:
        frame: as returned by `harness.compare.outcomes`.
        outcome: the outcome to explain, possibly "diverged".
        factors: factors of the frame; None: all that vary.
        confidence: confidence of the intervals (delete-a-group jackknife over seeds, with Student's t).
        correction: correction of the p-values over the terms: "max_t" (joint sign flips), "holm", "fdr" or
            "none".

    Returns:
        One row per term: term ("a" or "a × b"), levels (8 bins for a number with more than 12 values), share,
        low, high, p, p_adjusted. p flips the signs of seeds: it cannot be below 2^(1-seeds), and is NaN with
        one seed. The `attrs` have outcome, runs, used, diverged, failed, unfinished, seeds, seed and rest
        (shares), thin: the levels at which fewer than half of the runs have the outcome, and within: factor →
        those that it determines.

    Raises:
        ValueError: no factor varies, or an unknown factor, outcome or correction.

    Example:
        >>> frame = pd.DataFrame({"run": range(12), "status": "finished", "seed": [0, 1, 2] * 4,
        ...     "optim.lr": [0.1] * 6 + [1.0] * 6, "bias.offset": ([0] * 3 + [-1] * 3) * 2})
        >>> frame["dead"] = 0.3 * (frame["optim.lr"] > 0.5) + 0.1 * frame["bias.offset"]
        >>> frame["dead"] += 0.01 * frame["seed"]
        >>> ranking(frame)[["term", "share"]].round(3).values.tolist()[:2]
        [['optim.lr', 0.898], ['bias.offset', 0.1]]
    """
    y = values(frame, outcome)
    names = columns_of(frame) if factors is None else list(factors)
    if factors is None:
        names = [name for name in names if len(codes(frame[name])[1]) > 1]
    if not names:
        raise ValueError("factors: nothing but the seed varies in these runs, so there is nothing to rank")
    need(frame, *names, argument="factors")
    check_correction(correction)
    seed = seed_codes(frame)[0]
    used = ~np.isnan(y)
    divided = [_divided(*codes(frame[name])) for name in names]
    index = np.stack([one[used] for one in divided], axis=1)
    table = _Table(y[used], seed[used], index)
    pairs = [pair for pair in combinations(range(len(names)), 2) if table.crossed(pair)]
    share, low, high = table.shares(pairs, confidence)
    tests = [table.main(k) for k in range(len(names))] + [table.interaction(pair) for pair in pairs]
    p = np.array([p for p, _ in tests])
    terms = [*names, *(f"{names[a]} × {names[b]}" for a, b in pairs)]
    levels = [table.levels[k] for k in range(len(names))]
    result = pd.DataFrame(
        {
            "term": terms,
            "levels": [*levels, *(levels[a] * levels[b] for a, b in pairs)],
            "share": share,
            "low": low,
            "high": high,
            "p": p,
            "p_adjusted": adjust_tests(p, [vectors for _, vectors in tests], correction),
        }
    )
    result = result.iloc[np.argsort(-np.nan_to_num(share), kind="stable")].reset_index(drop=True)
    by_seed = table.seed_share()
    result.attrs |= {"outcome": outcome, **tally(frame["status"].to_numpy(object))}
    result.attrs |= {"used": int(used.sum()), "seeds": len(np.unique(seed[used])), "seed": by_seed}
    result.attrs["thin"] = _thin(frame, names, used)
    result.attrs["within"] = {
        name: coarser
        for j, name in enumerate(names)
        if (coarser := [names[k] for k in range(len(names)) if j in table.finer[k]])
    }
    result.attrs["rest"] = max(0.0, 1 - float(np.sum(share)) - by_seed)
    return result


def _thin(frame: pd.DataFrame, names: Sequence[str], used: np.ndarray) -> list[str]:
    """The levels, as factor=level, at which fewer than half of the runs have the outcome."""
    found = []
    for name in names:
        index, levels = codes(frame[name])
        for k, level in enumerate(levels):
            here = index == k
            if not enough(int((here & used).sum()), int(here.sum())):
                found.append(f"{name.removesuffix('.name')}={word(level)}")
    return found


class _Table:
    """Outcomes by setting and seed; runs that share both are averaged."""

    def __init__(self, y: np.ndarray, seed: np.ndarray, index: np.ndarray) -> None:
        self.total = float(np.square(y - y.mean()).sum()) if len(y) else 0.0
        self.y, self.seed, self.index = y, seed, index
        self.levels = [len(np.unique(column)) for column in index.T]
        self.seeds = len(np.unique(seed))
        self.one = np.ones((1, len(y)))
        self.mains = [Groups(column) for column in index.T]
        self.seed_group = Groups(seed)
        self.finer = [
            {j for j in range(len(self.mains)) if self._determines(j, k)} for k in range(len(self.mains))
        ]
        self.blocked = self.seeds > 1 and bool((np.bincount(self.seed_group.index) > 1).sum() > 1)

    def _determines(self, j: int, k: int) -> bool:
        """Whether a factor determines another one, which has fewer levels."""
        pairs = len(np.unique(self.index[:, [j, k]], axis=0))
        return pairs == self.levels[j] > self.levels[k]

    def crossed(self, pair: tuple[int, int]) -> bool:
        """Whether an interaction can be separated from the main effects."""
        a, b = pair
        if min(self.levels[a], self.levels[b]) < 2:
            return False
        return len(np.unique(self.index[:, [a, b]], axis=0)) > self.levels[a] + self.levels[b] - 1

    def joint(self, pair: tuple[int, int]) -> np.ndarray:
        a, b = (self.mains[k].index for k in pair)
        return a * self.levels[pair[1]] + b

    def shares(
        self, pairs: Sequence[tuple[int, int]], confidence: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Share of each main effect and pair, and its interval over seeds."""
        count = len(self.levels) + len(pairs)
        if self.total <= 1e-12:
            return np.full(count, np.nan), np.full(count, np.nan), np.full(count, np.nan)
        setting, cell = np.unique(self.index, axis=0, return_inverse=True)
        cell = cell.ravel()
        mains = [Groups(column) for column in setting.T]
        joint = [Groups(setting[:, a] * (setting[:, b].max() + 1) + setting[:, b]) for a, b in pairs]
        rows, shape = self.seed_group.index, (self.seeds, len(setting))

        def of(kept: np.ndarray) -> np.ndarray:
            """Shares for these seeds: (resamples, seeds) → (resamples, terms)."""

            def summed(values: np.ndarray) -> np.ndarray:
                return kept @ sparse.csr_array((values, (rows, cell)), shape=shape)

            runs, total, square = summed(np.ones(len(rows))), summed(self.y), summed(self.y**2)
            mean = total / np.maximum(runs, 1e-300)
            whole = square.sum(1) - total.sum(1) ** 2 / runs.sum(1)
            filled = np.where(runs > 0, mean, 0.0)
            found = np.concatenate(explained(filled, runs, mains, joint, self.finer), axis=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.where(whole[:, None] > 1e-12, found / whole[:, None], np.nan)

        share = of(np.ones((1, self.seeds)))[0]
        if self.seeds < 2:
            return share, np.full(count, np.nan), np.full(count, np.nan)
        groups = min(self.seeds, GROUPS)
        group = np.random.default_rng(STREAM).permutation(self.seeds) % groups
        without = of((group != np.arange(groups)[:, None]).astype(float))
        spread = np.sqrt((groups - 1) / groups * np.square(without - without.mean(0)).sum(0))
        width = stats.t.ppf(0.5 + confidence / 2, groups - 1) * spread
        return share, np.clip(share - width, 0, 1), np.clip(share + width, 0, 1)

    def seed_share(self) -> float:
        means = self.seed_group.means(self.y[None], self.one)[0]
        if self.total <= 1e-12 or not self.blocked:
            return 0.0
        return float(np.square(means - self.y.mean()).sum() / self.total)

    def main(self, k: int) -> tuple[float, np.ndarray | None]:
        """The p of a main effect, and its vectors by seed; None if seeds are no blocks."""
        if self.seeds < 2 or self.levels[k] < 2:
            return np.nan, None
        others = [self.mains[j] for j in range(len(self.mains)) if j != k and j not in self.finer[k]]
        group = self.mains[k].index
        left = self._left(others)
        vectors = centred(matrix(self.seed_group.index, group, left, (self.seeds, self.levels[k])))
        p = flip_tables(vectors)
        return (free_labels(left, group), None) if np.isnan(p) else (p, vectors)

    def interaction(self, pair: tuple[int, int]) -> tuple[float, np.ndarray | None]:
        """The p of an interaction, and its vectors by seed; None if seeds are no blocks."""
        if self.seeds < 2:
            return np.nan, None
        left = self._left(self.mains)
        if not self.blocked:
            return free_labels(left, self.joint(pair)), None
        a, b = (self.levels[k] for k in pair)
        tables = matrix(self.seed_group.index, self.joint(pair), left, (self.seeds, a * b)).reshape(-1, a, b)
        there = ~np.isnan(tables)
        for _ in range(1 if there.all() else 20):  # one round is exact for complete tables
            for axis in (1, 2):
                count = np.maximum(there.sum(axis, keepdims=True), 1)
                tables = tables - np.nansum(tables, axis, keepdims=True) / count
        vectors = np.nan_to_num(tables).reshape(self.seeds, -1)
        return flip_tables(vectors), vectors

    def _left(self, others: Sequence[Groups]) -> np.ndarray:
        """What is left of the outcomes without the effects of other factors, and of seeds as blocks."""
        blocks = [self.seed_group] if self.blocked else []
        return residuals(self.y[None], self.one, [*blocks, *others])[0]


def _divided(index: np.ndarray, levels: list[Any]) -> np.ndarray:
    """Codes of a number's values; with many values, bins with about equal numbers of runs."""
    if len(levels) <= MOST or not all(isinstance(level, int | float) for level in levels):
        return index
    edges = np.quantile(index, np.linspace(0, 1, BINS + 1)[1:-1], method="lower")
    return np.searchsorted(np.unique(edges), index, side="left")
