"""A member of a stack has the result that its run has alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from side_by_side import assert_alike, made, one_by_one, tables, together

from harness.config import compose
from harness.training.stacked import train_cohort
from harness.training.stacking import stacking_blocker, stacking_key

ACTIVATIONS = ("relu", "leaky_relu", "prelu", "elu", "celu", "selu", "silu", "gelu", "mish", "relu6")
ACTIVATIONS += ("hardswish", "sigmoid", "tanh", "softplus")
SCHEDULES = [
    ["schedule=constant"],
    ["schedule=warmup", "schedule.steps=20"],
    ["schedule=cosine", "schedule.warmup_steps=3", "schedule.final=0.1"],
    ["schedule=step", "schedule.every=5", "schedule.gamma=0.5"],
]
OPTIMIZERS = {
    "sgd": [["optim.lr=0.1"], ["optim.lr=0.05", "optim.weight_decay=0.01"]],
    "momentum": [
        ["optim.lr=0.05"],
        ["optim.lr=0.02", "optim.momentum=0.5", "optim.nesterov=true"],
        ["optim.momentum=0", "optim.weight_decay=0.1"],
    ],
    "adam": [
        ["optim.lr=0.01"],
        ["optim.lr=0.003", "optim.betas=[0.5,0.9]", "optim.weight_decay=0.1"],
        ["optim.betas=[0.2,0.99]"],
    ],
    "adamw": [["optim.lr=0.01", "optim.weight_decay=0.1"], ["optim.lr=0.003", "optim.weight_decay=0"]],
}
NETWORKS = [
    ["model.norm=none"],
    ["model.norm=batch"],
    ["model.norm=layer"],
    ["model.skip=post_add"],
    ["model.skip=pre_norm"],
    ["model.skip=zero_init", "model.norm=batch"],
]
FLOAT64, FLOAT32 = 1e-9, 5e-6


def compare(tmp_path: Path, members: list[list[str]], shared: list[str], tolerance: float = FLOAT64) -> None:
    alone, stacked = made(tmp_path / "alone", members, shared), made(tmp_path / "stacked", members, shared)
    assert together(stacked, tmp_path / "keep") == one_by_one(alone)
    for one, two in zip(alone, stacked, strict=True):
        assert_alike(one, two, tolerance)


def test_all_activations_in_one_stack(tmp_path: Path) -> None:
    members = [[f"activation={name}", f"seed={k}"] for k, name in enumerate(ACTIVATIONS)]
    members += [["activation=leaky_relu", "activation.slope=0.3"], ["activation=elu", "activation.alpha=2"]]
    members += [["activation=leaky_relu", "activation.slope=0"], ["activation=prelu", "activation.slope=0"]]
    compare(tmp_path, members, ["dtype=float64", "optim.lr=0.05"])


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_optimizer_and_schedule(kind: str, tmp_path: Path) -> None:
    own = OPTIMIZERS[kind]
    members = [
        [*own[k % len(own)], *schedule, f"seed={k}", f"activation={('relu', 'prelu')[k % 2]}"]
        for k, schedule in enumerate([*SCHEDULES, *SCHEDULES[:2]])
    ]
    compare(tmp_path, members, ["dtype=float64", f"optim={kind}"])


@pytest.mark.parametrize("network", NETWORKS, ids=[" ".join(n) for n in NETWORKS])
def test_every_network(network: list[str], tmp_path: Path) -> None:
    members = [["seed=1"], ["activation=elu"], ["bias.offset=-0.3", "optim.lr=0.02"], ["init.gain=0.5"]]
    compare(tmp_path, members, [*network, "dtype=float64", "optim=sgd", "optim.lr=0.01"])


@pytest.mark.parametrize("network", NETWORKS[:3], ids=["none", "batch", "layer"])
def test_every_norm_in_float32(network: list[str], tmp_path: Path) -> None:
    members = [["seed=1"], ["activation=elu"], ["bias.offset=-0.3", "optim.lr=0.02"]]
    compare(tmp_path, members, [*network, "optim=sgd", "optim.lr=0.01"], FLOAT32)


def test_members_with_their_own_data_starts_and_thresholds(tmp_path: Path) -> None:
    members = [
        ["data.label_noise=0.3", "seed=3"],
        ["data.shift=0.5", "init=torch_default", "bias=torch_default"],
        ["data.negate=true", "data.scale=2", "init=orthogonal", "train.clip_grad=0.1"],
        ["data.standardise=false", "init=rai", "train.clip_grad=100"],
        ["data.standardise=false", "init=sign_flip", "bias.offset=-1", "detect.rare=0.3"],
        ["init.mean=-0.5", "detect.confidence=0.5", "record.gate_eps=0.01", "activation=silu"],
        ["activation=tanh", "record.gate_eps=0.05", "activation=tanh"],
    ]
    compare(
        tmp_path,
        members,
        ["dtype=float64", "data.reshuffle_labels_every=1", "data.permute_inputs_every=1"],
    )


def test_float32_members_that_share_a_seed(tmp_path: Path) -> None:
    members = [[f"optim.lr={lr}", f"seed={seed}"] for lr in (0.01, 0.05) for seed in (0, 1)]
    compare(tmp_path, members, ["optim=sgd"], FLOAT32)
    compare(tmp_path / "one", [["optim.lr=0.01"], ["optim.lr=0.02"]], ["optim=sgd"], FLOAT32)


def test_crelu_by_itself(tmp_path: Path) -> None:
    compare(tmp_path, [["seed=0"], ["seed=1", "bias.offset=-1"]], ["activation=crelu", "dtype=float64"])


@pytest.mark.parametrize(
    "record",
    [
        ["record.enabled=false"],
        ["record.probe=false"],
        ["record.early=true", "record.census_every=100"],
        ["record.gradients=false", "record.census_every=1"],
        ["train.max_steps=8", "data.probe_size=7"],
    ],
    ids=" ".join,
)
def test_what_is_recorded(record: list[str], tmp_path: Path) -> None:
    members = [["seed=0"], ["seed=1", "bias.offset=-1"], ["activation=prelu"]]
    compare(tmp_path, members, ["dtype=float64", *record])


def test_vectors_too_many_for_a_table_and_a_batch_that_is_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.training.stacked.batches.TABLE", 0)
    shared = [
        "data=synthetic",
        "data.train_size=90",
        "data.test_size=30",
        "train.batch_size=100",
        "data.subset=0",
    ]
    members = [["seed=0"], ["seed=0", "data.shift=1"], ["seed=2"]]
    compare(tmp_path, members, [*shared, "dtype=float64"])
    compare(tmp_path / "images", [["seed=0"], ["seed=0", "optim.lr=0.02"]], ["dtype=float64"])


def test_units_die_and_the_events_tell(tmp_path: Path) -> None:
    members = [[f"seed={k}", "optim.lr=1", "init.gain=2"] for k in range(3)]
    shared = ["dtype=float64", "train.max_steps=10", "record.census_every=2", "optim=sgd"]
    compare(tmp_path, members, shared, 1e-7)
    kinds = {
        k for spec in made(tmp_path / "stacked", members, shared) for k in tables(spec)["events"]["kind"]
    }
    assert "died" in kinds


def test_what_cannot_be_stacked_is_refused(tmp_path: Path) -> None:
    refused = [["model=cnn", "remedy=redo"], ["dtype=bfloat16"], ["remedy=auto"]]
    assert all(stacking_blocker(compose(o)) for o in refused)
    a = compose([f"output={tmp_path}"])
    for other in ("model.width=7", "optim=adam", "train.epochs=3", "activation=crelu", "record.early=false"):
        assert stacking_key(a) != stacking_key(compose([other]))
    with pytest.raises(ValueError, match="share"):
        together([a, compose(["model.width=7", f"output={tmp_path}"])], tmp_path)
    with pytest.raises(ValueError, match="once"):
        together([a, a], tmp_path)
    with pytest.raises(ValueError, match="at least one"):
        train_cohort([], [], tmp_path)
