"""Log-rank tests of survival curves, clustered by seed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.compare.correction import adjust
from harness.compare.design import held, seed_codes, settings
from harness.compare.frames import baseline_of, cells, factors_by, setting_words
from harness.compare.life_tables import Lives, as_lives
from harness.compare.permutation import centred, flip_tables, sign_flip, two_groups
from harness.compare.survival_curves import risk_sets

if TYPE_CHECKING:
    from harness.store.runs import Runs

ALL = "all"


def logrank(
    runs: Runs | Lives,
    by: str | Sequence[str],
    *,
    pairs: str = "baseline",
    baseline: Any = None,
    correction: str = "holm",
) -> pd.DataFrame:
    """Test whether units die at different ages in different settings.

    Each cluster (the runs of a setting that share a seed) has a score: its deaths minus those expected if all
    settings died alike, according to the risk sets of the log-rank test (Mantel 1966). A risk set has one
    setting of the other factors (a stratified test). Scores, not units, are permuted: within seeds if both
    settings have the seed, else between the settings.

    Args:
        runs: runs or their `lives`.
        by: one or several factors.
        pairs: "baseline": each setting against the baseline; "all": all pairs.
        baseline: level of the single factor `by`; None: null, none, false, 0 or relu if there is
            one, else the first.
        correction: correction of the pairs' p-values: "holm", "fdr" or "none".

    Returns:
        With more than two settings, the first row is the overall test (a = "all", b empty; not corrected).
        Then one row per pair: a, b (settings in words), statistic (positive: units of a die more; about
        standard normal over seeds), died and expected (deaths in a), pairs (seeds at both; 0: treated as
        independent), p, p_adjusted, note.

    Raises:
        ValueError: unknown factor, level, kind of pairs or correction.
    """
    if pairs not in ("baseline", ALL):
        raise ValueError(f"pairs: expected baseline or all, but got {pairs!r}")
    lives = as_lives(runs)
    by = factors_by(lives.outcomes, by)
    if not by:
        raise ValueError("by: expected at least one factor, whose settings are compared")
    found = settings(lives.outcomes, by)
    place = np.full(len(lives.outcomes), -1)
    for k, (_, rows) in enumerate(found):
        place[rows] = k
    fixed = None
    for name in by:
        here = held(lives.outcomes, name, by)[0]
        fixed = here if fixed is None else [column for column in fixed if column in here]
    stratum, (seed, seeds) = cells(lives.outcomes, fixed or []), seed_codes(lives.outcomes)
    words = [setting_words(by, setting) for setting, _ in found]
    rows = []
    if len(found) > 2:
        rows.append({"a": ALL, "b": "", **_overall(lives, place, stratum, seed, (seeds, len(found)))})
    base = baseline_of([setting[0] for setting, _ in found], baseline, by[0]) if len(by) == 1 else 0
    chosen = (
        combinations(range(len(found)), 2)
        if pairs == ALL
        else ((k, base) for k in range(len(found)) if k != base)
    )
    for a, b in chosen:
        rows.append({"a": words[a], "b": words[b], **_pair(lives, place, (a, b), stratum, seed)})
    columns = ["a", "b", "statistic", "died", "expected", "pairs", "p", "note"]
    table = pd.DataFrame(rows, columns=pd.Index(columns))
    p = table["p"].to_numpy(float)
    overall = (table["a"] == ALL).to_numpy()
    adjusted = np.where(overall, p, adjust(np.where(overall, np.nan, p), correction))
    table.insert(columns.index("note"), "p_adjusted", adjusted)
    return table


def scores(lives: Lives, rows: np.ndarray, stratum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Deaths of each run, and those expected from the pooled risk sets of its stratum.

    Args:
        lives: the lives.
        rows: the runs to compare (rows of `lives.outcomes`).
        stratum: stratum of every run.

    Returns:
        Two arrays (len(rows),); NaN for runs without counts.
    """
    died, expected = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    position = np.full(len(lives.outcomes), -1)
    position[rows] = np.arange(len(rows))
    place = lives.counts["place"].to_numpy(int)
    counts, where = lives.counts[position[place] >= 0], position[place][position[place] >= 0]
    of = stratum[rows]
    for one in np.unique(of[np.unique(where)]):
        part = of[where] == one
        runs, row = np.unique(where[part], return_inverse=True)
        deaths, at_risk, _ = risk_sets(counts[part], row, len(runs))
        hazard = deaths.sum(0) / np.maximum(at_risk.sum(0), 1)
        died[runs], expected[runs] = deaths.sum(1), at_risk @ hazard
    return died, expected


