"""What `python -m experiments` does: list, run, judge, draw, write the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments import registry, running
from experiments.budgets import BUDGETS
from experiments.claim import DATA_SETS, Claim
from experiments.confirmation import together
from experiments.figures.data_sets import data_sets
from experiments.page import corrected, lead, page
from experiments.running import Trial
from experiments.shelf import Result, Shelf, with_verdict
from harness.console import sweep_progress
from harness.report.images import save

RESULTS = "results"  # below the output, and committed beside the claims
STYLES = {
    "supported": "green",
    "refuted": "red",
    "mixed": "yellow",
    "partly open": "cyan",
    "undecided": "dim",
}


def listing(output: Path, home: Path) -> None:
    """Print every claim with the verdict of its largest stored budget, if there is one."""
    shelves = [Shelf(output / RESULTS), Shelf(home / RESULTS)]
    table = Table(box=SIMPLE_HEAD)
    for name, wide in (("claim", False), ("sentence", True), ("verdict", False)):
        table.add_column(name, no_wrap=not wide, overflow="fold")
    for claim in registry.claims():
        table.add_row(claim.name, escape(claim.sentence), _told(claim, shelves))
    console = _console()
    console.print(table)
    console.print(
        "python -m experiments NAME --budget small|standard|full   runs and judges; --all: RESULTS.md"
    )


def run(
    names: Sequence[str],
    budget: str,
    output: Path,
    to: Path | None = None,
    *,
    data: Sequence[str] = ("digits",),
    only_judge: bool = False,
    workers: int | None = None,
) -> list[Result]:
    """Run and judge claims; what is done is not done again.

    Args:
        names: of claims; none: all.
        budget: of `BUDGETS`.
        output: folder of runs, results and pictures.
        to: folder of the page, with its results and pictures; None: no page.
        data: data sets, of `DATA_SETS`. A claim that is named is tried on each of them; without names, on
            those that it is made for. Claims with data of their own are tried on these alone.
        only_judge: whether only what is stored is judged, and nothing trained or measured.
        workers: processes.

    Returns:
        The judged results.

    Raises:
        ValueError: an unknown claim, budget or data set; with `only_judge`, a claim that is named and has no
            result.
        ConfigError: a sweep that cannot be run.
        FailedRunsError: runs of a claim failed; the results of the others are stored.
        KeyboardInterrupt: after the state has been kept.
    """
    if budget not in BUDGETS:
        raise ValueError(f"budget: expected one of {', '.join(BUDGETS)}, but got {budget!r}")
    unknown = [one for one in data if one not in DATA_SETS]
    if unknown or not data:
        said = ", ".join(map(repr, unknown)) or "none"
        raise ValueError(f"data: expected some of {', '.join(DATA_SETS)}, but got {said}")
    claims = [registry.claim(name) for name in dict.fromkeys(names)] or registry.claims()
    trials = [(claim, one) for claim in claims for one in _tried(claim, data, named=bool(names))]
    shelf = Shelf(output / RESULTS)
    errors: list[str] = []
    if not only_judge:
        errors = _make(trials, budget, output, shelf, workers)
    judged, console = [], _console()
    for claim, one in trials:
        result = shelf.get(claim.name, budget, one)
        if result is None and only_judge:
            result = _committed(claim, budget, one)
        if result is None and only_judge and names:
            where = f" on {one}" if one else ""
            raise ValueError(
                f"--judge: {claim.name}{where} has no stored result of budget {budget} in {shelf.folder}"
            )
        if result is None:
            continue
        result = with_verdict(result, claim.decide(result.table))
        shelf.put(result)
        judged.append(result)
        pictures = output / "pictures" / budget / one
        pictures.mkdir(parents=True, exist_ok=True)
        save(draw(claim, result), pictures / f"{claim.name}.png")
        show(claim, result, console)
    if to is not None:
        write_page(claims, judged, to)
        console.print(f"page        {to / 'RESULTS.md'}", soft_wrap=True, markup=False)
    if errors:
        raise running.FailedRunsError("\n".join(errors))
    return judged


def draw(claim: Claim, result: Result) -> Figure:
    """The claim's figure."""
    assert result.verdict is not None
    return claim.figure(result.table, result.verdict)


