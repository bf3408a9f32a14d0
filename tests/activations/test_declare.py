"""Activations of one's own are counted as declared: in training and evaluation, against a count by hand."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from declared_nets import (
    ROWS,
    STEPS,
    UNITS,
    JumpReLU,
    Net,
    NewStyle,
    Shifted,
    Steps,
    TopK,
    batches,
    check,
    jump,
    selected,
    shrink,
)
from torch import Tensor, nn

import harness


def test_a_module_with_a_learned_threshold(declare: Any) -> None:
    declare(JumpReLU, threshold=lambda module: module.log_threshold.exp())
    check(Net(JumpReLU()), lambda act, z: z > act.log_threshold.exp(), "act")


def test_a_module_with_a_number(declare: Any) -> None:
    declare(Shifted, threshold=0.3)
    check(Net(Shifted()), lambda act, z: z > 0.3, "act")


def test_topk_of_a_module_with_its_own_k(declare: Any) -> None:
    declare(TopK, open=selected)
    check(Net(TopK(3)), lambda act, z: selected(z, act), "act")


def test_open_of_z_alone(declare: Any) -> None:
    declare(Shifted, open=lambda z: z.abs() > 0.7)
    model = Net(Shifted())
    x = torch.cat(batches())
    assert harness.scan(model, x).units.active.tolist() == (model.fc(x).abs() > 0.7).sum(0).tolist()


@pytest.mark.parametrize("name", ["threshold", "open"])
def test_an_autograd_function(declare: Any, name: str) -> None:
    """Its arguments tell the gate."""
    is_open: Any = (lambda z, threshold, width: z > threshold) if name == "open" else None
    threshold: Any = (lambda z, threshold, width: threshold) if name == "threshold" else None
    declare(Steps, threshold=threshold, open=is_open)
    check(Net(JumpReLU()), lambda act, z: z > act.log_threshold.exp(), "act:Steps")


def test_apply_stands_for_its_function(declare: Any) -> None:
    apply = NewStyle.apply
    declare(apply, threshold=0.25)
    check(Net(apply), lambda act, z: z > 0.25, ":NewStyle")


def test_an_operator(declare: Any) -> None:
    declare(jump, threshold=0.1)
    check(Net(jump), lambda act, z: z > 0.1, ":jump")


@pytest.mark.parametrize("spelling", ["packet", "overload"])
def test_an_operator_as_torch_names_it(declare: Any, spelling: str) -> None:
    packet = torch.ops.harness_tests.jump
    declare(packet, threshold=0.1)
    check(Net(packet if spelling == "packet" else packet.default), lambda act, z: z > 0.1, ":jump")


def test_a_part_that_is_an_exported_program(declare: Any) -> None:
    declare(jump, threshold=0.1)
    part: Any = torch.export.export(nn.Sequential(nn.Linear(3, UNITS)), (torch.randn(ROWS, 3),)).module()
    layer = nn.Linear(3, UNITS)
    layer.load_state_dict({n.removeprefix("0."): p for n, p in part.state_dict().items()})
    x = torch.randn(ROWS, 3)
    model = nn.Sequential(part, Wrapped(jump))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = harness.scan(model, x).units
    assert rows.active.tolist() == (layer(x) > 0.1).sum(0).tolist()


class Wrapped(nn.Module):
    def __init__(self, call: Any) -> None:
        super().__init__()
        self.call = call

    def forward(self, z: Tensor) -> Tensor:
        return self.call(z)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_python_function(declare: Any, checkpointed: bool) -> None:
    act = declare(shrink, threshold=0.2)
    check(Net(act, apart=checkpointed), lambda act, z: z > 0.2, ":shrink")


def test_a_python_function_called_by_name_with_other_arguments(declare: Any) -> None:
    act = declare(shrink, threshold=lambda z, by: torch.full((UNITS,), by))
    check(Net(lambda z: act(z=z, by=0.4)), lambda act, z: z > 0.4, ":shrink")


def test_a_partial_and_a_lambda(declare: Any) -> None:
    check(Net(declare(functools.partial(shrink, by=0.4), threshold=0.4)), lambda act, z: z > 0.4, ":shrink")
    check(Net(declare(lambda z: z * (z > 1), threshold=1)), lambda act, z: z > 1, ":lambda")


def test_decorators(declare: Any) -> None:
    @harness.declare_activation(threshold=0.5)
    def gated(z: Tensor) -> Tensor:
        return torch.where(z > 0.5, z, 0.0)

    @harness.declare_activation(open=lambda z: z > 0.5)
    class Gated(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return torch.where(z > 0.5, z, 0.0)

    assert gated.__name__ == "gated"
    check(Net(gated), lambda act, z: z > 0.5, ":gated")
    check(Net(Gated()), lambda act, z: z > 0.5, "act")
    harness.undeclare_activation(gated)
    harness.undeclare_activation(Gated)


def test_a_tensor_with_a_value_for_each_unit(declare: Any) -> None:
    values = torch.linspace(-0.5, 0.5, UNITS)
    values[0] = 0
    declare(Shifted, threshold=values)
    check(Net(Shifted()), lambda act, z: z > values, "act")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_thresholds_of_other_types(declare: Any, kind: torch.dtype) -> None:
    declare(Shifted, threshold=torch.ones(UNITS, 1, dtype=kind))
    check(Net(Shifted()), lambda act, z: z > 1, "act")


def test_channels_of_images(declare: Any) -> None:
    thresholds = torch.linspace(-0.2, 0.2, 5)
    for gate in ({"threshold": thresholds}, {"open": lambda z: z > thresholds.view(-1, 1, 1)}):
        declare(Shifted, **gate)
        model = nn.Sequential(nn.Conv2d(2, 5, 3), Shifted())
        x = torch.randn(4, 2, 6, 6)
        rows = harness.scan(model, x).units
        expected = (model[0](x) > thresholds.view(-1, 1, 1)).sum((0, 2, 3))
        assert rows.active.tolist() == expected.tolist()
        assert set(rows.n) == {4 * 16}


def test_a_known_activation_can_be_declared_anew(declare: Any) -> None:
    declare(nn.ReLU, threshold=0.5)
    check(Net(nn.ReLU()), lambda act, z: z > 0.5, "act")
    declare(nn.ReLU, threshold=0.25)
    check(Net(nn.ReLU()), lambda act, z: z > 0.25, "act")
    harness.undeclare_activation(nn.ReLU)
    check(Net(nn.ReLU()), lambda act, z: z > 0, "act")
    declare(nn.ReLU, threshold=0.5)


def test_a_function_of_torch(declare: Any) -> None:
    declare(torch.sinc, threshold=0.5)
    check(Net(torch.sinc), lambda act, z: z > 0.5, ":sinc")
    declare(F.relu, threshold=0.5)
    check(Net(F.relu), lambda act, z: z > 0.5, ":torch.nn.functional.relu")


def test_a_subclass_with_the_same_forward_is_declared_too(declare: Any) -> None:
    class Same(Shifted):
        pass

    class Other(Shifted):
        def forward(self, z: Tensor) -> Tensor:
            return F.relu(z)

    declare(Shifted, threshold=0.3)
    check(Net(Same()), lambda act, z: z > 0.3, "act")
    check(Net(Other()), lambda act, z: z > 0, "act:relu")


class Indexed(nn.Module):
    """Its pre-activation is not the first argument."""

    def forward(self, places: Tensor, by: float, z: Tensor) -> Tensor:
        return z * (z > by)


@pytest.mark.parametrize("by_name", [False, True])
def test_the_first_tensor_of_floats_is_the_pre_activation(declare: Any, by_name: bool) -> None:
    declare(Indexed, threshold=0.5)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act = nn.Linear(3, UNITS), Indexed()

        def forward(self, x: Tensor) -> Tensor:
            z, places = self.fc(x), torch.arange(3)
            return self.act(places, by=0.5, z=z) if by_name else self.act(places, 0.5, z)

    model, x = Whole(), torch.cat(batches())
    assert harness.scan(model, x).units.active.tolist() == (model.fc(x) > 0.5).sum(0).tolist()


def test_a_sparse_autoencoder_with_selection_over_the_batch(declare: Any) -> None:
    class BatchTopK(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z * over_the_batch(z)

    class Autoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.encoder, self.decoder = nn.Parameter(torch.randn(16, 32) / 4), nn.Linear(32, 16)
            self.bias, self.act = nn.Parameter(torch.zeros(32)), BatchTopK()
            self.bias.data[:6] = -50

        def forward(self, x: Tensor) -> Tensor:
            return self.decoder(self.act(x @ self.encoder + self.bias))

    def over_the_batch(z: Tensor) -> Tensor:
        return z >= z.flatten().topk(3 * len(z)).values[-1]

    declare(BatchTopK, open=over_the_batch)
    model, counted = Autoencoder(), torch.zeros(32, dtype=torch.int64)
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(STEPS):
            x = torch.randn(4, 7, 16)
            counted += over_the_batch(x @ model.encoder + model.bias).sum((0, 1))
            model(x).square().mean().backward()
            recorder.step()
        census = recorder.census()
    assert census.active.tolist() == counted.tolist()
    assert set(census.n) == {28 * STEPS}
    assert set(census.state[:6]) == {"dead"}
    assert recorder.sites[0].producers == ("encoder",)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_module_that_a_checkpoint_recomputes(declare: Any, checkpointed: bool) -> None:
    declare(TopK, open=selected)
    check(Net(TopK(2), apart=checkpointed), lambda act, z: selected(z, act), "act")
