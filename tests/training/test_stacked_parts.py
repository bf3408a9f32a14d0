"""The parts of a stack, each against the single run's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from harness.config import compose
from harness.kernels import numba as loops
from harness.kernels import numba_gradients as gradients
from harness.kernels.accumulators import GRADIENT
from harness.training.stacked.losses import cross_entropy
from harness.training.stacked.optimizers import Optimizer
from harness.training.stacked.parameters import Parameter, stack


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("bounds", [1, 4])
def test_members_are_counted_as_each_would_be_alone(kind: type, bounds: int) -> None:
    draws = np.random.default_rng(0)
    z = draws.normal(size=(5, 37, 19)).astype(kind)
    z[3, 2, 4] = np.nan
    gates = draws.normal(size=(5, bounds, 1)).astype(kind)
    counts, sums = np.zeros((5, 3, 19), np.int64), np.zeros((5, 5, 19))
    loops.accumulate_members(z.ctypes.data, 37, gates, counts, sums)
    gradients.add_squares_members(z.ctypes.data, 37, gates, sums)
    for k in range(5):
        c, s = np.zeros((3, 19), np.int64), np.zeros((5, 19))
        loops.accumulate(z[k].ctypes.data, 37, 1, False, gates[k], c, s)
        gradients.add_squares(z[k].ctypes.data, 37, 1, gates, s[GRADIENT])
        np.testing.assert_array_equal(c, counts[k])
        np.testing.assert_array_equal(s, sums[k])


def test_the_loss_and_its_gradient_are_autograds() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 7, 11, dtype=torch.float64, requires_grad=True)
    y = torch.randint(0, 7, (3, 11))
    expected = F.cross_entropy(logits, y, reduction="none").mean(1)
    (wanted,) = torch.autograd.grad(expected.sum(), logits)
    loss, accuracy, gradient = cross_entropy(logits.detach(), y)
    np.testing.assert_allclose(loss, expected.detach(), rtol=1e-14)
    torch.testing.assert_close(gradient, wanted, rtol=1e-13, atol=1e-16)
    assert accuracy.tolist() == (logits.argmax(1) == y).float().mean(1).tolist()


def test_equal_logits_and_nan_are_answered_as_argmax_does() -> None:
    logits = torch.tensor([[[0.0, 1.0], [0.0, torch.nan], [0.0, 2.0]]])
    for truth in range(3):
        _, accuracy, _ = cross_entropy(logits, torch.full((1, 2), truth))
        assert accuracy[0] == (logits.argmax(1) == truth).float().mean()


def test_a_loss_too_large_for_its_precision_is_infinite() -> None:
    logits = torch.tensor([[[3e38, 3e38], [0.0, 0.0]]])
    loss, _, _ = cross_entropy(logits, torch.ones(1, 2, dtype=torch.int64))
    assert loss.isinf().all()  # as is the sum in float32


@pytest.mark.parametrize(
    "own",
    [["optim=sgd"], ["optim=momentum", "optim.nesterov=true"], ["optim=adam"], ["optim=adamw"]],
    ids=str,
)
def test_a_float32_step_is_torchs_to_the_last_digits(own: list[str]) -> None:
    from harness.training.optimisation import make_optimizer

    torch.manual_seed(0)
    spec = compose([*own, "optim.weight_decay=0.01", "optim.lr=0.03"])
    layer = torch.nn.Linear(9, 5)
    single = make_optimizer(spec, layer)
    parameters = stack([{n: p.clone() for n, p in layer.named_parameters()}], ["weight", "bias"])
    stacked = Optimizer([spec], parameters)
    for step in range(1, 30):
        for parameter, p in zip(parameters, layer.parameters(), strict=True):
            p.grad = torch.randn(p.shape)
            parameter.grad[0] = p.grad
        single.step()
        stacked.step(np.array([0.03]), step, stacked.scales())
    for parameter, p in zip(parameters, layer.parameters(), strict=True):
        torch.testing.assert_close(parameter.value[0], p.detach(), rtol=1e-5, atol=3e-7)


def test_who_leaves_takes_its_rows_along() -> None:
    value = torch.arange(6.0).view(3, 2)
    parameter = Parameter("slope", range(1, 4), value, torch.zeros(3, 2), [value + 10])
    left = parameter.keep([0, 2, 3])
    assert left is not None
    assert (left.members, left.value.tolist()) == (range(1, 3), [[2.0, 3.0], [4.0, 5.0]])
    assert left.moments[0].tolist() == [[12.0, 13.0], [14.0, 15.0]]
    assert parameter.keep([0, 4]) is None
    with pytest.raises(ValueError, match="beside each other"):
        stack([{"w": value}, {}, {"w": value}], ["w"])