def show(claim: Claim, result: Result, console: Console) -> None:
    """Print a verdict."""
    verdict = result.verdict
    assert verdict is not None
    where = f" on {DATA_SETS[result.data]}" if result.data else ""
    console.print(f"\n{claim.name}{where}", style="bold", markup=False, end="  ")
    console.print(verdict.word, style=STYLES[verdict.word])
    console.print(f"  “{claim.sentence}”", style="italic", markup=False)
    console.print(f"  {lead(verdict)} {verdict.text}", markup=False)
    if verdict.also:
        beside = "; ".join(f"{finding.label}: {finding.words}" for finding in verdict.also)
        console.print(f"  Beside it: {beside}.", markup=False)
    if claim.beside is not None:
        console.print(f"  {claim.beside(result.table)}", markup=False)
    lost = f", {verdict.diverged} diverged" if verdict.diverged else ""
    seconds = float(result.facts.get("seconds", 0))
    console.print(
        f"  {verdict.runs} rows, {verdict.seeds} seeds{lost}; {seconds:.0f} s of computing", style="dim"
    )


def write_page(claims: Sequence[Claim], results: Sequence[Result], to: Path) -> None:
    """RESULTS.md, the pictures, and the results that both were made from."""
    from harness.store.files import write_text

    (to / "pictures").mkdir(parents=True, exist_ok=True)
    shelf = Shelf(to / RESULTS)
    for result in results:
        shelf.put(result)
    tried = [(claim, [result for result in results if result.claim == claim.name]) for claim in claims]
    entries = corrected([(claim, found) for claim, found in tried if found])
    for entry in entries:
        name = entry.claim.name
        save(entry.claim.figure(entry.result.table, entry.shown), to / "pictures" / f"{name}.png", dpi=110)
        if len(entry.results) > 1:
            save(data_sets(entry.results), to / "pictures" / f"{name}_data_sets.png", dpi=110)
    there = {result.claim for result in results}
    write_text(to / "RESULTS.md", page(entries, [claim for claim in claims if claim.name not in there]))


def _tried(claim: Claim, data: Sequence[str], *, named: bool) -> Sequence[str]:
    """The data sets of those asked for that a claim is tried on."""
    if not any(claim.tried_on):
        return claim.tried_on
    return data if named else [one for one in claim.tried_on if one in data]


def _make(trials: Sequence[Trial], budget: str, output: Path, shelf: Shelf, workers: int | None) -> list[str]:
    """Train and measure what has no result yet; what went wrong, a line per claim and data set."""
    plans = running.planned(trials, budget, output)
    sweep = running.train(plans)
    if sweep is not None and sweep.tasks:
        left = sum(len(task.specs) for task in sweep.tasks)
        count = len({name for name, _ in plans})
        _console().print(f"{len(sweep.specs):,} runs of {count} claims in {output}: {left:,} to train.")
        with sweep_progress(sweep) as tell:
            running.carry_out(sweep, workers, tell)
    errors = []
    for claim, data in trials:
        try:
            if claim.sweeps:
                shelf.put(running.gather(claim, plans[claim.name, data], budget, data))
            elif not running.fresh(claim, shelf.get(claim.name, budget, data)):
                shelf.put(running.measured(claim, budget, data))
        except running.FailedRunsError as error:
            errors.append(str(error))
    return errors


def _committed(claim: Claim, budget: str, data: str) -> Result | None:
    """The result that is committed beside the claims."""
    return Shelf(Path(__file__).parent / RESULTS).get(claim.name, budget, data)


def _told(claim: Claim, shelves: Sequence[Shelf]) -> str:
    """The verdict of the largest budget, and on which data it rests."""
    for shelf in shelves:
        for budget in reversed(BUDGETS[1:]):
            found = {one: shelf.verdict(claim.name, budget, one) for one in ("", *DATA_SETS)}
            verdicts = {one: verdict for one, verdict in found.items() if verdict is not None}
            if verdicts:
                word, _, on = together(verdicts, claim.looked_at)
                where = ", ".join(filter(None, (budget, *(DATA_SETS.get(one, "") for one in on))))
                return f"[{STYLES[word]}]{word}[/] ({where})"
    return "[dim]no result[/]"


def _console() -> Console:
    return Console(highlight=False, width=None if Console().is_terminal else 110)
