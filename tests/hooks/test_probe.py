"""The probe: held-out inputs at every census, and lifetimes."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from small_nets import dropout_cnn, sgd, small, train_step, x
from torch import nn

import harness
from harness.selftest.truth import COLUMNS


def test_probe_before_the_first_step() -> None:
    model = small()
    optimizer = sgd(model)
    probe = x(50, seed=9)
    with torch.no_grad():
        z = model[0](probe)
    with harness.Recorder(model, optimizer=optimizer, census_every=2, probe=probe) as recorder:
        for i in range(4):
            train_step(model, optimizer, x(seed=i))
            recorder.step()
        with torch.no_grad():
            later = model[0](probe)
    history = recorder.history()
    assert list(history.columns) == COLUMNS
    probed, stream = history[history.evidence == "probe"], history[history.evidence == "stream"]
    assert probed.step.unique().tolist() == [0, 2, 4]
    assert stream.step.unique().tolist() == [2, 4]
    assert set(probed.n) == {50}
    assert set(stream.n) == {20}
    assert probed[probed.step == 0].active.tolist() == (z > 0).sum(0).tolist()
    assert probed[probed.step == 4].active.tolist() == (later > 0).sum(0).tolist()
    lives = harness.lifetimes(history).set_index("unit")
    assert bool(lives.born_dead[0])
    assert pd.isna(lives.died_at[0])
    assert not lives.born_dead[1:].any()


def test_probe_in_evaluation_mode_leaves_no_trace() -> None:
    """BatchNorm's statistics, modes, gradients and random state are as without a probe."""
    torch.manual_seed(0)
    model = dropout_cnn()
    model[3].eval()
    modes = [module.training for module in model.modules()]
    buffers = {k: v.clone() for k, v in model.named_buffers()}
    probe = [torch.randn(4, 1, 8, 8), (torch.randn(2, 1, 8, 8), torch.zeros(2))]
    rng = torch.get_rng_state()
    with harness.Recorder(model, census_every=None, probe=probe) as recorder:
        assert torch.equal(torch.get_rng_state(), rng)
        assert all(torch.equal(v, buffers[k]) for k, v in model.named_buffers())
        with torch.no_grad():
            model(torch.randn(2, 1, 8, 8))
        buffers = {k: v.clone() for k, v in model.named_buffers()}
        rng = torch.get_rng_state()
        recorder.census()
        assert torch.equal(torch.get_rng_state(), rng)
        assert [module.training for module in model.modules()] == modes
        assert all(torch.equal(v, buffers[k]) for k, v in model.named_buffers())
        assert all(p.grad is None for p in model.parameters())
    probed = recorder.history().query("evidence == 'probe'")
    assert probed.groupby("site").n.first().to_dict() == {"2": 6 * 36, "6": 6 * 16}


@pytest.mark.parametrize("observe", ["eval", "all"])
def test_the_probe_is_no_part_of_the_stream(observe: str) -> None:
    model = small().eval()
    with harness.Recorder(model, observe=observe, census_every=None, probe=x(50)) as recorder:
        for _ in range(2):
            model(x(4))
            recorder.census()
    history = recorder.history()
    assert set(history[history.evidence == "stream"].n) == {4}
    assert set(history[history.evidence == "probe"].n) == {50}


def test_a_census_before_any_forward_with_a_probe() -> None:
    """The probe has seen every site: none is unknown, none was never called."""
    model = small()
    with harness.Recorder(model, census_every=None, probe=x(50)) as recorder:
        census = recorder.census()
    stream = census[census.evidence == "stream"]
    assert set(stream.state) == {"unobserved"}
    assert set(stream.n) == {0}


def test_the_resumed_run_has_no_second_birth() -> None:
    """A probe census of step 0 is of the model before its first step, not of a resumed one."""
    model = small()
    with harness.Recorder(model, census_every=None, probe=x(9)) as recorder:
        model(x())
        recorder.step()
        state = recorder.state_dict()
    again = harness.Recorder(model, census_every=None, probe=x(9))
    again.load_state_dict(state)
    with again:
        model(x())
        recorder_steps = again.history().step.unique().tolist() if len(again.history()) else []
    assert 0 not in recorder_steps


def test_probe_from_a_generator() -> None:
    """It is read once and can be used at every census."""
    model = small()
    with harness.Recorder(model, census_every=1, probe=(x(5, seed=i) for i in range(2))) as recorder:
        for _ in range(2):
            model(x())
            recorder.step()
    probed = recorder.history().query("evidence == 'probe'")
    assert probed.groupby("step").n.first().to_dict() == {0: 10, 1: 10, 2: 10}
    assert probed[probed.step == 0].drop(columns="step").reset_index(drop=True).active.tolist() == (
        probed[probed.step == 2].active.tolist()
    )


def test_died_and_revived_by_the_stream() -> None:
    layer = nn.Linear(1, 3)
    model = nn.Sequential(layer, nn.ReLU())
    with torch.no_grad():
        layer.weight.fill_(0)
    stories = {1: [1, -1, 1], 2: [-1, -1, 1], 3: [-1, 1, 1], 4: [1, 1, 1]}
    with harness.Recorder(model, census_every=1) as recorder:
        for biases in stories.values():
            with torch.no_grad():
                layer.bias.copy_(torch.tensor(biases, dtype=torch.float32))
            model(torch.ones(4, 1))
            recorder.step()
    lives = harness.lifetimes(recorder.history()).set_index("unit")
    assert lives.born_dead.tolist() == [False, True, False]
    assert lives.died_at[0] == 2
    assert lives.revived_at.tolist()[:2] == [4, 3]
    assert lives.died_at.isna().tolist() == [False, True, True]
    assert lives.revived_at.isna().tolist() == [False, False, True]


def test_a_new_task_has_a_probe_of_its_own() -> None:
    model = small()
    with harness.Recorder(model, census_every=1, probe=x(50, seed=9)) as recorder:
        recorder.probe = other = x(30, seed=4)
        train_step(model, sgd(model), x(seed=0))
        recorder.step()
        with torch.no_grad():
            z = model[0](other)
    history = recorder.history()
    probed = history[history.evidence == "probe"]
    assert probed.groupby("step").n.first().tolist() == [50, 30]
    assert probed[probed.step == 1].active.tolist() == (z > 0).sum(0).tolist()


@pytest.mark.filterwarnings("ignore:nothing was counted in steps")
def test_the_last_steps_have_a_census_though_the_model_trains_in_evaluation_mode() -> None:
    torch.manual_seed(0)
    first, x = nn.Linear(4, 6), torch.randn(32, 4)
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(6, 1))
    with harness.Recorder(model, census_every=10, probe=x) as recorder:
        for step in range(25):
            model.train(step < 10)
            model(x).sum().backward()
            if step == 22:
                nn.init.constant_(first.bias, -100.0)
            recorder.step()
    probe = recorder.history().query("evidence == 'probe'")
    assert probe.step.unique().tolist() == [0, 10, 20, 25]
    assert set(probe[probe.step == 25].state) == {"dead"}
