"""Search for edges by training: each round is one sweep over the next values of all arms and seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.config import OURS, ConfigError, RunSpec, compose, flatten, launcher, run_folder, to_mapping
from harness.config.stored import with_value
from harness.store.folder import read_status
from harness.sweeps.job import JobResult, check_jobs
from harness.sweeps.sweep import Sweep, plan_sweep, run_sweep
from harness.sweeps.threshold_search.arms import arms_of
from harness.sweeps.threshold_search.axis import check_axis, jobs_along, number
from harness.sweeps.threshold_search.bisect import Point, Range, SeedEdge, bisect
from harness.sweeps.threshold_search.found import SearchResult
from harness.sweeps.threshold_search.seeds import over_seeds

RATIO, PARTS = 1.1, 64  # default resolution: a ratio on a log scale, 1/64 of the range on a linear one
Teller = Callable[["Rounds", Sweep], None]


@dataclass(frozen=True)
class SearchRequest:
    """Parameters of a search.

    Attributes:
        axis: dotted key of a number.
        low, high: ends of its range.
        overrides: Hydra overrides; each combination is an arm.
        output: folder of the runs.
        share: threshold of the dead share.
        seeds: number of seeds per arm, counted from 0.
        resolution: see `Range`; None: the default of the scale.
        log: whether the scale is logarithmic; None: if the range lies above 0.
        checks: extra values per seed that look for another crossing.
    """

    axis: str
    low: float
    high: float
    overrides: Sequence[str] = ()
    output: Path = Path("runs/edge")
    share: float = 0.5
    seeds: int = 8
    resolution: float | None = None
    log: bool | None = None
    checks: int = 2


@dataclass
class Rounds:
    """Progress of a search.

    Attributes:
        most: largest number of values that it tries if every seed has one crossing.
        number: number of the round, from 1.
        tried: number of values whose runs ended in earlier rounds.
        trained: how many of these were trained for this search.
        errors: errors of failed runs.
    """

    most: int
    number: int = 0
    tried: int = 0
    trained: int = 0
    errors: list[str] = field(default_factory=list)


Search = Generator[tuple[float, ...], Sequence[Point], SeedEdge]
Key = tuple[int, int]  # arm, seed


def search(ask: SearchRequest, tell: Teller | None = None) -> SearchResult:
    """Find the edges; runs that have a result in the folder are not trained again.

    Every round is an ordinary sweep, so repeating the call continues an interrupted search.

    Args:
        ask: parameters of the search.
        tell: called with the progress and the sweep after every event of a round.

    Raises:
        ConfigError: the request cannot be run; nothing was written.
        ValueError: the range, resolution, share, checks or number of seeds is invalid.
        KeyboardInterrupt: after the runs have saved their state.
    """
    where, jobs = check(ask)
    specs = {
        (arm, seed): _spec(ask, jobs[arm], seed) for arm in range(len(jobs)) for seed in range(ask.seeds)
    }
    names = arms_of([flatten(to_mapping(specs[arm, 0])) for arm in range(len(jobs))], ask.axis)
    searches: dict[Key, Search] = {key: bisect(where, ask.share, ask.checks) for key in specs}
    wanted = {key: next(one) for key, one in searches.items()}
    edges: dict[Key, SeedEdge] = {}
    rounds = Rounds(len(specs) * (2 + where.halvings + ask.checks))
    node = launcher(ask.overrides)
    while wanted:
        rounds.number += 1
        asked = {
            key: [_at(ask, specs[key], value, whole=where.whole) for value in values]
            for key, values in wanted.items()
        }
        runs = [spec for several in asked.values() for spec in several]
        if rounds.number == 1:
            check_jobs(runs)
        points = _run(runs, rounds, node, tell)
        for key, several in asked.items():
            try:
                wanted[key] = searches[key].send([points[run_folder(spec).name] for spec in several])
            except StopIteration as end:
                edges[key] = end.value
                del wanted[key]
    arms = [
        over_seeds(name, {seed: edges[arm, seed] for seed in range(ask.seeds)}, log=where.log)
        for arm, name in enumerate(names)
    ]
    return SearchResult(
        ask.axis,
        ask.low,
        ask.high,
        where.log,
        ask.share,
        arms,
        grid=where.grid * len(specs),
        trained=rounds.trained,
        errors=rounds.errors,
    )


def check(ask: SearchRequest) -> tuple[Range, list[list[str]]]:
    """Check a request, and return its range and the overrides of every arm.

    Raises:
        ConfigError, ValueError: as `search`.
    """
    log = ask.low > 0 if ask.log is None else ask.log
    resolution = ask.resolution
    if resolution is None:
        resolution = RATIO if log else abs(ask.high - ask.low) / PARTS
    where = Range(ask.low, ask.high, resolution, log)
    if not 0 < ask.share <= 1:
        raise ValueError(f"share: expected a number above 0 and at most 1, but got {ask.share:g}")
    if ask.seeds < 1 or ask.checks < 0:
        raise ValueError(
            f"seeds: expected at least 1, checks at least 0, but got {ask.seeds} and {ask.checks}"
        )
    if launcher(ask.overrides).get("_target_") != OURS:
        raise ConfigError("hydra/launcher", "an edge is searched with our own workers only")
    jobs = jobs_along(ask.axis, ask.overrides)
    whole = check_axis(ask.axis, ask.low, ask.high, jobs)
    return replace(where, whole=whole), jobs


def _spec(ask: SearchRequest, job: Sequence[str], seed: int) -> RunSpec:
    return replace(compose([*job, f"seed={seed}"]), output=str(ask.output))


def _at(ask: SearchRequest, spec: RunSpec, value: float, *, whole: bool) -> RunSpec:
    """Return the run with one value of the axis; `check_axis` has validated both ends of the range."""
    value = number(value, whole=whole)
    return with_value(spec, ask.axis, value if whole else float(value))


def _run(runs: Sequence[RunSpec], rounds: Rounds, node: object, tell: Teller | None) -> dict[str, Point]:
    """Run one round, and return the point of each run by name."""
    options = {name: getattr(node, name) for name in ("stack", "cohort", "workers")}
    sweep = plan_sweep(runs, stack=options["stack"], most=options["cohort"])
    fresh = len(sweep.specs) - len(sweep.outcomes)
    if tell is not None:
        tell(rounds, sweep)
    run_sweep(sweep, options["workers"], lambda sweep, event: tell and tell(rounds, sweep))
    rounds.tried += len(sweep.specs)
    rounds.trained += fresh
    rounds.errors += [f"{one.path}: {one.error}" for one in sweep.outcomes.values() if one.error]
    return {name: _point(outcome) for name, outcome in sweep.outcomes.items()}


def _point(outcome: JobResult) -> Point:
    if outcome.state not in ("finished", "diverged"):
        return Point(math.nan)
    share = ((read_status(outcome.path) or {}).get("final") or {}).get("dead_fraction")
    return Point(math.nan if share is None else share, outcome.state == "diverged")
