"""Permutation tests, intervals and corrections against oracles, and their error rates on null data."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.compare.bootstrap import difference_interval, mean_interval
from harness.compare.correction import adjust
from harness.compare.permutation import (
    centred,
    flip_tables,
    free_labels,
    joint_sign_flips,
    sign_flip,
    two_groups,
)

DIFFERENCES = st.lists(st.integers(-9, 9).map(float), min_size=2, max_size=8)
P = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@settings(max_examples=80, deadline=None)
@given(DIFFERENCES)
def test_sign_flips_are_counted_out(d: list[float]) -> None:
    observed = abs(sum(d))
    sums = [
        abs(sum(s * x for s, x in zip(signs, d, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(d))
    ]
    assert sign_flip(np.array(d)) == pytest.approx(np.mean([total >= observed - 1e-9 for total in sums]))


def test_sign_flip_is_scipys_paired_permutation_test() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=9), rng.normal(0.4, 1, 9)
    theirs = stats.permutation_test(
        (a, b), lambda x, y, axis: (x - y).mean(axis=axis), permutation_type="samples", vectorized=True
    )
    assert sign_flip(a - b) == pytest.approx(theirs.pvalue)


def test_drawn_flips_agree_with_the_normal_limit() -> None:
    d = np.random.default_rng(2).normal(0.3, 1, 21)  # one more than is counted out
    z = d.sum() / np.sqrt(np.square(d).sum())
    assert sign_flip(d) == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.02)


def test_the_smallest_p_of_n_seeds() -> None:
    for n in range(2, 12):
        assert sign_flip(np.full(n, 0.3)) == 2.0 ** (1 - n)
    assert sign_flip(np.zeros(8)) == 1.0
    assert np.isnan(sign_flip(np.array([0.3])))
    assert np.isnan(sign_flip(np.array([0.3, np.nan])))


def test_vectors_are_flipped_as_brute_force_does() -> None:
    table = np.array([[0.1, 0.5, 0.2], [0.0, 0.7, 0.4], [0.3, 0.6, np.nan], [np.nan, 0.3, np.nan]])
    rows = [row[~np.isnan(row)].mean() for row in table]
    vectors = np.nan_to_num(table[:3] - np.array(rows[:3])[:, None])
    every = [np.square(np.array(s) @ vectors).sum() for s in itertools.product((1, -1), repeat=3)]
    exact = np.mean([value >= np.square(vectors.sum(0)).sum() - 1e-12 for value in every])
    assert flip_tables(centred(table)) == pytest.approx(exact)
    assert joint_sign_flips([centred(table)]) == pytest.approx([exact])


def test_an_empty_place_stays_empty() -> None:
    table = np.array([[0.1, np.nan, 0.2], [0.0, np.nan, 0.4], [0.3, np.nan, 0.9]])
    assert flip_tables(centred(table)) == sign_flip(table[:, 2] - table[:, 0])
    assert np.isnan(flip_tables(centred(table[:, :2])))


def test_independent_groups_against_all_divisions() -> None:
    a, b = np.array([0.1, 0.4, 0.5]), np.array([0.2, 0.9, 0.8, 0.7])
    pooled = np.concatenate([a, b])
    observed = abs(a.mean() - b.mean())
    gaps = []
    for chosen in itertools.combinations(range(7), 3):
        mask = np.isin(np.arange(7), chosen)
        gaps.append(abs(pooled[mask].mean() - pooled[~mask].mean()))
    assert two_groups(a, b) == pytest.approx(np.mean(np.array(gaps) >= observed - 1e-12))


def test_joint_sign_flips_by_hand() -> None:
    rng = np.random.default_rng(5)
    d = rng.normal(size=(6, 4)) + np.array([2.0, 1.0, 0.3, 0.0])
    d[0, 2] = d[3, 1] = np.nan
    d[:, 3] = 0

    def distances(signs: tuple[int, ...]) -> list[float]:
        flipped = (np.array(signs)[:, None] * d).T
        lengths = [np.sqrt(np.nansum(column**2)) or 1.0 for column in d.T]
        return [abs(np.nansum(column)) / length for column, length in zip(flipped, lengths, strict=True)]

    observed = distances((1,) * 6)
    flips = [distances(signs) for signs in itertools.product((1, -1), repeat=6)]
    left, expected, least = set(range(4)), {}, 0.0
    while left:
        test = max(left, key=lambda k: observed[k])
        count = sum(max(far[k] for k in left) >= observed[test] - 1e-12 for far in flips)
        expected[test] = least = max(least, count / 64)
        left.remove(test)
    assert joint_sign_flips(list(d.T)).tolist() == pytest.approx([expected[k] for k in range(4)])
    assert joint_sign_flips([d[:, 0]]).tolist() == pytest.approx([sign_flip(d[:, 0])])


def test_joint_sign_flips_of_many_seeds_are_drawn() -> None:
    rng = np.random.default_rng(1)
    d = np.column_stack([rng.normal(size=(30, 3)), rng.normal(1.0, size=(30, 1))])
    d[1:, 0] = np.nan  # one difference is no test
    found = joint_sign_flips(list(d.T))
    assert np.isnan(found[0])
    assert found[3] < 0.01 < found[1:3].min()
    assert found[3] == pytest.approx(sign_flip(d[:, 3]), abs=0.005)


@settings(max_examples=80, deadline=None)
@given(P)
def test_holm_by_hand(p: list[float]) -> None:
    ordered = sorted(p)
    by_hand = {}
    for k in range(len(ordered)):
        by_hand[k] = min(1.0, max(ordered[j] * (len(p) - j) for j in range(k + 1)))
    found = adjust(np.array(p), "holm")
    ranks = np.argsort(np.argsort(p, kind="stable"), kind="stable")
    assert found.tolist() == pytest.approx([by_hand[int(rank)] for rank in ranks])


@settings(max_examples=40, deadline=None)
@given(P)
def test_fdr_is_scipys(p: list[float]) -> None:
    with_gap = np.array([*p, np.nan])
    found = adjust(with_gap, "fdr")
    assert found[:-1].tolist() == pytest.approx(stats.false_discovery_control(p).tolist())
    assert np.isnan(found[-1])


def test_an_unknown_correction() -> None:
    with pytest.raises(ValueError, match=r"holm, fdr, none.*'bonferroni'"):
        adjust(np.array([0.1]), "bonferroni")


# --- error rates: simulated with fixed seeds; bounds are binomial, at 4 standard deviations ------------


def inside(share: float, expected: float, trials: int) -> bool:
    return abs(share - expected) <= 4 * np.sqrt(expected * (1 - expected) / trials)


@pytest.mark.parametrize("n", [6, 8, 12])
def test_the_sign_flip_test_keeps_its_level(n: int) -> None:
    rng = np.random.default_rng(n)
    trials = 3000
    p = np.array([sign_flip(d) for d in rng.standard_t(3, (trials, n))])
    level = 2.0 ** (1 - n) * np.floor(0.05 / 2.0 ** (1 - n))  # the largest attainable one
    assert inside(float((p <= 0.05).mean()), level, trials)


@pytest.mark.parametrize("levels", [3, 5])
@pytest.mark.parametrize("noisy", [1, 10])  # times the noise of the others, as at the edge of stability
def test_the_test_of_many_levels_keeps_its_level(levels: int, noisy: int) -> None:
    rng = np.random.default_rng(levels)
    trials = 600
    tables = rng.normal(size=(trials, 8, levels)) + rng.normal(size=(trials, 8, 1))
    tables[:, :, 0] *= noisy
    share = np.mean([flip_tables(centred(table)) <= 0.05 for table in tables])
    assert inside(float(share), 6 / 128, trials)  # the largest attainable level


def test_free_labels_keep_their_level() -> None:
    rng = np.random.default_rng(6)
    trials, group = 300, np.repeat([0, 1, 2], 5)
    share = np.mean([free_labels(y, group) <= 0.05 for y in rng.exponential(size=(trials, 15))])
    assert inside(float(share), 0.05, trials)


@pytest.mark.parametrize("n", [2, 3, 4, 8, 16])
def test_intervals_of_normal_seeds_cover(n: int) -> None:
    rng = np.random.default_rng(n)
    trials = 1200
    ends = [mean_interval(x) for x in rng.normal(size=(trials, n))]
    share = float(np.mean([low <= 0 <= high for low, high in ends]))
    assert inside(share, 0.95, trials)


@pytest.mark.parametrize("n", [8, 16])
def test_intervals_of_skewed_seeds_nearly_cover(n: int) -> None:
    """Where Student's interval falls to 0.90."""
    rng = np.random.default_rng(n)
    ends = [mean_interval(x) for x in rng.exponential(size=(1000, n))]
    assert np.mean([low <= 1 <= high for low, high in ends]) > 0.92


def test_equal_seeds_and_single_ones() -> None:
    assert mean_interval(np.full(8, 0.25)) == (0.25, 0.25)
    assert np.isnan(mean_interval(np.array([0.25]))).all()
    low, high = mean_interval(np.array([0.9, 1.0, 0.99, 0.95]), bounds=(0, 1))
    assert 0 <= low <= high <= 1
    assert np.isnan(difference_interval(np.array([1.0]), np.array([1.0, 2.0]))).all()
