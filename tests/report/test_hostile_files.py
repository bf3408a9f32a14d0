"""Whatever lies in the place of a stored file: commands name it, and tell of the other runs as before."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from damaged_files import cases
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from stored_runs import write_run
from typer.testing import CliRunner

from harness.config import compose
from harness.store.folder import RunFolder
from harness.store.reading import DamagedFile
from harness.store.runs import open_runs
from harness.store.schema import TABLES
from harness.sweeps.job import run_job
from harness.sweeps.status import status_of
from harness.tools import app

EXAMPLES = int(os.environ.get("HARNESS_EXAMPLES", "6"))  # 200 take ten minutes


SECONDS = 60  # in which every command ends, on a busy machine


COMMANDS = (["report"], ["compare"], ["status"], ["dashboard", "--no-maps"])


runner = CliRunner()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs whose numbers are known, and one that was trained and kept its evidence."""
    root = tmp_path_factory.mktemp("whole")
    for name, lr, seed in (("a", 0.1, 0), ("b", 0.1, 1), ("c", 1.0, 0), ("d", 1.0, 1)):
        write_run(root, name, dead=int(6 * lr), config={"seed": seed, "optim": {"lr": lr}})
    made = run_job(compose(["train.max_steps=20", "model.width=8", "bias.offset=-1", f"output={root / 't'}"]))
    made.path.rename(root / "trained")
    (root / "t").rmdir() if not list((root / "t").iterdir()) else shutil.rmtree(root / "t")
    return root


