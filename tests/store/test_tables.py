"""Tables on disk: torn tails, continued streams, whole files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.store.files import whole, write_json
from harness.store.folder import RunFolder, read_status
from harness.store.runs import open_runs
from harness.store.schema import STEPS
from harness.store.writer import TableWriter, read_table


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


def test_an_unknown_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one of running"):
        RunFolder(tmp_path / "run").write_status("done")
