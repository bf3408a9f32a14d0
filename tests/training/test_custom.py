"""Networks and data of one's own: refused with one clear line, or trained like ours."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from own_modules import modules_in
from torch import nn
from typer.testing import CliRunner

from harness import cli, diagnose, open_runs
from harness.config import (
    ConfigError,
    RunSpec,
    compose,
    overrides_of,
    plan,
    restore,
    run_folder,
    run_id,
    to_mapping,
)
from harness.sweeps.cohorts import why_not
from harness.sweeps.job import run_job
from harness.tools import app
from harness.training import loop, own_data
from harness.training.initialisation import initialise
from harness.training.models import build
from harness.training.sources import load_arrays

TINY = ["train.max_steps=12", "record.tensorboard=false", "record.census_every=5"]
NET = ["model=custom", "model.target=own_nets:Wide"]
PLAIN = ["model=custom", "model.target=own_nets:plain"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    with modules_in(tmp_path) as found:
        yield found


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([*argv])
    assert isinstance(ended.value.code, int)
    return ended.value.code


WRONG_MODELS = {
    "own_nets": "model.target: expected package.module:function, but got own_nets",
    "own_nets:": "model.target: expected package.module:function",
    "nowhere:net": "model.target: there is no module nowhere. It is looked for in",
    "own_nets.deeper:net": "model.target: there is no module own_nets.deeper",
    "own_broken:net": "importing own_broken raised ModuleNotFoundError: No module named 'not_there_at_all'",
    "own_nets:plane": "model.target: own_nets has no plane. Did you mean plain",
    "own_nets:number": "expected a function or class, but got own_nets:number, an int",
    "own_nets:raises": "own_nets:raises raised RuntimeError: no luck (",
    "own_nets:exits": "own_nets:exits raised SystemExit: 3 (",
    "own_nets:nothing": "own_nets:nothing returned None, but a torch.nn.Module is needed",
    "own_nets:narrow": "returns (2, 9) float32 for 2 inputs of 10 classes. A float tensor of shape (2, 10)",
    "own_nets:Pair": "returns a tuple for 2 inputs of 10 classes",
    "own_nets:wrong_inputs": "cannot read a batch of shape (2, 1, 8, 8): RuntimeError",
    "own_nets:frozen": "has no parameters to train",
    "own_nets:positional": "model.args: positional takes width by position alone",
    "own_nets:typed": "model.args.width: a value is needed, as typed has no default for it",
    "own_nets:typed model.args.width=abc": "model.args.width: expected a whole number, but got 'abc'",
    "own_nets:typed model.args.width=2 model.args.norm=3": "norm: expected true or false, but got 3",
    "own_nets:typed model.args.width=2 model.args.scale=a": "expected a number or null, but got 'a'",
    "own_nets:plain model.args.widht=3": "plain takes no such argument. Did you mean width? It takes width,",
    "own_nets:plain activation=elu": "activation: elu has no effect, since own_nets:plain takes no argument",
    "own_nets:plain init=sign_flip": "init: sign_flip is made for our own networks",
    "own_nets:without_bias bias.offset=-1": "bias.offset: has no effect: no bias",
    "own_nets:Bare init=xavier_normal": "init: has no effect: the network of own_nets:Bare has no linear",
    "own_nets:Bare bias=zero": "bias: has no effect: no linear or convolution layer of own_nets:Bare",
    "own_nets:Wide remedy=sugar": "remedy: sugar: expected a model with modules nn.ReLU",
    "own_nets:plain model.depth=3": "model.depth: there is no such key",
    "own_nets:plain model.args=3": "model.args: expected keys with values, e.g. {width: 64}, but got 3",
}
WRONG_DATA = {
    "own_sets:number": "expected (train, test), each a torch Dataset or a pair (x, y), or (x_train, y_train",
    "own_sets:two_arrays": "but got tuple of ndarray, ndarray",
    "own_sets:whole": "data.target: own_sets:whole: x_train is int64, not uint8 or float",
    "own_sets:uneven": "x_train holds 4 inputs, but y_train 3 labels",
    "own_sets:raises": "own_sets:raises raised KeyError: 'x' (",
    "own_sets:broken": "own_sets:broken: reading what it returned raised OSError: the disk is gone",
    "own_sets:arrays data.args.sise=3": "data.args.sise: arrays takes no such argument. Did you mean size?",
}
WRONG_LINES = {f"model=custom model.target={line}": words for line, words in WRONG_MODELS.items()} | {
    f"data=custom data.target={line}": words for line, words in WRONG_DATA.items()
}


@pytest.mark.parametrize("line", WRONG_LINES)
def test_what_cannot_be_trained_is_one_clear_line(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*line.split(), *TINY) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert WRONG_LINES[line] in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize("line", ["model=mlp init=own", "model=mlp bias=own", "model.args.width=3"])
def test_what_is_for_other_networks_is_refused(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*line.split(), *TINY) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_run_and_what_is_told_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*NET, "data=custom", "data.target=own_sets:items", "data.args={}", "model.args.width=5"]
    assert run(*words, *TINY, "bias.offset=-9") == 0
    said = capsys.readouterr()
    name = "items-Wide_width5-sgd-lr0.1-bias-9-s0-"
    assert name in said.out
    assert said.err.startswith(name)
    assert "on cpu, 12 steps; changed from the defaults: data=custom, data.target=own_sets:items" in said.err
    assert "model=custom, model.target=own_nets:Wide" in said.err
    assert "model.args.width=5" in said.err
    (found,) = open_runs("runs")
    assert found.config["model"] == {"name": "custom", "target": "own_nets:Wide", "args": {"width": 5}}
    assert found.status["final"]["cause"] == "bias_init"
    stamp = (found.path / "census.parquet").stat().st_mtime_ns
    assert run(*words, *TINY, "bias.offset=-9") == 0
    assert "finished before" in capsys.readouterr().out
    assert (found.path / "census.parquet").stat().st_mtime_ns == stamp
    assert run(*words, *TINY, "bias.offset=-9", "force=true") == 0
    assert (found.path / "census.parquet").stat().st_mtime_ns != stamp


def test_activations_in_place_are_counted_in_a_stack_as_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.sweeps.cohorts.cores", lambda: 2)
    words = ["model=custom", "data=digits", "model.target=own_nets:in_place", "dtype=float64"]
    for folder, stack in (("alone", "false"), ("stack", "true")):
        swept = [*words, *TINY, "seed=range(8)", f"output={folder}", f"hydra.launcher.stack={stack}"]
        assert run("-m", *swept) == 0
    for one, two in zip(open_runs("alone"), open_runs("stack"), strict=True):
        pd.testing.assert_frame_equal(one.census, two.census, rtol=1e-6)
        assert one.census.query("evidence == 'stream'")["grad_rms"].notna().all()


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("own_nets:Wide model.args.dropout=0", "one is a function"),
        ("own_nets:with_dropout", "RuntimeError"),
        ("own_nets:half_frozen", "frozen"),
        ("own_nets:half_used", "gets no gradient"),
        ("own_nets:tied", "the parameter of another layer"),
        ("own_nets:Pair", "ConfigError"),
        ("own_nets:Counting", "calls: a forward pass changes it"),
        ("own_nets:unsteady", "logits: it differs between a step in a stack and a step alone"),
    ],
)
def test_why_a_network_is_not_stacked(target: str, reason: str) -> None:
    words = f"model=custom data=digits model.target={target}".split()
    assert reason in why_not(plan(words, multirun=False)[0])


def test_what_a_network_does_to_a_batch_is_done_to_each_members_batch() -> None:
    words = ["model=custom", "data=digits", "model.target=own_nets:batch_mean"]
    assert why_not(plan(words, multirun=False)[0]) == ""


def test_arguments_are_swept_and_are_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", *PLAIN, "model.args.width=4,6", "seed=0,1", *TINY) == 0
    assert "4 one by one: fewer than" in capsys.readouterr().out
    runs = open_runs("runs")
    assert sorted(runs.table["model.args.width"]) == [4, 4, 6, 6]
    assert set(runs.table["status"]) == {"finished"}
    assert sorted({len(one.census["site"].unique()) for one in runs}) == [2]
    told = diagnose(runs[0])  # trained once more, to gather the evidence of a sweep's run
    assert "units dead" in str(told)


def test_an_edge_is_found_along_an_argument() -> None:
    words = ["--axis", "model.args.width", "--between", "2", "9", "--seeds", "2", "--checks", "0"]
    done = CliRunner().invoke(
        app, ["threshold", *words, "--output", "edge", *PLAIN, "bias.offset=-0.5", *TINY]
    )
    assert done.exit_code == 0, done.output
    assert {type(run.config["model"]["args"]["width"]) for run in open_runs("edge")} == {int}


def test_data_of_ones_own_are_stacked_with_our_networks(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data=custom", "data.target=own_sets:arrays", "model.width=8", "model.depth=1"]
    assert run("-m", *words, "seed=0,1", *TINY) == 0
    assert "2 as 1 cohort(s) of 2" in capsys.readouterr().out


def test_arguments_decide_which_run_it_is() -> None:
    specs = [compose([*PLAIN, f"model.args.width={width}"]) for width in (4, 6)]
    assert len({run_id(spec) for spec in specs}) == 2
    assert run_id(specs[0]).startswith("digits-plain_width4-sgd-lr0.1-s0-")
    nested = compose([*PLAIN, "model.args={width: 4, more: {depth: 2, sizes: [1, 2]}}", "seed=3"])
    assert restore(to_mapping(nested)) == nested
    assert run_id(restore(to_mapping(nested))) == run_id(nested)
    assert compose(overrides_of(to_mapping(nested))) == nested


def weights(spec: RunSpec) -> list[torch.Tensor]:
    model = build(spec, (1, 8, 8), 10)
    initialise(model, spec)
    return [p.detach().clone() for p in model.parameters()]


def test_the_networks_code_draws_and_the_runs_seed_decides() -> None:
    state = torch.get_rng_state()
    one, same, other = (weights(compose([*PLAIN, f"seed={seed}"])) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])


def test_what_init_and_bias_do() -> None:
    own = weights(compose(PLAIN))
    lowered = weights(compose([*PLAIN, "bias.offset=-2"]))
    assert [torch.allclose(b, a - 2) for a, b in zip(own, lowered, strict=True)] == [False, True] * 2 + [
        False
    ] * 2
    assert all(torch.equal(own[k], lowered[k]) for k in (0, 2, 4, 5))  # weights, and the head's bias
    drawn = weights(compose([*PLAIN, "init=xavier_normal"]))
    assert not torch.equal(own[0], drawn[0])
    assert torch.equal(own[1], drawn[1])  # biases stay the code's own
    assert not weights(compose([*PLAIN, "bias=zero"]))[1].any()
    assert torch.allclose(weights(compose([*PLAIN, "init.gain=2"]))[0], 2 * own[0])


@pytest.mark.parametrize(("name", "kind"), [("relu", nn.ReLU), ("elu", nn.ELU), ("prelu", nn.PReLU)])
def test_an_activation_is_handed_to_a_network_that_takes_one(name: str, kind: type[nn.Module]) -> None:
    spec = compose(["model=custom", "model.target=own_nets:with_activation", f"activation={name}"])
    assert type(build(spec, (1, 8, 8), 10)[2]) is kind  # type: ignore[index]


CURES = ["redo", "continual_backprop", "shrink_perturb", "bias_lift", "leaky_swap", "sugar"]


@pytest.mark.parametrize("cure", [*CURES, "none"])
def test_an_interrupted_run_continues_as_if_nothing_had_been(
    cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever remedy changes it, and though its dropout draws."""
    period = ["remedy.every=5"] if cure in ("redo", "shrink_perturb", "bias_lift", "leaky_swap") else []
    net = NET if cure == "none" else PLAIN
    words = [*net, *TINY, f"remedy={cure}", *period, "bias.offset=-1", "train.checkpoint_seconds=0"]
    whole, torn = (compose([*words, f"output={name}"]) for name in ("whole", "torn"))
    assert run_job(whole).state == "finished"
    honest = loop._Run._one_step

    def dying(self: loop._Run) -> bool:
        if self.step == 7:
            raise KeyboardInterrupt
        return honest(self)

    monkeypatch.setattr(loop._Run, "_one_step", dying)
    with pytest.raises(KeyboardInterrupt):
        run_job(torn)
    monkeypatch.setattr(loop._Run, "_one_step", honest)
    assert run_job(torn).state == "finished"
    (one,), (two,) = open_runs("whole"), open_runs("torn")
    for table in ("steps", "census", "events"):
        pd.testing.assert_frame_equal(getattr(one, table), getattr(two, table), check_exact=True)
    if cure in ("redo", "bias_lift", "leaky_swap", "sugar", "shrink_perturb"):
        assert cure in set(one.events["kind"])


