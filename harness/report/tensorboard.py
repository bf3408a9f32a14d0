"""TensorBoard's view of a run, from the rows of its tables: live while it trains, or rebuilt afterwards.

Tags: loss/…, accuracy/…, lr; dead/all, dead/<site>, died, revived; rate/<site> (histogram of the units'
activation rates); heat map/<site> (neuron × time); verdict (text).
"""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from harness.detector.lifetimes import one_evidence
from harness.detector.states import dead_fraction
from harness.report.plots import rate_map
from harness.store.runs import Run

# generated modules, whose names no type checker sees
Event: Any = vars(event_pb2)["Event"]
HistogramProto: Any = vars(summary_pb2)["HistogramProto"]
Summary: Any = vars(summary_pb2)["Summary"]
SummaryMetadata: Any = vars(summary_pb2)["SummaryMetadata"]
TensorProto: Any = vars(tensor_pb2)["TensorProto"]
TensorShapeProto: Any = vars(tensor_shape_pb2)["TensorShapeProto"]
DT_STRING: int = vars(types_pb2)["DT_STRING"]

BINS = np.linspace(0.0, 1.0, 31)  # of the rate histograms: fixed, so that runs can be compared
MAPS = 8  # heat maps are drawn at the end; more sites than this share the largest ones


class RunBoard:
    """Writes one event file into a run's folder (a Listener of `harness.training.journal`).

    Args:
        folder: of the run; event files of an earlier attempt are removed.
    """

    def __init__(self, folder: Path) -> None:
        for stale in folder.glob("events.out.tfevents.*"):
            stale.unlink()
        self._writer = EventFileWriter(str(folder))

    def tick(self, step: int) -> None:
        """Nothing to show at every step."""

    def steps(self, rows: pd.DataFrame) -> None:
        """Scalars of every step."""
        for row in rows.to_dict("records"):
            values = {
                "loss/train": row["loss"],
                "accuracy/train": row["accuracy"],
                "lr": row["lr"],
                "loss/test": row["test_loss"],
                "accuracy/test": row["test_accuracy"],
            }
            self._scalars(
                int(row["step"]), {k: v for k, v in values.items() if not np.isnan(v) or k == "loss/train"}
            )

    def census(self, rows: pd.DataFrame) -> None:
        """Dead shares and rate histograms of a census."""
        step = int(rows["step"].iloc[0])
        seen = one_evidence(rows)
        seen = seen[seen["unit"] >= 0]
        if seen.empty:
            return
        scalars = {"dead/all": dead_fraction(seen)}
        stream = rows[(rows["evidence"] == "stream") & (rows["unit"] >= 0)]
        if len(stream):
            scalars["starved/all"] = float((stream["state"] == "starved").mean())
        values = []
        for site, units in seen.groupby("site", sort=False):
            scalars[f"dead/{site}"] = dead_fraction(units)
            rates = units["rate"].dropna().to_numpy()
            if len(rates):
                values.append(Summary.Value(tag=f"rate/{site}", histo=_histogram(rates)))
        self._scalars(step, scalars)
        self._write(step, Summary(value=values))

    def maps(self, history: pd.DataFrame) -> None:
        """The neuron × time heat map of the largest sites."""
        seen = one_evidence(history)
        seen = seen[seen["unit"] >= 0]
        if seen.empty:
            return
        step = int(seen["step"].max())
        sizes = seen.groupby("site", sort=False)["unit"].max().sort_values(ascending=False)
        for site in [s for s in seen["site"].unique() if s in set(sizes.index[:MAPS])]:
            figure = rate_map(seen, site=str(site))
            self._write(step, Summary(value=[Summary.Value(tag=f"heat map/{site}", image=_png(figure))]))

    def text(self, tag: str, markdown: str, step: int) -> None:
        """A text that the Text tab shows."""
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype=DT_STRING, string_val=[markdown.encode()], tensor_shape=shape)
        self._write(step, Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)]))

    def close(self) -> None:
        """Flush to disk."""
        self._writer.close()

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        self._write(step, Summary(value=[Summary.Value(tag=k, simple_value=v) for k, v in values.items()]))

    def _write(self, step: int, summary: Any) -> None:
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))


def rebuild(run: Run, *, maps: bool = True, verdict: str | None = None, steps: int = 0) -> None:
    """Write a run's event file anew from its tables.

    Args:
        run: on disk.
        maps: whether to draw the heat maps, which take longest.
        verdict: in words, and
        steps: completed, where the status does not tell yet.
    """
    board = RunBoard(run.path)
    rows, history = run.steps, run.census
    if len(rows):
        board.steps(rows)
    for _, census in history.groupby("step", sort=True):
        board.census(census)
    if len(history) and maps:
        board.maps(history)
    verdict = verdict or run.status.get("verdict")
    if verdict:
        board.text("verdict", verdict, steps or int(run.status.get("steps", 0)))
    board.close()


def _histogram(rates: np.ndarray) -> Any:
    counts, _ = np.histogram(rates, BINS)
    return HistogramProto(
        min=float(rates.min()),
        max=float(rates.max()),
        num=len(rates),
        sum=float(rates.sum()),
        sum_squares=float((rates**2).sum()),
        bucket_limit=BINS[1:].tolist(),
        bucket=counts.tolist(),
    )


def _png(figure: Figure) -> Any:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    width, height = (int(v) for v in figure.get_size_inches() * figure.dpi)
    return Summary.Image(encoded_image_string=buffer.getvalue(), width=width, height=height, colorspace=3)
