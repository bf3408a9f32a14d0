"""What a run left and somebody changed is damage, however plausible its numbers; the others are shown."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch import nn, randn
from torch.optim import SGD
from typer.testing import CliRunner

import harness
from harness.config import compose, plan
from harness.store.digests import table_digest
from harness.store.evidence import PARTS
from harness.store.folder import RunFolder, read_status
from harness.store.reading import DamagedFile
from harness.store.runs import Run, open_runs
from harness.store.schema import TABLES
from harness.store.tables import read_table
from harness.store.writer import TableWriter, keep_rows
from harness.sweeps.job import run_job
from harness.sweeps.sweep import plan_sweep, run_sweep
from harness.tools import app

Edit = Callable[[pd.DataFrame], pd.DataFrame]
REASON = "is not what its run wrote"
runner = CliRunner()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, `a` and `b`, which differ in the seed and kept their evidence."""
    root = tmp_path_factory.mktemp("trained")
    words = ["train.max_steps=20", "record.census_every=5", "model.width=8", "optim.lr=2"]
    for name, seed in (("a", 1), ("b", 2)):
        run_job(compose([*words, f"seed={seed}", f"output={root / 't'}"])).path.rename(root / name)
    shutil.rmtree(root / "t")
    return root


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "runs"))


def edit(path: Path, change: Edit, *, alike: bool) -> None:
    """Write a table anew, with pandas or as the run wrote it, metadata included."""
    table = change(pd.read_parquet(path)).reset_index(drop=True)
    if not alike:
        table.to_parquet(path, index=False)
        return
    schema = pq.read_schema(path)
    made = pa.Table.from_pandas(table, schema=schema, preserve_index=False)
    words = [field.name for field in schema if str(field.type) == "string"]
    floats = [field.name for field in schema if str(field.type) in ("float", "double")]
    options: Any = {"use_dictionary": words, "use_byte_stream_split": floats}
    pq.write_table(made, path, compression="zstd", write_page_checksum=True, **options)


def two(table: pd.DataFrame) -> tuple[Any, Any]:
    """Sites, and the same in another order."""
    sites = table["site"].unique()
    return sites, sites[::-1]


CENSUS: dict[str, Edit] = {
    "a unit less": lambda t: t[t["unit"] != 3],
    "a site less": lambda t: t[t["site"] != t["site"].iloc[0]],
    "the first census less": lambda t: t[t["step"] > t["step"].min()],
    "the last census less": lambda t: t[t["step"] < t["step"].max()],
    "shuffled": lambda t: t.sample(frac=1, random_state=0),
    "two units swapped": lambda t: t.iloc[[1, 0, *range(2, len(t))]],
    "sites swapped": lambda t: t.assign(site=t["site"].map(dict(zip(*two(t), strict=True)))),
    "all dead": lambda t: t.assign(state="dead"),
    "other rates": lambda t: t.assign(rate=1 - t["rate"]),
    "one other mean": lambda t: t.assign(mean=t["mean"].where(t.index != 50, t["mean"].iloc[51])),
    "never open": lambda t: t.assign(active=0),
    "twice the inputs": lambda t: t.assign(n=2 * t["n"]),
    "no bound": lambda t: t.assign(rate_upper=0.0),
    "later": lambda t: t.assign(step=t["step"] + 1000),
    "negative": lambda t: t.assign(silent_for=-1, grad_norm=-1.0, std=-t["std"]),
}
STEPS: dict[str, Edit] = {
    "none": lambda t: t[:0],
    "a hole": lambda t: t[t["step"] != 3],
    "fewer": lambda t: t[:2],
    "later": lambda t: t.assign(step=t["step"] + 100),
    "another accuracy": lambda t: t.assign(accuracy=7.3),
    "a negative rate": lambda t: t.assign(lr=-1.0),
}
EVENTS: dict[str, Edit] = {
    "none": lambda t: t[:0],
    "another kind": lambda t: t.assign(kind="resurrected"),
    "another site": lambda t: t.assign(site="nowhere"),
    "much later": lambda t: t.assign(step=10**15),
    "many units": lambda t: t.assign(units=10**9),
}
EDITS = [
    (table, name, change)
    for table, edits in (("census", CENSUS), ("steps", STEPS), ("events", EVENTS))
    for name, change in edits.items()
]


@pytest.mark.parametrize("alike", [False, True], ids=["by pandas", "as written"])
@pytest.mark.parametrize(("table", "name", "change"), EDITS, ids=[f"{t}: {n}" for t, n, _ in EDITS])
def test_an_edited_table_is_damage(runs: Path, table: str, name: str, change: Edit, alike: bool) -> None:
    before = getattr(open_runs(runs), table)
    assert set(before["run"]) == {"a", "b"}
    edit(runs / "a" / f"{table}.parquet", change, alike=alike)
    with pytest.warns(UserWarning, match=rf"1 run\(s\) left out: .*a/{table}.parquet .*{REASON}"):
        after = getattr(open_runs(runs), table)
    kept = before[before["run"] == "b"].reset_index(drop=True)
    pd.testing.assert_frame_equal(after, kept)
    if table == "census":
        for columns in (["step"], ["site", "unit", "state"]):
            with pytest.raises(DamagedFile, match=REASON):
                open_runs(runs)[0].read(table, columns)


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_was_removed_is_missed(runs: Path, table: str) -> None:
    (runs / "a" / f"{table}.parquet").unlink()
    with pytest.raises(DamagedFile, match="not there any more"):
        open_runs(runs)[0].read(table)
    assert len(open_runs(runs)[1].read(table))


