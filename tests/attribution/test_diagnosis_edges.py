"""Diagnoses at the edges: what is not finite, what drifts, what changes on the way, odd layers, tiny n."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import harness

# Of reparametrised layers and of layers that are frozen in part.
pytestmark = pytest.mark.filterwarnings("ignore:.*grad_norm is not known")

Change = Callable[[int, nn.Sequential, torch.optim.Optimizer, Tensor], Tensor]


def inputs() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    centres, labels = torch.randn(5, 20, generator=draw), torch.randint(0, 5, (4000,), generator=draw)
    return centres[labels] + torch.randn(4000, 20, generator=draw), labels


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
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5))
    before(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    x, y = inputs()
    watched = x[:probe] if probe else None
    recorder = harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True, probe=watched)
    with recorder:
        for step in range(1, steps + 1):
            index = torch.randint(0, 4000, (64,))
            loss = nn.functional.cross_entropy(model(change(step, model, optimizer, x[index])), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    return recorder.diagnose()


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
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x, y = inputs()
    with harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True) as recorder:
        for step in range(1, 201):
            index = torch.randint(0, 4000, (64,))
            loss = (usual if step < 100 else late)(model, x[index], y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    found = recorder.diagnose()
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


def drawn(how: Callable[[Tensor], object]) -> Callable[[nn.Sequential], None]:
    def draw(model: nn.Sequential) -> None:
        for layer in (model[0], model[2]):
            assert isinstance(layer, nn.Linear)
            how(layer.weight)
            nn.init.zeros_(layer.bias)

    return draw


@pytest.mark.parametrize(
    "how",
    [lambda w: nn.init.normal_(w, 0.0, 1e-3), lambda w: nn.init.constant_(w, 0.3)],
    ids=["tiny", "constant"],
)
def test_weights_that_are_tiny_or_alike_are_blamed_instead_of_the_steps(
    how: Callable[[Tensor], object],
) -> None:
    found = diagnosed(before=drawn(how), steps=300, lr=0.5)
    assert found.label == "weight_init"
    assert "He's scale: units hardly differ" in found.text


def test_bad_batches_that_come_again_and_again() -> None:
    def now_and_then(step: int, model: nn.Sequential, optimizer: torch.optim.Optimizer, x: Tensor) -> Tensor:
        return 100 * x if step % 20 == 4 else x

    found = diagnosed(now_and_then, steps=200, lr=0.1)
    assert found.label == "bad_batch"
    assert "the inputs' size" in found.text


def test_a_loss_without_a_lower_bound() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = inputs()
    with harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True) as recorder:
        for _ in range(60):
            index = torch.randint(0, 4000, (64,))
            loss = nn.functional.nll_loss(model(x[index]), y[index])  # without log_softmax
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    found = recorder.diagnose()
    assert found.label == "unbounded_loss"
    assert "the loss falls far below 0 and keeps falling" in found.text


class Two(nn.Module):
    """Two inputs, each with layers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Linear(20, 32), nn.ReLU())
        self.b = nn.Sequential(nn.Linear(20, 32), nn.ReLU())
        self.head = nn.Linear(64, 5)

    def forward(self, first: Tensor, *, second: Tensor) -> Tensor:
        return self.head(torch.cat([self.a(first), self.b(second)], 1))


@pytest.mark.parametrize(("since", "label"), [(0, "input_offset"), (60, "input_shift")])
def test_a_second_input_is_watched_like_the_first(since: int, label: str) -> None:
    torch.manual_seed(0)
    model = Two()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    x, y = inputs()
    with harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True) as recorder:
        for step in range(140):
            index = torch.randint(0, 4000, (64,))
            second = x[index] * (1 if step < since else 30)
            loss = nn.functional.cross_entropy(model(x[index], second=second), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    found = recorder.diagnose()
    assert found.label == label
    said = "step 61: the inputs' size moved by" if since else "as the first layer gets them (b.0"
    assert said in found.text


def test_a_penalty_that_makes_the_steps_long_is_a_penalty() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x, y = inputs()
    biases = [layer.bias for layer in model if isinstance(layer, nn.Linear)][:2]
    with harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True) as recorder:
        for _ in range(60):
            index = torch.randint(0, 4000, (64,))
            pull = sum((bias + 5).square().sum() for bias in biases)
            loss = nn.functional.cross_entropy(model(x[index]), y[index]) + pull
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    assert recorder.diagnose().label == "loss_penalty"


