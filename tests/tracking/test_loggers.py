"""What every census says goes to the loggers that people have, and can be read back from them."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import harness
from harness.tracking.loggers import Logger, as_loggers

SENTENCE = (
    "50.0 % of 16 units are dead at step 30 (the limit is 30 %). "
    "Most of them are in 1: 8 of 16, 8 since step 30."
)


def train(steps: int = 40, **options: Any) -> harness.Recorder:
    """Half of the units die at step 15."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with harness.Recorder(model, optimizer=optimizer, census_every=10, **options) as recorder:
        for step in range(steps):
            if step == 20:
                model[0].bias.data[:8] = -50  # pyright: ignore
            model(torch.randn(16, 6)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step()
    return recorder


def test_a_function_takes_every_number() -> None:
    told: dict[tuple[str, int], float] = {}
    train(log_to=lambda name, value, step: told.update({(name, step): value}))
    assert [told["dead_units/dead", step] for step in (10, 20, 30, 40)] == [0, 0, 8, 8]
    assert told["dead_units/died", 40] == 8
    assert told["dead_units/born_dead", 40] == told["dead_units/revived", 40] == 0
    assert told["dead_units/1/dead_fraction", 30] == told["dead_units/dead_fraction", 30] == 0.5


def test_numbers_are_those_of_the_verdict() -> None:
    told: dict[tuple[str, int], float] = {}
    recorder = train(
        log_to=lambda name, value, step: told.update({(name, step): value}), probe=torch.randn(32, 6)
    )
    found = harness.detector.verdict.verdict(recorder.history())  # pyright: ignore[reportAttributeAccessIssue]
    for name in ("dead", "starved", "rare", "born_dead", "died", "revived", "dead_fraction"):
        assert told[f"dead_units/{name}", 40] == getattr(found, name), name


def test_summary_writer(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path))
    train(log_to=writer, alert=0.3)
    writer.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    assert [e.value for e in events.Scalars("dead_units/dead")] == [0, 0, 8, 8]
    assert events.Histograms("dead_units/1/rate")[-1].histogram_value.num == 16
    (picture,) = events.Images("dead_units/rate_map")
    assert picture.width > 200
    texts = {
        tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]
    }
    assert texts["dead_units/alert/text_summary"] == SENTENCE
    assert "8 of 16 units dead" in texts["dead_units/verdict/text_summary"]


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb: Any = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(mode="offline", project="x", dir=str(tmp_path))
    alerts: list[str] = []
    monkeypatch.setattr(type(run), "alert", lambda self, title, text: alerts.append(text))
    train(log_to=run, alert=0.3)
    summary = dict(run.summary)
    run.finish()
    assert summary["dead_units/dead"] == 8
    assert summary["dead_units/step"] == 40
    assert "8 of 16 units dead" in summary["dead_units/verdict"]
    assert alerts == [SENTENCE]
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/dead_units/rate_map*.png"))


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow: Any = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(tmp_path.as_uri())
    mlflow.set_experiment("dead units")
    train(log_to=mlflow, alert=0.3)
    run_id = mlflow.active_run().info.run_id
    mlflow.end_run()
    client = mlflow.MlflowClient()
    train(log_to=(client, run_id), steps=10)  # the same run by its id
    found = client.get_metric_history(run_id, "dead_units/dead")
    assert [(m.step, m.value) for m in found] == [(10, 0), (20, 0), (30, 8), (40, 8), (10, 0)]
    assert client.get_run(run_id).data.tags["dead_units.alert"] == SENTENCE
    names = {file.path for file in client.list_artifacts(run_id, "dead_units")}
    assert {"dead_units/rate_map.png", "dead_units/verdict.txt"} <= names


