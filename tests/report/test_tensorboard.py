"""What TensorBoard's own application answers about our folders, asked over its HTTP interface in process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored_runs import full_history, write_run, write_sweep
from tb_app import App
from typer.testing import CliRunner

from harness.config import compose, plan
from harness.console import dashboard_lines
from harness.report.dashboard_command import finish_sweep, rebuild_dashboard
from harness.report.plots import caption
from harness.report.tensorboard import rebuild
from harness.store.runs import open_runs
from harness.sweeps.cohort_job import run_cohort
from harness.sweeps.cohorts import divide
from harness.sweeps.job import run_job
from harness.tools import app as tools

EVERY = {"allowedStatuses": [f"STATUS_{s}" for s in ("SUCCESS", "FAILURE", "RUNNING", "UNKNOWN")]}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> App:
    """A sweep of 18 runs, all of whose views were made from the store."""
    root = write_sweep(tmp_path_factory.mktemp("tb") / "runs")
    assert all(not error for _, error in rebuild_dashboard(open_runs(root), root))
    return App(root)


def sessions(app: App) -> dict[str, dict[str, Any]]:
    """Run → its row of the HParams tab."""
    request = {"experimentName": "", **EVERY, "colParams": [], "startIndex": 0, "sliceSize": 1000}
    answer = app.post("plugin/hparams/session_groups", request)
    return {group["sessions"][0]["name"]: group for group in answer["sessionGroups"]}


def values(app: App, run: str, tag: str) -> dict[int, float]:
    points = app.get("plugin/scalars/scalars", run=run, tag=tag)
    return {int(step): float(value) for _, step, value in points}


def test_every_tab_is_filled_and_there_are_no_runs_beside_ours(sweep: App) -> None:
    listed = sweep.get("plugins_listing")
    filled = {"scalars", "custom_scalars", "images", "distributions", "histograms", "text", "hparams"}
    assert all(listed[name]["enabled"] for name in filled)
    assert len(sweep.get("runs")) == 18 + 1  # the root holds the columns and the charts
    assert "." in sweep.get("runs")


def test_the_columns_are_what_was_swept_and_the_final_numbers(sweep: App) -> None:
    told = sweep.post("plugin/hparams/experiment", {"experimentName": ""})
    columns = {column["name"]: column.get("domainDiscrete") for column in told["hparamInfos"]}
    assert columns == {
        "status": ["diverged", "failed", "finished"],
        "activation.name": ["elu", "relu"],
        "optim.lr": [0.01, 0.1, 1.0],
        "seed": [0.0, 1.0, 2.0],
    }
    assert [metric["displayName"] for metric in told["metricInfos"]] == [
        "dead share",
        "born dead",
        "died",
        "test accuracy",
    ]


def test_every_run_is_a_session_with_its_status_and_no_number_that_it_has_not(sweep: App) -> None:
    rows = sessions(sweep)
    assert len(rows) == 18
    told = {name: (row["hparams"]["status"], row["sessions"][0]["status"]) for name, row in rows.items()}
    assert told["elu-lr1-s0"] == ("diverged", "STATUS_FAILURE")
    assert told["elu-lr1-s1"] == ("failed", "STATUS_FAILURE")
    assert told["relu-lr1-s0"] == ("finished", "STATUS_SUCCESS")
    metrics = {
        name: {m["name"]["tag"]: m["value"] for m in row.get("metricValues", [])}
        for name, row in rows.items()
    }
    assert metrics["relu-lr1-s1"] == pytest.approx(
        {"final/dead": 7 / 8, "final/born_dead": 0.0, "final/died": 7 / 8, "final/accuracy": 0.9 - 7 / 16}
    )
    assert metrics["elu-lr1-s0"] == {}
    assert metrics["elu-lr1-s1"] == {}


def test_one_layout_of_charts_serves_all_runs(sweep: App) -> None:
    layout = sweep.get("plugin/custom_scalars/layout")
    charts = {c["title"]: c["multiline"]["tag"] for category in layout["category"] for c in category["chart"]}
    assert [category["title"] for category in layout["category"]] == ["Dead units", "Training"]
    found = sweep.get(
        "plugin/custom_scalars/scalars", run="relu-lr1-s0", tag=charts["dead share, all units"][0]
    )
    assert list(found["tag_to_events"]) == ["dead/all"]
    layers = charts["dead share, layer by layer"][0]
    found = sweep.get("plugin/custom_scalars/scalars", run="relu-lr1-s0", tag=layers)
    assert sorted(found["tag_to_events"]) == ["dead/a", "dead/b"]


def test_the_dead_share_of_the_censuses_is_drawn(sweep: App) -> None:
    assert values(sweep, "relu-lr1-s0", "dead/all") == pytest.approx({0: 0.0, 10: 0.75, 20: 0.75})
    assert values(sweep, "relu-lr1-s0", "dead/b") == pytest.approx({0: 0.0, 10: 0.5, 20: 0.5})


def test_rate_histograms_have_the_same_bins_in_every_run(sweep: App) -> None:
    for run in ("relu-lr1-s0", "elu-lr0.01-s0"):
        _, step, bins = sweep.get("plugin/histograms/histograms", run=run, tag="rate/b")[-1]
        assert step == 20
        assert sum(count for _, _, count in bins) == pytest.approx(4)
    tags = sweep.get("plugin/histograms/tags")
    assert set(tags["relu-lr1-s0"]) == {"rate/a", "rate/b"}


def test_the_heat_map_is_a_picture_with_its_caption(sweep: App) -> None:
    tags = sweep.get("plugin/images/tags")
    assert set(tags["relu-lr1-s0"]) == {"heat map"}
    assert (
        caption("rate_map").partition(":")[2].strip()[:30] in tags["relu-lr1-s0"]["heat map"]["description"]
    )
    (shown,) = sweep.get("plugin/images/images", run="relu-lr1-s0", tag="heat map", sample="0")
    assert shown["step"] == 20
    assert sweep.get(f"plugin/images/individualImage?{shown['query']}").startswith(b"\x89PNG")


def test_the_verdict_is_a_text(sweep: App) -> None:
    (told,) = sweep.get("plugin/text/text", run="relu-lr1-s0", tag="verdict")
    assert "6 of 8 units dead." in told["text"]


def test_causes_are_a_text_where_they_are_known(tmp_path: Path) -> None:
    path = write_run(tmp_path, "one", census=full_history())
    rebuild(open_runs(path)[0], causes="A step size that is too large.")
    app = App(tmp_path)
    (told,) = app.get("plugin/text/text", run="one", tag="causes")
    assert "step size" in told["text"]
    assert values(app, "one", "starved/all") == pytest.approx({10: 1 / 8, 20: 1 / 8})


def test_a_damaged_run_does_not_keep_the_others_from_their_views(tmp_path: Path) -> None:
    root = write_sweep(tmp_path, seeds=1)
    (root / "relu-lr1-s0" / "census.parquet").write_bytes(b"torn")
    errors = {run.name: error for run, error in rebuild_dashboard(open_runs(root), root, maps=False) if error}
    assert list(errors) == ["relu-lr1-s0"]
    assert len(sessions(App(root))) == 6


def test_rebuilding_twice_leaves_one_file_in_every_folder(tmp_path: Path) -> None:
    root = write_sweep(tmp_path / "here", seeds=1)
    for _ in range(2):
        list(rebuild_dashboard(open_runs(tmp_path), tmp_path, maps=False))
    folders = [tmp_path, root, *(run.path for run in open_runs(root))]
    assert [len(list(folder.glob("events.out.tfevents.*"))) for folder in folders] == [1] * len(folders)


def test_a_runs_own_folder_gets_no_root(tmp_path: Path) -> None:
    path = write_run(tmp_path, "one")
    list(rebuild_dashboard(open_runs(path), path))
    assert not list(tmp_path.glob("events.*"))
    assert len(sessions(App(path))) == 1


def test_at_its_end_a_sweep_has_its_root_and_its_failed_runs(tmp_path: Path) -> None:
    root = write_sweep(tmp_path)
    finish_sweep(root)
    rows = sessions(App(root))
    assert {name: row["hparams"]["status"] for name, row in rows.items()} == {"elu-lr1-s1": "failed"}


def test_live_and_rebuilt_boards_show_the_same(tmp_path: Path) -> None:
    spec = compose([f"output={tmp_path}", "model.width=16", "model.depth=2", "train.max_steps=30"])
    path = run_job(spec).path
    run = open_runs(path)[0]
    live = App(tmp_path)
    tags = sorted(live.get("plugin/scalars/tags")[run.name])
    assert {"loss/train", "loss/test", "accuracy/test", "lr", "dead/all", "dead/layers.0.act"} <= set(tags)
    assert {"final/dead", "final/born_dead", "final/died", "final/accuracy"} <= set(tags)
    loss = dict(zip(run.steps["step"], run.steps["loss"], strict=True))
    assert values(live, run.name, "loss/train") == pytest.approx(loss)
    probe = run.census[run.census["evidence"] == "probe"]
    dead = (probe["state"] == "dead").groupby(probe["step"]).mean().to_dict()
    assert values(live, run.name, "dead/all") == pytest.approx(dead)
    before = {tag: values(live, run.name, tag) for tag in tags}
    assert sessions(live)[run.name]["sessions"][0]["status"] == "STATUS_SUCCESS"
    rebuild(run)
    again = App(tmp_path)
    assert sorted(again.get("plugin/scalars/tags")[run.name]) == tags
    assert {tag: values(again, run.name, tag) for tag in tags} == before
    assert np.isfinite(list(before["dead/all"].values())).all()


def test_a_run_on_its_own_has_its_charts_and_a_short_row(tmp_path: Path) -> None:
    spec = compose([f"output={tmp_path}", "model.width=16", "train.max_steps=30"])
    path = run_job(spec).path
    keys = {"status", "data.name", "model.name", "activation.name", "optim.name", "optim.lr", "seed"}
    for folder, name in ((tmp_path, path.name), (path, ".")):
        app = App(folder)
        assert app.get("runs") == [name]
        assert [category["title"] for category in app.get("plugin/custom_scalars/layout")["category"]]
        (row,) = sessions(app).values()
        assert set(row["hparams"]) == keys | {"model.width", "train.max_steps"}
        assert set(app.get("plugin/images/tags")[name]) == {"heat map"}


def test_members_of_a_cohort_are_seen_while_they_train(tmp_path: Path) -> None:
    small = ["model.width=16", "train.max_steps=40", "record.census_every=10", "record.early=false"]
    specs = plan([*small, "optim.lr=0.1,1e4", "seed=0,1", f"output={tmp_path}"], multirun=True)
    (task,) = divide(specs)
    seen: dict[str, dict[int, float]] = {}

    def look(step: int) -> None:
        if step == 25:
            app = App(tmp_path)
            seen.update({run: values(app, run, "dead/all") for run in app.get("runs")})

    run_cohort(task, look)
    app = App(tmp_path)
    for run in open_runs(tmp_path):
        shown = values(app, run.name, "dead/all")
        probe = run.census[run.census["evidence"] == "probe"]
        assert shown == pytest.approx((probe["state"] == "dead").groupby(probe["step"]).mean().to_dict())
        assert seen[run.name] == {step: share for step, share in shown.items() if step <= 25}
        loss = run.steps.set_index("step")["loss"].to_dict()
        assert values(app, run.name, "loss/train") == pytest.approx(loss, nan_ok=True)
        assert set(app.get("plugin/images/tags")[run.name]) == {"heat map"}
        assert sessions(app)[run.name]["hparams"]["status"] == run.state
    assert set(open_runs(tmp_path).table["status"]) == {"finished", "diverged"}


def test_where_runs_have_to_be_ticked_it_is_said(tmp_path: Path) -> None:
    root = write_sweep(tmp_path, seeds=7)  # 42 runs
    done = CliRunner().invoke(tools, ["dashboard", str(root), "--no-maps"])
    assert "tick some on the left" in done.output
    first = App(root).get("plugin/custom_scalars/layout")["category"][0]
    assert "tick some on the left" in first["title"]
    assert "tick some on the left" in dashboard_lines(str(root))
    assert dashboard_lines(str(tmp_path / "none")) == f"dashboard   tensorboard --logdir {tmp_path / 'none'}"
