"""Permutation tests with seeds as blocks: exact if all permutations can be enumerated."""

from __future__ import annotations

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
    d = differences[~np.isnan(differences)]
    if len(d) < 2:
        return float("nan")
    return flip_tables(d[:, None])


def joint_sign_flips(differences: np.ndarray) -> np.ndarray:
    """p-values of several means of paired differences, adjusted for their number (Westfall & Young 1993).

    Each sign flip is that of a seed, in all tests at once, so that their dependence is part of the null
    distribution: of the largest |mean| / root mean square among a test and those with smaller ones. The
    chance of any false rejection is controlled, and, unlike Holm's p, the least p does not grow with the
    number of tests. All 2^n flips are used for up to 13 seeds, else 9,999 drawn ones.

    Args:
        differences: (seeds, tests), NaN for none.

    Returns:
        (tests,) p; NaN with fewer than two differences. That of a single test is `sign_flip`'s.

    Example:
        >>> joint_sign_flips(np.array([[1.0, -1.0], [2.0, 3.0], [3.0, -2.0], [4.0, 1.0]])).tolist()
        [0.125, 1.0]
    """
    d = np.asarray(differences, float)
    tested = (~np.isnan(d)).sum(axis=0) > 1
    d = np.nan_to_num(d[:, tested])
    seeds = len(d)
    if seeds <= JOINT:
        signs = 1 - 2.0 * (np.arange(2 ** max(0, seeds - 1))[:, None] >> np.arange(seeds) & 1)
    else:
        signs = np.random.default_rng((STREAM, seeds)).integers(0, 2, (DRAWS + 1, seeds)) * 2.0 - 1
        signs[0] = 1
    size = np.sqrt(np.square(d).sum(axis=0))
    far = np.abs(signs @ d) / np.where(size > 0, size, 1)  # the first row is what was observed
    order = np.argsort(far[0], kind="stable")
    largest = np.maximum.accumulate(far[:, order], axis=1)
    shares = (largest >= far[0, order] * (1 - 1e-9)).mean(axis=0)
    p = np.full(len(tested), np.nan)
    found = np.empty(len(order))
    found[order] = np.maximum.accumulate(shares[::-1])[::-1]
    p[tested] = found
    return p


def flip_tables(tables: np.ndarray) -> float:
    """The p of the squared length of a mean of vectors, whose signs are exchangeable.

    Args:
        tables: (seeds, values).
    """
    seeds = len(tables)
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


def within_rows(table: np.ndarray) -> float:
    """The p of "all columns are alike", permuting the values within each row.

    The statistic is the sum over columns of count × squared mean of the rows' centred values.

    Args:
        table: (seeds, levels), NaN if a seed has no value; these places stay empty.

    Returns:
        p; exact for two levels, else from 9,999 drawn permutations; NaN if fewer than two seeds have two
        values.

    Example:
        >>> within_rows(np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0], [0.0, 4.0]]))
        0.125
    """
    filled = ~np.isnan(table)
    kept = filled.sum(axis=1) >= 2
    table, filled = table[kept], filled[kept]
    there = filled.any(axis=0)
    table, filled = table[:, there], filled[:, there]
    if len(table) < 2:
        return float("nan")
    table = table - np.nanmean(table, axis=1, keepdims=True)
    if table.shape[1] == 2:
        return sign_flip(table[:, 1])
    counts = np.maximum(filled.sum(axis=0), 1)

    def statistic(sums: np.ndarray) -> np.ndarray:
        return (np.square(sums) / counts).sum(axis=-1)

    observed = float(statistic(np.nansum(table, axis=0)))
    rng = np.random.default_rng((STREAM, *table.shape))
    draws = int(min(DRAWS, max(999, CELLS // table.size)))
    sums = np.zeros((draws, table.shape[1]))
    for row, places in zip(table, filled, strict=True):
        sums[:, places] += rng.permuted(np.tile(row[places], (draws, 1)), axis=1)
    return _share_as_far(np.append(statistic(sums), observed), observed)


def within_tables(tables: np.ndarray) -> float:
    """The p of "no interaction", permuting rows and columns of each seed's doubly centred table.

    Under the null hypothesis, such a table holds only noise, and exchangeable noise has the same distribution
    in any order of rows and columns; main effects, and their variation between seeds, are removed by
    centring.

    Args:
        tables: (seeds, levels of one factor, levels of the other), complete.

    Returns:
        p, from 9,999 drawn permutations (2 × 2: exact); NaN with fewer than two seeds.
    """
    seeds, rows, columns = tables.shape
    if seeds < 2:
        return float("nan")
    tables = tables - tables.mean(1, keepdims=True) - tables.mean(2, keepdims=True)
    tables = tables - tables.mean((1, 2), keepdims=True)
    if (rows, columns) == (2, 2):
        return sign_flip(tables[:, 0, 0])
    observed = float(np.square(tables.sum(axis=0)).sum())
    rng = np.random.default_rng((STREAM, *tables.shape))
    draws = int(min(DRAWS, max(999, CELLS // tables.size)))
    sums = np.zeros((draws, rows, columns))
    for table in tables:
        i = rng.permuted(np.tile(np.arange(rows), (draws, 1)), axis=1)
        j = rng.permuted(np.tile(np.arange(columns), (draws, 1)), axis=1)
        sums += table[i[:, :, None], j[:, None, :]]
    return _share_as_far(np.append(np.square(sums).sum(axis=(1, 2)), observed), observed)


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
