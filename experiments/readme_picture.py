"""`python -m experiments.readme_picture`: the two pictures of the README, from real runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from matplotlib.figure import Figure

from harness.cli import run
from harness.compare import outcomes, phase
from harness.config import compose
from harness.report import plots
from harness.report.images import save
from harness.store.runs import Run, open_runs
from harness.sweeps.job import run_job

PICTURES = Path(__file__).parent / "pictures"
SWEEP = ("-m", "optim.lr=0.01,0.03,0.1,0.3,1,3", "bias.offset=0,-0.5,-1", "seed=range(8)")


def rate_map(folder: str) -> Figure:
    """The map of every unit in a run at a learning rate that kills."""
    spec = compose([f"output={folder}", "optim.lr=1", "record=full", "record.tensorboard=false"])
    title = "harness optim.lr=1: a learning rate that kills (digits, 3 x 128 MLP, SGD)"
    return plots.rate_map(Run(run_job(spec).path).census, title=title)


def phase_diagram(folder: str) -> Figure:
    """The dead share of the README's sweep, over learning rate and bias offset."""
    run([*SWEEP, f"output={folder}"])
    return plots.phase(phase(outcomes(open_runs(folder)), "optim.lr", "bias.offset"))


def main() -> None:
    """Train, draw, write the PNGs."""
    PICTURES.mkdir(exist_ok=True)
    for draw in (rate_map, phase_diagram):
        with tempfile.TemporaryDirectory() as folder:
            print(save(draw(folder), PICTURES / f"{draw.__name__}.png"))


if __name__ == "__main__":
    main()
