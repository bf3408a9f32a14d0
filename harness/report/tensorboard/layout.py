"""The layout of the Custom Scalars tab; TensorBoard merges those of several runs."""

from __future__ import annotations

from functools import cache
from typing import Any

from tensorboard.plugins.custom_scalar import layout_pb2, metadata

from harness.report.tensorboard.events import DT_STRING, Summary, TensorProto

Category: Any = vars(layout_pb2)["Category"]
Chart: Any = vars(layout_pb2)["Chart"]
Layout: Any = vars(layout_pb2)["Layout"]
Lines: Any = vars(layout_pb2)["MultilineChartContent"]

#: Category → title of a chart → its tags, as regular expressions.
CHARTS = {
    "Dead units": {
        "dead share, all units": ["^dead/all$"],
        "dead share, layer by layer": ["^dead/(?!all$)"],
        "starved share": ["^starved/all$"],
    },
    "Training": {
        "loss (training batches and test set)": ["^loss/"],
        "accuracy (training batches and test set)": ["^accuracy/"],
        "learning rate": ["^lr$"],
    },
}


@cache
def layout(banner: str = "") -> list[Any]:
    """The message that defines the tab's charts.

    Args:
        banner: a line above them.
    """
    categories = [Category(title=banner)] if banner else []
    categories += [
        Category(
            title=category,
            chart=[Chart(title=title, multiline=Lines(tag=tags)) for title, tags in charts.items()],
        )
        for category, charts in CHARTS.items()
    ]
    content = Layout(category=categories).SerializeToString()
    tensor = TensorProto(dtype=DT_STRING, string_val=[content])
    tag = metadata.CONFIG_SUMMARY_TAG
    return [Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(), tensor=tensor)]
