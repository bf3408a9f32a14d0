"""harness.watch counts every update of the model, by whichever optimizer, and drops nothing it has seen."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import harness
from harness.detector.verdict import verdict


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def batches(count: int) -> Iterator[Tensor]:
    draw = torch.Generator().manual_seed(1)
    return (torch.randn(8, 4, generator=draw) for _ in range(count))


def train(model: Any, steps: int, *optimizers: torch.optim.Optimizer) -> None:
    for x in batches(steps):
        model(x).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def inputs_by_step(recorder: harness.Recorder) -> dict[Any, Any]:
    return recorder.history().groupby("step").n.max().to_dict()


class SAM(torch.optim.SGD):
    """Steps away and back around a second pass; the update itself is made by an optimizer inside."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, lr)
        self.inner = torch.optim.SGD(self.param_groups, lr)
        self.old: list[Tensor] = []

    @torch.no_grad()
    def first_step(self) -> None:
        own = self.param_groups[0]["params"]
        self.old = [p.clone() for p in own]
        for p in own:
            p.add_(p.grad, alpha=0.05)
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        for p, old in zip(self.param_groups[0]["params"], self.old, strict=True):
            p.copy_(old)
        self.inner.step()
        self.zero_grad()

    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.first_step()
        with torch.enable_grad():
            closure()
        self.second_step()