def test_a_training_that_diverges_is_not_put_down_to_births() -> None:
    found = diagnosed(before=lambda model: nn.init.constant_(model[0].bias[:12].detach(), -9.0), lr=1e5)  # type: ignore[index]
    assert "Training diverged" in found.text
    assert found.label == "step_size"


def test_a_model_that_is_never_called_has_not_diverged() -> None:
    """Its copies compute the gradients, as those of asynchronous agents do."""
    model = nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    recorder = harness.watch(model, optimizer, evidence=True)
    for _ in range(12):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    with pytest.warns(UserWarning, match="it was never called"):
        recorder.close()
    found = recorder.diagnose()
    assert "diverged" not in found.text
    assert "the model itself was never called" in found.text


def born(model: nn.Module, x: Tensor, y: Tensor) -> harness.Diagnosis:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(
        model, optimizer=optimizer, census_every=10, evidence=True, probe=x[:300]
    ) as recorder:
        for _ in range(30):
            index = torch.randint(0, 4000, (64,))
            loss = nn.functional.cross_entropy(model(x[index]), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    return recorder.diagnose()


@pytest.mark.filterwarnings("ignore:.*is a guess")
def test_a_relu_before_the_first_layer_shuts_negative_inputs_off() -> None:
    torch.manual_seed(0)
    x, y = inputs()
    model = nn.Sequential(
        nn.ReLU(), nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5)
    )
    found = born(model, -x.abs(), y)
    assert found.label == "input_offset"
    assert "are all 0" in found.text
    assert "by chance" not in found.text


def test_a_norms_shift_is_no_usual_bias() -> None:
    torch.manual_seed(0)
    x, y = inputs()
    norm = nn.BatchNorm1d(64)
    nn.init.constant_(norm.weight, 0.05)
    nn.init.constant_(norm.bias, -0.5)
    found = born(nn.Sequential(nn.Linear(20, 64), norm, nn.ReLU(), nn.Linear(64, 5)), x, y)
    assert found.label == "bias_init"
    assert "by chance" not in found.text


def test_a_large_input_that_is_joined_to_hidden_units_is_named() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Linear(20, 48), nn.ReLU())
            self.rest = nn.Sequential(nn.Linear(49, 64), nn.ReLU(), nn.Linear(64, 5))

        def forward(self, x: Tensor, time: Tensor) -> Tensor:
            return self.rest(torch.cat([self.first(x), time], 1))

    torch.manual_seed(0)
    model, (x, y) = Joined(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
    with harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True) as recorder:
        for step in range(30):
            index = torch.randint(0, 4000, (64,))
            loss = nn.functional.cross_entropy(model(x[index], torch.full((64, 1), 16000.0 + step)), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    found = recorder.diagnose()
    assert found.label == "input_offset"
    assert "what layers hand on (rest.0, before rest.1), with inputs joined to it, 2.29e+03" in found.text


def test_arguments_that_are_sparse_or_infinite_hide_no_shift_of_the_first() -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act, self.head = nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5)

        def forward(self, x: Tensor, adjacency: Tensor, mask: Tensor) -> Tensor:
            mixed = torch.sparse.mm(adjacency, x) if adjacency.is_sparse else x
            return self.head(self.act(self.layer(mixed)))

    torch.manual_seed(0)
    model, (x, y) = Graph(), inputs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    adjacency, mask = torch.eye(64).to_sparse(), torch.full((64, 64), -math.inf)
    with harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True) as recorder:
        for step in range(140):
            index = torch.randint(0, 4000, (64,))
            given = x[index] * (1 if step < 60 else 30)
            loss = nn.functional.cross_entropy(model(given, adjacency, mask), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    found = recorder.diagnose()
    assert found.label == "input_shift"
    assert "step 61: the inputs' size moved by 30" in found.text
