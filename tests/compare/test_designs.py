"""Designs in which factors hang together, settings are null, runs are damaged, or curves come back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from harness.compare import critical, effects, outcomes, ranking
from harness.compare.design import held
from harness.compare.summary_text import crossing, importance, largest_effect, within_notes


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    return table.assign(run=[f"run{k}" for k in range(len(table))], status="finished")


def nested() -> pd.DataFrame:
    """Each optimizer has learning rates of its own."""
    rates, noise = {"sgd": [0.01, 0.03], "adam": [0.1, 0.3]}, np.random.default_rng(0)
    return frame(
        [
            {
                "optim.name": name,
                "optim.lr": lr,
                "seed": seed,
                "dead": 0.1 + 0.8 * (name == "adam") + 0.05 * k + noise.normal(0, 0.005),
            }
            for name, values in rates.items()
            for k, lr in enumerate(values)
            for seed in range(8)
        ]
    )


def test_a_factor_is_not_explained_away_by_one_that_determines_it() -> None:
    table = ranking(nested()).set_index("term")["share"]
    dead = nested().groupby(["optim.name", "optim.lr"])["dead"].mean()
    total = nested()["dead"].var(ddof=0)
    by_optimizer = dead.groupby("optim.name").transform("mean")
    assert np.isclose(table["optim.name"], by_optimizer.var(ddof=0) / total)
    assert np.isclose(table["optim.lr"], (dead - by_optimizer).var(ddof=0) / total)
    ranked = ranking(nested())
    assert importance(ranked).startswith("The dead share depends most on optim (")
    assert within_notes(ranked.attrs["within"]) == [
        "optim.lr has other values at each optim: its share is that within them."
    ]


def test_no_difference_is_stated_where_other_factors_differ_too() -> None:
    (text,) = largest_effect(effects(nested(), "optim.lr", outcomes=["dead"]))
    assert text.startswith("Dead share, optim.lr=0.03 against 0.01:")
    assert text.endswith(
        "2 differences not given (other factors differ too between optim.lr=0.3 and optim.lr=0.01)."
    )


def test_the_largest_share_is_named_though_another_term_alone_is_beyond_chance() -> None:
    ranked = pd.DataFrame(
        {"term": ["a", "b × c"], "share": [0.5, 0.04], "p": [0.1, 0.01], "p_adjusted": [0.1, 0.02]}
    )
    ranked.attrs |= {"used": 8, "runs": 8, "seeds": 4}
    assert importance(ranked) == (
        "The largest share of the variance of the dead share goes with a (50 %), which no test over 4 seeds "
        "tells from chance (adjusted p = 0.1); beyond chance it depends on b × c (4 % of its variance)."
    )


def clipped(lost: bool) -> pd.DataFrame:
    """Clipping decides; without it, the smallest batches diverge."""
    table = frame(
        [
            {
                "train.batch_size": size,
                "train.clip_grad": clip,
                "seed": s,
                "dead": (0.1 if clip else 0.8) + s / 100,
            }
            for size in (8, 32, 128)
            for clip in (None, 1.0)
            for s in range(4)
        ]
    )
    table["train.clip_grad"] = (
        table["train.clip_grad"].astype(object).where(table["train.clip_grad"].notna(), None)
    )
    gone = table["train.batch_size"].eq(8) & table["train.clip_grad"].isna() & lost
    return table.assign(status=np.where(gone, "diverged", "finished"), dead=table["dead"].mask(gone))


def test_null_is_a_value_that_is_held_fixed() -> None:
    table = clipped(lost=True)
    assert held(table, "train.batch_size") == (["train.clip_grad"], [])
    found = effects(table, "train.batch_size", outcomes=["dead"])
    assert np.allclose(found["difference"], 0)
    assert found["note"].tolist() == ["4 of 8 pairs have both outcomes"] * 2


def test_a_setting_that_only_one_level_has_is_not_held_fixed() -> None:
    rows = [("relu", None), ("leaky_relu", 0.01), ("leaky_relu", 0.1)]
    table = frame(
        [
            {"activation.name": a, "activation.slope": s, "seed": k, "dead": 0.0}
            for a, s in rows
            for k in (0, 1)
        ]
    )
    table["activation.slope"] = (
        table["activation.slope"].astype(object).where(table["activation.slope"].notna(), None)
    )
    assert held(table, "activation.name") == ([], ["activation.slope"])


def test_a_configuration_that_was_cut_off_is_left_out() -> None:
    table = clipped(lost=False)
    whole = outcomes(table.assign(**{"optim.lr": 0.1}))
    table = table.assign(**{"optim.lr": 0.1})
    table.loc[0, ["status", "optim.lr", "dead"]] = ["damaged", np.nan, np.nan]
    cut = outcomes(table)
    assert cut["run"].tolist() == whole["run"].tolist()[1:]
    assert list(cut.columns) == list(whole.columns)
    table.loc[0, "optim.lr"] = 0.1  # its status alone is damaged
    assert len(outcomes(table)) == len(table)


def curve(*means: float) -> pd.DataFrame:
    rates = [0.01, 0.03, 0.1, 0.3, 1.0][: len(means)]
    return frame(
        [
            {"optim.lr": lr, "seed": s, "dead": mean + 0.001 * s}
            for lr, mean in zip(rates, means, strict=True)
            for s in range(4)
        ]
    )


def test_a_curve_that_comes_back_has_no_critical_value_in_words() -> None:
    (back,) = crossing(critical(curve(0.2, 0.9, 0.1, 0.2, 0.95), "optim.lr"))
    assert (
        back
        == "A dead share of 50 % is crossed along optim.lr, but not just once: there is no critical value."
    )
    settings = [
        curve(0.2, 0.3, 0.4, 0.7, 0.9),
        curve(0.6, 0.4, 0.3, 0.7, 0.9),
        curve(0.8, 0.8, 0.8, 0.8, 0.8),
    ]
    table = pd.concat(
        [one.assign(**{"bias.offset": -k}) for k, one in enumerate(settings)], ignore_index=True
    )
    found = critical(table, "optim.lr", ["bias.offset"])
    assert found.set_index("bias.offset")["crossings"].to_dict() == {0: 1, -1: 2, -2: 0}
    (text,) = crossing(found)
    assert text.startswith("A dead share of 50 % is reached above optim.lr ≈ ")
    assert text.endswith(
        "in 1 of 3 settings of the other factors (1 always above, 1 crossed more than once)."
    )
