"""`harness-tools report`, `dashboard` and `scan --out report.html`, as a user types them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from stored_runs import full_history, write_run, write_sweep
from typer.testing import CliRunner

from harness.report.report_command import stored_diagnosis
from harness.store.runs import open_runs
from harness.tools import app

runner = CliRunner()


def test_one_run_is_told_as_ever_and_written_beside_it(tmp_path: Path) -> None:
    path = write_run(tmp_path, "one", census=full_history())
    done = runner.invoke(app, ["report", str(path)])
    assert done.exit_code == 0, done.output
    assert "2 of 8 units dead at the end (25.0 %; n = 200" in " ".join(done.output.split())
    assert f"report      {path / 'report.html'}" in done.output
    assert "2 of 8 units dead at the end" in (path / "report.html").read_text()
    assert "this run kept no evidence" in (path / "report.html").read_text()


def test_a_sweep_is_told_in_sentences_and_a_table(tmp_path: Path) -> None:
    root = write_sweep(tmp_path / "runs", seeds=4)
    done = runner.invoke(app, ["report", str(root)])
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "24 runs, activation (2 values), optim.lr (3 values) and 4 seeds: 22 finished, 1 diverged" in text
    assert re.search(r"relu 1 4 0 0 81.2 % 0.0 % 81.2 % ", text)  # (6 + 7 + 6 + 7) / 32
    assert re.search(r"elu 1 4 1 1 0.0 % ", text)
    assert (root / "report.html").is_file()


def test_thresholds_of_a_sweep_are_refused_instead_of_ignored(tmp_path: Path) -> None:
    root = write_sweep(tmp_path / "runs", seeds=1)
    done = runner.invoke(app, ["report", str(root), "--rare", "0.2", "--healthy", "0.5"])
    assert done.exit_code == 2
    assert "--rare, --healthy: expected one run" in " ".join(done.output.split())
    assert not (root / "report.html").exists()


def test_a_few_runs_are_told_one_by_one_and_compared(tmp_path: Path) -> None:
    root = write_sweep(tmp_path / "runs", seeds=1)
    for name in ("elu-lr0.1-s0", "elu-lr1-s0", "elu-lr0.01-s0"):
        for file in (root / name).iterdir():
            file.unlink()
        (root / name).rmdir()
    done = runner.invoke(app, ["report", str(root)])
    assert done.exit_code == 0, done.output
    assert done.output.count("units dead") == 3
    assert "1 of 8 units dead" in done.output
    assert "3 runs" in done.output


def test_another_place_for_the_file(tmp_path: Path) -> None:
    path = write_run(tmp_path / "runs", "one")
    out = tmp_path / "told.html"
    assert runner.invoke(app, ["report", str(path), "--out", str(out)]).exit_code == 0
    assert out.is_file()
    assert not (path / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "there is no folder"),
        (["."], "there is no run"),
        (["runs", "--out", "runs"], "--out"),
        (["runs", "--out", "gone/r.html"], "--out"),
        (["runs", "--confidence", "2"], "confidence"),
    ],
)
def test_what_cannot_be_done_is_refused_with_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "runs":
        write_run(tmp_path / "runs", "one")
    done = runner.invoke(app, ["report", *arguments])
    assert done.exit_code == 2
    assert words in " ".join(done.output.replace("│", " ").split())
    assert not list(tmp_path.rglob("*.html"))


def test_a_damaged_table_does_not_keep_the_others_from_being_told(tmp_path: Path) -> None:
    root = write_sweep(tmp_path, seeds=2)
    (root / "relu-lr1-s0" / "census.parquet").write_bytes(b"torn")
    done = runner.invoke(app, ["report", str(root)])
    assert done.exit_code == 0, done.output
    assert "relu-lr1-s0: its censuses cannot be read" in (root / "report.html").read_text()


def test_the_dashboard_says_what_it_did(tmp_path: Path) -> None:
    root = write_sweep(tmp_path, seeds=1)
    (root / "relu-lr1-s0" / "census.parquet").write_bytes(b"torn")
    done = runner.invoke(app, ["dashboard", str(root), "--no-maps"])
    assert done.exit_code == 0  # the others are there
    assert "5 run(s) rebuilt" in done.output
    assert "relu-lr1-s0: cannot be rebuilt" in done.output


def test_serving_prints_the_address_and_ends_on_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    asked: list[tuple[Path, int | None]] = []

    def serve(folder: Path, port: int | None) -> str:
        asked.append((folder, port))
        return "http://localhost:7/"

    monkeypatch.setattr("harness.report.tensorboard.serve.serve", serve)
    monkeypatch.setattr("harness.report.tensorboard.serve.wait", interrupt)
    write_run(tmp_path, "one")
    done = runner.invoke(app, ["dashboard", str(tmp_path), "--serve", "--port", "7"])
    assert done.exit_code == 0
    assert "TensorBoard is at http://localhost:7/" in done.output
    assert asked == [(tmp_path, 7)]


def test_a_run_without_evidence_has_no_diagnosis(tmp_path: Path) -> None:
    run = open_runs(write_run(tmp_path, "one"))[0]
    with pytest.raises(ValueError, match="kept no evidence"):
        stored_diagnosis(run)


def test_a_run_without_a_readable_configuration_belongs_to_no_arm(tmp_path: Path) -> None:
    root = write_sweep(tmp_path / "runs", seeds=4)
    broken = next(iter(open_runs(root))).path / "config.yaml"
    broken.write_text("garbage: [")
    with pytest.warns(UserWarning, match=r"1 run\(s\) left out: .*config.yaml cannot be read"):
        table = open_runs(root).table
    assert len(table) == 23
    assert not table["activation.name"].isna().any()


@pytest.mark.parametrize("name", ["census", "steps"])
def test_a_damaged_table_costs_its_run_alone(name: str, tmp_path: Path) -> None:
    root = write_sweep(tmp_path / "runs", seeds=4)
    whole = getattr(open_runs(root), name)
    broken = open_runs(root)[3].path
    (broken / f"{name}.parquet").write_bytes(b"PAR1 garbage")
    with pytest.warns(
        UserWarning, match=rf"1 run\(s\) left out: .*{broken.name}/{name}.parquet cannot be read"
    ):
        found = getattr(open_runs(root), name)
    assert found.equals(whole[whole["run"] != broken.name].reset_index(drop=True))


def test_a_status_that_cannot_be_read_is_no_running_run(tmp_path: Path) -> None:
    root = write_sweep(tmp_path / "runs", seeds=4)
    (open_runs(root)[0].path / "status.json").write_text('{"state": "fini')
    with pytest.warns(UserWarning, match="status.json cannot be read: it is no JSON"):
        assert open_runs(root).table["status"].iloc[0] == "damaged"
    assert "1 damaged" in repr(open_runs(root))


@pytest.mark.parametrize("healthy", ["-1", "nan", "1.5"])
def test_a_share_that_is_none_is_refused(healthy: str, tmp_path: Path) -> None:
    path = write_run(tmp_path, "one", census=full_history())
    done = runner.invoke(app, ["report", str(path), "--healthy", healthy])
    assert done.exit_code == 2
    assert "expected a share in [0, 1]" in " ".join(done.output.replace("│", " ").split())
