"""The HTML reports: whole, alone, escaped, honest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import report_frames as frames
from read_pages import Found, Reader, checked, diagnose
from stored_runs import EVIL, full_history, write_run

from harness.config import compose, to_mapping
from harness.detector.states import Thresholds, classify
from harness.report import plots
from harness.report.html import run_report, scan_report
from harness.report.html.page import Code, Link, Page, Section, Table, Tiles, Words
from harness.report.html.pictures import picture
from harness.report.report_command import stored_diagnosis
from harness.store.folder import RunFolder
from harness.store.locks import lock_of
from harness.store.runs import open_runs


def refuse(run: Any) -> Found:
    raise ValueError("the run kept no evidence; train it with record.evidence=true")


def test_a_runs_report_begins_with_its_verdict(tmp_path: Path) -> None:
    path = write_run(tmp_path, "one", census=full_history(), config={"optim": {"lr": 0.1}})
    page = run_report(open_runs(path)[0], diagnose=diagnose)
    read = checked(page)
    assert page.sections[0].title == "Verdict"
    assert (
        "2 of 8 units dead at the end (25.0 %; n = 200 on the held-out probe, rate < 1.5 %). 1 was born dead"
        in read.text
    )
    assert "2 of 8 units died in one update." in read.text
    assert "site step size bias init a 2 0 b 0 1" in read.text
    assert "optim.lr 0.1" in read.text
    assert read.tags["figure"] == 8
    assert EVIL in read.text  # as text, not as a script


def test_without_a_diagnosis_a_plain_sentence_stands_there(tmp_path: Path) -> None:
    run = open_runs(write_run(tmp_path, "one"))[0]
    assert "no diagnosis was asked for" in checked(run_report(run)).text
    assert "No cause is named: the run kept no evidence" in checked(run_report(run, diagnose=refuse)).text


def test_the_cause_and_the_next_step_stand_under_the_verdict(tmp_path: Path) -> None:
    path = write_run(tmp_path, "one", census=full_history())
    first = run_report(open_runs(path)[0], diagnose=diagnose).sections[0]
    said = [block.text for block in first.blocks if isinstance(block, Words | Code)]
    assert said[1:3] == [
        "Cause: step_size (steps that were too long).",
        "Next: Lower the learning rate.",
    ]
    assert said[3].startswith(f"harness-tools confirm {path} ")
    first = run_report(open_runs(path)[0], diagnose=refuse).sections[0]
    said = [block.text for block in first.blocks if isinstance(block, Words | Code)]
    assert said[1:] == ["Next: find the cause.", f"harness-tools diagnose {path}"]
    healthy = run_report(open_runs(path)[0], diagnose=refuse, healthy=0.5).sections[0]
    assert len([block for block in healthy.blocks if isinstance(block, Words | Code)]) == 1


def test_of_a_loop_of_ones_own_nothing_is_said_that_only_ours_can_do(tmp_path: Path) -> None:
    path = write_run(tmp_path, "one", census=full_history(), config={"lr": 0.1, "bias": -1})
    RunFolder(path).write_status("finished", recorder=True)
    text = checked(run_report(open_runs(path)[0], diagnose=diagnose)).text
    assert f"harness-tools confirm {path}" not in text
    assert "force=true" not in text
    assert "differs from the default" not in text
    assert "its own script trains it again" in text
    assert "key value seed 0 lr 0.1 bias -1" in text
    assert (
        "this run kept no evidence. harness.Recorder(…, evidence=True)"
        in checked(run_report(open_runs(path)[0], diagnose=stored_diagnosis)).text
    )


def test_what_differs_from_the_defaults_comes_first_and_the_command_says_it_all(tmp_path: Path) -> None:
    spec = compose(["optim=adam", "bias.offset=-1", f"output={tmp_path}"])
    path = write_run(tmp_path, "one", census=full_history(), config=to_mapping(spec))
    text = checked(run_report(open_runs(path)[0])).text
    assert "differs from the default value default bias.offset -1 0 optim.name adam sgd The other" in text
    command = f"harness optim=adam bias.offset=-1.0 output={tmp_path} force=true"
    assert command in text
    assert compose(command.split()[1:-1]) == spec


def test_an_interrupted_run_did_not_fail_and_a_killed_one_does_not_run(tmp_path: Path) -> None:
    path = write_run(tmp_path, "one", state="interrupted", error="KeyboardInterrupt:")
    assert "The run was interrupted: KeyboardInterrupt:" in checked(run_report(open_runs(path)[0])).text
    path = write_run(tmp_path, "two", state="running")
    with lock_of(path):
        assert "status: running ·" in checked(run_report(open_runs(path)[0])).text
    assert "status: interrupted (its process ended" in checked(run_report(open_runs(path)[0])).text


@pytest.mark.parametrize("table", ["census", "steps", "events"])
def test_a_damaged_table_costs_its_own_section(table: str, tmp_path: Path) -> None:
    path = write_run(tmp_path, "one", census=full_history())
    (path / f"{table}.parquet").write_bytes(b"torn")
    text = checked(run_report(open_runs(path)[0], diagnose=diagnose)).text
    assert f"The table {table} cannot be read" in text
    assert ("2 of 8 units dead at the end" in text) == (table != "census")
    assert "Settings" in text


def test_no_two_numbers_of_a_report_contradict_each_other(tmp_path: Path) -> None:
    """Units that are not finite are among the observed, in the sentence as in every figure and table."""
    history = full_history()
    lost = history["site"].eq("b") | (history["site"].eq("a") & history["unit"].eq(3))
    history = classify(history.assign(non_finite=np.where(lost & history["step"].eq(20), 5, 0)))
    path = write_run(tmp_path, "one", census=history)
    text = checked(run_report(open_runs(path)[0])).text
    assert "2 of 8 units dead at the end (25.0 %; n = 200 on the held-out probe" in text
    assert "25.0 % at the end" in text
    assert "a 50.0 % dead" in text
    assert "66.7" not in text  # 2 of the 3 that are finite
    assert "not finite" in text


def test_thresholds_can_be_changed(tmp_path: Path) -> None:
    run = open_runs(write_run(tmp_path, "one", census=full_history()))[0]
    read = checked(run_report(run, thresholds=Thresholds(rare=0.3, confidence=0.99), healthy=0.3))
    verdict = "2 of 8 units dead at the end (25.0 %; n = 200 on the held-out probe, rate < 2.3 %)"
    assert f"Healthy: {verdict}" in read.text  # 1 - 0.01 ** (1 / 200)
    assert "with 99 % confidence, below 1 − 0.01^(1/n)" in read.text
    assert "with a rate below 30 %" in read.text
    assert read.text.count("rate < 2.3 %") == 4  # the verdict, and the three figures that say n
    assert "rate < 1.5 %" not in read.text


def test_a_run_without_censuses_makes_no_statement(tmp_path: Path) -> None:
    run = open_runs(write_run(tmp_path, "one", state="failed", error=f"RuntimeError: {EVIL}"))[0]
    read = checked(run_report(run))
    assert "no statement about dead units" in read.text
    assert f"The run failed: RuntimeError: {EVIL}" in read.text


def test_figures_without_data_are_sentences(tmp_path: Path) -> None:
    read = checked(run_report(open_runs(write_run(tmp_path, "one", dead=0))[0]))
    assert (
        "Not drawn: no gradient norm was recorded" in read.text or "Not drawn: there is nothing" in read.text
    )
    assert "Not drawn: no two censuses with dead units" in read.text


def test_a_diverged_run_says_so_first(tmp_path: Path) -> None:
    read = checked(run_report(open_runs(write_run(tmp_path, "one", state="diverged"))[0]))
    assert "Diverged: the loss was not finite at step 20." in read.text


def test_a_scans_report() -> None:
    census = frames.history()
    census = census[(census["evidence"] == "stream") & (census["step"] == 20)]
    blind = pd.DataFrame(
        {"evidence": "stream", "step": 20, "site": EVIL, "unit": [-1], "n": 0, "active": 0, "rate": np.nan}
    )
    census = classify(pd.concat([census, blind.assign(non_finite=0)], ignore_index=True))
    read = checked(scan_report(census, title=EVIL))
    assert "2 of 8 units dead (25.0 %; n = 64" in read.text
    assert f"Not observed, so without any statement: {EVIL}." in read.text
    assert "unobserved" in read.text


def test_pages_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Page("t", "s", [Section("x", [Words("first")])]).write(tmp_path / "r.html")
    broken = Page("t", "s", [Section("x", [Table(["a"], None)])])  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        broken.write(path)
    assert "first" in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_every_text_is_escaped() -> None:
    page = Page(
        EVIL,
        EVIL,
        [
            Section(
                EVIL, [Words(EVIL, "lead"), Tiles([(EVIL, EVIL)]), Table([EVIL], [[EVIL], [Link(EVIL, "x")]])]
            )
        ],
    )
    assert "<script" not in page.html()
    assert Reader(page.html()).text.count(EVIL) == 10


def test_a_heavy_figure_is_two_pngs_for_two_colour_schemes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.report.html.pictures.HEAVY", 0)
    monkeypatch.setattr("harness.report.html.pictures.SHARP", 5)
    shown = picture(lambda: plots.activations(["relu"] * 12))
    assert shown.markup.startswith("<picture><source srcset=")
    assert shown.markup.count("data:image/png;base64,") == 2
    assert "not print" in shown.markup


def test_inline_figures_follow_the_page() -> None:
    markup = picture(lambda: plots.dead_share(frames.history())).markup
    assert "var(--ink)" in markup
    assert "var(--paper)" in markup
    assert "#1b1f24" not in markup.lower()
    assert picture(lambda: plots.dead_share(frames.history())).markup == markup
