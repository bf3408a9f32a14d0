"""Papers' numbers beside ours: every row is told and judged from its table; the page needs no training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from experiments import paper, papers_page
from experiments.__main__ import HOME
from experiments.budgets import CIFAR_PART
from experiments.command import RESULTS
from experiments.images import Images, images
from experiments.paper import AGREES, DIFFERS, NOT_RUN, UNDECIDED, Row, word_of
from experiments.papers import dohare_2024, mehta_2019, rister_2020, sae_2026, sokar_2023, uva_tutorial_3
from experiments.shelf import Result, Shelf
from experiments.verdicts import Part, judge

SEEDS = range(8)
NOISE = np.random.default_rng(3).normal(0, 0.002, len(SEEDS))
FACTS = {"seconds": 3.0, "hardware": "a machine", "versions": {"torch": "2"}, "date": "2026-01-01"}


def seeded(*cells: tuple[Mapping[str, object], float], outcome: str = "dead_share") -> pd.DataFrame:
    """One row per cell and seed, the outcome with a little noise."""
    rows = [
        {"seed": seed, **cell, outcome: value + NOISE[seed], "accuracy": 0.9}
        for cell, value in cells
        for seed in SEEDS
    ]
    return pd.DataFrame(rows)


def uva(off: int) -> pd.DataFrame:
    cells = [
        (42, name, layer, dead + (off if dead > 50 else 0))
        for name, theirs in uva_tutorial_3.THEIRS.items()
        for layer, dead in enumerate(theirs, 1)
    ]
    return pd.DataFrame(cells, columns=pd.Index(["seed", "network", "layer", "dead"]))


def mehta(adam: float) -> pd.DataFrame:
    arms = {"Adam + L2": adam, "SGD + L2": 0.0, "Adam": 0.0}
    return seeded(*(({"arm": arm}, dead) for arm, dead in arms.items()))


def dohare(last: float) -> pd.DataFrame:
    return seeded(*(({"task": task}, dead) for task, dead in ((0, 0.0), (1, 0.0), (9, last))))


def sokar(changed: float) -> pd.DataFrame:
    cells = [
        ({"arm": arm, "epoch": epoch}, share)
        for arm, end in ((sokar_2023.FIXED, 0.1), (sokar_2023.CHANGED, changed))
        for epoch, share in ((0, 0.2), (100, end))
    ]
    return seeded(*cells, outcome="dormant_share")


def rister(times: float) -> pd.DataFrame:
    cells = [
        (seed, width, flipped, layer, 0.5**layer * times)
        for seed in SEEDS
        for width in rister_2020.WIDTHS
        for flipped in (True, False)
        for layer in range(1, rister_2020.DEPTH + 1)
    ]
    return pd.DataFrame(cells, columns=pd.Index(["seed", "width", "flipped", "layer", "alive_share"]))


def sae(trained: float) -> pd.DataFrame:
    laws = {g: sae_2026.closed_form(g, sae_2026.INPUTS) for g in sae_2026.GAMMAS}
    last = sae_2026.GAMMAS[-1]
    table = seeded(
        *(({"latents": "random", "gamma": g}, law) for g, law in laws.items()),
        *(({"latents": "trained", "gamma": g}, trained * (g == last)) for g in laws),
        ({"latents": "centred", "gamma": last}, 0.0),
    )
    return table.assign(law=table["gamma"].map(laws))


def lu(he: float) -> pd.DataFrame:
    return seeded(({"init": "he"}, he), ({"init": "rai"}, 0.4), outcome="collapsed_share")


#: Row → tables that agree and that differ.
CASES = {
    "uva_tutorial_3": (uva(2), uva(3)),
    "mehta_2019": (mehta(0.5), mehta(0.0)),
    "dohare_2024": (dohare(0.2), dohare(0.0)),
    "sokar_2023": (sokar(0.3), sokar(0.1)),
    "rister_2020": (rister(1.0), rister(0.99)),
    "sae_2026": (sae(0.6), sae(0.0)),
    "lu_2019": (lu(0.95), lu(0.8)),
}


def test_there_is_a_case_for_every_row_that_is_judged() -> None:
    assert sorted(CASES) == sorted(row.name for row in paper.rows() if row.decide and not row.heavy)
    assert len(paper.rows()) >= 8


@pytest.mark.parametrize("name", CASES)
def test_each_rule_says_yes_and_no(name: str) -> None:
    row, (yes, no) = paper.row(name), CASES[name]
    assert row.decide is not None
    assert row.tell is not None
    assert row.decide(yes) == AGREES
    assert row.decide(no) == DIFFERS
    assert any(character.isdigit() for character in row.tell(yes))
    if name not in ("uva_tutorial_3", "rister_2020"):  # one network; a guarantee
        assert row.decide(yes[yes["seed"] < 3]) == UNDECIDED


def test_one_refuted_contrast_differs_and_an_open_one_is_undecided() -> None:
    yes, no, open_ = (Part("x", effect + NOISE, 0.1) for effect in (0.3, 0.0, 0.1))
    assert word_of(judge(yes, yes)) == AGREES
    assert word_of(judge(yes, no)) == word_of(judge(no, open_)) == DIFFERS
    assert word_of(judge(yes, open_)) == UNDECIDED


def test_the_page_is_made_from_what_is_stored(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    for name, (yes, _) in CASES.items():
        shelf.put(Result(name, papers_page.BUDGET, yes, FACTS))
    page = papers_page.text(paper.rows(), shelf)
    for row in paper.rows():
        assert f"### {row.name}\n" in page
        line = next(line for line in page.splitlines() if line.startswith(f"| [{row.name}]"))
        expected = NOT_RUN if row.heavy else "agrees in direction (scaled)" if row.scaled else "agrees"
        assert f"**{expected}**" in line
        assert f"| {row.read} |" in line
    assert "2026-01-01" in page
    assert "a machine" in page


def test_what_is_committed_is_what_the_rules_say() -> None:
    text = papers_page.text(paper.rows(), Shelf(HOME / RESULTS))
    assert text == (HOME / papers_page.PAGE).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("sokar_2032",), "Did you mean sokar_2023"),
        (("voita_2023",), "cannot be run here"),
        (("--all",), "neither --all nor --judge"),
    ],
)
def test_what_is_refused(words: tuple[str, ...], told: str, tmp_path: Path) -> None:
    import typer

    from experiments.__main__ import main

    app = typer.Typer(add_completion=False)
    app.command()(main)
    found = CliRunner().invoke(app, ["--papers", *words, "--page", str(tmp_path)], env={"COLUMNS": "200"})
    assert found.exit_code == 2
    assert told in " ".join(found.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_a_row_says_how_it_is_run() -> None:
    words = {"source": "x", "read": "source", "theirs": "x", "setting": "x"}
    with pytest.raises(ValueError, match="needs a command"):
        Row(name="x", **words)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a tell and a decide"):
        Row(name="x", measure=lambda root: pd.DataFrame(), **words)  # type: ignore[arg-type]


@pytest.fixture
def _made_up_images(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(name: str, root: Path, train: int = 0, test: int = 0) -> Images:
        shape = (3, 32, 32) if name == "cifar10" else (1, 28, 28)
        x, y = torch.rand(64, *shape), torch.arange(64) % 10
        return Images(x, y, x, y)

    for module in (dohare_2024, mehta_2019, sokar_2023, uva_tutorial_3):
        monkeypatch.setattr(module, "images", draw)


@pytest.mark.usefixtures("_made_up_images")
def test_what_needs_data_runs_on_made_up_images() -> None:
    root = Path("none")
    small = {"channels": (4, 0, 4), "epochs": 1, "seeds": [0]}
    tables = {
        "uva_tutorial_3": uva_tutorial_3.measure(root),
        "dohare_2024": dohare_2024.measure(root, tasks=2, width=8, seeds=1),
        "mehta_2019": mehta_2019.measure(root, **small),  # type: ignore[arg-type]
        "sokar_2023": sokar_2023.measure(root, seeds=[0], epochs=sokar_2023.PERIOD, channels=2, width=4),
    }
    for name, table in tables.items():
        row = paper.row(name)
        assert row.tell is not None
        assert row.decide is not None
        assert row.tell(table)
        assert row.decide(table) in (AGREES, DIFFERS, UNDECIDED)


def test_online_sgd_is_autograds() -> None:
    network = dohare_2024.Network([5, 4, 4, 3], torch.Generator().manual_seed(0))
    weights, biases = (
        [one.clone().requires_grad_() for one in side] for side in (network.weights, network.biases)
    )
    x, h = torch.rand(5), None
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        h = weight @ (x if h is None else h.relu()) + bias if k else weight @ x + bias
    assert h is not None
    torch.nn.functional.cross_entropy(h[None], torch.tensor([1])).backward()
    with torch.no_grad():
        network.learn(x, 1)
    for now, before in zip((*network.weights, *network.biases), (*weights, *biases), strict=True):
        assert before.grad is not None
        torch.testing.assert_close(now, before.detach() - dohare_2024.LR * before.grad)


def test_the_part_of_cifar_is_read(tmp_path: Path) -> None:
    arrays = {
        "x_train": np.full((4, 3, 32, 32), 255, np.uint8),
        "y_train": np.arange(4),
        "x_test": np.zeros((2, 3, 32, 32), np.uint8),
        "y_test": np.arange(2),
    }
    np.savez(tmp_path / CIFAR_PART, **arrays)  # type: ignore[arg-type]
    found = images("cifar10", tmp_path, train=3)
    assert (len(found.x), len(found.x_test), float(found.x.max())) == (3, 2, 1.0)
