"""Each paper's claim: its decision rule says yes, no and undecided, fed with made-up tables."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cache

import pandas as pd
import pytest
from filled_tables import Outcomes, Row, always, filled, several, skeleton, torn, when

from experiments import registry
from experiments.claims.adam_task_change import ARMS, CHANGES, USUAL
from experiments.claims.batch_noise import ARMS as NOISE_ARMS
from experiments.claims.batch_noise import INJECTED as NOISY
from experiments.claims.edge_law import LOSSES, SETTINGS
from experiments.continual import CHANGING, ONE, PLACEBO

PAPERS = [claim.name for claim in registry.claims() if claim.kind == "paper"]
#: Measured claim → what one seed measures.
CELLS: Mapping[str, Mapping[str, tuple[object, ...]]] = {
    "adam_task_change": {"arm": tuple(ARMS), "change": CHANGES},
    "batch_noise": {"arm": tuple(NOISE_ARMS), "lr": (0.05, 0.2, 0.4)},
    "born_dead_networks": {"width": (2, 3, 5), "hidden": (1, 9, 20)},
    "collapse_in_training": {"init": ("he", "rai")},
    "depth_law": {"layer": tuple(range(1, 21))},
    "edge_law": {"loss": tuple(LOSSES), "setting": tuple(SETTINGS)},
    "one_step_kill": {"factor": (0.5, 0.99, 1.01, 2.0)},
    "target_variance": {
        "targets": ("teacher", "noise"),
        "lr": (0.1, 0.15),
        "momentum": (0.0, 0.9),
        "scale": (0.001, 0.01, 0.1, 1.0),
    },
}


def tasks(row: Row) -> Mapping[str, float]:
    changing = row["sweep"] in (CHANGING, PLACEBO)
    return {
        "dead": 0.5 if changing else 0.05,
        "gradient_dormant_share": 0.5 if changing else 0.05,
        "lost_share": 0.3 if changing else 0.0,
        "online_lost_share": 0.3 if changing else 0.0,
        "online_last_share": 0.6 if changing else 0.95,
    }


def no_tasks(row: Row) -> Mapping[str, float]:
    return {**tasks({**row, "sweep": ONE}), "online_lost_share": 0.0}


def killed_by_l2(*cells: tuple[str, str]) -> Outcomes:
    """These cells of optimizer and norm lose units to L2."""
    return when(
        lambda row: row["optim.weight_decay"] == 5e-4 and (row["optim.name"], row["model.norm"]) in cells,
        "dead",
        0.5,
    )


def law_holds(row: Row) -> Mapping[str, float]:
    """The critical rate differs from setting to setting, its products with sharpness and norm do not."""
    rate = float(list(SETTINGS).index(row["setting"]))
    return {"log2_rate": rate, "log2_sharpness": 1.0, "log2_norm": 2.0}


#: Claim → outcomes that have to be called supported, and such as have to be called refuted.
CASES: Mapping[str, tuple[Outcomes, Outcomes]] = {
    "activation_by_depth": (always(rate=0.3, fall=-0.2), always(rate=0.5, fall=0.0)),
    "adam_task_change": (
        when(lambda row: row["arm"] == USUAL, "killed_share", 0.1, 0.01),
        always(killed_share=0.1),
    ),
    "batch_noise": (when(lambda row: row["arm"] in (NOISY, "batch 8"), "dead", 0.3), always(dead=0.05)),
    "born_dead_networks": (
        several(when(lambda row: row["width"] == 2, "dead_share", 0.9, 0.2), always(off=0.0)),
        always(dead_share=0.5, off=0.2),
    ),
    "collapse_in_training": (
        when(lambda row: row["init"] == "he", "collapsed_share", 0.95, 0.4),
        always(collapsed_share=0.7),
    ),
    "continual_learning": (tasks, no_tasks),
    "permuted_inputs": (tasks, no_tasks),
    "decay_norm_optimizer": (
        killed_by_l2(("adam", "batch")),
        killed_by_l2(("adam", "none"), ("adamw", "batch"), ("momentum", "batch")),
    ),
    "depth_law": (always(dead_share=0.25, off=0.0, rate=0.5), always(dead_share=0.0, off=0.2, rate=0.5)),
    "edge_law": (law_holds, lambda row: {**law_holds(row), "log2_rate": 0.0}),
    "one_step_kill": (when(lambda row: row["factor"] > 1, "dead_share", 1.0, 0.0), always(dead_share=0.5)),
    "target_variance": (
        when(lambda row: row["momentum"] > 0 and row["scale"] < 1, "dead", 0.5),
        always(dead=0.05),
    ),
}


@cache  # thousands of runs are composed
def rows_of(name: str) -> pd.DataFrame:
    claim = registry.claim(name)
    if claim.measure is None:
        return skeleton(claim)
    cells = CELLS[name]
    rows = list(itertools.product(range(12), *cells.values()))
    return pd.DataFrame(rows, columns=pd.Index(["seed", *cells]))


def test_there_is_a_case_for_every_claim_of_a_paper() -> None:
    assert sorted(CASES) == sorted(PAPERS)


@pytest.mark.parametrize("name", PAPERS)
def test_yes_no_and_undecided(name: str) -> None:
    decide, rows = registry.claim(name).decide, rows_of(name)
    yes, no = (filled(rows, outcomes) for outcomes in CASES[name])
    assert decide(yes).word == "supported"
    assert decide(no).word == "refuted"
    assert decide(torn(yes, no)).word == "undecided"
    assert decide(yes[yes["seed"] < 2]).word == "undecided"


@pytest.mark.parametrize("name", PAPERS)
def test_what_was_lost_is_no_evidence(name: str) -> None:
    bare = rows_of(name)
    rows = filled(bare, CASES[name][0])
    told = {str(column) for column in rows if column not in bare} | {"dead"}
    lost = rows.assign(**{column: float("nan") for column in told & set(map(str, rows))})
    verdict = registry.claim(name).decide(lost)
    assert verdict.word == "undecided"
    assert "no pair of runs" in verdict.text


def test_l2_that_kills_without_batch_norm_too_is_mixed() -> None:
    name = "decay_norm_optimizer"
    both = killed_by_l2(("adam", "batch"), ("adam", "none"))
    verdict = registry.claim(name).decide(filled(rows_of(name), both))
    assert verdict.word == "mixed"
    assert "Does not hold for Adam, no norm" in verdict.text


def test_a_law_that_holds_for_one_loss_is_mixed() -> None:
    rows = rows_of("edge_law")

    def half(row: Row) -> Mapping[str, float]:
        return {**law_holds(row), **({"log2_rate": 0.0} if row["loss"] == "cross-entropy" else {})}

    verdict = registry.claim("edge_law").decide(filled(rows, half))
    assert verdict.word == "mixed"
    assert "Does not hold for cross-entropy" in verdict.text


@pytest.mark.parametrize("name", ["continual_learning", "permuted_inputs"])
def test_redo_is_not_credited_with_what_random_resets_do_too(name: str) -> None:
    def as_good(row: Row) -> Mapping[str, float]:
        return tasks({**row, "sweep": "ReDo"}) if row["sweep"] == PLACEBO else tasks(row)

    verdict = registry.claim(name).decide(filled(rows_of(name), as_good))
    assert verdict.word == "mixed"
    refuted = {finding.label for finding in verdict.findings if finding.word == "refuted"}
    assert refuted == {
        "dead, ReDo against random resets",
        "accuracy in the last task, ReDo against random resets",
    }
    beside = {finding.label: finding.word for finding in verdict.also}
    assert beside["dead, ReDo"] == "supported"


def test_small_batches_that_kill_by_something_else_than_noise_are_mixed() -> None:
    small = when(lambda row: row["arm"] == "batch 8", "dead", 0.3)
    verdict = registry.claim("batch_noise").decide(filled(rows_of("batch_noise"), small))
    assert verdict.word == "mixed"
    assert "Does not hold for batch 128, noise of 8" in verdict.text


def test_targets_of_noise_do_not_decide() -> None:
    name = "target_variance"
    noise = when(lambda row: row["targets"] == "noise" and row["scale"] < 1, "dead", 0.5)
    assert registry.claim(name).decide(filled(rows_of(name), noise)).word == "refuted"


def test_a_larger_epsilon_that_changes_nothing_is_mixed() -> None:
    name = "adam_task_change"
    kills = when(lambda row: row["arm"] == USUAL or "ε" in row["arm"], "killed_share", 0.1, 0.01)
    verdict = registry.claim(name).decide(filled(rows_of(name), kills))
    assert verdict.word == "mixed"
    assert "Does not hold for new inputs: β2 0.999, ε 1e-4" in verdict.text
