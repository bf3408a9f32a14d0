"""A sweep in the HParams tab: the experiment once in the sweep's root, a session per run.

The tab shows as columns what the experiment names: every key that varies, and the final numbers. A session
holds its whole configuration, so that a run needs to know nothing of the sweep that it is part of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams import summary_v2 as api

from harness.report.tensorboard.events import Summary, SummaryMetadata, TensorProto

# generated modules, whose names no type checker sees
Status: Any = vars(api_pb2)["Status"]
HParamsPluginData: Any = vars(plugin_data_pb2)["HParamsPluginData"]
SessionEndInfo: Any = vars(plugin_data_pb2)["SessionEndInfo"]

#: Tag of a final number → its key in `status.json`'s `final`, and the head of its column.
METRICS = {
    "final/dead": ("dead_fraction", "dead share"),
    "final/born_dead": ("born_dead_fraction", "born dead"),
    "final/died": ("died_fraction", "died"),
    "final/accuracy": ("accuracy", "test accuracy"),
}
STATE = "status"  # finished, diverged, …: TensorBoard's own status knows success and failure alone
STATES = {"finished": "STATUS_SUCCESS", "running": "STATUS_RUNNING"}
MANY = 64  # numbers up to which a column is offered as a list to choose from, not as a range


def experiment(table: pd.DataFrame, swept: Sequence[str]) -> list[Any]:
    """What tells the tab its columns.

    Args:
        table: one row per run, with `status` and the dotted configuration.
        swept: the keys that vary.
    """
    columns = {STATE: table["status"], **{key: table[key] for key in swept if key in table}}
    hparams = [api.HParam(key, _domain(column)) for key, column in columns.items()]
    metrics = [api.Metric(tag, display_name=name) for tag, (_, name) in METRICS.items()]
    return list(api.hparams_config_pb(hparams, metrics).value)


def session_start(name: str, config: Mapping[str, Any], state: str) -> list[Any]:
    """What begins a session: its name and all its settings, but those that are null.

    Args:
        name: of the run.
        config: dotted keys.
        state: the run's status.
    """
    told = {STATE: state, **{key: _plain(value) for key, value in config.items() if value is not None}}
    return list(api.hparams_pb(told, trial_id=name).value)


def session_end(state: str) -> list[Any]:
    """What ends a session: success if it finished, failure if it diverged or failed."""
    status = Status.Value(STATES.get(state, "STATUS_FAILURE"))
    content = HParamsPluginData(
        session_end_info=SessionEndInfo(status=status), version=metadata.PLUGIN_DATA_VERSION
    )
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString())
    nothing = TensorProto()
    nothing.CopyFrom(metadata.NULL_TENSOR)
    tag = metadata.SESSION_END_INFO_TAG
    return [Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin), tensor=nothing)]


def _domain(column: pd.Series) -> Any:
    """The values of a column to choose from; None where they are of several kinds."""
    values = list(dict.fromkeys(_plain(v) for v in column.tolist() if v is not None and v == v))
    kinds = {bool if isinstance(v, bool) else float if isinstance(v, (int, float)) else str for v in values}
    if len(kinds) != 1:
        return None
    if kinds == {float}:
        values = sorted(float(v) for v in values)
        if len(values) > MANY:
            return api.RealInterval(values[0], values[-1])
    return api.Discrete(values)


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else str(value)
