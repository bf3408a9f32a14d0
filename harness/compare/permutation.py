"""Permutation tests with seeds as blocks: exact if all permutations can be enumerated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import permutation_test

EXACT = 20  # largest number of seeds whose sign flips are enumerated
JOINT = 13  # the same for several tests at once
DRAWS = 9999
STREAM = 20_240_608
CELLS = 20_000_000  # largest number of values in a set of drawn permutations
BATCH = 2_000_000  # values held in memory at a time


def sign_flip(differences: np.ndarray) -> float:
    """Two-sided p of a mean of paired differences (Fisher 1935).

    Under the null hypothesis, each difference could equally have the other sign. All 2^n sign flips are
    enumerated for up to `EXACT` seeds, otherwise 9,999 are drawn and the observed one is added.

    Args:
        differences: one per seed, NaN for none.

    Returns:
        p; NaN with fewer than two, for which there is no test. It cannot be below 2^(1-n).

    Example:
        >>> sign_flip(np.array([1.0, 2.0, 3.0, 4.0]))  # 2 of 16 sums are as far from 0
        0.125
    """
    return flip_tables(differences[:, None])


def joint_sign_flips(tests: Sequence[np.ndarray]) -> np.ndarray:
    """p-values of several tests of paired differences, adjusted for their number (Westfall & Young 1993).

    Each sign flip is that of a seed, in all tests at once, so that their dependence is part of the null
    distribution: of the largest |sum| / root sum of squares among a test and those with smaller ones. The
    chance of any false rejection is controlled, and, unlike Holm's p, the least p does not grow with the
    number of tests. All 2^n flips are used for up to 13 seeds, else 9,999 drawn ones.

    Args:
        tests: for each, differences by seed: (seeds,), or (seeds, values) for vectors; NaN for none.

    Returns:
        (tests,) p; NaN with fewer than two seeds. That of a single test is `sign_flip`'s, or `flip_tables`'.

    Example:
        >>> one, other = np.array([1.0, 2.0, 3.0, 4.0]), np.array([-1.0, 3.0, -2.0, 1.0])
        >>> joint_sign_flips([one, other]).tolist()
        [0.125, 1.0]
    """
    tables = [np.asarray(test, float).reshape(len(test), -1) for test in tests]
    tested = np.array([(~np.isnan(table)).any(axis=1).sum() > 1 for table in tables], bool)
    p = np.full(len(tables), np.nan)
    if not tested.any():
        return p
    seeds = len(tables[0])
    if seeds <= JOINT:
        signs = 1 - 2.0 * (np.arange(2 ** (seeds - 1))[:, None] >> np.arange(seeds) & 1)
    else:
        signs = np.random.default_rng((STREAM, seeds)).integers(0, 2, (DRAWS + 1, seeds)) * 2.0 - 1
        signs[0] = 1  # the first row is what was observed
    far = np.stack([_distances(signs, tables[k]) for k in np.flatnonzero(tested)], axis=1)
    order = np.argsort(far[0], kind="stable")
    largest = np.maximum.accumulate(far[:, order], axis=1)
    shares = (largest >= far[0, order] * (1 - 1e-9)).mean(axis=0)
    found = np.empty(len(order))
    found[order] = np.maximum.accumulate(shares[::-1])[::-1]
    p[tested] = found
    return p


def _distances(signs: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Length of the sum of vectors with each set of signs, over the root of their squares."""
    table = np.nan_to_num(table)
    size = float(np.sqrt(np.square(table).sum()))
    return np.sqrt(np.square(signs @ table).sum(axis=1)) / (size or 1.0)


def flip_tables(tables: np.ndarray) -> float:
    """The p of the length of a mean of vectors, whose signs are exchangeable under the null hypothesis.

    Args:
        tables: (seeds, values).

    Returns:
        p, exact if all flips can be enumerated; NaN with fewer than two vectors. Those of NaN do not count.
    """
    tables = tables[~np.isnan(tables).any(axis=1)]
    seeds = len(tables)
    if seeds < 2:
        return float("nan")
    if not tables.any():
        return 1.0
    if seeds <= EXACT and tables.shape[1] << (seeds - 1) <= CELLS:
        sums = tables[:1]  # by symmetry, the first sign can be fixed
        for row in tables[1:]:
            sums = np.concatenate([sums + row, sums - row])
        return _share_as_far(np.square(sums).sum(axis=1), float(np.square(tables.sum(axis=0)).sum()))
    rng = np.random.default_rng((STREAM, seeds))
    signs = rng.integers(0, 2, (DRAWS, seeds)) * 2.0 - 1
    drawn = np.square(signs @ tables).sum(axis=1)
    observed = float(np.square(tables.sum(axis=0)).sum())
    return _share_as_far(np.append(drawn, observed), observed)


def centred(table: np.ndarray) -> np.ndarray:
    """The rows of a table around their means: 0 for a missing value, NaN for rows with fewer than two.

    If all columns are alike, the signs of these vectors are exchangeable, however unequal the columns' noise
    is. Exchanging the values of a row would take equal noise, which the edge of stability does not give.

    Args:
        table: (seeds, levels), NaN for none.

    Example:
        >>> centred(np.array([[0.0, 1.0, 2.0], [2.0, np.nan, 4.0], [0.0, np.nan, np.nan]])).tolist()
        [[-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0], [nan, nan, nan]]
    """
    filled = ~np.isnan(table)
    count = filled.sum(axis=1, keepdims=True)
    mean = np.nan_to_num(table).sum(axis=1, keepdims=True) / np.maximum(count, 1)
    return np.where(count > 1, np.where(filled, table - mean, 0.0), np.nan)


def free_labels(y: np.ndarray, group: np.ndarray) -> float:
    """The p of "all groups are alike" without blocks: labels are permuted among all values.

    Args:
        y: (runs,) values.
        group: (runs,) index of each value's group.
    """
    if len(y) < 3:
        return float("nan")
    y = y - y.mean()
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(group[order]) > 0))
    counts = np.diff(np.append(starts, len(y)))

    def statistic(ordered: np.ndarray) -> np.ndarray:
        return (np.square(np.add.reduceat(ordered, starts, axis=-1)) / counts).sum(axis=-1)

    observed = float(statistic(y[order]))
    rng = np.random.default_rng((STREAM, len(y), len(starts)))
    draws = int(min(DRAWS, max(999, 2 * BATCH // len(y))))
    batch = max(1, BATCH // len(y))
    drawn = [
        statistic(rng.permuted(np.tile(y, (min(batch, draws - done), 1)), axis=1))
        for done in range(0, draws, batch)
    ]
    return _share_as_far(np.concatenate([*drawn, [observed]]), observed)


def two_groups(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p of a difference of means of unpaired seeds.

    All divisions into groups of these sizes are enumerated if there are few, otherwise 9,999 are drawn; NaN
    if a side has fewer than two.
    """
    a, b = a[~np.isnan(a)], b[~np.isnan(b)]
    if min(len(a), len(b)) < 2:
        return float("nan")
    found = permutation_test(
        (a, b),
        lambda x, y, axis: np.abs(x.mean(axis=axis) - y.mean(axis=axis)),
        n_resamples=DRAWS,
        alternative="greater",
        vectorized=True,
        batch=1000,
        rng=np.random.default_rng((STREAM, len(a), len(b))),
    )
    return float(found.pvalue)


def _share_as_far(statistics: np.ndarray, observed: float) -> float:
    """Share of statistics at least as large as the observed one, which is included; tolerates rounding."""
    return float((statistics >= observed * (1 - 1e-9) - 1e-300).mean())
