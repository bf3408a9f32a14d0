"""A sweep in the HParams tab: one experiment in the sweep's root, one session per run.

The tab's columns are those that the experiment lists: every key that varies, and the final numbers. A session
has its whole configuration, so that a run need not know the sweep that it belongs to.

Built directly from the protocol's messages: `tensorboard.plugins.hparams.summary_v2` makes the same ones, but
takes a tenth of a second to import, with clients of cloud storage among its imports.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

from harness.config import ConfigError, changes, flatten
from harness.report.tensorboard.events import (
    DT_FLOAT,
    Summary,
    SummaryMetadata,
    TensorProto,
    TensorShapeProto,
)

# generated modules, whose names type checkers cannot see
Message = vars(api_pb2) | vars(plugin_data_pb2)
Status: Any = Message["Status"]
DataType: Any = Message["DataType"]

#: Tag of a final number → its key in `final` of `status.json`, and the heading of its column.
METRICS = {
    "final/dead": ("dead_fraction", "dead share"),
    "final/born_dead": ("born_dead_fraction", "born dead"),
    "final/died": ("died_fraction", "died"),
    "final/accuracy": ("accuracy", "test accuracy"),
}
STATE = "status"  # finished, diverged, …: TensorBoard's own status is only success or failure
STATES = {"finished": "STATUS_SUCCESS", "running": "STATUS_RUNNING"}
OFTEN = ("data.name", "model.name", "activation.name", "optim.name", "optim.lr", "seed")
MANY = 64  # largest number of values for which a column offers a list instead of a range


def experiment(table: pd.DataFrame, swept: Sequence[str]) -> list[Any]:
    """The message that defines the tab's columns.

    Args:
        table: one row per run, with `status` and the dotted configuration.
        swept: the keys that vary.
    """
    columns = {STATE: table["status"], **{key: table[key] for key in swept if key in table}}
    content = Message["Experiment"](
        hparam_infos=[_column(key, column) for key, column in columns.items()],
        metric_infos=[
            Message["MetricInfo"](name=Message["MetricName"](tag=tag), display_name=name)
            for tag, (_, name) in METRICS.items()
        ],
    )
    return _summary("experiment", content)


def short_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a single run: the most common settings, and those that differ from the defaults.

    Args:
        config: configuration of a run of the harness, nested.

    Example:
        >>> from harness.config import compose, to_mapping
        >>> list(short_config(to_mapping(compose(["bias.offset=-1"]))))[3:]
        ['bias.offset', 'optim.name', 'optim.lr', 'seed']
    """
    try:
        kept = {*OFTEN, *changes(dict(config))}
    except ConfigError:
        return flatten(dict(config))
    return {key: value for key, value in flatten(dict(config)).items() if key in kept}


def session_start(name: str, config: Mapping[str, Any], state: str) -> list[Any]:
    """The message that starts a session: its name and all settings that are not null.

    Args:
        name: name of the run.
        config: configuration with dotted keys.
        state: the run's status.
    """
    settings = {STATE: state, **{key: _plain(value) for key, value in config.items() if value is not None}}
    content = Message["SessionStartInfo"](group_name=name, start_time_secs=time.time())
    for key in sorted(settings):
        setattr(content.hparams[key], f"{_kind(settings[key])}_value", settings[key])
    return _summary("session_start_info", content)


def session_end(state: str) -> list[Any]:
    """The message that ends a session: success if it finished, failure if it diverged or failed."""
    status = Status.Value(STATES.get(state, "STATUS_FAILURE"))
    return _summary("session_end_info", Message["SessionEndInfo"](status=status))


def _summary(name: str, content: Any) -> list[Any]:
    """A message in the form the plugin expects: next to an empty tensor, under its own tag."""
    data = Message["HParamsPluginData"](**{name: content}).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=data)
    nothing = TensorProto(dtype=DT_FLOAT, tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=0)]))
    metadata = SummaryMetadata(plugin_data=plugin)
    return [Summary.Value(tag=f"_hparams_/{name}", metadata=metadata, tensor=nothing)]


def _column(key: str, column: pd.Series) -> Any:
    """A column with its possible values, or without them if they have several types."""
    info = Message["HParamInfo"](name=key)
    values = list(dict.fromkeys(_plain(v) for v in column.tolist() if v is not None and v == v))
    kinds = {_kind(v) for v in values}
    if len(kinds) != 1:
        return info
    kind = kinds.pop()
    info.type = DataType.Value({"number": "DATA_TYPE_FLOAT64"}.get(kind, f"DATA_TYPE_{kind.upper()}"))
    values = sorted(values)
    if kind == "number" and len(values) > MANY:
        info.domain_interval.min_value, info.domain_interval.max_value = values[0], values[-1]
    else:
        info.domain_discrete.extend(values)
    return info


def _kind(value: bool | float | str) -> str:
    return "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else str(value)
