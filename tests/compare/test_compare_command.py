"""`harness-tools compare`, from runs on disk to what is printed and written."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_up import story, write_run
from rich.console import Console
from typer.testing import CliRunner

from harness.compare import compare_runs
from harness.report.compare_tables import view
from harness.store.runs import open_runs
from harness.tools import app

GOLDEN = Path(__file__).parent.parent / "golden"
STEPS = list(range(0, 60, 10))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two learning rates × two activations × 8 seeds: a high rate kills ReLUs, and two others diverge."""
    root = tmp_path_factory.mktemp("runs")
    for seed in range(8):
        for activation in ("relu", "leaky_relu"):
            for lr in (0.1, 1.0):
                dying = (3 + seed % 3 if lr > 0.5 else seed % 2) if activation == "relu" else 0
                stories = [story(10 * (1 + unit % 4), 6, STEPS) for unit in range(dying)]
                stories += [["dead"] * 6] * (activation == "relu")
                stories += [story(None, 6, STEPS)] * (8 - len(stories))
                lost = activation == "leaky_relu" and lr > 0.5 and seed in (2, 5)
                config = {
                    "activation": {"name": activation} | ({"slope": 0.01} if activation != "relu" else {}),
                    "optim": {"lr": lr},
                    "seed": seed,
                    "output": str(root),
                }
                name = f"{activation}-{lr}-{seed}"
                cut = 3 if lost else 6
                state = "diverged" if lost else "finished"
                write_run(root, name, config, [one[:cut] for one in stories], STEPS[:cut], state=state)
    return root


def shown(folder: Path, *arguments: Any, **more: Any) -> str:
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(view(compare_runs(open_runs(folder), *arguments, **more)))
    return "\n".join(line.rstrip() for line in console.export_text().splitlines()) + "\n"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("compare.txt", {"measures": ["dead", "accuracy"]}),
        ("compare_by.txt", {"factor": "optim.lr", "by": ["activation.name"], "measures": ["dead", "died"]}),
    ],
)
def test_what_is_printed(runs: Path, name: str, arguments: dict[str, Any]) -> None:
    assert shown(runs, **arguments) == (GOLDEN / name).read_text(encoding="utf-8")


def command(*words: Any) -> Any:
    return CliRunner().invoke(app, ["compare", *map(str, words)])


def test_the_command_writes_what_it_prints(runs: Path, tmp_path: Path) -> None:
    done = command(
        runs,
        "--factor",
        "optim.lr",
        "--by",
        "activation",
        "--json",
        tmp_path / "c.json",
        "--csv",
        tmp_path / "csv",
    )
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "c.json").read_text())
    assert told["sentences"][0] in " ".join(done.output.split())
    rows = pd.DataFrame(told["effects"])
    assert set(rows["outcome"]) == {"dead", "born_dead", "died", "revived", "accuracy"}
    from_csv = pd.read_csv(tmp_path / "csv" / "effects.csv")
    assert from_csv["difference"].tolist() == pytest.approx(rows["difference"].tolist())
    assert {"effects.csv", "outcomes.csv", "survival.csv", "critical.csv", "logrank.csv"} <= {
        path.name for path in (tmp_path / "csv").iterdir()
    }
    assert sum(row["diverged"] for row in told["survival"] if row["activation.name"] == "leaky_relu") == 2


def test_several_folders_are_one_comparison(runs: Path) -> None:
    folders = [
        path for path in sorted(runs.iterdir()) if "relu-1.0" in path.name and "leaky" not in path.name
    ]
    done = command(
        *folders, *(path for path in runs.iterdir() if path.name.startswith("relu-0.1")), "--no-survival"
    )
    assert done.exit_code == 0, done.output
    assert done.output.startswith("16 runs, optim.lr (2 values) and 8 seeds: 16 finished.")
    assert "survival of units" not in done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--factor", "optim.lrr"], "Did you mean optim.lr?"),
        (["--factor", "seed"], "the unit of analysis"),
        (["--factor", "optim.lr", "--baseline", "7"], "0.1, 1, but got 7"),
        (["--baseline", "7"], "give that factor too"),
        (["--by", "nonsense"], "what varies: activation.name, optim.lr"),
        (["--outcome", "loss"], "dead, born_dead, died, revived, accuracy"),
        (["--share", "50"], "expected a number in (0, 1)"),
        (["--correction", "bonferroni"], "holm, fdr, none"),
    ],
)
def test_what_was_typed_wrong(runs: Path, words: list[str], said: str) -> None:
    done = command(runs, *words)
    assert done.exit_code == 2
    text = " ".join(done.output.replace("│", " ").split())
    assert said.lower() in text.lower()
    assert "Traceback" not in text


def test_nothing_to_compare(runs: Path, tmp_path: Path) -> None:
    assert command(tmp_path).exit_code == 2
    assert command(tmp_path / "nowhere").exit_code == 2
    done = command(runs / "relu-0.1-0", runs / "relu-0.1-1")
    assert done.exit_code == 2
    assert "nothing but the seed varies" in " ".join(done.output.replace("│", " ").split())


def test_one_seed_is_said(runs: Path) -> None:
    done = command(*(path for path in runs.iterdir() if path.name.endswith("-0")))
    assert done.exit_code == 0, done.output
    assert "one seed" in done.output
    assert "no interval and no test exists" in done.output


@pytest.mark.parametrize(
    ("correction", "said"),
    [
        ("max_t", "max-T. Ranking"),
        ("holm", "over all differences, and over the ranking, by Holm's method"),
        ("fdr", "within each table by Benjamini and Hochberg's method. *: adjusted p"),
        (
            "none",
            "up to 20 seeds. Ranking: jackknife over seeds. Survival: Kaplan–Meier, log-rank with sign flips",
        ),
    ],
)
def test_the_methods_are_those_that_were_asked_for(runs: Path, correction: str, said: str) -> None:
    done = command(runs, "--correction", correction, "--no-survival")
    assert said in " ".join(done.output.split())
