"""Estimate the edge from any stored runs, without training."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from harness.config import ConfigError, did_you_mean, flatten
from harness.store.folder import COMPLETE
from harness.store.runs import Run
from harness.sweeps.threshold_search.arms import arms_of, in_words
from harness.sweeps.threshold_search.axis import NOT_SEED, value_of
from harness.sweeps.threshold_search.bisect import Point, conclude
from harness.sweeps.threshold_search.found import SearchResult
from harness.sweeps.threshold_search.seeds import over_seeds


def estimate(runs: Iterable[Run], axis: str, share: float = 0.5, *, log: bool | None = None) -> SearchResult:
    """Estimate the edges from stored runs; keys that vary besides the axis and the seed define the arms.

    Args:
        runs: runs of any sweeps.
        axis: dotted key of a number.
        share: threshold of the dead share.
        log: whether to interpolate on a logarithmic scale; None: if all values are above 0.

    Raises:
        ConfigError: the axis is the seed, no run has this key, or the usable runs have fewer than two values
            of it.
        ValueError: the share or the scale is invalid.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share: expected a number above 0 and at most 1, but got {share:g}")
    if axis == "seed":
        raise ConfigError(axis, NOT_SEED)
    left_out: Counter[str] = Counter()
    known: set[str] = set()
    used = []
    for run in runs:
        config = flatten(run.config)
        known |= config.keys()
        value = value_of(config, axis)
        state = run.status.get("state")
        dead = (run.status.get("final") or {}).get("dead_fraction")
        if value is None:
            left_out[f"without a number {axis}"] += 1
        elif state not in COMPLETE:
            left_out[f"not complete ({state})"] += 1
        elif dead is None:
            left_out["without a dead share"] += 1
        else:
            used.append((config, float(value), Point(dead, state == "diverged")))
    if axis not in known:
        raise ConfigError(axis, "no stored run has such a key", hint=did_you_mean(axis, sorted(known)))
    values = {value for _, value, _ in used}
    if len(values) < 2:
        problem = (
            f"{len(used):,} stored run(s) can be used, with {len(values)} value(s) of it; an edge needs two"
        )
        raise ConfigError(axis, problem, hint="Give --between to train runs.")
    low, high = min(values), max(values)
    if log and low <= 0:
        raise ValueError(f"scale: log needs numbers above 0, but a stored run has {axis}={low:g}")
    log = low > 0 if log is None else log
    names = {}
    points: dict[str, dict[int, dict[float, Point]]] = defaultdict(lambda: defaultdict(dict))
    for (config, value, point), arm in zip(used, arms_of([one[0] for one in used], axis), strict=True):
        name = in_words(arm)
        names[name] = arm
        points[name][int(config.get("seed", 0))][value] = point
    arms = [
        over_seeds(
            names[name], {seed: conclude(tried, share, log=log) for seed, tried in seeds.items()}, log=log
        )
        for name, seeds in points.items()
    ]
    return SearchResult(axis, low, high, log, share, arms, left_out=dict(left_out))
