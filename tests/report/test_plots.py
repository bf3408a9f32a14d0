"""The figures: what they show is what the tables say, in every look and format."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import report_frames as frames
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from harness.report import plots
from harness.report.images import image, save

DRAWN: dict[str, Callable[[], Figure]] = {
    "rate_map": lambda: plots.rate_map(frames.history()),
    "rate_histogram": lambda: plots.rate_histogram(frames.history()),
    "state_bars": lambda: plots.state_bars(frames.history()),
    "gradients": lambda: plots.gradients(frames.history()),
    "dead_share": lambda: plots.dead_share(frames.history()),
    "lifelines": lambda: plots.lifelines(frames.history()),
    "effects": lambda: plots.effects(frames.effects(), factor="optim.lr"),
    "ranking": lambda: plots.ranking(frames.ranking()),
    "phase": lambda: plots.phase(frames.phase()),
    "dose_response": lambda: plots.dose_response(frames.dose(), frames.critical()),
    "survival": lambda: plots.survival(frames.survival()),
    "dead_over_time": lambda: plots.dead_over_time(frames.over_time()),
    "trade_off": lambda: plots.trade_off(frames.cures()),
    "training": lambda: plots.training(frames.steps()),
    "overlap": lambda: plots.overlap(frames.overlaps()),
    "activation": lambda: plots.activation("relu"),
    "activations": lambda: plots.activations(["relu", "silu", "crelu"]),
}


def words(made: Figure) -> str:
    """All text of a figure, as an SVG holds it."""
    return image(made, "svg").decode()


@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_is_drawn_in_every_look_with_its_caption(name: str) -> None:
    read = plots.caption(name)
    assert read.startswith("Read it as: ")
    assert "\n" not in read
    light = DRAWN[name]()
    assert light.get_label() == read
    assert "Read it as" in words(light)
    with plots.look("dark", captions=False):
        dark = DRAWN[name]()
        assert "Read it as" not in words(dark)
        assert image(dark, "png").startswith(b"\x89PNG")
    assert to_hex(dark.get_facecolor()) == "#14171c"
    assert to_hex(light.get_facecolor()) == "#ffffff"


def test_no_figure_is_left_out() -> None:
    ours = {name for name in plots.CAPTIONS if hasattr(plots, name)}  # experiments have figures of their own
    assert ours == set(DRAWN)
    assert set(DRAWN) <= set(plots.__all__)


def test_the_dead_share_is_that_of_the_censuses_of_the_probe() -> None:
    lines = plots.dead_share(frames.history()).axes[0].lines
    drawn = {str(line.get_label()).split(",")[0]: np.asarray(line.get_ydata()).tolist() for line in lines}
    assert drawn == {"a": [0.25, 0.5, 0.5], "b": [0.0, 0.25, 0.0], "all": [0.125, 0.375, 0.25]}


def test_metrics_over_steps_end_at_their_last_numbers() -> None:
    made = plots.training(frames.steps())
    assert [axis.get_title("left") for axis in made.axes] == ["loss", "accuracy", "margin"]
    assert made.axes[0].get_yscale() == "log"
    assert [len(np.asarray(axis.lines[0].get_xdata())) for axis in made.axes] == [300, 4, 300]
    assert "training batches, 0.02506" in words(made)  # 10 / 399, the last that is finite
    assert "test set, 80.0 %" in words(made)
    with pytest.raises(ValueError, match="neither a loss"):
        plots.training(frames.steps()[["step", "lr"]])


def test_n_and_the_bound_stand_on_the_figure() -> None:
    assert "n = 200 held-out inputs per census" in words(plots.dead_share(frames.history()))
    assert "rate &lt; 1.5 %" in words(plots.dead_share(frames.history()))  # 1 - 0.05 ** (1 / 200)


def test_the_map_is_black_where_units_are_dead_and_sorted_by_the_last_rate() -> None:
    picture = np.asarray(plots.rate_map(frames.history(), site="a").axes[0].images[0].get_array())
    black = (picture[..., :3] == 0).all(axis=2)
    assert black.tolist() == [
        [False, False, False],  # unit 3: 200 of 200 at last
        [False, False, False],  # unit 2
        [False, True, True],  # unit 1 died at 10
        [True, True, True],  # unit 0 was born dead
    ]


def test_the_bars_hold_every_state_and_the_starved_of_the_training_stream() -> None:
    bars = plots.state_bars(frames.history()).axes[0].containers
    share = {str(b.get_label()): [round(p.get_width(), 3) for p in b.patches] for b in bars}  # type: ignore[attr-defined]
    assert share == {
        "dead": [0.5, 0.0],
        "starved": [0.0, 0.25],  # unit 1 of b opens on 5 inputs of training, with gradient 0
        "rare": [0.0, 0.25],
        "active": [0.25, 0.5],
        "always on": [0.25, 0.0],
    }


def test_units_that_came_back_are_the_gap_between_the_lifelines() -> None:
    axis = next(a for a in plots.lifelines(frames.history()).axes if a.get_title(loc="left").startswith("b"))
    never, alive = (np.asarray(line.get_ydata()).tolist() for line in axis.lines)
    assert never == [1.0, 0.75, 0.75]
    assert alive == [1.0, 0.75, 1.0]
    assert axis.get_title(loc="left").endswith("0 born dead, 1 died, 1 revived")


def test_who_is_born_dead_and_dies_again_has_lost_one_first_life() -> None:
    states = {0: ["dead", "active", "dead"], 1: ["active", "active", "dead"], 2: ["active"] * 3}
    rows = [
        {"evidence": "probe", "step": 10 * k, "site": "a", "unit": unit, "n": 9, "state": state}
        for unit, told in states.items()
        for k, state in enumerate(told)
    ]
    never, alive = (
        np.asarray(line.get_ydata()) for line in plots.lifelines(pd.DataFrame(rows)).axes[0].lines
    )
    assert never == pytest.approx([2 / 3, 2 / 3, 1 / 3])
    assert alive == pytest.approx([2 / 3, 1, 1 / 3])


def test_steps_are_logarithmic_where_censuses_crowd_at_the_beginning() -> None:
    def scale(steps: list[int]) -> str:
        row = {"evidence": "probe", "site": "a", "unit": 0, "n": 9, "state": "active"}
        return plots.dead_share(pd.DataFrame([{**row, "step": s} for s in steps])).axes[0].get_xscale()

    assert scale([0, 1, 2, 4, 8, 16, 32, 50, 100, 150, 200, 250]) == "symlog"
    assert scale(list(range(0, 1000, 50))) == "linear"


def test_without_any_gradient_that_is_said() -> None:
    history = frames.history().assign(grad_norm=0.0)
    assert "no unit got any gradient" in words(plots.gradients(history))


def test_what_diverged_is_hatched_and_never_a_number() -> None:
    made = plots.phase(frames.phase())
    hatched = [p for p in made.axes[0].patches if p.get_hatch()]
    assert [(p.get_x(), p.get_y()) for p in hatched] == [(0.5, 0.5)]  # type: ignore[attr-defined]
    texts = [t.get_text() for t in made.axes[0].texts]
    assert sorted(texts) == ["5", "80", "90", "diverged", "×3"]


def test_a_mark_is_filled_where_the_difference_holds() -> None:
    made = plots.effects(frames.effects(), factor="optim.lr")
    filled = {
        (float(x), to_hex(line.get_markerfacecolor()) != "#ffffff")
        for line in made.axes[0].lines
        if str(line.get_marker()) in ("o", "s")
        for x in np.asarray(line.get_xdata(), float)
    }
    assert filled == {(0.02, False), (0.4, True)}
    assert "(6 diverged)" in words(made)


def test_the_ranking_is_sorted_and_interactions_are_hatched() -> None:
    axis = plots.ranking(frames.ranking()).axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == [
        "activation",
        "activation × bias.offset",
        "bias.offset",
    ]
    assert [t.get_text() for t in axis.texts] == ["p < 0.001", "p < 0.05", "not significant"]


def test_many_sites_are_the_ones_with_most_dead_units_and_that_is_said() -> None:
    one = frames.history()
    many = pd.concat([one.assign(site=one["site"] + str(k)) for k in range(10)])
    made = plots.rate_map(many, most=3)
    assert "3 of 20 sites, those with most dead units" in words(made)
    titles = [axis.get_title(loc="left").split("\n")[0] for axis in made.axes]
    assert [title for title in titles if title] == ["a0", "a1", "a2"]
    assert "site, from the input to the output" in words(plots.dead_share(many))


@pytest.mark.parametrize("draw", [plots.rate_map, plots.dead_share, plots.gradients, plots.lifelines])
def test_nothing_to_draw_is_said(draw: Callable[[pd.DataFrame], Figure]) -> None:
    with pytest.raises(ValueError, match="missing: site"):
        draw(frames.history().drop(columns="site"))
    with pytest.raises(ValueError, match="nothing"):
        draw(frames.history().iloc[:0])


def test_unobserved_units_have_no_dead_share() -> None:
    blind = frames.blind(frames.history())
    assert "not observed" in words(plots.rate_map(blind))
    for draw in (plots.lifelines, plots.dead_share):
        with pytest.raises(ValueError, match="no unit was observed"):
            draw(blind)


def test_files_are_written_whole_and_the_same_each_time(tmp_path: Path) -> None:
    made = plots.state_bars(frames.history())
    for suffix in ("png", "svg", "pdf"):
        first = save(made, tmp_path / f"a.{suffix}").read_bytes()
        assert save(plots.state_bars(frames.history()), tmp_path / f"b.{suffix}").read_bytes() == first
    with pytest.raises(ValueError, match=r"\.png, \.svg, \.pdf"):
        save(made, tmp_path / "a.gif")
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".pdf", ".pdf", ".png", ".png", ".svg", ".svg"]


def test_a_theme_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="light, dark"), plots.look("blue"):
        pass


def test_pyplot_is_not_needed() -> None:
    code = "import sys, harness.report.plots; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