def test_trainers() -> None:
    from accelerate.tracking import GeneralTracker
    from lightning.pytorch.loggers import CSVLogger

    class Tracker(GeneralTracker):
        name, requires_logging_directory, tracker = "own", False, None

        def __init__(self) -> None:
            super().__init__()
            self.told: list[tuple[float, int | None]] = []

        def store_init_configuration(self, values: dict[str, Any]) -> None: ...

        def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
            self.told.append((values["dead_units/dead"], step))

    tracker, rows = Tracker(), CSVLogger("unused")
    train(log_to=[tracker, rows])
    assert tracker.told == [(0, 10), (0, 20), (8, 30), (8, 40)]
    assert [row["dead_units/dead"] for row in rows.experiment.metrics] == [0, 0, 8, 8]


def test_a_logger_of_ones_own_and_one_that_fails() -> None:
    class Own(Logger):
        def __init__(self) -> None:
            self.rates: list[int] = []

        def histogram(self, name: str, values: np.ndarray, step: int) -> None:
            self.rates.append(len(values))

    own = Own()
    train(log_to=own)
    assert own.rates == [16] * 4

    def broken(name: str, value: float, step: int) -> None:
        raise OSError("no network")

    with pytest.warns(
        UserWarning, match="log_to and alert: switched off after an error; training goes on. OSError"
    ):
        recorder = train(log_to=broken)
    assert recorder.steps == 40


@pytest.mark.parametrize("given", [3, "wandb", object(), [print, 3], sys])
def test_loggers_of_no_known_kind(given: Any) -> None:
    with pytest.raises(TypeError, match="log_to: expected a SummaryWriter, a run of wandb"):
        as_loggers(given)


@pytest.mark.parametrize("condition", [0.3, lambda verdict: verdict.dead > 4], ids=["share", "function"])
def test_an_alert_speaks_once(condition: Any, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("harness").disabled = True  # as after logging.config.dictConfig of somebody else
    with caplog.at_level(logging.WARNING, "harness"):
        recorder = train(alert=condition)
    (record,) = caplog.records
    limit = "" if callable(condition) else " (the limit is 30 %)"
    assert record.getMessage() == SENTENCE.replace(" (the limit is 30 %)", limit)
    assert recorder.should_stop


def test_no_alert_where_nothing_is_crossed(caplog: pytest.LogCaptureFixture) -> None:
    recorder = train(alert=0.6)
    assert not caplog.records
    assert not recorder.should_stop


@pytest.mark.parametrize(
    ("given", "kind"), [(1.5, ValueError), (-0.1, ValueError), ("x", TypeError), (True, TypeError)]
)
def test_conditions_that_are_none(given: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="alert: expected a share"):
        harness.Recorder(nn.ReLU(), alert=given)


def test_a_record_is_saved_drawn_and_shown(tmp_path: Path) -> None:
    recorder = train(evidence=True)
    folder = recorder.save(tmp_path / "saved" / "one", config={"lr": 0.05, "seed": 0})
    (run,) = harness.open_runs(tmp_path / "saved")
    assert run.path == folder
    assert run.census["step"].unique().tolist() == [10, 20, 30, 40]
    assert run.evidence is not None
    assert run.row()["lr"] == 0.05
    assert run.row()["final.died"] == 8
    recorder.save(folder)  # replaced
    assert "lr" not in harness.open_runs(folder)[0].row()
    page = recorder.report(tmp_path / "dead.html").read_text()
    assert "8 of 16 units dead" in page
    assert "harness-tools" not in page
    table = recorder._repr_html_()
    assert "8 of 16 units dead" in table
    assert "<td>0</td>" in table  # the layer that makes the units
    assert recorder.plot.rate_map().get_axes()
    assert recorder.plot.state_bars().get_axes()
    with pytest.raises(RuntimeError, match="before the first census"):
        harness.Recorder(nn.ReLU()).save(tmp_path / "nothing")


def test_a_census_makes_no_table_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table takes longer than a hundred steps of a small network."""
    made: list[str] = []

    class Counted(harness.Recorder):
        @property
        def latest(self):
            made.append("table")
            return super().latest

    monkeypatch.setattr(harness, "Recorder", Counted)
    train()
    assert not made
    train(alert=0.9)
    assert made
