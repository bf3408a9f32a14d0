"""What TensorBoard reads back from a run's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from harness.config import compose
from harness.report.tensorboard import rebuild
from harness.store.runs import open_runs
from harness.sweeps.job import run_job


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def test_live_and_rebuilt_boards_show_the_same(tmp_path: Path) -> None:
    spec = compose([f"output={tmp_path}", "model.width=16", "model.depth=2", "train.max_steps=30"])
    path = run_job(spec).path
    run = open_runs(path)[0]
    shown = read(path)
    tags = set(shown.Tags()["scalars"])
    assert {"loss/train", "loss/test", "accuracy/test", "lr", "dead/all", "dead/layers.0.act"} <= tags
    assert set(shown.Tags()["images"]) == {"heat map/layers.0.act", "heat map/layers.1.act"}
    assert shown.Tags()["tensors"] == ["verdict/text_summary"] or "verdict" in shown.Tags()["tensors"]
    loss = {event.step: event.value for event in shown.Scalars("loss/train")}
    assert loss == pytest.approx(dict(zip(run.steps["step"], run.steps["loss"], strict=True)))
    probe = run.census[run.census["evidence"] == "probe"]
    dead = {event.step: event.value for event in shown.Scalars("dead/all")}
    assert dead == pytest.approx((probe["state"] == "dead").groupby(probe["step"]).mean().to_dict())
    last = shown.Histograms("rate/layers.0.act")[-1].histogram_value
    rates = probe[(probe["site"] == "layers.0.act") & (probe["step"] == 30)]["rate"]
    assert last.num == 16
    assert last.sum == pytest.approx(rates.sum())
    live = {tag: [(e.step, e.value) for e in shown.Scalars(tag)] for tag in tags}
    rebuild(run)
    assert len(list(path.glob("events.out.tfevents.*"))) == 1
    again = read(path)
    assert {tag: [(e.step, e.value) for e in again.Scalars(tag)] for tag in again.Tags()["scalars"]} == live
    assert np.isfinite(last.sum)
