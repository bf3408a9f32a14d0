"""Run ids: equal exactly when the results would be."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config import ConfigError, compose, run_folder, run_id

SAME = ["output=x", "force=true", "data.root=/x", "train.checkpoint_seconds=1", "record.tensorboard=false"]
OTHER = [
    "seed=1",
    "optim.lr=0.2",
    "model.width=64",
    "activation=elu",
    "dtype=float64",
    "data.scale=2",
    "data.shift=1",
    "init.gain=2",
]


@pytest.mark.parametrize("override", [*SAME, "detect.rare=0.2"])
def test_where_and_how_it_is_shown_does_not_matter(override: str) -> None:
    assert run_id(compose([override])) == run_id(compose())


@pytest.mark.parametrize("override", OTHER)
def test_what_decides_the_result_does(override: str) -> None:
    assert run_id(compose([override])) != run_id(compose())


def test_the_content_of_the_users_arrays_is_part_of_it(tmp_path: Path) -> None:
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    for path in (one, two):
        path.write_bytes(b"a")
    ids = [run_id(compose(["data=arrays", f"data.path={p}"])) for p in (one, two)]
    assert ids[0] == ids[1]
    two.write_bytes(b"b")
    assert run_id(compose(["data=arrays", f"data.path={two}"])) != ids[0]
    with pytest.raises(ConfigError, match=r"data\.path"):
        run_id(compose(["data=arrays", f"data.path={tmp_path}/none.npz"]))


def test_a_folder_says_what_was_run() -> None:
    folder = run_folder(compose(["output=o", "bias.offset=-0.5", "optim=adam", "seed=3"]))
    assert str(folder).startswith("o/digits-mlp-relu-adam-lr0.001-bias-0.5-s3-")
