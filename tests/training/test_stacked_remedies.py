"""A member of a stack is treated as its run alone would be."""

from __future__ import annotations

from pathlib import Path

import pytest
from side_by_side import assert_alike, assert_same, made, one_by_one, tables, together

REMEDIES = {
    "redo": ["remedy=redo", "remedy.every=3", "remedy.tau=0.1"],
    "continual_backprop": ["remedy=continual_backprop", "remedy.rate=0.05", "remedy.maturity=3"],
    "shrink_perturb": ["remedy=shrink_perturb", "remedy.every=4"],
    "bias_lift": ["remedy=bias_lift", "remedy.every=3"],
    "leaky_swap": ["remedy=leaky_swap", "remedy.every=2", "remedy.slope=0.1"],
    "sugar": ["remedy=sugar"],
}
ALL = {**REMEDIES, "placebo": [*REMEDIES["redo"], "remedy.choose=random"]}
OPTIMIZERS = {"sgd": "optim.lr=0.05", "momentum": "optim.lr=0.02", "adam": "optim.lr=0.01"}
STARTS = [["seed=1"], ["seed=2", "bias.offset=-0.4"], ["seed=3", "bias.offset=-1"]]


def compare(tmp_path: Path, members: list[list[str]], shared: list[str]) -> list:
    alone, stacked = made(tmp_path / "alone", members, shared), made(tmp_path / "stacked", members, shared)
    assert together(stacked, tmp_path / "keep") == one_by_one(alone)
    for one, two in zip(alone, stacked, strict=True):
        assert_alike(one, two, 1e-8)
    return stacked


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("remedy", ALL)
def test_each_remedy(remedy: str, optimizer: str, tmp_path: Path) -> None:
    shared = ["dtype=float64", f"optim={optimizer}", OPTIMIZERS[optimizer], *ALL[remedy]]
    stacked = compare(tmp_path, STARTS, shared)
    kinds = {kind for spec in stacked for kind in tables(spec)["events"]["kind"]}
    assert ALL[remedy][0].removeprefix("remedy=") in kinds


@pytest.mark.parametrize("network", [["model.norm=batch"], ["model.skip=pre_norm"], ["model.skip=zero_init"]])
def test_all_in_one_stack(network: list[str], tmp_path: Path) -> None:
    members = [[*REMEDIES[name], *start] for name in REMEDIES for start in STARTS[1:]]
    members += [["seed=5"], ["activation=prelu", "seed=6"], ["activation=elu", *REMEDIES["redo"]]]
    compare(tmp_path, members, ["dtype=float64", "optim=adam", "optim.lr=0.01", *network])


def test_who_diverges_takes_nothing_along(tmp_path: Path) -> None:
    """The others are, to the last bit, those of a cohort in which nobody diverges."""
    sound = [[*REMEDIES[name], *STARTS[1]] for name in REMEDIES]
    exploding = ["optim.lr=1e30", *REMEDIES["continual_backprop"]]
    mixture = [exploding, *sound[:3], [*exploding, "seed=4"], *sound[3:]]
    calm, mixed = made(tmp_path / "calm", sound), made(tmp_path / "mixed", mixture)
    endings = together(mixed, tmp_path / "a")
    assert [endings[k].diverged_at is None for k in (0, 4)] == [False, False]
    assert [endings[k] for k in (1, 2, 3, 5, 6, 7)] == together(calm, tmp_path / "b")
    for one, k in zip(calm, (1, 2, 3, 5, 6, 7), strict=True):
        assert_same(one, mixed[k])
