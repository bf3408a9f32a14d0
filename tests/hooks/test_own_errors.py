"""Whatever breaks inside of the observation becomes a warning at the census; training goes on unchanged."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import harness
from harness.activations import lookup
from harness.graph import provenance
from harness.hooks import discovery, function_taps, known_calls, sums
from harness.kernels import dispatch
from harness.recording import incoming_gradients

BROKEN: dict[str, tuple[Any, str]] = {
    "a trace begins": (discovery.Trace, "start"),
    "a module is entered": (discovery.Trace, "push"),
    "a module is left": (discovery.Trace, "pop"),
    "a trace ends": (discovery.Trace, "to_suspend"),
    "a function is followed": (provenance.TensorProvenance, "follow"),
    "an activation is looked up": (lookup, "bound"),
    "a pre-activation is counted": (sums, "update"),
    "a gradient is counted": (sums, "update_gradient"),
    "a call is recognised": (known_calls.KnownCall, "count"),
    "functions are intercepted": (function_taps.Interceptor, "push"),
    "functions are intercepted no more": (function_taps.Interceptor, "pop"),
    "an optimizer's gradients are read": (incoming_gradients.IncomingGradients, "_stepped_by"),
    "gradients are squared": (dispatch, "unit_squares"),
    "gradients are compared": (incoming_gradients._Held, "doubts"),
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.act = nn.Linear(3, 4), nn.Linear(4, 2), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.act(self.a(x)) - 0.1))


def trained(observe: Callable[[nn.Module, Any], Any] | None = None) -> tuple[list[float], list[str]]:
    torch.manual_seed(0)
    net, said = Net(), []
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    recorder = observe(net, optimizer) if observe else None
    losses = []
    if recorder:
        recorder.attach()
    for _ in range(20):
        optimizer.zero_grad()
        loss = net(torch.randn(6, 3)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if recorder:
            recorder.step()
    if recorder:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                recorder.census()
            except ValueError as error:  # nothing at all was seen
                said.append(str(error))
        said += [str(w.message) for w in caught]
        recorder.detach()
    return losses, said


@pytest.mark.parametrize("after", [0, 40])
@pytest.mark.parametrize("place", list(BROKEN))
def test_an_error_inside_is_said_at_the_census(
    place: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare, _ = trained()
    owner, name = BROKEN[place]
    right, calls = getattr(owner, name), 0

    def broken(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise RuntimeError("out of order")
        return right(*args, **kwargs)

    monkeypatch.setattr(owner, name, broken)
    losses, said = trained(lambda net, optimizer: harness.Recorder(net, optimizer=optimizer))
    assert losses == bare
    if calls > after:
        assert any("out of order" in message for message in said), said
    assert after or calls
