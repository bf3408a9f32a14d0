"""The HTML reports of sweeps compare, and leave nothing out."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from read_pages import checked, diagnose
from stored_runs import EVIL, write_run, write_sweep

from harness.report.html import sweep_report
from harness.report.html.sweep import telling
from harness.store.runs import open_runs


def test_a_sweeps_report_compares_and_leaves_nothing_out(tmp_path: Path) -> None:
    root = write_sweep(tmp_path / "a sweep", seeds=4)
    page = sweep_report(open_runs(root), title="24 runs", home=root, diagnose=diagnose)
    read = checked(page)
    titles = [section.title for section in page.sections if section.blocks]
    assert titles == [
        "Verdict",
        "What matters",
        "What each factor changes",
        "Phase diagrams",
        "Along a setting",
        "When units die",
        "Every unit of the most telling runs",
        "Causes",
        "Best and worst runs",
        "Every setting",
        "Method and definitions",
    ]
    assert "22 finished, 1 diverged" in read.text
    assert "1 failed" in read.text
    assert f"elu-lr1-s1: RuntimeError: {EVIL}" in read.text
    links = [link for link in read.links if not link.startswith("#")]
    assert {"relu-lr1-s1", "elu-lr1-s0", "elu-lr1-s1"} <= set(links)
    assert all((root / link).is_dir() for link in links)
    assert "seeds as blocks" in read.text


def test_links_lead_from_wherever_the_report_lies(tmp_path: Path) -> None:
    root = write_sweep(tmp_path / "a sweep", seeds=2)
    elsewhere = tmp_path / "reports"
    elsewhere.mkdir()
    links = checked(sweep_report(open_runs(root), home=elsewhere)).links
    assert "../a%20sweep/relu-lr1-s1" in links


def test_what_never_finished_is_no_zero_in_the_tables(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    for seed in range(2):
        write_run(root, f"x-s{seed}", state="diverged", config={"seed": seed, "optim": {"lr": 1.0}})
        write_run(root, f"y-s{seed}", dead=4, config={"seed": seed, "optim": {"lr": 0.1}})
    read = checked(sweep_report(open_runs(root)))
    assert re.search(r"1 2 0 2 0 – – – – – –", read.text)  # lr 1: 2 runs, 0 finished, 2 diverged, 0 failed
    assert "50.0 %" in read.text


@pytest.mark.parametrize("state", ["diverged", "failed", "finished"])
def test_a_sweep_of_seeds_alone_or_of_nothing_finished_still_has_a_report(tmp_path: Path, state: str) -> None:
    for seed in range(3):
        write_run(
            tmp_path, f"s{seed}", state=state, config={"seed": seed}, error="x" if state == "failed" else None
        )
    read = checked(sweep_report(open_runs(tmp_path)))
    assert f"3 {state}" in read.text
    assert "Nothing but the seed varies" in read.text


def test_all_diverged_under_several_settings(tmp_path: Path) -> None:
    for lr in (1.0, 10.0):
        write_run(tmp_path, f"lr{lr}", state="diverged", config={"optim": {"lr": lr}})
    assert "2 diverged" in checked(sweep_report(open_runs(tmp_path))).text


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    read = checked(sweep_report(open_runs(write_sweep(tmp_path, seeds=1))))
    assert "no interval" in read.text


def test_the_telling_runs_are_the_worst_the_one_with_most_deaths_and_the_best() -> None:
    frame = pd.DataFrame(
        {
            "run": list("abcd"),
            "dead": [0.5, 0.9, 0.1, np.nan],
            "died": [0.4, 0.0, 0.1, np.nan],
            "accuracy": [0.5, 0.1, 0.9, np.nan],
        }
    )
    assert telling(frame) == {"Most dead units": "b", "Most deaths": "a", "Fewest dead units": "c"}
    assert telling(frame.tail(1)) == {}
