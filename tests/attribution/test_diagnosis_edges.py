"""Diagnoses at the edges: what is not finite, what drifts, what changes on the way, odd layers, tiny n."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from small_trainings import diagnosed_by, inputs, plain
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import harness

# Of reparametrised layers and of layers that are frozen in part.
pytestmark = pytest.mark.filterwarnings("ignore:.*grad_norm is not known")

Change = Callable[[int, nn.Sequential, torch.optim.Optimizer, Tensor], Tensor]


def as_it_is(step: int, model: nn.Sequential, optimizer: torch.optim.Optimizer, x: Tensor) -> Tensor:
    return x


def diagnosed(
    change: Change = as_it_is,
    *,
    before: Callable[[nn.Sequential], object] = lambda _: None,
    steps: int = 60,
    lr: float = 0.05,
    probe: int = 0,
) -> harness.Diagnosis:
    torch.manual_seed(0)
    model = plain()
    before(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    x, y = inputs()

    def loss_of(step: int, index: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(change(step, model, optimizer, x[index])), y[index])

    watched = x[:probe] if probe else None
    return diagnosed_by(model, loss_of, steps=steps, optimizer=optimizer, probe=watched)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_inputs_that_are_not_finite_are_a_bad_batch(value: float) -> None:
    found = diagnosed(lambda step, model, optimizer, x: x + value if step == 30 else x)
    assert found.label == "bad_batch"
    assert "step 30: inputs were not finite" in found.text
    assert "e+3" not in found.text
    assert "0 of 0" not in found.text


def test_a_weight_that_somebody_made_nan_is_surgery() -> None:
    def written(step: int, model: nn.Sequential, optimizer: torch.optim.Optimizer, x: Tensor) -> Tensor:
        if step == 30:
            next(model[2].parameters()).data[0, 0] = math.nan
        return x

    found = diagnosed(written)
    assert found.label == "surgery"
    assert "step 30: parameters were overwritten with what is not finite" in found.text


def test_what_diverges_by_itself_is_not_surgery() -> None:
    """After a divergence the parameters are NaN at every step: nobody wrote them."""
    assert diagnosed(lr=1e6).label == "step_size"


def test_inputs_that_drift_away_have_shifted() -> None:
    found = diagnosed(lambda step, model, optimizer, x: x + 0.05 * step, steps=200, lr=0.02)
    assert found.label == "input_shift"
    assert "the inputs themselves" in found.text
    assert "on: the inputs have drifted, their mean by" in found.text


Loss = Callable[[nn.Sequential, Tensor, Tensor], Tensor]


def of_biases(model: nn.Sequential, x: Tensor, y: Tensor) -> Tensor:
    biases = [p for name, p in model.named_parameters() if name in ("0.bias", "2.bias")]
    return nn.functional.cross_entropy(model(x), y) + sum(bias.sum() for bias in biases)


def of_hidden_units(model: nn.Sequential, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(x), y) + 20 * model[:2](x).sum(dim=1).mean()


def summed(model: nn.Sequential, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(x), y, reduction="sum")


def of_far_targets(model: nn.Sequential, x: Tensor, y: Tensor) -> Tensor:
    return (model(x) - 1e4 * nn.functional.one_hot(y, 5)).square().mean()


def of_near_targets(model: nn.Sequential, x: Tensor, y: Tensor) -> Tensor:
    return (model(x) - nn.functional.one_hot(y, 5)).square().mean()


def of_classes(model: nn.Sequential, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(x), y)


@pytest.mark.parametrize(
    ("usual", "late", "label", "said"),
    [
        (of_classes, of_biases, "loss_penalty", "a part of the loss does not read them"),
        (of_classes, of_hidden_units, "loss_penalty", "a part of the loss does not read them"),
        (of_classes, summed, "step_size", "its scale rose"),
        (
            of_near_targets,
            of_far_targets,
            "labels",
            "though the outputs are as before, and the gradient",
        ),
    ],
    ids=["biases", "hidden_units", "scale", "targets"],
)
def test_what_raises_the_loss_over_outputs_that_are_as_ever(
    usual: Loss, late: Loss, label: str, said: str
) -> None:
    """The parameters are not the reason: the loss itself has changed, and the gradient there tells how."""
    torch.manual_seed(0)
    model, (x, y) = plain(), inputs()
    found = diagnosed_by(model, lambda step, i: (usual if step < 100 else late)(model, x[i], y[i]), steps=200)
    assert found.label == label
    assert "; step 100: the loss rose to" in found.text
    assert said in found.text


def test_weight_decay_that_sets_in() -> None:
    def strong(step: int, model: nn.Sequential, optimizer: torch.optim.Optimizer, x: Tensor) -> Tensor:
        if step == 60:
            optimizer.param_groups[0]["weight_decay"] = 5.0
        return x

    found = diagnosed(strong, steps=200)
    assert found.label == "decay"
    assert "step 60: weight decay rose to 5" in found.text


@pytest.mark.parametrize("probe", [2, 4])
def test_silence_on_a_few_inputs_tells_no_cause(probe: int) -> None:
    found = diagnosed(probe=probe)
    assert found.label == "none"
    assert len(found.units) > 6
    assert "n is too small" in found.text


LAYERS: dict[str, Callable[[nn.Module], object]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "pruned": lambda layer: prune.random_unstructured(layer, "weight", 0.3),
}


@pytest.mark.parametrize("name", LAYERS)
def test_reparametrised_layers_are_diagnosed_as_any(name: str) -> None:
    def start(model: nn.Sequential) -> None:
        nn.init.constant_(model[0].bias, -5.0)  # type: ignore[arg-type]
        for place in (0, 2):
            LAYERS[name](model[place])

    found = diagnosed(before=start)
    assert found.label == "bias_init"


@pytest.mark.parametrize("name", LAYERS)
def test_reparametrised_layers_blame_their_own_weights(name: str) -> None:
    """Steps that are too long, whatever stands for the weights: not `upstream` for the first layer."""

    def long(step: int, model: nn.Sequential, optimizer: torch.optim.Optimizer, x: Tensor) -> Tensor:
        optimizer.param_groups[0]["lr"] = 3.0 if step > 30 else 0.05
        return x

    found = diagnosed(long, before=lambda model: LAYERS[name](model[0]))
    first = found.units[(found.units["site"] == "1") & ~found.units["born"]].dropna(subset=["weights"])
    assert len(first) == 0 or float(first["upstream"].mean()) < 0.1