def test_a_flipped_bit_changes_no_number_unseen(runs: Path) -> None:
    path, run = runs / "a" / "census.parquet", open_runs(runs)[0]
    whole, before, damaged = path.read_bytes(), run.census, 0
    places = range(5, len(whole), len(whole) // 60)
    for at in places:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            assert run.read("census").to_pandas().equals(before)  # a byte that nobody reads
        except DamagedFile:
            damaged += 1
    assert damaged > 0.8 * len(places)


STATUS: dict[str, dict[str, Any]] = {
    "another end": {"dead": 4, "dead_fraction": 0.25},
    "half a unit": {"born_dead": 1.5},
    "a truth": {"died": True},
    "another seed": {"": {"seed": 9}},
    "other steps": {"": {"steps": 19}},
    "negative steps": {"": {"steps": -5}},
    "a divergence": {"": {"diverged_at": -3}},
    "negative seconds": {"": {"seconds": -1e308}},
    "another state": {"": {"state": "failed"}},
    "another sentence": {"": {"verdict": "All is well."}},
}


@pytest.mark.parametrize("name", STATUS)
def test_an_edited_status_is_damage(runs: Path, name: str) -> None:
    path = runs / "a" / "status.json"
    status = json.loads(path.read_text())
    change = dict(STATUS[name])
    status.update(change.pop("", {}))
    status["final"].update(change)
    path.write_text(json.dumps(status))
    with pytest.warns(UserWarning, match=r"status\.json cannot be read"):
        table = open_runs(runs).table.set_index("run")
    assert table["status"].to_dict() == {"a": "damaged", "b": "finished"}
    assert table["final.dead"].isna().to_dict() == {"a": True, "b": False}
    shown = runner.invoke(app, ["status", str(runs)])
    assert shown.exit_code == 0
    assert "status.json" in shown.output


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_the_spelling_of_a_status_plays_no_part(runs: Path, separators: tuple[str, str]) -> None:
    path = runs / "a" / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()), separators=separators))
    assert open_runs(runs)[0].state == "finished"


EVIDENCE: dict[str, Edit] = {
    "twice": lambda t: pd.concat([t, t]),
    "a row less": lambda t: t[:-1],
    "shuffled": lambda t: t[::-1],
    "no numbers": lambda t: t.assign(**dict.fromkeys(t.select_dtypes("float").columns, np.nan)),
    "infinite": lambda t: t.assign(**dict.fromkeys(t.select_dtypes("float").columns, np.inf)),
    "huge": lambda t: t.assign(**dict.fromkeys(t.select_dtypes("float").columns, 1e300)),
    "columns less": lambda t: t.iloc[:, :3],
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", [*EVIDENCE, "of another run"])
def test_edited_evidence_is_damage(runs: Path, part: str, name: str) -> None:
    path = runs / "a" / f"evidence_{part}.parquet"
    if name in EVIDENCE:
        edit(path, EVIDENCE[name], alike=False)
    else:
        shutil.copyfile(runs / "b" / path.name, path)
    first, second = open_runs(runs)
    with pytest.raises(DamagedFile, match=rf"{path.name} cannot be read"):
        harness.diagnose(first)
    assert harness.diagnose(second).label
    done = runner.invoke(app, ["diagnose", str(runs)])
    assert done.exit_code == 0
    # a long folder's path is folded, at any letter
    assert f"{path.name} cannot be read".replace(" ", "") in "".join(done.output.split())
    alone = runner.invoke(app, ["diagnose", str(first.path)])
    assert alone.exit_code == 1


# --- what the harness itself does is no damage ------------------------------------------------------


def test_runs_without_digests_are_read(runs: Path) -> None:
    """Those of earlier versions."""
    path = runs / "a" / "status.json"
    status = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in status.items() if k not in ("digest", "tables")}))
    census = runs / "a" / "census.parquet"
    edit(census, lambda t: t.drop(columns="grad_norm").assign(state="rare"), alike=False)
    run = open_runs(runs)[0]
    assert (run.state, set(run.census["state"])) == ("finished", {"rare"})
    assert run.read("census", ["grad_norm", "site"])["grad_norm"].null_count == len(run.census)
    assert len(run.steps) == 20


