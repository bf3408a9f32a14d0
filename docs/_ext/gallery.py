"""The gallery's pictures: every chart of `harness.report.plots`, drawn at a build from small runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from matplotlib.figure import Figure
from sphinx.application import Sphinx

from harness import compare
from harness.cli import run
from harness.config import compose
from harness.detector.overlap import overlap
from harness.report import plots
from harness.report.images import save
from harness.store.runs import Run, open_runs
from harness.sweeps.job import run_job
from harness.trials.prescribe import prescribe

SINGLE = ("optim.lr=1", "train.epochs=6", "record=full", "record.tensorboard=false", "record.evidence=false")
SHORT = ("train.epochs=4", "model.width=32", "record.tensorboard=false")
SWEEP = (
    *("-m", "optim.lr=0.03,0.3,1", "bias.offset=0,-0.5", "seed=range(4)", "model.width=32"),
    *("train.epochs=6", "record.tensorboard=false", "hydra.launcher.workers=1"),
)


def charts(folder: Path) -> dict[str, Callable[[], Figure]]:
    """Name → how it is drawn, for each of `plots.CAPTIONS`."""
    one = Run(run_job(compose([f"output={folder}/one", *SINGLE])).path)
    with redirect_stdout(StringIO()):
        run([*SWEEP, f"output={folder}/many"])
    runs = open_runs(folder / "many")
    cured = prescribe(run_job(compose([f"output={folder}/ill", "bias.offset=-2", *SHORT])).path)
    table, lives = compare.outcomes(runs), compare.lives(runs)
    lr, by = "optim.lr", ["bias.offset"]
    return {
        "activation": lambda: plots.activation("relu"),
        "activations": plots.activations,
        "dead_over_time": lambda: plots.dead_over_time(compare.dead_over_time(lives, by=[lr])),
        "dead_share": lambda: plots.dead_share(one.census),
        "dose_response": lambda: plots.dose_response(
            compare.dose_response(table, lr, by), compare.critical(table, lr, by)
        ),
        "effects": lambda: plots.effects(compare.effects(table, lr), factor=lr),
        "gradients": lambda: plots.gradients(one.census),
        "lifelines": lambda: plots.lifelines(one.census),
        "overlap": lambda: plots.overlap(overlap(one.census)),
        "phase": lambda: plots.phase(compare.phase(table, lr, *by)),
        "ranking": lambda: plots.ranking(compare.ranking(table)),
        "rate_histogram": lambda: plots.rate_histogram(one.census),
        "rate_map": lambda: plots.rate_map(one.census),
        "state_bars": lambda: plots.state_bars(one.census),
        "survival": lambda: plots.survival(compare.survival(lives, by=[lr])),
        "trade_off": lambda: plots.trade_off(cured.table),
        "training": lambda: plots.training(one.steps),
    }


def draw(app: Sphinx) -> None:
    """Write a picture for each figure that has a caption."""
    place = Path(app.srcdir) / "_build" / "gallery"
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, plots.look(captions=False):
        drawn = charts(Path(folder))
        for name in plots.CAPTIONS:
            save(drawn[name](), place / f"{name}.svg")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", draw)
    return {"parallel_read_safe": True}