@contextmanager
def within(seconds: int, what: object) -> Iterator[None]:
    def late(*_: object) -> None:
        pytest.fail(f"{what} takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check(root: Path, hit: str, whole: Path) -> None:
    """Every table and command works, and what is not of the run that was hit is as before."""
    with within(SECONDS, "reading"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for name in ("table", "census", "steps", "events"):
            frames = (getattr(open_runs(place), name) for place in (whole, root))
            before, after = (frame.drop(columns=["path"], errors="ignore") for frame in frames)
            kept = before[before["run"] != hit].reset_index(drop=True).dropna(axis=1, how="all")
            found = after[after["run"] != hit].reset_index(drop=True)[kept.columns]
            pd.testing.assert_frame_equal(kept, found, check_dtype=False)
        assert status_of(root).total in (4, 5)
    for command, *words in COMMANDS:
        carry_out(command, str(root), *words)
    carry_out("diagnose", str(root / "trained"), may_fail=hit == "trained")  # the others kept no evidence


def carry_out(*words: str, may_fail: bool = False) -> None:
    with within(SECONDS, words), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        done = runner.invoke(app, list(words))
    told = f"{words} ended with {done.exit_code}: {done.exception!r}\n{done.output[-2000:]}"
    assert done.exit_code in ((0, 1) if may_fail else (0,)), told
    assert done.exception is None or isinstance(done.exception, SystemExit), told


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes")
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES < 100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(cases())
def test_one_bad_file_stops_no_command(
    whole: Path,
    tmp_path_factory: pytest.TempPathFactory,
    case: tuple[str, str, Callable[[Path, int], None], int],
) -> None:
    run, name, mutate, k = case
    root = tmp_path_factory.mktemp("hit") / "runs"
    shutil.copytree(whole, root)
    try:
        mutate(root / run / name, k)
        check(root, run, whole)
    finally:
        shutil.rmtree(root.parent)


def test_deep_folders_links_and_odd_names(whole: Path, tmp_path: Path) -> None:
    """A run whose folder's name is no text is named; links are not followed; no depth is too deep."""
    root = tmp_path / "runs"
    shutil.copytree(whole, root)
    shutil.copytree(root / "a", root / os.fsdecode(b"odd\xff"))
    (root / "again").symlink_to(root)
    (root / "other").symlink_to(root / "a")
    here = os.open(root, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("e", dir_fd=here)
        inner = os.open("e", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    try:
        assert len(open_runs(root)) == 6
        for command in ("report", "compare", "status", "dashboard"):
            carry_out(command, str(root))
        assert status_of(root).total == 6
    finally:
        subprocess.run(["rm", "-rf", str(root)], check=True)


@pytest.mark.parametrize("kind", ["pipe", "device", "link"])
def test_a_path_that_was_typed_is_replaced_only_if_it_is_a_file(
    kind: str, whole: Path, tmp_path: Path
) -> None:
    place, target = tmp_path / "out.json", tmp_path / "target.json"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        place = Path(os.devnull)
    else:
        target.write_text("old")
        place.symlink_to(target)
    done = runner.invoke(app, ["compare", str(whole), "--json", str(place)])
    assert done.exit_code == (0 if kind == "link" else 2)
    assert (
        (place.is_symlink() and "sentences" in target.read_text()) if kind == "link" else not place.is_file()
    )


def test_a_killed_run_is_running_no_more(whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(whole, root)
    RunFolder(root / "a").write_status("running")
    with FileLock(root / "a" / ".lock"):
        assert status_of(root).states["running"] == 1
    assert status_of(root).states["interrupted"] == 1


WRONG: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "opened on more inputs": lambda table: table.assign(active=10_000),
    "'zombie' in column state": lambda table: table.assign(state="zombie"),
    "'dream' in column evidence": lambda table: table.assign(evidence="dream"),
    "1.5 in column rate": lambda table: table.assign(rate=1.5),
    "-3 in column n": lambda table: table.assign(n=-3),
    "-0.5 in column rate": lambda table: table.assign(rate=-0.5),
    "rows twice": lambda table: pd.concat([table, table.tail(1)]),
    "has rows twice": lambda table: pd.concat([table.head(4), table]),
    "it has rows twice": lambda table: table.assign(unit=0),
}


@pytest.mark.parametrize("told", WRONG)
def test_impossible_numbers_are_damage(told: str, whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(whole, root)
    path = root / "a" / "census.parquet"
    table = WRONG[told](pd.read_parquet(path))
    table.to_parquet(path, index=False)
    with pytest.warns(UserWarning, match=re.escape(told)):
        assert set(open_runs(root).census["run"]) == {"b", "c", "d", "trained"}


@pytest.mark.parametrize(
    ("name", "told"),
    [("status.json", "of another configuration"), ("config.yaml", "of another configuration")],
)
def test_files_of_another_run_are_damage(name: str, told: str, whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(whole, root)
    shutil.copyfile(root / "c" / name, root / "a" / name)
    assert told in {run.name: run.damage for run in open_runs(root)}["a"]
    found = status_of(root)
    assert found.states["damaged"] == 1
    assert told in found.damaged[0]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_another_run_is_damage(name: str, whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(whole, root)
    shutil.copyfile(root / "c" / f"{name}.parquet", root / "a" / f"{name}.parquet")
    run = {run.name: run for run in open_runs(root)}["a"]
    with pytest.raises(DamagedFile, match="of another configuration"):
        run.read(name)


def test_a_key_that_comes_twice_is_damage(whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(whole, root)
    status = root / "a" / "status.json"
    status.write_text(status.read_text().replace("{", '{"state": "failed", ', 1))
    assert "a key comes twice" in {run.name: run.damage for run in open_runs(root)}["a"]


@pytest.mark.parametrize("command", ["report", "compare", "dashboard", "diagnose", "status"])
def test_where_nothing_is_left_the_exit_code_says_so(command: str, whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(whole, root)
    for path in root.glob("*/config.yaml"):
        path.write_text("- a list")
    done = runner.invoke(app, [command, str(root)])
    assert done.exit_code == (2 if command == "compare" else 1)
    assert "config.yaml" in " ".join(done.output.replace("│", " ").split()).replace(" ", "")


@pytest.mark.parametrize("bits", [1023, 1024, 4000])
@pytest.mark.parametrize(("name", "key"), [("status.json", "steps"), ("config.yaml", "width")])
def test_a_number_that_is_no_float_is_damage(
    bits: int, name: str, key: str, whole: Path, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    shutil.copytree(whole, root)
    for file in ("status.json", "config.yaml"):
        told = yaml.safe_load((root / "a" / file).read_text())
        told |= {key: 2**bits - 1} if file == name else {}
        told = {n: v for n, v in told.items() if n not in ("digest", "config")}
        (root / "a" / file).write_text(json.dumps(told))
    damage = {run.name: run.damage for run in open_runs(root)}["a"]
    assert bool(damage) == (bits > 1023)
    assert f"a number of {bits:,} bits in {key}" in damage or not damage
    for command in (["report"], ["compare"], ["status"]):
        carry_out(*command, str(root))


@pytest.mark.parametrize("key", [None, 3, 1.5])
def test_a_key_that_is_no_word_is_damage(key: Any, whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(whole, root)
    config = root / "a" / "config.yaml"
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), key: 1}))
    assert f"has {key} as a key" in {run.name: run.damage for run in open_runs(root)}["a"]
    carry_out("compare", str(root))


@pytest.mark.parametrize(
    ("lr", "columns"),
    [
        ({"a": 1}, ["optim.lr.a"]),
        ({"a": {"b": [1, 2]}, "c": 0.1}, ["optim.lr.a.b", "optim.lr.c"]),
        ([{"a": 1}], []),
        ({}, []),
    ],
)
def test_settings_may_be_nested(lr: Any, columns: list[str], tmp_path: Path) -> None:
    """Of a training of one's own: each value is a column, however deep it lies."""
    for name in "abc":
        write_run(tmp_path, name, config={"optim": {"lr": lr if name == "a" else 0.1}})
    table = open_runs(tmp_path).table
    assert {str(column) for column in table if "optim.lr" in str(column)} == {"optim.lr", *columns}
    for command in (["compare"], ["report"], ["dashboard", "--no-maps"]):
        carry_out(command[0], str(tmp_path), *command[1:])


@pytest.mark.parametrize("name", ["census", "steps", "events"])
def test_a_column_that_is_called_run_is_told_apart(name: str, whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(whole, root)
    status = root / "a" / "status.json"
    told = json.loads(status.read_text())
    status.write_text(json.dumps({n: v for n, v in told.items() if n not in ("digest", "tables")}))
    path = root / "a" / f"{name}.parquet"
    pd.read_parquet(path).assign(run="other").to_parquet(path, index=False)
    table = getattr(open_runs(root), name)
    assert set(table["run"]) >= {"a", "b", "c", "d"}
    assert set(table.loc[table["run"] == "a", f"{name}.run"]) == {"other"}
    assert table.loc[table["run"] != "a", f"{name}.run"].isna().all()


@pytest.mark.parametrize("part", ["steps", "units", "layers"])
def test_evidence_that_lacks_columns_stops_nobody(part: str, whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(whole, root)
    run = root / "trained"
    told = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(
        json.dumps({n: v for n, v in told.items() if n not in ("digest", "tables")})
    )
    path = run / f"evidence_{part}.parquet"
    pd.read_parquet(path).iloc[:, :3].to_parquet(path, index=False)
    carry_out("diagnose", str(run), may_fail=True)
    carry_out("report", str(root))
