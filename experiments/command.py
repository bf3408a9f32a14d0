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
from experiments.claim import Claim
from experiments.page import corrected, lead, page
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
        table.add_row(claim.name, escape(claim.sentence), _told(claim.name, shelves))
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
    only_judge: bool = False,
    workers: int | None = None,
) -> list[Result]:
    """Run and judge claims; what is done is not done again.

    Args:
        names: of claims; none: all.
        budget: of `BUDGETS`.
        output: folder of runs, results and pictures.
        to: folder of the page, with its results and pictures; None: no page.
        only_judge: whether only what is stored is judged, and nothing trained or measured.
        workers: processes.

    Returns:
        The judged results.

    Raises:
        ValueError: an unknown claim or budget; with `only_judge`, a claim without a result.
        ConfigError: a sweep that cannot be run.
        FailedRunsError: runs of a claim failed; the results of the others are stored.
        KeyboardInterrupt: after the state has been kept.
    """
    if budget not in BUDGETS:
        raise ValueError(f"budget: expected one of {', '.join(BUDGETS)}, but got {budget!r}")
    claims = [registry.claim(name) for name in dict.fromkeys(names)] or registry.claims()
    shelf = Shelf(output / RESULTS)
    errors: list[str] = []
    if not only_judge:
        errors = _make(claims, budget, output, shelf, workers)
    judged, console = [], _console()
    for claim in claims:
        result = shelf.get(claim.name, budget)
        if result is None and only_judge and (result := _committed(claim, budget)) is None:
            raise ValueError(
                f"--judge: {claim.name} has no stored result of budget {budget} in {shelf.folder}"
            )
        if result is None:
            continue
        result = with_verdict(result, claim.decide(result.table))
        shelf.put(result)
        judged.append(result)
        pictures = output / "pictures" / budget
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
    console.print(f"\n{claim.name}", style="bold", markup=False, end="  ")
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
    shelf, by_name = Shelf(to / RESULTS), {claim.name: claim for claim in claims}
    for result in results:
        shelf.put(result)
        save(draw(by_name[result.claim], result), to / "pictures" / f"{result.claim}.png", dpi=110)
    entries = corrected([(by_name[result.claim], result) for result in results])
    there = {result.claim for result in results}
    write_text(to / "RESULTS.md", page(entries, [claim for claim in claims if claim.name not in there]))


def _make(claims: Sequence[Claim], budget: str, output: Path, shelf: Shelf, workers: int | None) -> list[str]:
    """Train and measure what has no result yet; what went wrong, a line per claim."""
    plans = running.planned(claims, budget, output)
    sweep = running.train(plans)
    if sweep is not None and sweep.tasks:
        left = sum(len(task.specs) for task in sweep.tasks)
        _console().print(f"{len(sweep.specs):,} runs of {len(plans)} claims in {output}: {left:,} to train.")
        with sweep_progress(sweep) as tell:
            running.carry_out(sweep, workers, tell)
    errors = []
    for claim in claims:
        try:
            if claim.sweeps:
                shelf.put(running.gather(claim, plans[claim.name], budget))
            elif not running.fresh(claim, shelf.get(claim.name, budget)):
                shelf.put(running.measured(claim, budget))
        except running.FailedRunsError as error:
            errors.append(str(error))
    return errors


def _committed(claim: Claim, budget: str) -> Result | None:
    """The result that is committed beside the claims."""
    return Shelf(Path(__file__).parent / RESULTS).get(claim.name, budget)


def _told(name: str, shelves: Sequence[Shelf]) -> str:
    for shelf in shelves:
        for budget in reversed(BUDGETS[1:]):
            verdict = shelf.verdict(name, budget)
            if verdict is not None:
                return f"[{STYLES[verdict.word]}]{verdict.word}[/] ({budget})"
    return "[dim]no result[/]"


def _console() -> Console:
    return Console(highlight=False, width=None if Console().is_terminal else 110)
