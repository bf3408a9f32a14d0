"""The neuron × time map of a run as pixels with a palette, fast enough for every run to have one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd
from PIL import Image

from harness.detector.grid import SILENT, one_evidence
from harness.report.rate_grid import READ, RateGrid, rate_grid

PANELS = 8  # largest number of sites: those with most dead units
TALL, WIDE = 256, 192  # approximate pixels of a panel; more units or censuses are subsampled evenly
GAP = 8
#: matplotlib's viridis without its darkest fifth, as in `report.style.rates`, at 33 points.
COLOURS = bytes.fromhex(
    "4144873e4a893b528b38598c355f8d31668e2f6c8e2c728e2a788e277f8e25848e238a8d21918c1f968b1e9d891fa28723a983"
    "27ad812fb47c38b97742be7150c46a5cc8636ccd5a7ad1518bd6469bd93caadc32bddf26cde11ddfe318efe51cfde725"
)
RATES = 253  # palette entries for rates; the last three are for values without a rate
DEAD, UNKNOWN, PAPER = 253, 254, 255
NONE = ((0, 0, 0), (184, 184, 184), (255, 255, 255))


def heat_map(history: pd.DataFrame) -> tuple[np.ndarray, str] | None:
    """The map of a run, and how to read it; None if nothing was observed.

    Args:
        history: censuses of one run.

    Returns:
        Palette indices (height, width), uint8, one panel per site from left to right; and the words.

    Example:
        >>> rows = {"step": [0, 9], "unit": 0, "rate": [0.5, 0.0], "state": ["active", "dead"]}
        >>> places, words = heat_map(pd.DataFrame({"evidence": "probe", "site": "fc1", **rows}))
        >>> places.shape, palette()[places[0, -1]].tolist(), words[-39:]
        ((256, 192), [0, 0, 0], 'over 2 censuses, steps 0 to 9: fc1 (1).')
    """
    rows = one_evidence(history)
    site, names = pd.factorize(rows["site"])
    kind, states = pd.factorize(rows["state"])
    word = np.array([*states, "unobserved"], object)  # code -1 of a missing state becomes "unobserved"
    columns = [rows[name].to_numpy() for name in ("step", "unit", "rate")]
    columns += [(word == "dead")[kind], ~np.isin(word, SILENT)[kind]]
    site = np.where(columns[1] >= 0, site, -1)
    grids = {
        str(name): rate_grid(*(column[site == k] for column in columns))
        for k, name in enumerate(names)
        if (site == k).any()
    }
    if not grids:
        return None
    shown = _most_dead(grids)
    gap = np.full((TALL, GAP), PAPER, np.uint8)
    parts = [part for name in shown for part in (gap, _panel(grids[name]))]
    return np.concatenate(parts[1:], axis=1), _words(grids, shown)


@cache
def palette() -> np.ndarray:
    """(256, 3) colours: of the rates 0 to 1, then of dead, unknown, and background."""
    anchors = np.frombuffer(COLOURS, np.uint8).reshape(-1, 3)
    at, places = np.linspace(0, RATES - 1, len(anchors)), np.arange(RATES)
    channels = [np.interp(places, at, anchors[:, k]) for k in range(3)]
    return np.concatenate([np.stack(channels, 1).round(), NONE]).astype(np.uint8)


def png(places: np.ndarray) -> bytes:
    """The map as the bytes of a PNG file, compressed little, since flat areas would not gain from more."""
    picture, file = Image.fromarray(places), io.BytesIO()
    picture.putpalette(palette().tobytes())
    picture.save(file, "png", compress_level=1)
    return file.getvalue()


def _most_dead(grids: dict[str, RateGrid]) -> list[str]:
    """The sites to show, in the network's order."""
    by_share = sorted(grids, key=lambda name: -float(grids[name].dead[:, -1].mean()))
    kept = set(by_share[:PANELS])
    return [name for name in grids if name in kept]


def _panel(grid: RateGrid) -> np.ndarray:
    """One site: a row per unit, a column per census, scaled to the size of a panel."""
    unknown = np.isnan(grid.rate)
    places = np.round((RATES - 1) * np.where(unknown, 0.0, grid.rate)).astype(np.uint8)
    places[unknown] = UNKNOWN
    places[grid.dead] = DEAD
    lines, columns = (np.arange(m) * n // m for n, m in zip(places.shape, (TALL, WIDE), strict=True))
    return places[lines][:, columns]


def _words(grids: dict[str, RateGrid], shown: Sequence[str]) -> str:
    first, few = grids[shown[0]].steps, len(shown) < len(grids)
    hidden = f" ({len(shown)} of {len(grids)} sites, those with most dead units)" if few else ""
    sites = ", ".join(f"{name} ({len(grids[name].rate):,})" for name in shown)
    return (
        f"Read it as: {READ} Dark blue = hardly ever open, yellow = always open. "
        f"From left to right{hidden}, with their numbers of units, over {len(first):,} censuses, "
        f"steps {first[0]:,} to {first[-1]:,}: {sites}."
    )
