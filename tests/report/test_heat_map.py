"""The heat map of TensorBoard's runs: a colour table and zlib, checked against matplotlib and Pillow."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import report_frames as frames
from PIL import Image

from harness.report.style import rates
from harness.report.tensorboard.heat_map import (
    DEAD,
    PAPER,
    RATES,
    TALL,
    UNKNOWN,
    WIDE,
    heat_map,
    palette,
    png,
)


def drawn(history: pd.DataFrame) -> tuple[np.ndarray, str]:
    found = heat_map(history)
    assert found is not None
    return found


def test_the_colours_are_those_of_the_figures() -> None:
    theirs = 255 * rates()(np.linspace(0, 1, RATES))[:, :3]
    assert np.abs(palette()[:RATES] - theirs).max() < 4
    assert palette()[[DEAD, UNKNOWN, PAPER]].tolist() == [[0, 0, 0], [184, 184, 184], [255, 255, 255]]


def test_a_png_is_what_other_readers_read() -> None:
    places = np.random.default_rng(0).integers(0, 256, (31, 47), np.uint8)
    read = np.asarray(Image.open(io.BytesIO(png(places))).convert("RGB"))
    np.testing.assert_array_equal(read, palette()[places])


def test_each_unit_is_a_line_and_each_census_a_column() -> None:
    places, words = drawn(frames.history())
    assert places.shape == (TALL, 2 * WIDE + 8)
    site_a, site_b = places[:, :WIDE], places[:, -WIDE:]
    corners = site_a[:: TALL // 4, :: WIDE // 3]  # four units, three censuses of the probe
    assert (corners == DEAD).tolist() == [
        [False, False, False],  # unit 3: 200 of 200 at last
        [False, False, False],
        [False, True, True],  # alive at first, so above the one that was born dead
        [True, True, True],
    ]
    assert corners[0, -1] == RATES - 1
    assert (site_b[: TALL // 4, -1] == round((RATES - 1) / 2)).all()  # 100 of 200
    assert words.endswith("over 3 censuses, steps 0 to 20: a (4), b (4).")


def test_what_is_not_known_is_grey_and_nothing_is_nothing() -> None:
    history = frames.history()
    history.loc[history["site"].eq("b"), "state"] = "non_finite"
    assert (drawn(history)[0][:, -WIDE:] == UNKNOWN).all()
    assert heat_map(history.assign(unit=-1)) is None


def test_of_many_sites_those_with_most_dead_units_are_shown() -> None:
    history = frames.history()
    many = [history.assign(site=history["site"] + str(k)) for k in range(6)]
    places, words = drawn(pd.concat(many, ignore_index=True))
    assert places.shape[1] == 8 * WIDE + 7 * 8
    assert "(8 of 12 sites, those with most dead units)" in words
    assert "a5 (4)" in words
    assert "b5" not in words