def test_a_stored_run_is_read_where_its_code_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*PLAIN, *TINY, "record.evidence=false") == 0
    for file in Path.cwd().glob("own_*.py"):
        file.unlink()
    sys.modules.pop("own_nets")
    (found,) = open_runs("runs")
    assert len(found.census)
    assert run(*PLAIN, *TINY, "record.evidence=false") == 0  # its stored result is shown
    with pytest.raises(ValueError, match=r"cannot be trained again.*there is no module own_nets"):
        diagnose(found)
    capsys.readouterr()


def data_of(function: str, **changes: str) -> list[torch.Tensor]:
    raw = load_arrays(compose(["data=custom", f"data.target=own_sets:{function}"]).data)
    return [raw.x_train, raw.y_train, raw.x_test, raw.y_test]


def test_all_ways_to_return_data_mean_the_same() -> None:
    want = data_of("arrays")
    assert [tuple(one.shape) for one in want] == [(30, 64), (30,), (30, 64), (30,)]
    for other in ("pairs", "tensor_sets", "items"):
        assert all(torch.equal(a, b) for a, b in zip(want, data_of(other), strict=True)), other


def test_images_are_channels_first_and_drawn_data_are_the_same_for_every_run() -> None:
    assert data_of("uint8")[0].shape == (8, 3, 6, 6)
    first = data_of("drawn")
    own_data._made.cache_clear()
    torch.manual_seed(5)
    assert torch.equal(first[0], data_of("drawn")[0])


def test_the_folder_of_data_is_handed_over() -> None:
    Path("own_sets.py").write_text("import numpy as np\ndef named(root): raise ValueError(root)\n")
    with pytest.raises(ConfigError, match="raised ValueError: /data/mine"):
        load_arrays(compose(["data=custom", "data.target=own_sets:named", "data.root=/data/mine"]).data)


def test_numbers_in_names_are_plain() -> None:
    spec = compose([*PLAIN, "model.args.rate=1.5e-7", "model.args.place='a/b c'", "model.args.on=true"])
    assert "/" not in run_folder(spec).name
    assert run_folder(spec).name.startswith("digits-plain_onTrue_placeabc_rate1.5e-07")
    assert np.isclose(compose([*PLAIN, "model.args.rate=1.5e-7"]).model.args["rate"], 1.5e-7)  # type: ignore[attr-defined]
