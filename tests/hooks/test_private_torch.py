"""Each private thing of torch that is used is there, does what is said, and can be done without."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

import harness
from harness.hooks import _torch


def test_a_recomputation_is_known() -> None:
    seen = []
    x = torch.ones(1, requires_grad=True)
    y = x * 2
    y.register_hook(lambda g: seen.append(_torch.is_recompute()))
    assert not _torch.is_recompute()
    y.sum().backward()
    assert seen == [True]


def test_transforms_are_unwrapped() -> None:
    x = torch.randn(3)
    found: list[Any] = []

    def look(v: torch.Tensor) -> torch.Tensor:
        found.append(_torch.without_transforms(v))
        return v.sum()

    torch.func.grad(look)(x)
    torch.func.vmap(look)(x)
    assert torch.equal(found[0], x)
    assert found[1] is None


@pytest.mark.parametrize("direct", [True, False])
def test_a_gradient_is_watched_with_and_without_the_short_cut(
    direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _torch.DIRECT, "the short cut is gone: hooks cost three times as much"
    monkeypatch.setattr(_torch, "DIRECT", direct)
    seen: list[torch.Tensor] = []
    z = torch.randn(3, requires_grad=True) * 2
    _torch.watch_gradient(z, seen.append)
    (z * 3).sum().backward()
    assert [g.tolist() for g in seen] == [[3.0, 3.0, 3.0]]


def test_a_pass_that_accumulates_is_known() -> None:
    assert _torch._reaches is not None, "gradients inside of a loss count as its own"
    layer, seen = nn.Linear(2, 3), list[bool]()
    z = layer(torch.ones(1, 2, requires_grad=True))
    assert z.grad_fn is not None
    leaf = z.grad_fn.next_functions[0][0]
    assert leaf is _torch.leaf_node(layer.bias)
    z.register_hook(lambda g: seen.append(_torch.accumulates(leaf)))
    torch.autograd.grad(z.sum(), layer.bias, retain_graph=True)
    torch.autograd.grad(z.sum(), layer.weight, retain_graph=True)
    z.sum().backward(inputs=[layer.weight], retain_graph=True)
    z.sum().backward()
    assert seen == [False, False, False, True]


@pytest.mark.parametrize("together", [True, False])
def test_tensors_are_zeroed_with_and_without_the_short_cut(
    together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hasattr(torch, "_foreach_zero_"), "the short cut is gone: one launch for each site"
    if not together:
        monkeypatch.delattr(torch, "_foreach_zero_")
    tensors = [torch.ones(2), torch.ones(3)]
    _torch.zero_all(tensors)
    assert [t.tolist() for t in tensors] == [[0.0] * 2, [0.0] * 3]


def test_the_function_mode_on_top_is_known() -> None:
    class Mode(TorchFunctionMode):
        pass

    assert _torch.top_function_mode("unknown") is None
    with Mode() as mode:
        assert _torch.top_function_mode("unknown") is mode


def test_writes_are_counted() -> None:
    x = torch.zeros(2)
    before = _torch.version_of(x)
    x.add_(1)
    assert _torch.version_of(x) > before
    with torch.inference_mode():
        assert _torch.version_of(torch.zeros(2)) == 0


def test_counts_are_right_without_any_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The public fallbacks: nothing is recomputed here, and transforms are not entered."""
    for name in ("_current_graph_task_id", "_functorch"):
        monkeypatch.delattr(torch._C, name)
    monkeypatch.setitem(__import__("sys").modules, "torch._C._functorch", None)
    monkeypatch.delattr(torch.overrides, "_get_current_function_mode")
    try:
        bare = importlib.reload(_torch)
        assert not bare.is_recompute()
        x = torch.randn(3)
        assert bare.without_transforms(x) is x
        assert bare.top_function_mode(x) is x
    finally:
        monkeypatch.undo()
        importlib.reload(_torch)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    assert set(harness.scan(model, torch.randn(5, 3)).units.n) == {5}
