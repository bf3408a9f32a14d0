"""`python -m experiments`: list the claims, run them, judge them, write RESULTS.md."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

HOME = Path(__file__).parent
OUTPUT = Path("runs/experiments")


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Claims; none: list them all.")] = None,
    budget: Annotated[
        str, typer.Option(help="small, standard or full (toy: only to see that it runs).")
    ] = "small",
    output: Annotated[Path, typer.Option(help="Folder of runs, results and pictures.")] = OUTPUT,
    all_: Annotated[bool, typer.Option("--all", help="Every claim; writes RESULTS.md.")] = False,
    data: Annotated[
        str, typer.Option(help="Data sets, with commas: digits, mnist, fashion_mnist, cifar10.")
    ] = "digits",
    judge: Annotated[bool, typer.Option("--judge", help="Judge stored results anew; train nothing.")] = False,
    papers: Annotated[
        bool, typer.Option("--papers", help="Papers' numbers beside ours: writes PAPERS.md.")
    ] = False,
    page: Annotated[
        Path, typer.Option(help="With --all or --papers: folder of the page, pictures and results.")
    ] = HOME,
    workers: Annotated[int | None, typer.Option(help="Processes; one per core if not given.")] = None,
) -> None:
    """Decide by data what is said about ReLU: one claim, one file in experiments/claims."""
    from experiments import command, papers_page
    from experiments.running import FailedRunsError
    from harness.config import ConfigError

    try:
        if papers:
            if all_ or judge:
                raise ValueError("--papers: goes with neither --all nor --judge")
            papers_page.make(names or [], page / command.RESULTS, page)
            return
        if all_ and names:
            raise ValueError("--all: runs every claim; give either names or --all")
        if not names and not all_:
            if judge:
                raise ValueError("--judge: give the names of claims, or --all")
            command.listing(output, HOME)
        else:
            command.run(
                names or [],
                budget,
                output,
                page if all_ else None,
                data=[one.strip() for one in data.split(",") if one.strip()],
                only_judge=judge,
                workers=workers,
            )
    except (ConfigError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    except (FailedRunsError, OSError) as error:
        print(f"experiments: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        print("experiments: interrupted; the same command continues.", file=sys.stderr)
        raise typer.Exit(130) from None


if __name__ == "__main__":
    typer.run(main)
