"""Remedies in runs: continued without a trace, told in the tables, refused early, and of use."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from interrupted import assert_continues, weights
from side_by_side import assert_same as assert_same_tables
from side_by_side import made, one_by_one, tables, together

from harness.config import ConfigError, RunSpec, compose, run_folder, run_id
from harness.store.runs import Run
from harness.sweeps.job import check_jobs, run_job
from harness.training.stacked import cohort

REMEDIES = {
    "redo": ["remedy=redo", "remedy.every=3", "remedy.tau=0.1"],
    "continual_backprop": ["remedy=continual_backprop", "remedy.rate=0.05", "remedy.maturity=3"],
    "shrink_perturb": ["remedy=shrink_perturb", "remedy.every=4"],
    "bias_lift": ["remedy=bias_lift", "remedy.every=3"],
    "leaky_swap": ["remedy=leaky_swap", "remedy.every=4"],
    "sugar": ["remedy=sugar"],
}
ALL = {**REMEDIES, "placebo": [*REMEDIES["redo"], "remedy.choose=random"]}
SMALL = ["data.subset=200", "train.epochs=3", "train.checkpoint_seconds=0", "record.tensorboard=false"]
NETWORKS = [
    ["model.width=12", "model.depth=2", "bias.offset=-2", "optim=adam", "model.norm=batch"],
    ["model=cnn", "model.channels=4", "model.width=8", "bias.offset=-0.5", "optim=momentum"],
]


def spec(out: Path, *overrides: str) -> RunSpec:
    return compose([f"output={out}", *SMALL, *overrides])


@pytest.mark.parametrize("network", NETWORKS, ids=["mlp", "cnn"])
@pytest.mark.parametrize("remedy", ALL)
def test_an_interrupted_run_continues_as_if_nothing_had_been(
    remedy: str, network: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, torn = (spec(tmp_path / name, *network, *ALL[remedy]) for name in ("whole", "torn"))
    one = assert_continues(whole, torn, (4, 11), monkeypatch)
    assert ALL[remedy][0].removeprefix("remedy=") in set(one.events["kind"])


@pytest.mark.parametrize("stop", [5, 12])
def test_a_continued_cohort_equals_an_uninterrupted_one(
    stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [[*own, f"seed={k}", "bias.offset=-0.5"] for k, own in enumerate(REMEDIES.values())]
    members.insert(2, ["activation=prelu"])
    shared = ["optim=adam", "train.epochs=3", "train.checkpoint_seconds=0", "model.norm=batch"]
    whole, torn = made(tmp_path / "whole", members, shared), made(tmp_path / "torn", members, shared)
    together(whole, tmp_path / "keep whole")
    honest = cohort._Cohort._one_step

    def dying(self: cohort._Cohort) -> None:
        if self.step == stop:
            raise OSError
        honest(self)

    monkeypatch.setattr(cohort._Cohort, "_one_step", dying)
    with pytest.raises(OSError):  # noqa: PT011 (it is ours)
        together(torn, tmp_path / "keep")
    monkeypatch.setattr(cohort._Cohort, "_one_step", honest)
    together(torn, tmp_path / "keep")
    for one, two in zip(whole, torn, strict=True):
        assert_same_tables(one, two)


@pytest.mark.parametrize("remedy", ["redo", "continual_backprop", "bias_lift", "leaky_swap"])
def test_what_is_recorded_plays_no_part_and_counts_no_input_twice(remedy: str, tmp_path: Path) -> None:
    own = [*NETWORKS[0], *REMEDIES[remedy]]
    watched, bare = spec(tmp_path / "w", *own), spec(tmp_path / "b", *own, "record=off")
    one_by_one([watched, bare])
    p, q = weights(watched), weights(bare)
    assert all(torch.equal(p[name], q[name]) for name in p)
    told = [table[table["kind"] == remedy] for table in (tables(watched)["events"], tables(bare)["events"])]
    assert len(told[0])
    assert told[0].reset_index(drop=True).equals(told[1].reset_index(drop=True))
    census = tables(watched)["census"]
    stream = census[census["evidence"] == "stream"]
    assert stream.groupby("step")["n"].max().sum() == 32 * len(tables(watched)["steps"])


def test_acts_are_told_when_they_happen_and_never_after_the_last_step(tmp_path: Path) -> None:
    run = spec(tmp_path, *NETWORKS[0], *REMEDIES["redo"])
    one_by_one([run])
    events, last = tables(run)["events"], tables(run)["steps"]["step"].max()
    acts = events[events["kind"] == "redo"]
    assert last % 3 == 0
    assert set(acts["step"]) <= set(range(3, last, 3))
    assert set(acts["site"]) <= {"layers.0.act", "layers.1.act"}
    assert (acts["units"] > 0).all()
    assert set(acts["detail"]) == {"score at most 0.1"}
    other = spec(tmp_path, *NETWORKS[0], *REMEDIES["sugar"])
    one_by_one([other])
    assert tables(other)["events"].iloc[0][["step", "kind", "units"]].tolist() == [0, "sugar", 0]


def test_sites_that_are_left_alone_are_told(tmp_path: Path) -> None:
    run = spec(
        tmp_path, "model=resnet", "train.max_steps=4", "remedy=redo", "remedy.every=2", "remedy.tau=0.5"
    )
    one_by_one([run])
    events = tables(run)["events"]
    alone = events[events["kind"] == "untreated"]
    assert set(alone["site"]) == {"act", *(f"blocks.{k}.act2" for k in range(9))}
    assert set(events.loc[events["kind"] == "redo", "site"]) <= {f"blocks.{k}.act1" for k in range(9)}


REFUSED = [
    (["remedy=redo", "remedy.tau=-1"], r"remedy\.tau: expected a number at least 0"),
    (["remedy=redo", "remedy.every=0"], r"remedy\.every: expected a whole number at least 1"),
    (["remedy=continual_backprop", "remedy.rate=0"], r"remedy\.rate: expected a number above 0"),
    (["remedy=continual_backprop", "remedy.decay=1"], r"remedy\.decay: expected .* below 1"),
    (["remedy=shrink_perturb", "remedy.shrink=2"], r"remedy\.shrink: expected .* at most 1"),
    (["remedy=bias_lift", "remedy.share=0"], r"remedy\.share: expected a number above 0"),
    (["remedy=leaky_swap", "remedy.units=some"], r"remedy\.units: expected one of dead, all"),
    (["remedy=redo", "remedy.rate=1"], r"remedy\.rate: there is no such key"),
    (["remedy=cure"], "remedy: expected one of auto, bias_lift"),
    (["remedy=sugar", "activation=elu"], "sugar is made for activation=relu"),
    (["remedy=leaky_swap", "activation=gelu"], "leaky_swap is made for activation=relu"),
    (["remedy=bias_lift", "activation=leaky_relu"], "bias_lift is made for activation=relu or relu6"),
]


@pytest.mark.parametrize(
    ("overrides", "words"), REFUSED, ids=lambda o: " ".join(o) if isinstance(o, list) else ""
)
def test_bad_values_name_their_key(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        compose(overrides)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["remedy=redo", "model=rnn"], r"redo finds no units .* cat"),
        (["remedy=redo", "model.norm=layer"], "layer_norm stands before it"),
        (["remedy=continual_backprop", "model.skip=post_add"], "residual sum"),
        (["remedy=bias_lift", "model=rnn"], "more than once"),
        (["remedy=redo", "activation=crelu"], "more outputs than it has units"),
    ],
)
def test_a_network_in_which_a_remedy_can_do_nothing_is_refused_early(
    overrides: list[str], words: str, tmp_path: Path
) -> None:
    bad = spec(tmp_path, *overrides)
    with pytest.raises(ConfigError, match=words):
        check_jobs([spec(tmp_path, "model.width=4"), bad])
    assert not list(tmp_path.iterdir())


def test_a_run_without_remedy_is_the_run_it_was() -> None:
    assert (
        run_id(compose(["record.census_every=50"])) == "digits-mlp-relu-sgd-lr0.1-s0-d2c0588a"
    )  # before there were remedies
    assert "-redo-" in run_id(compose(["remedy=redo"]))
    ids = {run_id(compose(["remedy=redo", f"remedy.{o}"])) for o in ("tau=0", "tau=0.1", "every=7")}
    assert len(ids) == 3


@pytest.mark.parametrize("remedy", [None, "redo", "bias_lift", "leaky_swap", "sugar"])
def test_from_a_bias_of_minus_2_units_come_back(remedy: str | None, tmp_path: Path) -> None:
    own = [] if remedy is None else [f"remedy={remedy}"]
    start = ["bias.offset=-2", "optim=adam", "optim.lr=0.003", "model.width=64", "train.epochs=8"]
    run = compose([f"output={tmp_path}", "record.tensorboard=false", *start, *own])
    run_job(run)
    final = Run(run_folder(run)).status["final"]
    assert final["born_dead"] > 0.9 * 192
    if remedy is None:
        assert final["dead_fraction"] > 0.9
    else:
        assert final["dead_fraction"] < 0.3
        assert final["accuracy"] > 0.15  # chance is 0.1, and what the run without remedy has
