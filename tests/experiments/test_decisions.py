"""Each textbook claim's decision rule says yes, no and undecided, fed with made-up tables."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import cache

import pandas as pd
import pytest
import torch
from filled_tables import Outcomes, Row, always, filled, several, skeleton, torn, when

from experiments import registry
from experiments.claims.converges_faster import LEVELS
from experiments.claims.dead_units_cost import ARMS, hidden, kill
from experiments.claims.default_initialisation import BIASES, DEFAULT, WEIGHTS
from experiments.claims.high_learning_rate import GRIDS
from experiments.claims.how_units_die import ABOVE, ALL, FIRST, RATES
from experiments.timing import NAMES, WIDTHS


def high(row: Row) -> bool:
    return row["optim.lr"] >= GRIDS[row["optim.name"]][-2]


def is_not(column: str, value: object) -> Callable[[Row], bool]:
    return lambda row: row[column] != value


DORMANT = always(gradient_dormant_share=0.5)
LAYERS = range(1, 4)
RISK = {f"at_risk_{layer}_{k}": 20.0 for layer in LAYERS for k in range(1, 6)}
BACK = [f"revived_{layer}_{k}" for layer in LAYERS for k in range(1, 6)]
SILENT = [f"silent_{which}{when_}_share" for which in ("", "living_") for when_ in ("before", "after")]
#: Claim → outcomes that have to be called supported, and such as have to be called refuted.
CASES: Mapping[str, tuple[Outcomes, Outcomes]] = {
    "high_learning_rate": (when(high, "dead", 0.6), always(dead=0.05)),
    "warm_up": (when(is_not("schedule.name", "warmup"), "dead", 0.15), always(dead=0.15)),
    "n_of_inputs": (
        always(born_dead=0.1, dead=0.1),
        several(
            *(when(lambda row: row["data.probe_size"] == 100, name, 0.3) for name in ("born_dead", "dead"))
        ),
    ),
    "negative_bias": (
        several(
            when(lambda row: row["bias.offset"] <= -1, "dead", 0.8),
            when(lambda row: row["bias.offset"] <= -1, "born_dead", 0.8),
        ),
        always(dead=0.1, born_dead=0.1),
    ),
    "negative_initial_mean": (
        several(when(lambda row: row["init.mean"] < -0.2, "dead", 0.5), always(born_dead_1=0.1)),
        always(dead=0.1, born_dead_1=0.1),
    ),
    "init_scale": (
        several(
            when(is_not("init.gain", 1.0), "born_dead", 0.3), when(is_not("init.gain", 1.0), "dead", 0.3)
        ),
        always(born_dead=0.05, dead=0.05),
    ),
    "unbalanced_data": (when(lambda row: row["sweep"] == "unbalanced", "dead", 0.3), always(dead=0.05)),
    "wrong_labels": (when(is_not("sweep", "right"), "dead", 0.3), always(dead=0.05)),
    "negative_inputs": (when(lambda row: row["data.negate"], "dead", 0.5), always(dead=0.05)),
    "off_centre_inputs": (when(lambda row: abs(row["data.shift"]) > 2, "dead", 0.5), always(dead=0.05)),
    "depth": (
        several(
            when(lambda row: row["model.depth"] == 16, "dead", 0.5),
            when(lambda row: row["model.depth"] == 16, "born_dead", 0.5),
        ),
        always(dead=0.05, born_dead=0.05),
    ),
    "default_initialisation": (
        when(lambda row: row["sweep"] == DEFAULT, "born_dead", 0.45, 0.1),
        when(lambda row: row["sweep"] in (WEIGHTS, BIASES), "born_dead", 0.45, 0.1),
    ),
    "skip_connections": (when(lambda row: row["model.skip"] == "none", "dead", 0.5), always(dead=0.05)),
    "other_activations": (
        when(lambda row: row["activation.name"] == "relu", "gradient_dormant_share", 0.5),
        DORMANT,
    ),
    "cure_by_activation": (
        several(when(is_not("activation.name", "relu"), "accuracy", 0.9, 0.1), DORMANT),
        several(always(accuracy=0.1), DORMANT),
    ),
    "recovery": (
        always(**RISK, **dict.fromkeys(BACK, 0.1)),
        always(**RISK, **dict.fromkeys(BACK, 1.0)),
    ),
    "sparsity": (always(**dict.fromkeys(SILENT, 0.5)), always(**dict.fromkeys(SILENT, 0.8))),
    "vanishing_gradients": (
        lambda row: {"gradient_ratio": 0 if row["activation.name"] == "relu" else -0.5 * row["model.depth"]},
        lambda row: {"gradient_ratio": -0.5 * row["model.depth"] * (row["activation.name"] == "relu")},
    ),
    "unbounded_outputs": (
        when(lambda row: row["activation.name"] == "relu6", "accuracy", 0.9, 0.8),
        always(accuracy=0.9),
    ),
    "dead_units_cost": (when(lambda row: "killed" in row["arm"], "accuracy", 0.5, 0.9), always(accuracy=0.9)),
    "networks_of_every_kind": (
        when(lambda row: row["optim.lr"] > 0.01 or row["optim.weight_decay"] > 0, "dead", 0.5),
        always(dead=0.05),
    ),
    "how_units_die": (always(kick_share=0.8, jump_share=0.9), always(kick_share=0.2, jump_share=0.9)),
    "converges_faster": (
        lambda row: dict.fromkeys(LEVELS, 2 if row["activation.name"] == "relu" else 6),
        always(**dict.fromkeys(LEVELS, 4)),
    ),
    "chosen_remedies": (
        when(lambda row: row["remedy.name"] == "auto", "accuracy", 0.9, 0.5),
        always(accuracy=0.5),
    ),
    "cheaper": (when(is_not("activation", "relu"), "seconds", 4, 2), always(seconds=2)),
}
TEXTBOOK = [claim.name for claim in registry.claims() if claim.kind == "textbook"]


@cache  # thousands of runs are composed
def rows_of(name: str) -> pd.DataFrame:
    claim = registry.claim(name)
    if claim.measure is None:
        return skeleton(claim)
    if name == "dead_units_cost":
        return pd.DataFrame(
            [(seed, arm) for seed in range(12) for arm in ARMS], columns=pd.Index(["seed", "arm"])
        )
    if name == "how_units_die":
        cells = itertools.product(range(12), RATES, (FIRST, ABOVE, ALL))
        return pd.DataFrame(cells, columns=pd.Index(["seed", "arm", "place"]))
    cells = itertools.product(range(12), ("op", "step"), WIDTHS, NAMES)
    return pd.DataFrame(cells, columns=pd.Index(["seed", "what", "width", "activation"])).assign(device="cpu")


def test_there_is_a_case_for_every_textbook_claim() -> None:
    assert sorted(CASES) == sorted(TEXTBOOK)


@pytest.mark.parametrize("name", TEXTBOOK)
def test_yes_no_and_undecided(name: str) -> None:
    decide, rows = registry.claim(name).decide, rows_of(name)
    yes, no = (filled(rows, outcomes) for outcomes in CASES[name])
    assert decide(yes).word == "supported"
    assert decide(no).word == "refuted"
    if name == "converges_faster":  # the first seeds tune: all of one opinion
        half = torn(yes, no)
        assert decide(pd.concat([half, yes[yes["seed"] < 4]])).word in ("undecided", "mixed", "partly open")
        return
    assert decide(torn(yes, no)).word == "undecided"
    assert decide(yes[yes["seed"] < yes["seed"].min() + 2]).word == "undecided"


@pytest.mark.parametrize("name", ["high_learning_rate", "wrong_labels", "networks_of_every_kind"])
def test_some_of_it_is_mixed_and_says_on_what(name: str) -> None:
    rows, yes = rows_of(name), CASES[name][0]

    def half(row: Row) -> Mapping[str, float]:
        other = row["sweep"] in ("adam", "ResNet") or (name == "wrong_labels" and row["optim.name"] == "adam")
        return {"dead": 0.05} if other else yes(row)

    verdict = registry.claim(name).decide(filled(rows, half))
    assert verdict.word == "mixed"
    assert "Holds for" in verdict.text
    assert "Does not hold for" in verdict.text


@pytest.mark.parametrize("name", TEXTBOOK)
def test_runs_that_diverged_are_no_evidence(name: str) -> None:
    """If all runs of a claim diverged, nothing is said: not 0 % dead, not "no effect"."""
    rows = filled(rows_of(name), CASES[name][0])
    lost = rows.assign(diverged=1.0)
    lost[sorted(_outcomes(name) & set(map(str, rows.columns)))] = float("nan")
    if name == "converges_faster":
        lost.loc[lost["seed"] < 4, list(LEVELS)] = 3.0
    verdict = registry.claim(name).decide(lost)
    assert verdict.word == "undecided"
    assert "no pair of runs" in verdict.text


def test_a_default_whose_biases_alone_kill_is_mixed() -> None:
    name = "default_initialisation"
    biased = when(lambda row: row["sweep"] in (DEFAULT, BIASES), "born_dead", 0.45, 0.1)
    verdict = registry.claim(name).decide(filled(rows_of(name), biased))
    assert verdict.word == "mixed"
    assert "Does not hold for biases alone" in verdict.text


def test_kicks_in_the_first_layer_alone_are_mixed() -> None:
    rows = rows_of("how_units_die")
    first = when(lambda row: row["place"] == FIRST, "kick_share", 0.9, 0.1)
    verdict = registry.claim("how_units_die").decide(filled(rows, several(first, always(jump_share=0.9))))
    assert verdict.word == "mixed"
    assert "Does not hold for SGD, lr 1, layers above" in verdict.text


def test_rates_that_nobody_would_use_do_not_decide_about_a_bound() -> None:
    """ReLU fails at the high rates and ReLU6 does not, but at their own rates both are equally good."""
    high = when(lambda row: row["activation.name"] == "relu" and row["optim.lr"] > 0.5, "accuracy", 0.1, 0.9)
    verdict = registry.claim("unbounded_outputs").decide(filled(rows_of("unbounded_outputs"), high))
    assert verdict.word == "refuted"
    beside = {finding.label: finding.word for finding in verdict.also}
    assert beside["rates that fail, ReLU6 against ReLU"] == "supported"
    assert beside["rates that train, ReLU6 against ReLU"] == "supported"


def test_a_death_counts_as_much_in_every_seed_and_none_tells_nothing() -> None:
    """Two of three seeds have no death in layers 2 and 3; in another a single one ends."""
    claim, rows = registry.claim("recovery"), rows_of("recovery")

    def outcomes(row: Row) -> Mapping[str, float]:
        none = row["seed"] % 3 > 0
        found = {name: 0.0 if none and "_1_" not in name else 30.0 for name in RISK}
        if row["seed"] == 0:
            found |= {name: 1.0 for name in RISK if name.endswith("_1")}
        return {**found, **dict.fromkeys(BACK, 0.0), **({"revived_3_1": 1.0} if row["seed"] == 0 else {})}

    verdict = claim.decide(filled(rows, outcomes, noise=0.0))
    assert verdict.word == "supported"
    assert [finding.seeds for finding in verdict.findings] == [24, 8, 8]
    assert verdict.findings[2].effect == pytest.approx(1 - 1 / 211)


def test_inputs_that_are_merely_large_kill_as_well() -> None:
    """What moving the mean does, a factor that makes the inputs as large does too."""
    large = when(lambda row: abs(row["data.shift"]) > 2 or row["data.scale"] > 1, "dead", 0.5)
    verdict = registry.claim("off_centre_inputs").decide(filled(rows_of("off_centre_inputs"), large))
    assert verdict.word == "mixed"
    assert "Does not hold for mean moved to -3 against as large, mean 0" in verdict.text


def test_warm_up_is_judged_where_there_is_something_to_save() -> None:
    """SGD above 0.3 kills all with and without warm-up, which is not asked; Adam is saved by nothing."""
    claim = registry.claim("warm_up")

    def outcomes(row: Row) -> Mapping[str, float]:
        at_once = row["schedule.name"] == "constant"
        if row["optim.name"] == "sgd" and row["optim.lr"] > 0.3:
            return {"dead": 0.9}
        return {"dead": 0.4 if at_once or row["optim.name"] == "adam" else 0.1}

    table = filled(rows_of("warm_up"), outcomes)
    verdict = claim.decide(table)
    assert [finding.word for finding in verdict.findings] == ["supported", "supported", "refuted"]
    assert verdict.word == "mixed"
    assert claim.beside is not None
    assert "SGD 0.3 (" in claim.beside(table)
    lost = table.assign(diverged=table["diverged"].where(table["optim.lr"] < 0.25, 1.0))
    assert "SGD 0.2 (" in claim.beside(lost), "who diverges is dead"
    assert "SGD 0.1 (" in claim.beside(table.assign(dead=0.9)), "the smallest, where all kill"


def test_every_depth_is_judged_at_its_own_rate() -> None:
    """At 0.1 sixteen layers do not train and are dead; at their own rate they live."""
    claim = registry.claim("depth")

    def outcomes(row: Row) -> Mapping[str, float]:
        deep = row["model.depth"] == 16
        lost = deep and row["optim.lr"] > 0.02
        own = row["optim.lr"] == (0.01 if deep else 0.1)
        return {
            "dead": 0.6 if lost else 0.05,
            "born_dead": 0.5 if deep else 0.05,
            "accuracy": 0.1 if lost else 0.9 if own else 0.7,
        }

    table = filled(rows_of("depth"), outcomes)
    verdict = claim.decide(table)
    assert verdict.word == "mixed"
    assert "Holds for 16 layers against 1, before training" in verdict.text
    assert "Does not hold for 16 layers against 1, after training" in verdict.text
    assert claim.beside is not None
    assert "16 0.01" in claim.beside(table)
    assert "all trained" in claim.beside(table)
    assert "did not train: 16" in claim.beside(table.assign(accuracy=0.9 - 0.02 * table["model.depth"]))


def test_a_killed_unit_is_closed_for_ever_and_moves_nothing() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    (layer,) = hidden(model)
    kill([layer], 0.5, torch.Generator().manual_seed(1))
    dead = layer.bias == -1
    assert int(dead.sum()) == 4
    model(torch.randn(50, 3)).square().sum().backward()
    for gradient in (layer.weight.grad, layer.bias.grad):
        assert gradient is not None
        assert not gradient[dead].any()
        assert gradient[~dead].any()


def _outcomes(name: str) -> set[str]:
    """Columns that are measured, not set."""
    rows = rows_of(name)
    told: set[str] = {str(column) for column in filled(rows, CASES[name][0]) if column not in rows}
    told.update(("dead", "born_dead", "died", "accuracy", "seconds"))
    return told
