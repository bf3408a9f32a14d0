"""On a real GPU: the host never waits between censuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch
import torch.nn.functional as F
from pandas.testing import assert_frame_equal
from test_no_wait import MODELS, Calls, Recomputed, Residual, layers
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import harness
from harness.kernels import triton as fused

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU (torch.cuda)")


@pytest.fixture(autouse=True)
def kernels_work() -> Iterator[None]:
    """The plain way behind them would pass too."""
    yield
    assert not fused._state["broken"]


class Half(Recomputed):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cuda", dtype=torch.float16):
            return self.net(x)


GPU_MODELS: dict[str, Callable[[], nn.Module]] = {
    **{name: make for name, make in MODELS.items() if name != "autocast"},
    "autocast and scaler": Half,
    "cnn": lambda: nn.Sequential(
        nn.Unflatten(1, (3, 6, 6)), nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 1)
    ),
    "cnn, channels last": lambda: Residual().to(memory_format=torch.channels_last),  # type: ignore[call-overload]
    "F.leaky_relu": lambda: Calls(F.leaky_relu),
}


def inputs(name: str, device: str) -> Tensor:
    size = 108 if name.startswith(("cnn", "residual")) else 6
    return torch.randn(40, size, generator=torch.Generator().manual_seed(3)).to(device)


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Any operation of torch that waits for the GPU raises in the block."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("name", GPU_MODELS)
def test_the_host_never_waits_between_censuses(name: str) -> None:
    torch.manual_seed(0)
    model, x = GPU_MODELS[name]().cuda(), inputs(name, "cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cuda", enabled="scaler" in name)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:

        def steps(number: int, guard: Callable[[], AbstractContextManager[None]]) -> None:
            for _ in range(number):
                with guard():
                    scaler.scale(model(x).square().mean()).backward()
                scaler.step(optimizer)  # which asks for found_inf itself
                scaler.update()
                with guard():
                    optimizer.zero_grad()
                    recorder.step()

        steps(2, nullcontext)  # kernels are built, places with a zero are looked at once
        steps(40, no_synchronisation)
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
            steps(3, nullcontext)
        census = recorder.census()
    names = [event.name for event in profiled.events() or []]
    if "scaler" not in name:
        assert not [n for n in names if "Memcpy DtoH" in n or n == "aten::_local_scalar_dense"]
    observed = sum(n.startswith("observe") for n in names)
    sites = len(recorder.sites)
    assert observed >= 3 * sites  # one pass for each call of a site
    assert (census.n > 0).all()


@pytest.mark.parametrize("name", [name for name in GPU_MODELS if "autocast" not in name])
def test_a_census_on_the_gpu_is_that_on_the_cpu(name: str) -> None:
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model, x = GPU_MODELS[name]().double().to(device), inputs(name, device).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with harness.Recorder(model, optimizer=optimizer, census_every=3) as recorder:
            for _ in range(6):
                model(x).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                recorder.step()
        found.append(recorder.history())
    assert_frame_equal(*found, rtol=1e-6, atol=1e-9)


def test_training_is_bit_identical() -> None:
    weights = []
    for watched in (False, True):
        torch.manual_seed(0)
        model = layers().cuda()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with harness.Recorder(model, optimizer=optimizer) if watched else nullcontext():
            for _ in range(20):
                model(inputs("mlp", "cuda")).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
        weights.append([p.detach().clone() for p in model.parameters()])
    for a, b in zip(*weights, strict=True):
        assert torch.equal(a, b)