def _pair(
    lives: Lives, place: np.ndarray, pair: tuple[int, int], stratum: np.ndarray, seed: np.ndarray
) -> dict[str, Any]:
    """The test of two settings."""
    a, b = pair
    rows = np.flatnonzero((place == a) | (place == b))
    counted = np.isin(rows, lives.counts["place"].to_numpy(int))
    rows = rows[counted]
    block = cells(pd.DataFrame({"stratum": stratum[rows], "seed": seed[rows]}), ["stratum", "seed"])
    in_a = place[rows] == a
    shared = np.intersect1d(block[in_a], block[~in_a])
    notes = []
    if len(shared):
        matched = np.isin(block, shared)
        if not matched.all():
            notes.append(f"{int((~matched).sum())} runs without a partner left out")
        rows, in_a = rows[matched], in_a[matched]
    elif in_a.any() and not in_a.all():
        notes.append("no pairs: seeds as if independent")
        stratum = np.zeros_like(stratum)
    else:
        return {**_NOTHING, "note": "no censuses in one of the two"}
    died, expected = scores(lives, rows, stratum)
    u = died - expected
    result: dict[str, Any] = {"died": int(died[in_a].sum()), "expected": float(expected[in_a].sum())}
    seeds, index = np.unique(seed[rows], return_inverse=True)
    sums = [np.bincount(index[side], u[side], minlength=len(seeds)) for side in (in_a, ~in_a)]
    if len(shared):
        d = (sums[0] - sums[1]) / 2
        if len(d) == 1:
            notes.append("one seed: no test")
        spread = np.sqrt(np.square(d).sum())
        result |= {"pairs": len(d), "p": sign_flip(d)}
    else:
        x, y = (sums[k][np.isin(np.arange(len(seeds)), index[side])] for k, side in enumerate((in_a, ~in_a)))
        both, n = np.concatenate([x, y]), len(x) + len(y)
        d, spread = x, np.sqrt(len(x) * len(y) / n * both.var(ddof=1)) if n > 2 else 0.0
        result |= {"pairs": 0, "p": two_groups(x, y)}
    result["statistic"] = float(d.sum() / spread) if spread > 1e-12 else (np.nan if len(d) < 2 else 0.0)
    return {**result, "note": "; ".join(notes)}


_NOTHING = {"statistic": np.nan, "died": 0, "expected": np.nan, "pairs": 0, "p": np.nan}


def _overall(
    lives: Lives, place: np.ndarray, stratum: np.ndarray, seed: np.ndarray, shape: tuple[int, int]
) -> dict[str, Any]:
    """Test whether any setting differs."""
    rows = np.unique(lives.counts["place"].to_numpy(int))
    died, expected = scores(lives, rows, stratum)
    u = died - expected
    flat = seed[rows] * shape[1] + place[rows]
    table = np.bincount(flat, u, minlength=shape[0] * shape[1]).reshape(shape)
    held_out = np.bincount(flat, minlength=table.size).reshape(shape) == 0
    table[held_out] = np.nan
    p = flip_tables(centred(table))
    note = "no seed at two settings: no test" if np.isnan(p) else ""
    if shape[0] == 1:
        note = "one seed: no test"
    total = {"died": int(died.sum()), "expected": float(expected.sum())}
    pairs = int(((~held_out).sum(1) >= 2).sum())
    return {"statistic": np.nan, **total, "pairs": pairs, "p": p, "note": note}
