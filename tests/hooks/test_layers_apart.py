"""Layers that autograd's graph does not tell apart, frozen or without a graph, have their own counts.

The first inputs of a new path may be lost, which `n` shows; none is counted at another layer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

import harness

ROWS = 16


class Notes(list[tuple[int, Tensor]]):
    """Scans and probes restore plain lists in attributes, but no objects of other types."""


class Layers(nn.Module):
    """Three layers of one width before one activation; notes the pre-activations of each."""

    def __init__(self, *, module: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.act, self.head = (nn.ReLU() if module else F.relu), nn.Linear(8, 1)
        self.notes = Notes()
        with torch.no_grad():
            for k, layer in enumerate(self.layers):
                layer.get_parameter("bias")[: k + 1] = -100.0

    def call(self, k: int, h: Tensor) -> Tensor:
        z = self.layers[k](h)
        self.notes.append((k, z.detach().clone()))
        return self.act(z)

    def forward(self, x: Tensor, order: tuple[int, ...] = (0, 1, 2), graph: bool = True) -> Tensor:
        with nullcontext() if graph else torch.no_grad():
            for k in order:
                x = self.call(k, x)
        return self.head(x)


def agrees(model: Layers, census: pd.DataFrame, sites: tuple[harness.Site, ...], lost: int = 0) -> None:
    """Dead units are dead, and no input is counted at another layer; at most some batches are lost."""
    found = {site.producers[0]: census[census.site == site.name] for site in sites if not site.reason}
    assert set(found) == {f"layers.{k}" for k, _ in model.notes}
    for k in {k for k, _ in model.notes}:
        z, rows = torch.cat([z for j, z in model.notes if j == k]), found[f"layers.{k}"]
        missing = (len(z) - int(rows.n.iloc[0])) // ROWS
        assert 0 <= missing <= lost
        assert set(rows.state[: k + 1]) == {"dead"}
        differ = (z > 0).sum(0) - torch.tensor(rows.active.to_numpy())
        assert ((differ >= 0) & (differ <= missing * ROWS)).all()
        assert missing or not differ.any()


def trained(model: Layers, steps: int, run: Callable[[int], Tensor]) -> harness.Recorder:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        for step in range(steps):
            run(step).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step()
    return recorder


@pytest.mark.parametrize("module", [True, False], ids=["module", "function"])
@pytest.mark.parametrize("frozen", [(0,), (1,), (2,), (1, 2), (0, 1, 2)])
def test_layers_frozen_in_the_course_of_training(frozen: tuple[int, ...], module: bool) -> None:
    model = Layers(module=module)

    def run(step: int) -> Tensor:
        if step == 12:
            for k in frozen:
                model.layers[k].requires_grad_(requires_grad=False)
        return model(torch.randn(ROWS, 8))

    recorder = trained(model, 24, run)
    agrees(model, recorder.census(), tuple(s for s in recorder.sites if s.producers), lost=1)


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("module", [True, False], ids=["module", "function"])
def test_layers_take_turns_late(module: bool, graph: bool) -> None:
    """Which layer runs hangs on the step alone; under no_grad nothing but the layer tells them apart."""
    model = Layers(module=module)
    recorder = trained(model, 60, lambda step: model(torch.randn(ROWS, 8), (step // 20,), graph))
    agrees(model, recorder.census(), tuple(s for s in recorder.sites if s.producers), lost=2)


@pytest.mark.parametrize("module", [True, False], ids=["module", "function"])
def test_scan_and_probe_of_a_branch_that_hangs_on_the_input(module: bool) -> None:
    class Routed(Layers):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return self.head(self.call(int(x.mean() > 0), x))

    batches = [torch.rand(ROWS, 8)] * 16 + [-torch.rand(ROWS, 8)] * 15
    model = Routed(module=module)
    report = harness.scan(model, batches)
    agrees(model, report.units, tuple(s for s in report.plan.sites if s.producers), lost=1)
    model.notes.clear()
    with harness.Recorder(model, probe=batches, census_every=None) as recorder:
        pass
    agrees(model, recorder.census(), tuple(s for s in recorder.sites if s.producers), lost=1)


def test_greedy_training_layer_by_layer() -> None:
    model = Layers()

    def run(step: int) -> Tensor:
        depth, h = step // 20, torch.randn(ROWS, 8)
        with torch.no_grad():
            for k in range(depth):
                h = model.call(k, h)
        return model.head(model.call(depth, h))

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, step: int) -> Tensor:
            return run(step)

    whole = Whole()
    with harness.Recorder(whole, census_every=None) as recorder:
        for step in range(60):
            whole(step).square().mean().backward()
            recorder.step()
    census = recorder.census()
    sites = [harness.Site(**{f: getattr(s, f) for f in s.__slots__}) for s in recorder.sites]
    assert [s.producers for s in sites] == [(f"model.layers.{k}",) for k in range(3)]
    for k, site in enumerate(sites):
        rows = census[census.site == site.name]
        assert rows.state.eq("dead").tolist()[: k + 1] == [True] * (k + 1)
        z = torch.cat([z for j, z in model.notes if j == k])
        assert 0 <= len(z) - int(rows.n.iloc[0]) <= 2 * ROWS


@pytest.mark.parametrize("kept", ["relu", "addmm"])
def test_gradients_under_selective_checkpointing(kept: str) -> None:
    operator = {"relu": torch.ops.aten.relu.default, "addmm": torch.ops.aten.addmm.default}[kept]

    def censuses(*, selective: bool) -> pd.DataFrame:
        torch.manual_seed(0)
        part = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 2))

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.part = part

            def forward(self, x: Tensor) -> Tensor:
                if not selective:
                    return self.part(x)
                contexts = lambda: create_selective_checkpoint_contexts([operator])  # noqa: E731
                out: Tensor = checkpoint(self.part, x, use_reentrant=False, context_fn=contexts)  # type: ignore
                return out

        model = Net()
        with harness.Recorder(model, census_every=1) as recorder:
            for _ in range(12):
                model(torch.randn(5, 6)).square().mean().backward()
                recorder.step()
        return recorder.history()

    pd.testing.assert_frame_equal(censuses(selective=True), censuses(selective=False))
