"""What a model computes when an attribute is read is never computed for the observer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import harness

# Of reparametrised layers.
pytestmark = pytest.mark.filterwarnings("ignore:.*grad_norm is not known")


class Random(nn.Module):
    """A parametrisation with a buffer, and noise."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, w: Tensor) -> Tensor:
        self.runs += 1  # type: ignore[operator]
        return w * (1 + 0.1 * torch.rand(()))


class Plus(nn.Module):
    """A parametrisation: w + a number."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def forward(self, w: Tensor) -> Tensor:
        return w + self.number


class Properties(nn.Module):
    """A layer of one's own, whose every attribute is drawn anew."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.randn(12, 12) * 0.3)
        self.reads = 0

    def _drawn(self) -> Tensor:
        self.reads += 1
        return torch.rand(())

    @property
    def weight(self) -> Tensor:
        return self.raw + 0.1 * self._drawn()

    bias = groups = config = module = running_mean = property(_drawn)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class Anything(nn.Module):
    """Has whatever is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 12)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__"):
                raise
            return torch.rand(12)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layer(x))


class Annealed(nn.LeakyReLU):
    """Its slope is drawn at every call."""

    negative_slope = property(lambda self: 0.5 * float(torch.rand(())), lambda self, value: None)  # type: ignore[assignment]


def random_weight(layer: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", Random())


def spectral(norm: Callable[[nn.Module], nn.Module] = parametrizations.spectral_norm) -> nn.Module:
    return nn.Sequential(norm(nn.Linear(6, 12)), nn.ReLU(), norm(nn.Linear(12, 12)), nn.ReLU())


def anything_random() -> nn.Module:
    return nn.Sequential(
        random_weight(nn.Linear(6, 12)),
        nn.ReLU(),
        Properties(),
        random_weight(nn.BatchNorm1d(12)),
        random_weight(nn.PReLU(12)),
        nn.Dropout(0.2),
        Anything(),
        Annealed(),
    )


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(12), nn.Dropout(0.2), nn.ReLU())


MODELS = {
    "spectral_norm": spectral,
    "old spectral_norm": lambda: spectral(nn.utils.spectral_norm),
    "weight_norm": lambda: spectral(parametrizations.weight_norm),
    "orthogonal": lambda: spectral(parametrizations.orthogonal),
    "anything random": anything_random,
    "lazy": lazy,
}
Between = Callable[[Any, nn.Module, Tensor], object]  # recorder, model, batch


def trained(
    make: Callable[[], nn.Module], options: dict[str, Any] | None, between: Between | None
) -> list[Any]:
    """Losses, buffers and the random state of a training."""
    torch.manual_seed(0)
    model: Any = nn.Sequential(make(), nn.Linear(12, 1))
    if isinstance(model[0], nn.Sequential) and isinstance(model[0][0], nn.LazyLinear):
        model(torch.ones(2, 6))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    recorder = None
    if options is not None:
        recorder = harness.Recorder(model, optimizer=optimizer, census_every=4, **options)
    left: list[Any] = []
    with recorder or nullcontext():
        for step in range(10):
            batch = torch.randn(16, 6)
            loss = (model(batch) - 1).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            left.append(loss.detach())
            if recorder is not None:
                recorder.step(loss=loss)
                if step == 6 and between is not None:
                    between(recorder, model, batch)
    reads = [module.reads for module in model.modules() if isinstance(module, Properties)]
    return [*left, *model.buffers(), *model.parameters(), torch.get_rng_state(), torch.tensor(reads)]


def same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("options", [{}, {"gradients": False}, {"evidence": True}])
@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
def test_training_is_the_same_whatever_an_attribute_computes(name: str, options: dict[str, Any]) -> None:
    assert same(trained(MODELS[name], None, None), trained(MODELS[name], options, None))


@pytest.mark.parametrize(
    "between",
    [
        lambda recorder, model, batch: recorder.diagnose(),
        lambda recorder, model, batch: recorder.explain(recorder.sites[0].name, 0),
        lambda recorder, model, batch: harness.scan(model, batch),
        lambda recorder, model, batch: harness.risk(recorder.history()),
        lambda recorder, model, batch: print(recorder.plan, recorder),
    ],
    ids=["diagnose", "explain", "scan", "risk", "print"],
)
def test_so_it_is_after_what_runs_the_model(between: Between) -> None:
    for make in (spectral, lambda: nn.Sequential(random_weight(nn.Linear(6, 12)), nn.ReLU(), nn.Dropout())):
        assert same(trained(make, None, None), trained(make, {"evidence": True}, between))


def test_a_slope_that_is_computed_is_seen_where_it_is_used() -> None:
    open_below = parametrize.register_parametrization(nn.PReLU(init=0.0), "weight", Plus(0.1))
    closed_below = parametrize.register_parametrization(nn.PReLU(init=0.1), "weight", Plus(-0.1))
    model = nn.Sequential(nn.Linear(3, 4), open_below, nn.Linear(4, 4), closed_below)
    with torch.no_grad():
        model[0].bias.fill_(-9.0)  # type: ignore[union-attr, operator]
        model[2].bias.fill_(-9.0)  # type: ignore[union-attr, operator]
        model[2].weight.zero_()  # type: ignore[union-attr, operator]
    units = harness.scan(model, torch.rand(50, 3)).units
    assert units.groupby("site")["state"].agg(set).to_dict() == {
        "1:prelu": {"always_on"},
        "3:prelu": {"dead"},
    }
