"""Our messages of the HParams tab against those that TensorBoard's own interface makes."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pandas as pd
from tensorboard.plugins.hparams import metadata, plugin_data_pb2
from tensorboard.plugins.hparams import summary_v2 as oracle

from harness.report.tensorboard import hparams


def same(ours: list[Any], theirs: Any) -> bool:
    return [parts(value) for value in ours] == [parts(value) for value in theirs]


def parts(value: Any) -> tuple[Any, ...]:
    """Of a summary's value; its content parsed, since a map is written in any order."""
    plugin = value.metadata.plugin_data
    content = vars(plugin_data_pb2)["HParamsPluginData"].FromString(plugin.content)
    return value.tag, value.tensor, plugin.plugin_name, content


def test_the_columns() -> None:
    table = pd.DataFrame(
        {
            "status": ["finished", "failed", "finished"] * 30,
            "optim.lr": [0.1, 0.01, 0.1] * 30,
            "model.norm": ["none", "batch", None] * 30,
            "data.standardise": [True, False, True] * 30,
            "mixed": ["a", 1.0, True] * 30,
            "seed": range(90),
            "never": [None] * 90,
        }
    )
    swept = [str(name) for name in table if name != "status"]
    columns = [
        oracle.HParam("status", oracle.Discrete(["finished", "failed"])),
        oracle.HParam("optim.lr", oracle.Discrete([0.01, 0.1])),
        oracle.HParam("model.norm", oracle.Discrete(["batch", "none"])),
        oracle.HParam("data.standardise", oracle.Discrete([False, True])),
        oracle.HParam("mixed"),
        oracle.HParam("seed", oracle.RealInterval(0.0, 89.0)),
        oracle.HParam("never"),
    ]
    numbers = [oracle.Metric(tag, display_name=name) for tag, (_, name) in hparams.METRICS.items()]
    assert same(hparams.experiment(table, swept), oracle.hparams_config_pb(columns, numbers).value)


def test_a_session() -> None:
    config = {
        "seed": 3,
        "optim.lr": 0.1,
        "model.name": "mlp",
        "force": False,
        "nothing": None,
        "list": [1, 2],
    }
    told = {"status": "finished", "seed": 3, "optim.lr": 0.1, "model.name": "mlp", "force": False}
    with patch("time.time", return_value=12.5):
        ours = hparams.session_start("run", config, "finished")
    theirs = oracle.hparams_pb(told | {"list": "[1, 2]"}, trial_id="run", start_time_secs=12.5)
    assert same(ours, theirs.value)


def test_its_end() -> None:
    for state, status in (("finished", 1), ("diverged", 2), ("running", 3)):
        (value,) = hparams.session_end(state)
        assert value.tag == metadata.SESSION_END_INFO_TAG
        assert value.tensor == metadata.NULL_TENSOR
        told = metadata.parse_session_end_info_plugin_data(value.metadata.plugin_data.content)
        assert told == vars(plugin_data_pb2)["SessionEndInfo"](status=status)
