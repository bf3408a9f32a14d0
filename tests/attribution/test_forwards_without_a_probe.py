"""A forward that changes in mid-training is blamed though no census shows the start: its first outputs do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_trainings import inputs, plain
from torch import Tensor, nn

import harness

X, Y = inputs()
CE = nn.functional.cross_entropy


def trained(change: Any, *, given: bool = True, model: nn.Module | None = None) -> harness.Diagnosis:
    """The diagnosis of a training in which `change` gets the model after half of the steps."""
    torch.manual_seed(0)
    model = plain() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    with harness.Recorder(model, optimizer=optimizer, census_every=20, evidence=True) as recorder:
        for step in range(1, 201):
            if step == 101:
                change(model)
            rows = torch.randint(0, 4000, (64,))
            loss = CE(model(X[rows]), Y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss if given else None)
    return recorder.diagnose()


def hooked(model: nn.Module) -> None:
    model[2].register_forward_hook(lambda module, args, output: output - 6)  # pyright: ignore


def patched(model: nn.Module) -> None:
    layer: nn.Linear = model[2]  # pyright: ignore
    layer.forward = lambda input: -nn.functional.linear(input, layer.weight.abs(), layer.bias)


def handed_others(model: nn.Module) -> None:
    model.register_forward_pre_hook(lambda module, args: (0 * args[0] - 2,))


@pytest.mark.parametrize("given", [True, False], ids=["loss", "no loss"])
@pytest.mark.parametrize("change", [hooked, patched, handed_others])
def test_a_hook_or_a_patch_in_mid_training_is_no_birth(change: Any, given: bool) -> None:
    found = trained(change, given=given)
    assert found.label == "forward", found
    assert not found.units["born"].any()
    assert "by chance" not in found.cause


class Noisy(nn.Module):
    """Draws numbers in its forward, so that no pass is like another."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = plain()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x + 2 * torch.randn_like(x))


@pytest.mark.parametrize(
    "model", [Noisy, lambda: plain().insert(2, nn.Dropout(0.5))], ids=["noise", "dropout"]
)
def test_a_network_that_draws_numbers_has_no_other_forward(model: Any) -> None:
    def long_steps(model: nn.Module) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(parameter.abs() + 1)

    found = trained(long_steps, model=model())
    assert found.label == "surgery", found
