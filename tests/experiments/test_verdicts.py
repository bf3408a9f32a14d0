"""Decision rules, fed with made-up seeds and tables: each can say yes, no, undecided, and why."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments.contrasts import contrast, level, trend
from experiments.units import POINTS, RATIO, Unit
from experiments.verdicts import Part, find, judge, smallest

SEEDS = 12
NOISE = np.random.default_rng(0).normal(0, 0.01, SEEDS)


def part(effect: float, margin: float = 0.1, *, label: str = "x", within: bool = False) -> Part:
    return Part(label, effect + NOISE, margin, within)


@pytest.mark.parametrize(
    ("effect", "margin", "word"),
    [
        (0.3, 0.1, "supported"),
        (0.1, 0.1, "undecided"),
        (0.0, 0.1, "refuted"),
        (-0.3, 0.1, "refuted"),  # the opposite is no support
        (-0.3, -0.1, "supported"),  # a fall was asked for
        (0.0, -0.1, "refuted"),
        (0.3, -0.1, "refuted"),
    ],
)
def test_an_effect_against_its_margin(effect: float, margin: float, word: str) -> None:
    found = find(part(effect, margin))
    assert found.word == word
    assert found.low <= found.effect <= found.high


@pytest.mark.parametrize(("effect", "word"), [(0.0, "supported"), (0.1, "undecided"), (0.3, "refuted")])
def test_no_effect_is_equivalence(effect: float, word: str) -> None:
    assert find(part(effect, within=True)).word == word
    assert find(part(-effect, within=True)).word == word


def test_absence_of_evidence_is_no_equivalence() -> None:
    wide = Part("x", 20 * NOISE - 20 * NOISE.mean(), 0.05, within=True)
    assert find(wide).word == "undecided"


@pytest.mark.parametrize("seeds", [0, 1, 2, 5])
def test_few_seeds_decide_nothing_however_equal(seeds: int) -> None:
    assert find(Part("x", np.full(seeds, 0.5), 0.1)).word == "undecided"
    assert find(Part("x", np.zeros(seeds), 0.1, within=True)).word in (
        ("undecided", "supported") if seeds == 5 else ("undecided",)
    )


def test_six_seeds_can_decide_and_exact_equality_is_evidence_then() -> None:
    assert find(Part("x", np.zeros(6), 0.1)).word == "refuted"
    assert find(Part("x", np.full(6, 0.5), 0.1)).word == "supported"


def test_pairs_that_are_lost_are_counted_and_a_majority_of_them_decides_nothing() -> None:
    some, most = 0.5 + NOISE, 0.5 + np.random.default_rng(1).normal(0, 0.01, 20)
    some[:3] = np.nan
    most[:12] = np.nan
    found = find(Part("x", some, 0.1))
    assert (found.word, found.seeds, found.lost) == ("supported", 9, 3)
    assert find(Part("x", most, 0.1)).word == "undecided"


def test_the_words_of_a_claim() -> None:
    yes, no, open_ = (
        part(0.3, label="yes"),
        part(0.0, label="no"),
        part(0.1, label="open"),
    )
    assert judge(yes, yes).word == "supported"
    assert judge(no, no).word == "refuted"
    assert judge(yes, no).word == "mixed"
    assert judge(yes, open_).word == "partly open"
    assert judge(no, open_).word == "mixed"
    assert judge(yes, no, open_).word == "mixed"
    assert judge(open_, open_).word == "undecided"
    assert judge(open_).word == "undecided"
    text = judge(yes, no, open_).text
    assert "Holds for yes" in text
    assert "Does not hold for no" in text
    assert "Open for open" in text


def test_what_goes_along_decides_nothing() -> None:
    verdict = judge(part(0.3), also=[part(0.0)])
    assert verdict.word == "supported"
    assert [finding.word for finding in verdict.also] == ["refuted"]


def test_the_level_is_divided_among_the_parts() -> None:
    assert judge(part(0.3)).findings[0].confidence == pytest.approx(0.95)
    assert judge(*[part(0.3)] * 5).findings[0].confidence == pytest.approx(0.99)
    # 8 seeds cannot reach 0.05 / 7: the least p is 2 / 256
    eight = Part("x", 0.5 + NOISE[:8], 0.1)
    assert judge(*[eight] * 6).word == "supported"
    assert judge(*[eight] * 7).word == "undecided"


def test_p_is_of_the_margin_and_unanimity_needs_no_correction() -> None:
    assert judge(part(0.3)).p == pytest.approx(2 / 2**SEEDS)
    assert judge(part(0.3), part(0.3)).p == pytest.approx(2 / 2**SEEDS)
    assert judge(part(0.3), part(0.0)).p == pytest.approx(2 * 2 / 2**SEEDS)


def test_the_effect_that_would_be_found_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(2)
    spread, seeds = 0.05, 12
    distance = float(np.mean([smallest(rng.normal(0, spread, seeds), 0.05) for _ in range(200)]))
    drawn = [rng.normal(0.1 + distance, spread, seeds) for _ in range(300)]
    assert 0.7 < np.mean([find(Part("x", d, 0.1)).word == "supported" for d in drawn]) < 0.9


def test_the_effect_that_would_be_found_in_words() -> None:
    assert find(Part("x", 0.3 + NOISE, 0.1)).finds.startswith("+1")
    assert find(Part("x", -0.3 + NOISE, -0.1)).finds.startswith("-1")
    assert find(Part("x", NOISE, 0.1, within=True)).finds.startswith("within ±")
    assert find(Part("x", 30 * NOISE, 0.1, within=True)).finds == "none"  # too wide for this margin
    assert find(Part("x", np.full(5, 0.5), 0.1)).finds == "none"  # too few seeds for any


def test_dead_or_diverged_counts_a_diverged_run_as_wholly_dead() -> None:
    arms = ({"lr": 1.0}, {"lr": 0.1})
    cells = [(seed, lr, 0.1 + lr / 10, 0.0) for seed in range(8) for lr in (0.1, 1.0)]
    table = pd.DataFrame(cells, columns=pd.Index(["seed", "lr", "dead", "diverged"]))
    assert contrast(table, "dead", *arms, label="x", at_least=0.1).composite is None
    lost = (table["seed"] < 3) & (table["lr"] == 1)
    table.loc[lost, ["dead", "diverged"]] = np.nan, 1.0
    found = find(contrast(table, "dead", *arms, label="x", at_least=0.1))
    assert (found.seeds, found.lost) == (5, 3)
    assert found.composite[0] == pytest.approx((3 * (1 - 0.11) + 5 * 0.09) / 8)
    assert "dead or diverged: +39.0 points" in found.composite_words
    assert (
        find(contrast(table.assign(accuracy=0.5), "accuracy", *arms, label="x", at_most=-0.1)).composite == ()
    )


def test_false_verdicts_are_rare_at_the_margin() -> None:
    """An effect exactly at the margin may be called either way in 5 % of experiments, and no more."""
    rng = np.random.default_rng(5)
    words = [find(Part("x", rng.normal(0.1, 0.05, 8), 0.1)).word for _ in range(400)]
    assert np.mean([word != "undecided" for word in words]) < 0.08


def made_up() -> pd.DataFrame:
    rows = [
        {
            "sweep": "a",
            "seed": seed,
            "optim.lr": lr,
            "data.subset": None,
            "dead": 0.1 + lr / 2 + 0.001 * seed,
            "seconds_op": np.exp(lr),
            "diverged": 0.0,
        }
        for seed in range(8)
        for lr in (0.1, 0.2, 0.4)
    ]
    return pd.DataFrame(rows)


def test_contrasts_are_paired_by_seed() -> None:
    shuffled = made_up().sample(frac=1, random_state=0)
    found = contrast(shuffled, "dead", {"optim.lr": 0.4}, {"optim.lr": 0.1}, label="x", at_least=0.1)
    np.testing.assert_allclose(found.differences, 0.15)
    assert found.baseline == pytest.approx(0.1535)


def test_a_pair_with_a_diverged_run_is_lost_and_not_averaged_around() -> None:
    table = made_up()
    table.loc[(table["seed"] == 3) & (table["optim.lr"] == 0.4), "dead"] = np.nan
    found = contrast(table, "dead", {"optim.lr": 0.4}, {"optim.lr": 0.1}, label="x", at_least=0.1)
    assert np.isnan(found.differences).sum() == 1
    both = contrast(table, "dead", {"sweep": "a"}, {"optim.lr": 0.1}, label="x", at_least=0.1)
    assert np.isnan(both.differences[3])


def test_ratios_are_of_logarithms() -> None:
    found = contrast(
        made_up(),
        "seconds_op",
        {"optim.lr": 0.4},
        {"optim.lr": 0.1},
        label="x",
        at_least=np.log(1.2),
        unit=RATIO,
    )
    np.testing.assert_allclose(found.differences, 0.3)
    assert find(found).words == "×1.35 (×1.35 … ×1.35)"


def test_trend_and_level() -> None:
    slope = trend(made_up(), "dead", "optim.lr", label="x", at_least=0.1)
    np.testing.assert_allclose(slope.differences, 0.15)
    doubling = trend(made_up(), "dead", "optim.lr", label="x", at_least=0.1, log=True, per=1)
    assert doubling.differences == pytest.approx(0.075, abs=0.01)
    apart = level(made_up(), "dead", {"optim.lr": 0.2}, 0.2, label="x", within=0.05)
    np.testing.assert_allclose(apart.differences, 0.001 * np.arange(8))


@pytest.mark.parametrize(
    ("arm", "outcome", "asked", "words"),
    [
        ({"optim.lr": 9}, "dead", {"at_least": 0.1}, "no run has optim.lr=9"),
        ({"optim.rl": 1}, "dead", {"at_least": 0.1}, "no column 'optim.rl'"),
        ({"optim.lr": 0.1}, "died", {"at_least": 0.1}, "no column 'died'"),
        ({"optim.lr": 0.1}, "dead", {}, "exactly one"),
        ({"optim.lr": 0.1}, "dead", {"at_least": 0.1, "within": 0.1}, "exactly one"),
        ({"optim.lr": 0.1}, "dead", {"at_most": 0.1}, "below 0"),
        ({"optim.lr": 0.1}, "dead", {"at_least": -0.1}, "0 or more"),
        ({"optim.lr": 0.1}, "dead", {"within": 0.0}, "above 0"),
    ],
)
def test_wrong_questions_are_refused(arm: dict, outcome: str, asked: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        contrast(made_up(), outcome, arm, {"optim.lr": 0.1}, label="x", **asked)


def test_no_part_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one part"):
        judge()


def test_units_in_words() -> None:
    assert POINTS.change(-0.0) == "+0.0 points"
    assert POINTS.change(float("nan")) == "no value"
    assert Unit("epochs", decimals=1).change(2) == "+2.0 epochs"
    assert Unit("decades per layer").size(0.05) == "0.05 decades per layer"
