"""Wording of unit counts, the same everywhere.

Three numbers are distinguished: units that are *dead at the end*, units that *died at some time*, and
*deaths* (a revived unit can die again). Each is given with the inputs on which it was counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.detector.grid import Columns
from harness.formats import span

#: Evidence → name of the inputs on which units were counted.
INPUTS = {"probe": "held-out probe", "stream": "training stream"}
AT_END = " at the end"
HEADS = {
    "dead": "dead at the end",
    "died": "died at some time",
    "revived": "revived at some time",
    "non_finite": "not finite",
}


def head(name: str, evidence: str = "probe", *, diverged: bool = False) -> str:
    """Name of a count of units over the whole run, for a tile or a column heading.

    Example:
        >>> head("died"), head("born_dead"), head("born_dead", "stream")
        ('died at some time', 'born dead', 'dead at the first census')
    """
    if name == "dead" and diverged:
        return "dead at the last census"
    if name == "born_dead" and evidence == "stream":
        return "dead at the first census"
    return HEADS.get(name, name.replace("_", " "))


def on(evidence: str) -> str:
    """On which inputs, with a leading space.

    >>> on("probe")
    ' on the held-out probe'
    """
    return f" on the {INPUTS[evidence]}"


def sentence(units: Columns, when: str = "", where: str = "") -> str:
    """Summarise a census in one sentence, with n and the bound on the rate.

    Args:
        units: columns state, n and rate_upper.
        when: `AT_END` if the census is a run's last.
        where: on which inputs, as returned by `on`.

    Example:
        >>> from harness.detector.states import classify
        >>> import pandas as pd
        >>> census = classify(pd.DataFrame({"n": [2000] * 4, "active": [0, 9, 900, 2000], "non_finite": 0}))
        >>> sentence(census)
        '1 of 4 units dead (25.0 %; n = 2,000, rate < 0.15 %).'
        >>> sentence(census, AT_END, on("probe"))
        '1 of 4 units dead at the end (25.0 %; n = 2,000 on the held-out probe, rate < 0.15 %).'
    """
    state = np.asarray(units["state"], object)
    observed = state != "unobserved"
    text = dead_words(units, when, where)
    if (state[observed] == "non_finite").all():  # or nothing was observed
        return text
    text += starved_words(int((state == "starved").sum())) + non_finite_words(units)
    hidden = len(set(np.asarray(units["site"], object)[~observed])) if "site" in units else 0
    return f"{text} {hidden} site(s) unobserved." if hidden else text


def dead_words(units: Columns, when: str = "", where: str = "") -> str:
    """How many of the observed units of a census are dead; arguments as for `sentence`."""
    state = np.asarray(units["state"], object)
    observed, dead = state != "unobserved", state == "dead"
    total = int(observed.sum())
    if not total:
        return "Nothing was observed: no statement about dead units can be made."
    n = f"n = {span(np.asarray(units['n'])[observed])}{where}"
    if (state[observed] == "non_finite").all():
        how = f" ({n})" if where else ""
        return f"No statement: all {total:,} units had NaN or infinite pre-activations{how}."
    bound = f", rate < {100 * np.asarray(units['rate_upper'])[dead].max():.2g} %" if dead.any() else ""
    return f"{dead.sum():,} of {total:,} units dead{when} ({100 * dead.sum() / total:.1f} %; {n}{bound})."


def when_counted(at: int, uncounted: int | None) -> str:
    """When the last census with counts was taken: at the end, or else when, with a leading space.

    >>> when_counted(200, None), when_counted(50, 200)
    (' at the end', ' at step 50')
    """
    return AT_END if uncounted is None else f" at step {at:,}"


def uncounted_words(at: int, uncounted: int | None) -> str:
    """That later censuses counted nothing; "" if none did.

    Args:
        at: step of the last census with counts.
        uncounted: step of the last census, if it counted nothing.

    >>> uncounted_words(50, 200)
    'Nothing was counted after step 50, up to step 200: no forward pass in the observed mode ran (is \
model.train() missing?).'
    """
    if uncounted is None:
        return ""
    return (
        f"Nothing was counted after step {at:,}, up to step {uncounted:,}: no forward pass in the observed "
        "mode ran (is model.train() missing?)."
    )


def of_the_dead(count: int, when: str = AT_END) -> str:
    """Beginning of a sentence about some of the dead units.

    >>> of_the_dead(1200)
    'Of the 1,200 dead at the end'
    """
    return f"Of the {count:,} dead{when}"


def died_words(steps: Sequence[int] | np.ndarray, censuses: Sequence[int] | np.ndarray = ()) -> str:
    """How many units died at some time; "" for none.

    Args:
        steps: of their first deaths.
        censuses: steps of all censuses. If there are two, the deaths are known to lie between them, no more.

    Example:
        >>> died_words([10, 10]), died_words([1, 16, 450])
        ('2 died at some time, at step 10.', '3 died at some time, first in steps 1 to 450, half by 16.')
        >>> died_words([156, 156], [0, 156])
        '2 died at some time, between steps 0 and 156, the only two censuses.'
    """
    steps = np.sort(np.asarray(steps))
    if not len(steps):
        return ""
    if len(censuses) == 2 and min(censuses) < steps[0]:
        between = f"between steps {min(censuses):,} and {max(censuses):,}, the only two censuses"
        return f"{len(steps):,} died at some time, {between}."
    first, half, end = steps[0], steps[(len(steps) - 1) // 2], steps[-1]
    when = f"at step {first:,}" if first == end else f"first in steps {first:,} to {end:,}, half by {half:,}"
    return f"{len(steps):,} died at some time, {when}."


def revived_words(count: int) -> str:
    """How many units revived at some time; "" for none."""
    return f"{count:,} revived at some time." if count else ""


def non_finite_words(units: Columns) -> str:
    """How many units of a census are not finite, as a sentence with a leading space; "" for none."""
    state = np.asarray(units["state"], object)
    broken, total = int((state == "non_finite").sum()), int((state != "unobserved").sum())
    return f" {broken:,} of the {total:,} had NaN or infinite pre-activations." if broken else ""


def starved_words(count: int, where: str = "") -> str:
    """How many units are starved, as a sentence with a leading space; "" for none.

    Example:
        >>> starved_words(2)
        ' 2 starved: their gates open, but no gradient comes back.'
    """
    whose = "its gate opens" if count == 1 else "their gates open"
    return f" {count:,} starved{where}: {whose}, but no gradient comes back." if count else ""


def birth_words(first: np.ndarray, start: int) -> str:
    """How to describe units that were dead from the start.

    Args:
        first: for each of them, step of the first census that saw it.
        start: step of the history's first census.

    >>> birth_words(np.array([0, 0]), 0), birth_words(np.array([7]), 7)
    ('born dead', 'dead at the first census, step 7')
    >>> birth_words(np.array([25, 50, 50]), 25)
    'dead at the first census that saw them (1 at step 25, 2 at step 50)'
    """
    later = np.asarray(first)[np.asarray(first) > 0]
    if not len(later):
        return "born dead"
    steps, counts = np.unique(later, return_counts=True)
    born = "born dead or " if len(later) < len(first) else ""
    if not born and steps.tolist() == [start]:
        return f"dead at the first census, step {start:,}"
    named = [f"{count:,} at step {step:,}" for step, count in zip(steps, counts, strict=True)]
    when = ", ".join(named) if len(named) <= 3 else f"steps {steps[0]:,} to {steps[-1]:,}"
    return f"{born}dead at the first census that saw them ({when})"
