"""harness.watch: one line before the loop, nothing in it."""

from __future__ import annotations

import copy
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import harness


def net(bias: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    model[0].bias.data.fill_(bias)  # pyright: ignore
    return model


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, **told: Any) -> list[float]:
    losses = []
    for _ in range(steps):
        loss = model(torch.randn(16, 6)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_steps_are_those_of_the_optimizer_and_training_is_the_same() -> None:
    plain = net()
    torch.manual_seed(1)
    truth = train(plain, torch.optim.Adam(plain.parameters()), 25)
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    recorder = harness.watch(model, optimizer, census_every=10)
    torch.manual_seed(1)
    assert train(model, optimizer, 25) == truth
    recorder.close()
    recorder.close()
    assert isinstance(recorder, harness.Recorder)
    assert recorder.steps == 25
    assert recorder.history().groupby("step").n.first().to_dict() == {10: 160, 20: 160, 25: 80}
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))
    assert not optimizer._optimizer_step_post_hooks  # nothing is left
    assert not import_module("torch.optim.optimizer")._global_optimizer_post_hooks


def test_the_optimizer_is_found() -> None:
    """The first that trains a parameter of the model; others do not count."""
    model, other = net(), net()
    recorder = harness.watch(model, census_every=5)
    train(other, torch.optim.SGD(other.parameters(), 0.1), 7)
    train(model, torch.optim.SGD(model.parameters(), 0.1), 10)
    head = torch.optim.SGD(model[2].parameters(), 0.1)
    head.step()
    recorder.close()
    assert recorder.steps == 10
    assert recorder.history().step.unique().tolist() == [5, 10]


def test_every_update_is_a_step() -> None:
    generator, critic = net(), net()
    own = [torch.optim.SGD(part.parameters(), 0.01) for part in (generator, critic)]
    with harness.watch(nn.ModuleDict({"g": generator, "c": critic}), own, census_every=None) as recorder:
        for _ in range(3):
            for _ in range(5):
                train(critic, own[1], 1)
            train(generator, own[0], 1)
        assert recorder.steps == 18
        n = recorder.census().groupby("site").n.first().to_dict()
    assert n == {"c.1": 240, "g.1": 48}


def test_a_scaler_that_skips_a_step_has_made_none() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    with harness.watch(model, optimizer, scaler=scaler, census_every=None) as recorder:
        for k in range(6):
            loss = model(torch.randn(4, 6)).square().mean() * (float("inf") if k == 2 else 1.0)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        assert recorder.steps == 5


def test_errors_of_the_observation_are_none_of_the_optimizers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    recorder = harness.watch(model, optimizer, census_every=2)
    monkeypatch.setattr(recorder._log, "add", lambda parts: 1 / 0)
    train(model, optimizer, 5)
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="an optimizer's step failed, training goes on"):
        recorder.close()


def test_a_copied_model_is_not_watched() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with harness.watch(model, optimizer) as recorder:
        twin = copy.deepcopy(model)
        train(twin, torch.optim.SGD(twin.parameters(), 0.01), 3)
        train(model, optimizer, 2)
    assert (recorder.steps, recorder.census().n.iloc[0]) == (2, 32)


def test_the_interpreters_end_concludes_the_run(tmp_path: Path) -> None:
    program = (
        "import sys, torch, harness\n"
        "from torch import nn\n"
        "model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        "own = {'census_every': 10, 'output': sys.argv[1], 'config': {'lr': 0.1}}\n"
        "recorder = harness.watch(model, optimizer, **own)\n"
        "for step in range(25):\n"
        "    loss = model(torch.randn(8, 4)).square().mean()\n"
        "    optimizer.zero_grad(); loss.backward(); optimizer.step()\n"
        "    recorder.step(loss=loss, margin=step)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    (run,) = harness.open_runs(tmp_path)
    assert run.state == "finished"
    assert run.census["step"].unique().tolist() == [10, 20, 25]
    assert run.steps["step"].tolist() == list(range(1, 26))
    assert run.steps["loss"].notna().all()
    assert run.steps["margin"].tolist() == list(range(25))


@pytest.mark.parametrize("form", ["compiled", "lbfgs", "frozen"])
def test_other_trainings(form: str) -> None:
    model: Any = net()
    if form == "frozen":
        model[0].requires_grad_(False)
    kind = torch.optim.LBFGS if form == "lbfgs" else torch.optim.SGD
    optimizer = kind([p for p in model.parameters() if p.requires_grad], lr=0.01)
    called = torch.compile(model, backend="eager") if form == "compiled" else model
    with harness.watch(model, optimizer, census_every=None) as recorder:
        for _ in range(4):
            x = torch.randn(8, 6)

            def closure(x: Tensor = x) -> Tensor:
                optimizer.zero_grad()
                loss = called(x).square().mean()
                loss.backward()
                return loss

            optimizer.step(closure)
        assert recorder.steps == 4
        assert recorder.census().n.iloc[0] >= 32


@pytest.mark.parametrize("told", [True, False])
def test_the_evidence_is_that_of_a_block(told: bool) -> None:
    """Also its loss, where it is told: the causes need it to know of wrong labels."""

    def evidence(watched: bool) -> Any:
        model = net(-1.0)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        options: dict[str, Any] = {"census_every": 10, "evidence": True}
        made = harness.watch(model, optimizer, **options) if watched else None
        with made or harness.Recorder(model, optimizer=optimizer, **options) as recorder:
            for _ in range(25):
                loss = model(torch.randn(16, 6)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if told or not watched:
                    recorder.step(loss=loss if told else None)
        return recorder.evidence(), recorder.diagnose().text

    (watched, sentence), (block, same) = evidence(True), evidence(False)
    pd.testing.assert_frame_equal(watched.steps, block.steps)
    pd.testing.assert_frame_equal(watched.units, block.units)
    assert watched.steps["loss"].notna().all() == told
    assert sentence == same


def test_metrics_without_a_run_are_refused() -> None:
    model = net()
    with harness.watch(model, torch.optim.SGD(model.parameters(), 0.1), census_every=None) as recorder:
        with pytest.raises(ValueError, match="kept in a run on disk"):
            recorder.step(loss=1.0)
        model(torch.randn(2, 6))


def test_an_argument_that_does_not_exist_is_told_with_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"watch\(\) has no argument 'census_evry'. Did you mean census_e"):
        harness.watch(net(), census_evry=3)
    with pytest.raises(TypeError, match="It has optimizer, census_every"):
        harness.watch(net(), frequency=3)


FORK = """
import os, sys, torch, harness
model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
recorder = harness.watch(model, optimizer, census_every=2, output=sys.argv[1], name="run", tensorboard=False)
for step in range(8):
    model(torch.randn(4, 6)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    if step == 3 and (child := os.fork()) == 0:
        sys.exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_forked_child_that_ends_does_not_end_the_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    runs = harness.open_runs(tmp_path)
    assert runs.table["status"].tolist() == ["finished"]
    assert sorted(set(runs.census["step"])) == [2, 4, 6, 8]
