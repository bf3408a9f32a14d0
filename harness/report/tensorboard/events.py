"""TensorBoard's event files: one per folder, rewritten, in the messages of its protocol.

TensorBoard's own `RecordWriter` frames the records. Its `EventFileWriter` would keep a file open and a
thread running for every member of a cohort.
"""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

# generated modules, whose names type checkers cannot see
Event: Any = vars(event_pb2)["Event"]
HistogramProto: Any = vars(summary_pb2)["HistogramProto"]
Summary: Any = vars(summary_pb2)["Summary"]
SummaryMetadata: Any = vars(summary_pb2)["SummaryMetadata"]
TensorProto: Any = vars(tensor_pb2)["TensorProto"]
TensorShapeProto: Any = vars(tensor_shape_pb2)["TensorShapeProto"]
DT_FLOAT: int = vars(types_pb2)["DT_FLOAT"]
DT_STRING: int = vars(types_pb2)["DT_STRING"]

PATTERN = "events.out.tfevents.*"
ENOUGH = 1 << 16  # largest number of buffered bytes


class EventFile:
    """The only event file of a folder; open only during writes, since a cohort has one per member.

    Args:
        folder: event files of an earlier attempt are removed.
    """

    def __init__(self, folder: Path) -> None:
        for stale in folder.glob(PATTERN):
            stale.unlink(missing_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._path, self._waiting = folder / name, io.BytesIO()
        self._record(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each of these curves."""
        self.write(step, [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Add a text for the Text tab."""
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype=DT_STRING, string_val=[markdown.encode()], tensor_shape=shape)
        self.write(step, [Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])

    def image(self, tag: str, png: bytes, size: tuple[int, int], step: int, caption: str = "") -> None:
        """Add an image; `size` is (width, height)."""
        picture = Summary.Image(encoded_image_string=png, width=size[0], height=size[1], colorspace=3)
        metadata = SummaryMetadata(summary_description=caption)
        self.write(step, [Summary.Value(tag=tag, image=picture, metadata=metadata)])

    def write(self, step: int, values: Sequence[Any]) -> None:
        """Add an event with these values."""
        self._record(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        if self._waiting.tell() > ENOUGH:
            self.flush()

    def flush(self) -> None:
        """Write buffered events, to make them visible now."""
        if self._waiting.tell():
            with self._path.open("ab") as file:
                file.write(self._waiting.getvalue())
            self._waiting = io.BytesIO()

    def close(self) -> None:
        """Write what is still buffered."""
        self.flush()

    def _record(self, event: Any) -> None:
        RecordWriter(self._waiting).write(event.SerializeToString())


def histogram(tag: str, values: np.ndarray, edges: np.ndarray) -> Any:
    """A histogram over fixed edges that contain all values."""
    place = np.searchsorted(edges, values, side="right") - 1  # np.histogram takes five times as long
    counts = np.bincount(np.clip(place, 0, len(edges) - 2), minlength=len(edges) - 1)
    proto = HistogramProto(
        min=float(values.min()),
        max=float(values.max()),
        num=len(values),
        sum=float(values.sum()),
        sum_squares=float((values**2).sum()),
        bucket_limit=edges[1:].tolist(),
        bucket=counts.tolist(),
    )
    return Summary.Value(tag=tag, histo=proto)