@pytest.mark.parametrize("given", [True, False])
def test_the_optimizer_is_replaced(given: bool) -> None:
    model = net()
    head = torch.optim.SGD(model[2].parameters(), 0.1)
    recorder = harness.watch(model, head if given else None, census_every=10)
    train(model, 20, head)
    with torch.no_grad():
        model[0].bias.sub_(99)  # pyright: ignore
    everything = torch.optim.SGD(model.parameters(), 0.1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train(model, 30, everything)
        recorder.close()
    assert recorder.steps == 50
    assert inputs_by_step(recorder) == dict.fromkeys((10, 20, 30, 40, 50), 80)
    last = recorder.latest
    assert last is not None
    assert (last.state == "dead").all()
    assert ["was not given" in str(one.message) for one in said] == [True] * given


@pytest.mark.filterwarnings("ignore:SGD stepped")  # the optimizer inside was not given
@pytest.mark.parametrize("closure", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_sam(given: bool, closure: bool) -> None:
    model = net()
    optimizer = SAM(model.parameters(), 0.1)
    recorder = harness.watch(model, optimizer if given else None, census_every=5, alert=lambda found: True)
    for x in batches(20):

        def again(x: Tensor = x) -> None:
            model(x).square().mean().backward()

        again()
        if closure:
            optimizer.step(again)
        else:
            optimizer.first_step()
            again()
            optimizer.second_step()
    assert recorder.should_stop
    assert recorder.steps == 20
    recorder.close()
    assert inputs_by_step(recorder) == dict.fromkeys((5, 10, 15, 20), 80)


def test_optimizers_that_step_together_make_one_step() -> None:
    model = net()
    parts = [torch.optim.SGD(model[k].parameters(), 0.1) for k in (0, 2)]
    for given in (None, parts):
        with harness.watch(model, given, census_every=5) as recorder:
            train(model, 10, *parts)
        assert inputs_by_step(recorder) == {5: 40, 10: 40}
        last = recorder.latest
        assert last is not None
        if given:
            assert last.grad_norm.notna().all()


def test_updates_by_hand() -> None:
    model = net()

    def by_hand(recorder: harness.Recorder | None) -> None:
        for x in batches(12):
            model(x).square().mean().backward()
            with torch.no_grad():
                for p in model.parameters():
                    p.sub_(0.1 * p.grad)  # pyright: ignore
                    p.grad = None
            if recorder is not None:
                recorder.step()

    recorder = harness.watch(model, census_every=5)
    by_hand(None)
    with pytest.warns(UserWarning, match=r"Call recorder.step\(\) without arguments"):
        recorder.close()
    assert inputs_by_step(recorder) == {0: 96}
    with harness.watch(model, census_every=5) as recorder:  # as advised
        by_hand(recorder)
    assert inputs_by_step(recorder) == {5: 40, 10: 40, 12: 16}


@pytest.mark.parametrize("before", [True, False])
def test_a_call_of_step_beside_an_optimizer_counts_nothing_twice(before: bool) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with harness.watch(model, optimizer, census_every=None) as recorder:
        for x in batches(6):
            model(x).square().mean().backward()
            if before:
                recorder.step()
            optimizer.step()
            if not before:
                recorder.step()
        assert recorder.steps == 6


def test_what_was_seen_after_the_last_step_is_in_a_census() -> None:
    model = net()
    recorder = harness.watch(model, census_every=5)
    train(model, 10, torch.optim.SGD(model.parameters(), 0.1))
    train(model, 3)
    recorder.close()
    history = recorder.history()
    assert history[history.unit == 0][["step", "n"]].to_numpy().tolist() == [[5, 40], [10, 40], [10, 24]]


def test_a_module_that_comes_later() -> None:
    """Only its parameters are trained then; they were none of the model's at first."""
    model = net()
    head = nn.Linear(8, 3)
    optimizer = torch.optim.SGD(head.parameters(), 0.1)
    with harness.watch(model, census_every=None) as recorder:
        optimizer.step()
        assert recorder.steps == 0
        model[2] = head
        train(model, 4, optimizer)
        assert recorder.steps == 4


def test_the_learning_rate_is_that_of_the_optimizer_that_steps(tmp_path: Any) -> None:
    model = net()
    with harness.watch(model, output=tmp_path, tensorboard=False):
        for lr in (0.1, 0.2):
            train(model, 2, torch.optim.SGD(model.parameters(), lr))
    (run,) = harness.open_runs(tmp_path)
    assert run.steps["lr"].tolist() == [0.1, 0.1, 0.2, 0.2]


def test_a_compiled_step_of_an_optimizer() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    step = torch.compile(optimizer.step, backend="eager")
    with harness.watch(model, optimizer, census_every=None) as recorder:
        for x in batches(5):
            model(x).square().mean().backward()
            step()
            optimizer.zero_grad()
        assert recorder.steps == 5


def test_nothing_keeps_a_model_alive_and_the_hook_ends_with_it() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    harness.watch(model, optimizer, census_every=5)  # not kept by the user: the model does
    gc.collect()
    train(model, 6, optimizer)
    gone = weakref.ref(model)
    del model, optimizer
    gc.collect()
    assert gone() is None
    assert not import_module("torch.optim.optimizer")._global_optimizer_post_hooks


def test_a_second_watcher_of_one_model_says_that_the_first_goes_on() -> None:
    model = net()
    first = harness.watch(model)
    with pytest.warns(UserWarning, match="another recorder watches this model already"):
        second = harness.watch(model)
    train(model, 2, torch.optim.SGD(model.parameters(), 0.1))
    assert (first.steps, second.steps) == (2, 2)
    second.close()
    first.close()
    with harness.watch(model):
        train(model, 1, torch.optim.SGD(model.parameters(), 0.1))


def test_a_second_census_of_a_step_leaves_the_run_whole(tmp_path: Any) -> None:
    """On disk, a step has one row per unit: that with the most inputs, as in the verdict."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    recorder = harness.watch(model, optimizer, census_every=5, output=tmp_path / "runs", tensorboard=False)
    train(model, 10, optimizer)
    train(model, 1)
    recorder.close()
    assert recorder.history().groupby("step").n.unique().map(list).to_dict() == {5: [40], 10: [40, 8]}
    assert "n = 40 " in verdict(recorder.history()).text
    recorder.save(tmp_path / "saved")
    for folder in (tmp_path / "runs", tmp_path):
        run = next(run for run in harness.open_runs(folder) if len(run.census))
        assert run.state == "finished"
        assert run.census.groupby("step").n.unique().map(list).to_dict() == {5: [40], 10: [40]}
