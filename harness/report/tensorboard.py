"""TensorBoard's view of a run, from the rows of its tables: live while it trains, or rebuilt afterwards.

Tags: loss/…, accuracy/…, lr; dead/all, dead/<site>, died, revived; rate/<site> (histogram of the units'
activation rates); heat map/<site> (neuron × time); verdict (text).
"""

from __future__ import annotations

import io
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from harness.detector.lifetimes import one_evidence
from harness.detector.states import dead_share
from harness.store.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# generated modules, whose names no type checker sees
Event: Any = vars(event_pb2)["Event"]
HistogramProto: Any = vars(summary_pb2)["HistogramProto"]
Summary: Any = vars(summary_pb2)["Summary"]
SummaryMetadata: Any = vars(summary_pb2)["SummaryMetadata"]
TensorProto: Any = vars(tensor_pb2)["TensorProto"]
TensorShapeProto: Any = vars(tensor_shape_pb2)["TensorShapeProto"]
DT_STRING: int = vars(types_pb2)["DT_STRING"]

STEP_TAGS = ("loss/train", "accuracy/train", "lr", "loss/test", "accuracy/test")
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
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("wb")
        self._records = RecordWriter(self._file)
        self._records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())

    def tick(self, step: int) -> None:
        """Nothing to show at every step."""

    def steps(self, rows: pd.DataFrame) -> None:
        """Scalars of every step."""
        names = ("loss", "accuracy", "lr", "test_loss", "test_accuracy")
        columns = [rows[name].to_numpy(dtype=float).tolist() for name in names]
        for step, *values in zip(rows["step"].tolist(), *columns, strict=True):
            tagged = zip(STEP_TAGS, values, strict=True)
            self._scalars(step, {tag: v for tag, v in tagged if v == v or tag == "loss/train"})

    def census(self, rows: pd.DataFrame) -> None:
        """Dead shares and rate histograms of a census."""
        evidence, site, state = (rows[c].to_numpy(dtype=object) for c in ("evidence", "site", "state"))
        observed = rows["unit"].to_numpy() >= 0
        probe = evidence == "probe"
        seen = observed & (probe if probe.any() else True)
        if not seen.any():
            return
        step, rate = int(rows["step"].iloc[0]), rows["rate"].to_numpy(dtype=float)
        scalars = {"dead/all": dead_share(state[seen])}
        stream = observed & (evidence == "stream")
        if stream.any():
            scalars["starved/all"] = float((state[stream] == "starved").mean())
        values = []
        for name in dict.fromkeys(site[seen]):
            here = seen & (site == name)
            scalars[f"dead/{name}"] = dead_share(state[here])
            rates = rate[here]
            rates = rates[~np.isnan(rates)]
            if len(rates):
                values.append(Summary.Value(tag=f"rate/{name}", histo=_histogram(rates)))
        self._scalars(step, scalars)
        self._write(step, Summary(value=values))
        self._file.flush()  # whoever looks sees it now

    def maps(self, history: pd.DataFrame) -> None:
        """The neuron × time heat map of the largest sites."""
        from harness.report.plots import rate_map  # matplotlib: half a second to import

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
        """Nothing more will come."""
        self._file.close()

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        self._write(step, Summary(value=[Summary.Value(tag=k, simple_value=v) for k, v in values.items()]))

    def _write(self, step: int, summary: Any) -> None:
        self._records.write(Event(wall_time=time.time(), step=step, summary=summary).SerializeToString())


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
    step = history["step"].to_numpy()
    for at in np.unique(step):
        board.census(history[step == at])
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
