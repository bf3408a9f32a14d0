"""grad_rms under a GradScaler: of the loss, not of the loss times the scale of the moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from small_nets import sgd, small, x
from test_no_wait import Reads
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import harness
from harness.recording.loss_scale import LossScale
from harness.selftest.plain import mlp


def scaler_with(**options: Any) -> Any:
    return torch.amp.GradScaler("cpu", **options)


def trained(
    make: Callable[[], Any],
    batches: list[Tensor],
    scaler: Any,
    *,
    told: bool = True,
    between: Callable[[int, Any], None] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """One census at the end; the weights stay, so that the scale alone makes a difference."""
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    given = {"scaler": scaler} if told else {}
    with harness.Recorder(model, optimizer=optimizer, census_every=None, **given, **options) as recorder:
        for i, batch in enumerate(batches):
            scaler.scale(model(batch).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            recorder.step()
            if between is not None:
                between(i, recorder)
        return recorder.census()


def plainly(make: Callable[[], Any], batches: list[Tensor], **options: Any) -> pd.DataFrame:
    return trained(make, batches, scaler_with(enabled=False), told=False, **options)


IMAGES = [torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(12)]


def cnn() -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten()
    )


CASES: dict[str, tuple[Callable[[], Any], list[Tensor]]] = {
    "mlp": (mlp, [x(8, seed=i, columns=6) for i in range(20)]),
    "cnn": (cnn, IMAGES),
    "sizes": (small, [x(3 + i, seed=i) for i in range(20)]),
    "hand-written": (lambda: Functional(), [x(8, seed=i) for i in range(20)]),
}


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, batch: Tensor) -> Tensor:
        hidden = self.a(batch).relu()
        return self.b(checkpoint(torch.nn.functional.gelu, hidden, use_reentrant=False))  # pyright: ignore


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("changing", [False, True])
def test_the_scale_is_taken_out(case: str, changing: bool) -> None:
    make, batches = CASES[case]
    options = {"init_scale": 4.0, "growth_factor": 8.0, "growth_interval": 2} if changing else {}
    got, want = trained(make, batches, scaler_with(**options)), plainly(make, batches)
    np.testing.assert_allclose(got.grad_rms, want.grad_rms, rtol=1e-5)
    np.testing.assert_allclose(got.grad_norm, want.grad_norm, rtol=1e-5)
    assert got.drop(columns=["grad_rms", "grad_norm"]).equals(want.drop(columns=["grad_rms", "grad_norm"]))


def test_the_scale_is_not_known_without_the_scaler() -> None:
    """A loss that was multiplied looks like any other."""
    make, batches = CASES["mlp"]
    got, want = trained(make, batches, scaler_with(), told=False), plainly(make, batches)
    np.testing.assert_allclose(got.grad_rms, want.grad_rms * 65536, rtol=1e-5)


def test_a_skipped_step_does_not_count() -> None:
    """The loss overflows in some steps, which the scaler skips: their inputs have no gradient."""
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    scaler = scaler_with(init_scale=2.0**40)
    factors = [1.0, 1e30, 1.0, float("nan"), 1.0]
    with harness.Recorder(model, optimizer=optimizer, census_every=None, scaler=scaler) as recorder:
        for i, factor in enumerate(factors):
            before = scaler.get_scale()
            scaler.scale(model(x(seed=i)).square().mean() * factor).backward()
            scaler.step(optimizer)
            scaler.update()
            assert (scaler.get_scale() < before) == (factor != 1.0)
            optimizer.zero_grad()
            recorder.step()
        census = recorder.census()
    want = plainly(small, [x(seed=i) for i in (0, 2, 4)])
    np.testing.assert_allclose(census.grad_rms[1:], want.grad_rms[1:], rtol=1e-5)
    assert set(census.n) == {50}


def test_a_window_of_skipped_steps() -> None:
    model = small()
    scaler = scaler_with()
    with harness.Recorder(model, census_every=None, scaler=scaler) as recorder:
        scaler.scale(model(x()).square().mean() * float("inf")).backward()
        nothing = recorder.census()
        scaler.scale(model(x()).square().mean()).backward()
        later = recorder.census()
    want = plainly(small, [x()])
    assert nothing.grad_rms[2:].isna().all()
    assert "starved" not in set(nothing.state)
    np.testing.assert_allclose(later.grad_rms, want.grad_rms, rtol=1e-5)


def test_non_finite_gradients_without_a_scaler_end_with_the_window() -> None:
    model = small()
    with harness.Recorder(model, census_every=None) as recorder:
        (model(x()).square().mean() * float("inf")).backward()
        broken = recorder.census()
        model(x()).square().mean().backward()
        later = recorder.census()
    assert not np.isfinite(broken.grad_rms[2:]).any()
    np.testing.assert_allclose(later.grad_rms, plainly(small, [x()]).grad_rms, rtol=1e-5)


def test_censuses_and_states_in_between() -> None:
    """Reading the sums, saving them, and going on changes nothing."""
    make, batches = CASES["mlp"]
    options = {"init_scale": 4.0, "growth_factor": 8.0, "growth_interval": 2}
    want = plainly(make, batches)
    got = trained(make, batches, scaler_with(**options), between=lambda i, r: r.state_dict())
    np.testing.assert_allclose(got.grad_rms, want.grad_rms, rtol=1e-5)

    def restore(i: int, recorder: Any) -> None:
        recorder.load_state_dict(recorder.state_dict())

    got = trained(make, batches, scaler_with(**options), between=restore)
    np.testing.assert_allclose(got.grad_rms, want.grad_rms, rtol=1e-5)

    def census(i: int, recorder: Any) -> None:
        if i == 9:
            recorder.census()

    got = trained(make, batches, scaler_with(**options), between=census)
    np.testing.assert_allclose(got.grad_rms, plainly(make, batches[10:]).grad_rms, rtol=1e-5)


def test_another_recorder_goes_on() -> None:
    make, batches = CASES["mlp"]
    scaler = scaler_with(init_scale=4.0, growth_factor=8.0, growth_interval=2)
    model, state = make(), None
    for half in (batches[:7], batches[7:]):
        recorder = harness.Recorder(model, census_every=None, scaler=scaler)
        if state is not None:
            recorder.load_state_dict(state)
        recorder.attach()
        for batch in half:
            scaler.scale(model(batch).square().mean()).backward()
            scaler.step(torch.optim.SGD(model.parameters(), lr=0.0))
            scaler.update()
        state = recorder.state_dict()
        recorder.detach()
    again = harness.Recorder(model, census_every=None)
    again.load_state_dict(state or {})
    again.attach()
    census = again.census()
    again.detach()
    torch.manual_seed(0)
    np.testing.assert_allclose(census.grad_rms, plainly(lambda: model, batches).grad_rms, rtol=1e-5)


def test_a_forward_whose_backward_comes_after_an_update() -> None:
    """The scale is that of the backward: a generator's loss behind the critic's update."""
    model = small()
    scaler = scaler_with(init_scale=4.0)
    with harness.Recorder(model, census_every=None, scaler=scaler) as recorder:
        for i in range(6):
            first, second = model(x(seed=i)).square().mean(), model(x(seed=i + 50)).square().mean()
            scaler.scale(first).backward()
            scaler.update(4096.0)
            scaler.scale(second).backward()
            scaler.update(4.0)
        census = recorder.census()
    want = plainly(small, [x(seed=i + 50 * k) for i in range(6) for k in range(2)])
    np.testing.assert_allclose(census.grad_rms, want.grad_rms, rtol=1e-5)


def test_a_site_that_comes_late() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.act = nn.Linear(3, 4), nn.Linear(3, 6), nn.ReLU()

        def forward(self, batch: Tensor) -> Tensor:
            out = self.act(self.a(batch)).sum()
            return out if len(batch) < 9 else out + self.act(self.b(batch)).sum()

    batches = [x(8, seed=0), x(8, seed=1), x(9, seed=2), x(8, seed=3), x(9, seed=4)]
    got = trained(Late, batches, scaler_with(init_scale=2.0, growth_factor=4.0, growth_interval=1))
    np.testing.assert_allclose(got.grad_rms, plainly(Late, batches).grad_rms, rtol=1e-5)


def test_a_disabled_scaler_is_none() -> None:
    make, batches = CASES["mlp"]
    got = trained(make, batches, scaler_with(enabled=False))
    np.testing.assert_allclose(got.grad_rms, plainly(make, batches).grad_rms, rtol=0)


def test_no_scaler() -> None:
    with pytest.raises(TypeError, match=r"scaler: expected a torch\.amp\.GradScaler, but got float"):
        harness.Recorder(small(), scaler=2.0)  # pyright: ignore[reportArgumentType]


def test_an_error_of_ours_is_none_of_the_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def is_enabled(self) -> bool:
            return True

        def get_scale(self) -> float:
            raise KeyError("scale")

        scale = get_scale

    model = small()
    with harness.Recorder(model, census_every=None, scaler=Broken()) as recorder:  # pyright: ignore
        model(x()).square().mean().backward()
        with pytest.warns(UserWarning, match="the loss scale failed, training goes on"):
            recorder.census()


def test_a_device_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the scale is a tensor; here that way is taken on the CPU."""

    def on_device(self: LossScale, device: torch.device) -> Tensor:
        return self._scaler.scale(torch.ones((), dtype=torch.float64, device=device))

    monkeypatch.setattr(LossScale, "_scale", on_device)
    make, batches = CASES["cnn"]
    options = {"init_scale": 4.0, "growth_factor": 8.0, "growth_interval": 2}
    got, want = trained(make, batches, scaler_with(**options)), plainly(make, batches)
    np.testing.assert_allclose(got.grad_rms, want.grad_rms, rtol=1e-5)
    model, scaler = make(), scaler_with(**options)
    optimizer = sgd(model)
    with harness.Recorder(model, census_every=None, scaler=scaler) as recorder:
        for batch in batches[:8]:
            scaler.scale(model(batch).square().mean()).backward()
        loss = scaler.scale(model(batches[0]).square().mean())
        scale_open = Reads()
        with scale_open:
            loss.backward()
        optimizer.zero_grad()
        recorder.step()
    assert not [read for read in scale_open.seen if "loss_scale" in read]


@pytest.mark.parametrize("fused", [False, True])
def test_the_gradient_of_a_step_is_unscaled_in_the_evidence(fused: bool) -> None:
    """A fused optimizer unscales by itself, behind the hook in which gradients are read."""
    norms = []
    for enabled in (False, True):
        model, scaler = small(), scaler_with(enabled=enabled)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
        with harness.Recorder(model, optimizer=optimizer, scaler=scaler, evidence=True) as recorder:
            for i in range(5):
                scaler.scale(model(x(seed=i)).square().mean()).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                recorder.step()
        norms.append(recorder.evidence().steps.grad_norm.tolist())
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)
