"""`python -m experiments.readme_picture`: the picture that opens the README, from two real runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd

from harness.config import compose
from harness.report.plots import rate_map
from harness.store.runs import Run
from harness.sweeps.job import run_job

TARGET = Path(__file__).parent / "pictures" / "rate_map.png"


def main() -> None:
    """Train at a learning rate that kills, draw the map of every unit, write the PNG."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_job(
            compose([f"output={folder}", "optim.lr=1", "record=full", "record.tensorboard=false"])
        )
        history: pd.DataFrame = Run(outcome.path).census
    figure = rate_map(
        history, title="harness optim.lr=1: a learning rate that kills (digits, 3 x 128 MLP, SGD)"
    )
    TARGET.parent.mkdir(exist_ok=True)
    figure.savefig(TARGET, dpi=110)
    print(TARGET)


if __name__ == "__main__":
    main()
