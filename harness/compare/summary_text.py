"""A comparison in two or three sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from harness.compare.frames import UNFINISHED, codes, columns_of, values, word
from harness.compare.survivors import enough, why_no_headline
from harness.formats import p_is, p_value

NAMES = {
    "dead": "dead share",
    "born_dead": "share born dead",
    "died": "share that died",
    "revived": "share that revived",
    "accuracy": "test accuracy",
    "diverged": "share of diverged runs",
}
SURE = 0.05
FEW = 3  # largest number of levels listed in a sentence


def sentences(
    frame: pd.DataFrame,
    *,
    effects: pd.DataFrame | None = None,
    ranking: pd.DataFrame | None = None,
    critical: pd.DataFrame | None = None,
    outcome: str = "dead",
    share: float = 0.5,
) -> list[str]:
    """Describe what was run and how it ended, what the outcome depends on, how much, and from which value on.

    Args:
        frame: outcomes.
        effects: a table made from it; None: not mentioned.
        ranking: likewise.
        critical: likewise.
        outcome: the outcome to describe.
        share: share of the outcome at the critical values.

    Example:
        >>> frame = pd.DataFrame({"run": list("abcd"), "seed": [0, 1] * 2, "optim.lr": [0.1, 0.1, 1, 1],
        ...     "status": ["finished"] * 3 + ["diverged"], "dead": [0.1, 0.2, 0.9, np.nan]})
        >>> print(*sentences(frame))
        4 runs, optim.lr (2 values) and 2 seeds: 3 finished, 1 diverged. Mean dead share of ... 40 %.
    """
    lines = [overview(frame, outcome)]
    if ranking is not None:
        lines.append(importance(ranking))
    if effects is not None:
        lines += largest_effect(effects, outcome)
    if critical is not None:
        lines += crossing(critical, share, outcome)
    return [sentence for sentence in lines if sentence]


def overview(frame: pd.DataFrame, outcome: str = "dead") -> str:
    """What was run and how it ended."""
    if frame.empty:
        return "There are no runs."
    swept = [(name, len(codes(frame[name])[1])) for name in columns_of(frame)]
    parts = [f"{_short(name)} ({count} values)" for name, count in swept if count > 1]
    seeds = frame["seed"].nunique()
    parts.append("one seed" if seeds == 1 else f"{seeds:,} seeds")
    status = frame["status"].to_numpy(object)
    ends = []
    for state in ("finished", "diverged", "failed", *UNFINISHED):
        count = int((status == state).sum())
        if count:
            where = _gathered(frame, status == state) if state in ("diverged", "failed") else ""
            ends.append(f"{count:,} {state}{where}")
    text = f"{_plural(len(frame), 'run')}, {_listed(parts)}: {', '.join(ends)}."
    y = values(frame, outcome)
    if np.isnan(y).all():
        return f"{text} No run has a {NAMES[outcome]}."
    of = "complete" if outcome == "diverged" else "finished"
    kept = int((~np.isnan(y)).sum())
    if enough(kept, len(frame)):
        text += f" Mean {NAMES[outcome]} of the {of}: {_percent(float(np.nanmean(y)))}."
    else:
        text += f" No mean {NAMES[outcome]} is given: {kept:,} of {_plural(len(frame), 'run')} have one."
    unseen = int((np.isnan(y) & (status == "finished")).sum())
    why = "" if outcome == "accuracy" else " (nothing was observed, or nothing finite)"
    return text + (f" {_plural(unseen, 'finished run')} without one{why}." if unseen else "")


def importance(ranking: pd.DataFrame) -> str:
    """What the outcome depends on most."""
    name = NAMES[ranking.attrs.get("outcome", "dead")]
    used, runs = (ranking.attrs.get(key, 1) for key in ("used", "runs"))
    if not enough(used, runs):
        return f"What the {name} depends on is not known: {used:,} of {_plural(runs, 'run')} have one."
    thin = ranking.attrs.get("thin", [])
    few = f" Too few runs have a result at {_listed(thin[:FEW])}: not much is known there." if thin else ""
    if ranking["share"].isna().all():
        return f"The {name} is the same in all runs: there is nothing to explain."
    if not (ranking["share"] >= 0.01).any():
        return f"No factor explains the {name}: each goes with less than 1 % of its variance.{few}"
    first = ranking.iloc[0]
    if ranking["p"].isna().all():
        return f"The {name} depends most on {_terms(ranking)}. With one seed there is no test of that.{few}"
    sure = ranking[(ranking["p_adjusted"] < SURE) & (ranking["share"] >= 0.01)]
    if len(sure) and sure.index[0] == ranking.index[0]:
        return f"The {name} depends most on {_terms(sure)}.{few}"
    seeds = ranking.attrs.get("seeds")
    over = f" over {_plural(seeds, 'seed')}" if seeds else ""
    largest = f"The largest share of the variance of the {name} goes with {_short(first['term'])} "
    largest += f"({_percent(first['share'])})"
    if sure.empty:
        least = p_is(ranking["p_adjusted"].min())
        return f"{largest}, but no test{over} tells any factor from chance (smallest adjusted {least}).{few}"
    apart = f"which no test{over} tells from chance (adjusted {p_is(first['p_adjusted'])})"
    return f"{largest}, {apart}; beyond chance it depends on {_terms(sure)}.{few}"


def _terms(ranking: pd.DataFrame) -> str:
    """The first terms of a ranking with their shares."""
    terms = [
        f"{_short(row['term'])} ({_percent(row['share'])}{'' if k else ' of its variance'})"
        for k, row in enumerate(ranking[ranking["share"] >= 0.01].head(FEW).to_dict("records"))
    ]
    return terms[0] + (f", then {_listed(terms[1:])}" if len(terms) > 1 else "")


def largest_effect(effects: pd.DataFrame, outcome: str = "dead") -> list[str]:
    """The largest difference in a table of effects among those with enough runs left."""
    rows = effects[(effects["outcome"] == outcome) & effects["difference"].notna()]
    if rows.empty:
        return []
    gaps = [
        why_no_headline(row, *(f"{_short(row['factor'])}={word(row[k])}" for k in ("level", "baseline")))
        for row in rows.to_dict("records")
    ]
    comparable = np.array([not gap for gap in gaps])
    if not comparable.any():
        return [f"No difference in {NAMES[outcome]} is given: {gaps[_largest(rows)]}."]
    few = int((~comparable).sum())
    if few:
        first = gaps[np.flatnonzero(~comparable)[_largest(rows[~comparable])]]
        hidden = f" {_plural(few, 'difference')} not given ({first})."
    else:
        hidden = ""
    rows = rows[comparable]
    sure = rows[(rows["low"] > 0) | (rows["high"] < 0)]
    pool = sure if len(sure) else rows
    row = pool.iloc[_largest(pool)]
    by = [str(name) for name in effects.columns[: list(effects.columns).index("factor")]]
    within = f" (with {', '.join(f'{_short(b)}={word(row[b])}' for b in by)})" if by else ""
    against = f"{_short(str(row['factor']))}={word(row['level'])} against {word(row['baseline'])}{within}"
    points = f"{100 * row['difference']:+.1f} points"
    if np.isnan(row["low"]):
        sure_of = "one seed, no interval"
    else:
        seeds = f"{int(row['pairs'])} seeds" if row["pairs"] else "seeds not paired"
        sure_of = f"interval {100 * row['low']:+.1f} to {100 * row['high']:+.1f}, {seeds}"
        if not np.isnan(row["p_adjusted"]):
            sure_of += f", adjusted {p_is(row['p_adjusted'])}"
    text = f"{NAMES[outcome].capitalize()}, {against}: {_percent(row['mean'])} instead of "
    text += f"{_percent(row['baseline_mean'])}, {points} ({sure_of})."
    if not len(sure) and not np.isnan(row["low"]):
        text += " No interval excludes 0."
    return [text + hidden]


def _largest(rows: pd.DataFrame) -> int:
    return int(rows["difference"].abs().to_numpy().argmax())


def crossing(critical: pd.DataFrame, share: float = 0.5, outcome: str = "dead") -> list[str]:
    """From which value on the share is exceeded, along the number that most often crosses it just once."""
    critical = critical[critical["values"] > 1]
    if critical.empty:
        return []
    what = f"A {NAMES[outcome]} of {100 * share:g} %"
    seen, sound = critical["critical"].notna(), critical["missing"].eq("")
    single = critical["crossings"].eq(1)
    reached = (seen & sound & single).groupby(critical["axis"], sort=False).mean()
    if not reached.any():
        return [_no_crossing(critical, what, f"{NAMES[outcome]} passes {100 * share:g} %", share)]
    axis = reached.idxmax()
    rows = critical[critical["axis"] == axis]
    once = rows[rows["critical"].notna() & rows["missing"].eq("") & rows["crossings"].eq(1)]
    parts = []
    for row in once.head(2).to_dict("records"):
        side = "above" if row["rising"] else "below"
        between = f"seen between {row['below']:.3g} and {row['above']:.3g}"
        setting = "" if row["setting"] == "all runs" else f", with {row['setting']}"
        parts.append(f"{side} {axis} ≈ {row['critical']:.3g} ({between}{setting})")
    text = f"{what} is reached {' and '.join(parts)}"
    if len(rows) > len(parts):
        text += f"; in {len(once)} of {len(rows)} settings of the other factors"
        always, often = rows["lowest"].ge(share), rows["crossings"].gt(1)
        others = [(int(always.sum()), "always above"), (int(often.sum()), "crossed more than once")]
        others += [(int((seen[rows.index] & ~sound[rows.index]).sum()), "not given: too few runs or values")]
        named = [f"{count} {how}" for count, how in others if count]
        text += f" ({', '.join(named)})" if named else ""
    return [f"{text}."]


def _no_crossing(critical: pd.DataFrame, what: str, passes: str, share: float) -> str:
    """Say that no crossing was seen, or why those that were seen are not reported."""
    seen = critical["critical"].notna() & critical["crossings"].eq(1)
    sound = critical["missing"].eq("")
    unsure = (critical[seen] if seen.any() else critical[~sound].nlargest(1, "highest")).to_dict("records")
    row = unsure[0] if unsure else {"missing": "", "setting": "all runs"}
    where = "" if row["setting"] == "all runs" else f" (with {row['setting']})"
    if seen.any():
        return f"From which {row['axis']} on the {passes}{where} is not known: {row['missing']}."
    back = critical[critical["lowest"].lt(share) & critical["highest"].ge(share)]
    axes = _listed([str(axis) for axis in (back if len(back) else critical)["axis"].unique()])
    if len(back):
        return f"{what} is crossed along {axes}, but not just once: there is no critical value."
    left = f", as far as runs are left{where}: {row['missing']}" if unsure else ""
    return f"{what} is crossed nowhere along {axes}{left}."


def alias_notes(aliases: Mapping[str, Sequence[str]]) -> list[str]:
    """Which factors vary together, in words.

    >>> alias_notes({"optim.name": ["optim.lr"]})
    ['optim varies together with optim.lr: their effects cannot be told apart.']
    """
    return [
        f"{_short(factor)} varies together with {_listed(list(others))}: their effects cannot be told apart."
        for factor, others in aliases.items()
    ]


def within_notes(within: Mapping[str, Sequence[str]]) -> list[str]:
    """Which factors have values of their own at each level of another, in words.

    >>> within_notes({"optim.lr": ["optim.name"]})
    ['optim.lr has other values at each optim: its share is that within them.']
    """
    return [
        f"{_short(factor)} has other values at each {_listed([_short(name) for name in coarser])}: its share "
        "is that within them."
        for factor, coarser in within.items()
    ]


def floor_note(effects: pd.DataFrame, correction: str) -> str:
    """Note that no sign-flip test can be significant after the correction, if so."""
    tested = effects[effects["p"].notna()]
    seeds = int(tested["pairs"].max()) if len(tested) else 0
    if not seeds or correction == "none":
        return ""
    least = 2.0 ** (1 - seeds)
    needed = least * len(tested) if correction == "holm" else least
    if needed <= SURE:
        return ""
    text = f"With {_plural(seeds, 'seed')} no sign-flip p is below {p_value(least)}"
    if least > SURE:
        return f"{text}: the intervals carry the evidence. Only more seeds give tests power."
    return (
        f"{text}; over {len(tested)} tests Holm makes that {p_value(min(needed, 1))}: the intervals carry "
        "the evidence. More seeds or fewer outcomes (or correction max_t) give tests power."
    )


def _gathered(frame: pd.DataFrame, flag: np.ndarray) -> str:
    """Where most of the flagged runs are, if at one level of a factor that most other runs do not have."""
    best, text = 0.6, ""
    for name in columns_of(frame):
        index, levels = codes(frame[name])
        if len(levels) < 2:
            continue
        inside = np.bincount(index[flag], minlength=len(levels)) / flag.sum()
        usual = np.bincount(index, minlength=len(levels)) / len(index)
        k = int(np.argmax(inside - usual))
        if inside[k] - usual[k] > 0.2 and inside[k] > best:
            best = inside[k]
            all_ = "all" if inside[k] == 1 else f"{round(inside[k] * flag.sum())} of them"
            text = f" ({all_} at {_short(name)}={word(levels[k])})"
    return text if flag.sum() > 1 else ""


def _short(term: str) -> str:
    return " × ".join(part.removesuffix(".name") for part in str(term).split(" × "))


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _plural(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"
