"""Tables on disk: torn tails, continued streams, whole files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.store.files import whole, write_json
from harness.store.folder import RunFolder, load_config, read_status, top_level
from harness.store.runs import open_runs
from harness.store.schema import CENSUS, STEPS
from harness.store.tables import read_table
from harness.store.writer import TableWriter


def rows(*steps: int) -> dict[str, np.ndarray]:
    return {name: np.asarray(steps, dtype=np.int64 if name == "step" else float) for name in STEPS.names}


def half_written(target: Path) -> None:
    with whole(target) as part:
        part.write_text("half")
        raise OSError("disk full")


def test_a_stream_torn_anywhere_loses_at_most_the_torn_record(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, "steps")
    ends = [writer.position]
    for k in range(4):
        writer.append(rows(2 * k, 2 * k + 1))
        ends.append(writer.position)
    writer.close()
    content = (tmp_path / "steps.arrows").read_bytes()
    for cut in range(0, len(content) + 1, 7):
        (tmp_path / "steps.arrows").write_bytes(content[:cut])
        kept = sum(end <= cut for end in ends[1:])
        assert read_table(tmp_path, "steps").column("step").to_pylist() == list(range(2 * kept))


def test_a_continued_stream_is_cut_back_to_its_checkpoint(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, "steps")
    writer.append(rows(1))
    checkpoint = writer.position
    writer.append(rows(2, 3))
    writer.close()
    again = TableWriter(tmp_path, "steps", checkpoint)
    again.append(rows(4))
    again.finish()
    assert read_table(tmp_path, "steps").column("step").to_pylist() == [1, 4]
    assert not (tmp_path / "steps.arrows").exists()


def test_a_table_finished_before_the_kill_stays(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, "steps")
    writer.append(rows(1))
    position = writer.position
    writer.finish()
    TableWriter(tmp_path, "steps", position).finish()
    assert read_table(tmp_path, "steps").column("step").to_pylist() == [1]


def test_parquet_gives_back_what_was_written_to_the_last_bit(tmp_path: Path) -> None:
    values = rows(1, 2) | {"loss": np.array([np.nan, 0.1 + 0.2]), "lr": np.array([np.inf, 1e-300])}
    writer = TableWriter(tmp_path, "steps")
    writer.append(values)
    writer.finish()
    frame = pd.read_parquet(tmp_path / "steps.parquet")
    for name, column in values.items():
        np.testing.assert_array_equal(frame[name].to_numpy(), column)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, "steps")
    with pytest.raises(ValueError, match="lr"):
        writer.append({k: v for k, v in rows(1).items() if k != "lr"})
    writer.close()


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "status.json"
    write_json(target, {"state": "running"})
    with pytest.raises(OSError, match="disk"):
        half_written(target)
    assert read_status(tmp_path) == {"state": "running"}
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]
    with pytest.raises(ValueError, match="Out of range"):
        write_json(target, {"loss": float("nan")})
    assert read_status(tmp_path) == {"state": "running"}


def test_open_runs_finds_every_run_below_and_flattens_its_configuration(tmp_path: Path) -> None:
    for k, state in enumerate(("finished", "diverged", "running")):
        folder = RunFolder(tmp_path / "deep" / f"run{k}")
        folder.write_config({"optim": {"name": "sgd", "lr": 0.1 * k, "betas": [1, 2]}, "seed": k})
        folder.write_status(state, final={"accuracy": k / 10} if state == "finished" else None)
    (tmp_path / "no_run").mkdir()
    runs = open_runs(tmp_path)
    assert [run.name for run in runs] == ["run0", "run1", "run2"]
    assert runs.table["status"].tolist() == ["finished", "diverged", "running"]
    assert runs.table["optim.lr"].tolist() == [0.0, 0.1, 0.2]
    assert runs.table["final.accuracy"].isna().tolist() == [False, True, True]
    assert runs.census.empty
    assert open_runs(tmp_path / "deep" / "run1")[0].name == "run1"
    assert len(open_runs(tmp_path / "no_run")) == 0
    with pytest.raises(FileNotFoundError, match="no folder"):
        open_runs(tmp_path / "nowhere")


def test_a_run_that_did_not_finish_has_last_numbers_and_no_final_ones(tmp_path: Path) -> None:
    for k, state in enumerate(("finished", "diverged", "interrupted", "failed")):
        folder = RunFolder(tmp_path / f"run{k}")
        folder.write_config({"seed": k, "last": {"accuracy": 1}})
        final = {"dead_fraction": 0.0, "accuracy": 0.1, "cause": "none"}
        folder.write_status(state, final=None if state == "failed" else final)
    table = open_runs(tmp_path).table
    for name in ("dead_fraction", "accuracy", "cause"):
        assert table[f"final.{name}"].isna().tolist() == [False, True, True, True]
        assert table[f"last.{name}"].isna().tolist() == [True, False, False, True]
    assert table["config.last.accuracy"].tolist() == [1] * 4
    folder = RunFolder(tmp_path / "alone" / "run")
    folder.write_config({"seed": 0})
    folder.write_status("diverged")
    alone = open_runs(tmp_path / "alone").table
    assert alone[["final.dead_fraction", "final.accuracy"]].isna().all(axis=None)


def census_columns(rows: int) -> dict[str, Any]:
    columns: dict[str, Any] = {
        field.name: np.arange(rows).astype(field.type.to_pandas_dtype())
        for field in CENSUS
        if not pa.types.is_string(field.type)
    }
    return columns | {
        "n": np.full(rows, 1000),
        "rate": np.arange(rows) / 1000,
        "evidence": ["probe"] * rows,
        "site": ["a", "b"] * (rows // 2),
        "state": ["dead", "active"] * (rows // 2),
    }


@pytest.mark.parametrize("finished", [False, True])
def test_some_columns_of_a_table(tmp_path: Path, finished: bool) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.write_config({"seed": 0})
    folder.write_status("finished")
    writer = TableWriter(folder.path, "census")
    writer.append(census_columns(4))
    writer.append(census_columns(6) | {"step": np.arange(4, 10)})
    writer.finish() if finished else writer.close()
    run = open_runs(tmp_path)[0]
    table = run.read("census", ["state", "step"])
    assert table.schema.names == ["state", "step"]
    assert isinstance(table.to_pandas()["state"].dtype, pd.CategoricalDtype)
    assert table["step"].to_pylist() == run.census["step"].tolist()
    assert table["state"].to_pylist() == run.census["state"].tolist()
    assert run.read("census").num_rows == 10
    with pytest.raises(ValueError, match=r"expected some of the columns .*\['nonsense'\]"):
        run.read("census", ["nonsense"])
    with pytest.raises(ValueError, match="census, steps, events, but got 'units'"):
        run.read("units")
    ((same, again),) = open_runs(tmp_path).read("census", ["step"])
    assert same.name == "run"
    assert again.num_rows == 10


def test_a_column_that_an_older_run_lacks_is_empty(tmp_path: Path) -> None:
    lacking = ["grad_norm", "silent_for"]
    table = pa.table({name: values for name, values in census_columns(4).items() if name not in lacking})
    pq.write_table(table, tmp_path / "census.parquet")
    for columns in (["site", *lacking], None):
        found = read_table(tmp_path, "census", columns).to_pandas()
        assert found["site"].tolist() == ["a", "b", "a", "b"]
        assert found[lacking].isna().all(axis=None)


TEXTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abc_", min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text("abc_", min_size=1, max_size=4), TEXTS, max_size=4))
def test_a_configuration_is_read_group_by_group_as_it_is_whole(config: dict[str, Any]) -> None:
    text = yaml.dump(config, Dumper=yaml.CSafeDumper, sort_keys=False)
    groups = top_level(text)
    if groups is not None:
        found = {key: value for group in groups for key, value in yaml.safe_load(group).items()}
        assert found == yaml.safe_load(text)
    with tempfile.TemporaryDirectory() as name:
        folder = RunFolder(Path(name))
        folder.write_config(config)
        assert load_config(folder.path) == yaml.safe_load(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x\n",
        "{a: 1, b: 2}\n",
        "---\na: 1\n",
        "# words\na: 1\n",
        "a:\n  b: 1\n\n  c: 2\n",
        "a: >\n  x\n  y\nb: 1\n",
        "'a': 1\n",
    ],
)
def test_any_yaml_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert load_config(tmp_path) == yaml.safe_load(text)


def test_runs_share_no_configuration(tmp_path: Path) -> None:
    for name in "ab":
        RunFolder(tmp_path / name).write_config({"optim": {"betas": [1, 2]}})
    first, second = (load_config(tmp_path / name) for name in "ab")
    first["optim"]["betas"].append(3)
    assert second == {"optim": {"betas": [1, 2]}}


def test_an_unknown_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one of running"):
        RunFolder(tmp_path / "run").write_status("done")
