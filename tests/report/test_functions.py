"""The functions of the textbook's diagrams, against autograd and against the hooks' own gates."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from harness.activations.gates import Gate
from harness.activations.lookup import MODULES
from harness.report.functions import FUNCTIONS, closed, function
from harness.report.plots.activations import in_words

EPS = 1e-6


def make(name: str) -> nn.Module:
    """The module that torch gives by default under that name, in evaluation mode."""
    cls = next(cls for cls, (known, _) in MODULES.items() if known == name)
    return (cls(0.0, 0.0) if cls is nn.Threshold else cls()).double().eval()


def grid(name: str) -> np.ndarray:
    """Points in the diagram's window and far outside, the kinks among them."""
    low, high = function(name).window
    return np.unique(np.concatenate([np.linspace(low, high, 1601), np.linspace(-40, 40, 4001), [0.0, -1.5]]))


def test_every_activation_of_the_hooks_has_its_diagram() -> None:
    assert set(FUNCTIONS) == {name for name, _ in MODULES.values()}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_slopes_are_autograds(name: str) -> None:
    at = grid(name)
    z = torch.tensor(at, requires_grad=True)
    out = make(name)(z.unsqueeze(-1)).squeeze(-1)
    drawn = function(name)
    if name == "crelu":  # two outputs of one input
        out = out.T
        slopes = torch.stack([torch.autograd.grad(half.sum(), z, retain_graph=True)[0] for half in out])
    else:
        (slopes,) = torch.autograd.grad(out.sum(), z)
    assert drawn.value(at) == pytest.approx(out.detach().numpy(), abs=1e-8)
    assert drawn.slope(at) == pytest.approx(slopes.numpy(), abs=1e-8)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_gate_is_open_where_the_hooks_say(name: str) -> None:
    module = make(name)
    gate: Gate = next(gate for known, gate in MODULES.values() if known == name)(module, EPS)
    at = grid(name)
    low = float(gate.low) if not isinstance(gate.low, torch.Tensor) else float(gate.low.min())
    theirs = (at > low) & (at < gate.high) & ~((at >= gate.hole_low) & (at <= gate.hole_high))
    ours = np.ones(len(at), bool)
    for start, end in closed(name, EPS):
        ours &= ~((at >= start - 1e-5) & (at <= end + 1e-5))
    near = np.zeros(len(at), bool)  # beside an edge, where rounding decides
    for edge in [edge for interval in closed(name, EPS) for edge in interval]:
        near |= np.abs(at - edge) < 1e-3
    assert (ours == theirs)[~near].all()
    for start, end in closed(name, EPS):  # and no edge of ours is another's
        edges = [low, gate.high, gate.hole_low, gate.hole_high]
        for edge in (start, end):
            assert np.isinf(edge) or min(abs(edge - theirs) for theirs in edges) < 2e-3


def test_where_it_is_closed_is_said_in_words() -> None:
    said = {name: in_words(closed(name)) for name in FUNCTIONS}
    assert said["relu"] == "closed for z ≤ 0"
    assert said["relu6"] == "closed for z ≤ 0, z ≥ 6"
    assert said["sigmoid"] == "closed for |z| ≥ 13.8"
    assert said["hardswish"] == "closed for z ≤ −3, z = −1.5"
    assert said["leaky_relu"] == "open everywhere"
    assert said["crelu"] == "closed at z = 0"


def test_another_name_is_refused_with_those_there_are() -> None:
    with warnings.catch_warnings(), pytest.raises(ValueError, match="relu6"):
        function("rellu")
