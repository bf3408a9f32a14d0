"""A member of a stack of any network has the result that its run has alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from side_by_side import assert_alike, assert_same, one_by_one, tables, together

from harness.config import RunSpec, compose, run_folder
from harness.store.folder import RunFolder
from harness.training.stacked import train_cohort

SMALL = [
    "record.tensorboard=false",
    "data.subset=80",
    "data.probe_size=50",
    "train.epochs=2",
    "train.batch_size=16",
    "record.census_every=3",
    "record.early=false",
    "dtype=float64",
]
NETWORKS = {
    "cnn": ["model=cnn", "model.channels=3", "model.width=7"],
    "cnn with batch norm": ["model=cnn", "model.channels=3", "model.width=7", "model.norm=batch"],
    "cnn with group norm": ["model=cnn", "model.channels=3", "model.width=7", "model.norm=layer"],
    "rnn": ["model=rnn", "model.width=9", "model.layers=2"],
    "transformer": ["model=transformer", "model.width=8", "model.heads=2", "model.depth=2"],
    "resnet": ["model=resnet", "train.max_steps=3"],
}
MEMBERS = [
    ["seed=1"],
    ["optim.lr=0.002"],
    ["bias.offset=-0.3", "data.shift=0.5"],
    ["init.gain=0.5", "detect.rare=0.3"],
]


def made(out: Path, members: list[list[str]], shared: list[str]) -> list[RunSpec]:
    return [compose([f"output={out}", *SMALL, *shared, *own]) for own in members]


def compare(tmp_path: Path, members: list[list[str]], shared: list[str], tolerance: float = 1e-8) -> None:
    alone, stacked = (made(tmp_path / folder, members, shared) for folder in ("alone", "stacked"))
    assert together(stacked, tmp_path / "keep") == one_by_one(alone)
    for one, two in zip(alone, stacked, strict=True):
        assert_alike(one, two, tolerance)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network(network: str, tmp_path: Path) -> None:
    compare(tmp_path, MEMBERS, [*NETWORKS[network], "optim=momentum", "optim.lr=0.01"])


def test_modules_that_are_called_at_several_sites(tmp_path: Path) -> None:
    shared = ["model=resnet", "model.depth=18", "train.max_steps=1", "train.batch_size=2", "data.subset=4"]
    compare(tmp_path, [["seed=1"], ["seed=2"]], [*shared, "data.probe_size=2"])


@pytest.mark.parametrize("activation", ["prelu", "crelu", "gelu", "hardswish"])
def test_every_kind_of_gate(activation: str, tmp_path: Path) -> None:
    members = [["seed=1"], ["record.gate_eps=0.01"], ["bias.offset=-0.3"]]
    compare(tmp_path, members, [*NETWORKS["cnn"], f"activation={activation}", "optim=adam"])


def test_crops_and_flips_are_each_members_own(tmp_path: Path) -> None:
    compare(tmp_path, MEMBERS[:3], [*NETWORKS["cnn"], "data.augment=true"])
    compare(tmp_path / "one", [["optim.lr=0.1"], ["optim.lr=0.01"]], ["data.augment=true"])


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch operations alone, with a look at the losses every few steps."""
    monkeypatch.setattr("harness.training.stacked.backend.compiled", lambda device: False)
    monkeypatch.setattr("harness.training.stacked.cohort.DEVICE_LOOK", 4)


@pytest.mark.parametrize("optim", ["sgd", "momentum", "adam", "adamw"])
def test_mlps_and_every_optimizer_as_on_a_gpu(optim: str, tmp_path: Path, as_on_a_gpu: None) -> None:
    members = [
        ["seed=1"],
        ["activation=elu", "optim.weight_decay=0.01"],
        ["activation=prelu", "train.clip_grad=0.1"],
    ]
    members += [
        ["activation=leaky_relu", "activation.slope=0"],
        ["optim.momentum=0.5", "optim.nesterov=true"],
    ]
    shared = ["model.width=12", "model.norm=batch", f"optim={optim}", "optim.lr=0.01"]
    compare(tmp_path, members if optim == "momentum" else members[:4], shared)


@pytest.mark.parametrize("network", ["cnn with batch norm", "rnn"])
def test_other_networks_as_on_a_gpu(network: str, tmp_path: Path, as_on_a_gpu: None) -> None:
    compare(tmp_path, MEMBERS, [*NETWORKS[network], "optim=momentum", "optim.lr=0.01"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU (torch.cuda)")
@pytest.mark.parametrize("network", ["mlp", *NETWORKS])
def test_on_a_gpu(network: str, tmp_path: Path) -> None:
    own = NETWORKS.get(network, ["model.width=8", "model.norm=batch"])
    compare(tmp_path, MEMBERS, [*own, "device=cuda", "optim=adamw", "optim.lr=0.01"], 1e-6)


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_a_divergence_between_two_looks_is_dated_to_its_step(
    network: str, tmp_path: Path, as_on_a_gpu: None
) -> None:
    members = [["seed=1"], ["optim.lr=1e36", "init.gain=1e5"], ["seed=2", "optim.lr=1e36", "init.gain=1e6"]]
    shared = [
        *NETWORKS.get(network, ["model.width=8"]),
        "activation=leaky_relu",
        "optim=sgd",
        "record.census_every=7",
    ]
    alone, stacked = (made(tmp_path / folder, members, shared) for folder in ("alone", "stacked"))
    endings = together(stacked, tmp_path / "keep")
    assert endings == one_by_one(alone)
    assert [ending.diverged_at is not None for ending in endings] == [False, True, True]
    for one, two in zip(alone, stacked, strict=True):
        a, b = tables(one), tables(two)
        assert len(a["steps"]) == len(b["steps"])
        assert a["events"].equals(b["events"])


@pytest.mark.parametrize("compiled", [True, False], ids=["numba", "as on a GPU"])
def test_a_continued_cohort_equals_an_uninterrupted_one(
    compiled: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if not compiled:
        request.getfixturevalue("as_on_a_gpu")
    shared = [
        *NETWORKS["cnn with batch norm"],
        "optim=adamw",
        "train.checkpoint_seconds=0",
        "data.augment=true",
    ]
    members = [*MEMBERS[:3], ["optim.lr=1e36", "init.gain=1e6"]]
    whole, torn = (made(tmp_path / folder, members, shared) for folder in ("whole", "torn"))
    endings = together(whole, tmp_path / "keep whole")

    def stop(step: int) -> None:
        if step == 5:
            raise RuntimeError("stopped")

    folders = [RunFolder(run_folder(spec)) for spec in torn]
    with pytest.raises(RuntimeError, match="stopped"):
        train_cohort(torn, folders, tmp_path / "keep", stop)
    assert train_cohort(torn, folders, tmp_path / "keep") == endings
    for one, two in zip(whole, torn, strict=True):
        assert_same(one, two)
