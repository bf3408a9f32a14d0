"""Reports for everybody: captions, scopes, alternative texts of their own, and colours that stand out."""

from __future__ import annotations

import re
from typing import Any

import pytest
from matplotlib.colors import to_rgb
from stored_runs import full_history, write_run, write_sweep

from harness.report.html import run_report, scan_report, sweep_report
from harness.report.style import OKABE_ITO, STATES, THEMES, text_on
from harness.store.runs import open_runs


def contrast(one: Any, other: Any) -> float:
    """Contrast of two colours, from 1 to 21 (WCAG 2.2)."""
    low, high = sorted(_luminance(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: Any) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("pages")
    run = open_runs(write_run(root / "one", "run", census=full_history(), config={"optim": {"lr": 0.1}}))[0]
    sweep = open_runs(write_sweep(root / "sweep", seeds=4))
    census = run.census
    return {
        "run": run_report(run).html(),
        "sweep": sweep_report(sweep).html(),
        "scan": scan_report(census[census["step"].eq(20) & census["evidence"].eq("stream")]).html(),
    }


@pytest.mark.parametrize("name", ["run", "sweep", "scan"])
def test_every_table_has_a_caption_and_every_head_a_scope(name: str, pages: dict[str, str]) -> None:
    tables = re.findall(r"<table>.*?</table>", pages[name], re.DOTALL)
    assert tables
    for table in tables:
        assert re.search(r"<caption[^>]*>[^<]+</caption>", table), table[:300]
        heads = re.findall(r"<th\b[^>]*>", table)
        assert all(re.search(r'scope="(col|row)"', head) for head in heads)
    captions = re.findall(r"<caption[^>]*>([^<]+)<", pages[name])
    assert len(captions) == len(set(captions))


@pytest.mark.parametrize("name", ["run", "sweep", "scan"])
def test_alternative_texts_are_distinct_and_say_what_is_shown(name: str, pages: dict[str, str]) -> None:
    page = pages[name]
    pictures = re.findall(r'<svg role="img"|<img src="data', page)
    texts = re.findall(r'<svg role="img" aria-label="([^"]*)"|<img [^>]*alt="([^"]*)"', page)
    words = [one or other for one, other in texts]
    assert len(words) == len(pictures) > 0
    assert len(set(words)) == len(words)
    assert len({re.sub(r"^Figure \d+\.", "", text) for text in words}) > len(words) / 2
    for number, text in enumerate(words, 1):
        assert text.startswith(f"Figure {number}. ")
        assert "Read it as: " in text


@pytest.mark.parametrize("name", ["run", "sweep"])
def test_what_scrolls_can_be_reached_by_the_keyboard(name: str, pages: dict[str, str]) -> None:
    assert '<div class="scroll">' not in pages[name]
    assert "<figure>" not in pages[name]


@pytest.mark.parametrize("theme", THEMES)
def test_colours_stand_out_from_the_paper(theme: str) -> None:
    look = THEMES[theme]
    for colour in (look.ink, look.soft):
        assert contrast(colour, look.paper) >= 4.5
    bars = {state: colour for state, (colour, _) in STATES.items()} | {"dead": look.dead}
    for name, colour in bars.items():
        assert contrast(colour, look.paper) >= 3, name
    for colour in OKABE_ITO:
        assert contrast(colour, look.paper) >= 3, colour
    assert contrast(look.on_dead, look.dead) >= 4.5


def test_text_on_a_bar_can_be_read() -> None:
    for state, (colour, hatch) in STATES.items():
        if not hatch:  # no number stands on a hatch
            assert contrast(text_on(colour), colour) >= 4.5, state


def test_bars_of_dead_units_follow_the_readers_colour_scheme(pages: dict[str, str]) -> None:
    page = pages["run"]
    for name in ("dead", "on_dead"):
        variable = f"--{name.replace('_', '-')}"
        assert [f"{variable}: {getattr(look, name)};" in page for look in THEMES.values()] == [True, True]
        assert f"var({variable})" in page
    body = page.partition("<main>")[2]
    assert THEMES["light"].dead not in body


def test_the_pages_own_colours_can_be_read(pages: dict[str, str]) -> None:
    names = ("paper", "ink", "soft", "blue", "wash")
    found = [re.findall(rf"--{name}: (#\w+);", pages["run"]) for name in names]
    for paper, ink, soft, blue, wash in zip(*found, strict=True):
        for text in (ink, soft, blue):
            assert contrast(text, paper) >= 4.5
        for text in (ink, soft):
            assert contrast(text, wash) >= 4.5


def test_black_on_white_has_the_largest_contrast() -> None:
    assert round(contrast("#000000", "#ffffff"), 1) == 21.0