def test_a_run_that_is_trained_anew_is_read_by_those_who_have_it_open(runs: Path) -> None:
    run = open_runs(runs)[0]
    assert run.state == "finished"
    folder = RunFolder(run.path)
    folder.write_status("running")
    for state in ("running", "interrupted", "finished"):
        keep_rows(run.path, "census", 10)
        writer = TableWriter(run.path, "census", (run.path / "census.arrows").stat().st_size)
        assert read_table(run.path, "census")["step"].to_numpy().max() == 10
        writer.finish()
        folder.write_status(state)
        assert run.read("census")["step"].to_numpy().max() == 10


def test_killed_between_a_table_and_its_stream(runs: Path) -> None:
    """A finished run is continued, and killed before its status says so."""
    for name in TABLES:
        keep_rows(runs / "a", name, 10)
        keep_rows(runs / "b", name, -1)
    first, second = open_runs(runs)
    assert first.census["step"].max() == 10
    assert [len(second.read(name)) for name in TABLES] == [0, 0, 0]


def test_every_state_of_a_run_of_ones_own_is_read(tmp_path: Path) -> None:
    def train(name: str, error: BaseException | None = None, **options: Any) -> Run:
        model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
        optimizer = SGD(model.parameters(), lr=0.1)
        recorder = harness.Recorder(
            model, optimizer=optimizer, output=tmp_path, name=name, census_every=2, **options
        )
        try:
            with recorder:
                for step in range(4):
                    loss = model(randn(8, 4)).square().mean() * (np.nan if name == "diverged" else 1)
                    loss.backward()
                    optimizer.step()
                    recorder.step(loss=loss, run=step)
                    if name == "running" and step == 3:
                        shutil.copytree(tmp_path / name, tmp_path / "killed")
                    if error is not None and step == 2:
                        raise error
        except (KeyboardInterrupt, ValueError):
            pass
        return Run(tmp_path / name)

    states = [
        train("finished", evidence=True),
        train("failed", ValueError("no")),
        train("interrupted", KeyboardInterrupt()),
        train("diverged"),
        train("running"),
    ]
    assert [run.state for run in states] == ["finished", "failed", "interrupted", "diverged", "finished"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = open_runs(tmp_path)
        assert set(found.table["status"]) == {"finished", "failed", "interrupted", "diverged", "running"}
        assert set(found.census["run"]) == {run.name for run in found}
        assert set(found.steps["steps.run"]) == {0, 1, 2, 3}  # a metric of the user's own
    assert states[0].evidence is not None


def test_every_end_of_a_run_writes_the_digests_of_its_tables(trained: Path, tmp_path: Path) -> None:
    words = ["train.max_steps=6", "model.width=8", "seed=0,1,2", f"output={tmp_path}"]
    sweep = plan_sweep(plan(words, multirun=True))
    run_sweep(sweep, 1)
    folders = [trained / "a", *(run.path for run in open_runs(tmp_path))]
    assert len(folders) == 4
    for folder in folders:
        kept = (read_status(folder) or {})["tables"]
        assert set(TABLES) <= set(kept)
        assert kept == {path.stem: table_digest(path) for path in folder.glob("*.parquet")}


def test_evidence_that_was_gathered_afterwards_is_the_runs(tmp_path: Path) -> None:
    words = ["train.max_steps=20", "model.width=8", "optim.lr=2", "record.evidence=false"]
    path = run_job(compose([*words, f"output={tmp_path}"])).path
    edit(path / "steps.parquet", lambda t: t.assign(lr=-1.0), alike=False)
    told = str(harness.diagnose(path))
    assert str(harness.diagnose(path)) == told
    status = read_status(path) or {}
    assert status["tables"]["evidence_units"] == table_digest(path / "evidence_units.parquet")
    with pytest.raises(DamagedFile, match=REASON):  # what was damaged before remains so
        _ = Run(path).steps
    shutil.copyfile(path / "evidence_layers.parquet", path / "evidence_steps.parquet")
    with pytest.raises(DamagedFile, match="evidence_steps"):
        harness.diagnose(path)


@pytest.mark.parametrize("table", TABLES)
def test_an_edited_run_is_not_continued(table: str, tmp_path: Path) -> None:
    def train(state: dict[str, Any] | None = None) -> dict[str, Any]:
        model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
        recorder = harness.Recorder(model, output=tmp_path, name="run", census_every=2)
        if state is not None:
            recorder.load_state_dict(state)
        with recorder:
            for _ in range(4):
                model(randn(8, 4)).square().mean().backward()
                recorder.step(loss=1.0)
        return recorder.state_dict()

    state = train()
    path = tmp_path / "run" / f"{table}.parquet"
    whole = path.read_bytes()
    edit(path, lambda t: t.assign(step=t["step"] + 1), alike=False)
    for _ in range(2):  # no attempt makes it the run's own
        with pytest.raises(DamagedFile, match=REASON):
            train(state)
    path.write_bytes(whole)
    train(state)
    assert Run(path.parent).steps["step"].tolist() == list(range(1, 9))
    assert Run(path.parent).state == "finished"
