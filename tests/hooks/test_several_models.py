"""Several models in one step, several forwards per step: who counts what."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_nets import sgd, x
from torch import Tensor, nn

import harness
from harness.selftest.case import kill
from harness.selftest.compare import assert_same_census
from harness.selftest.truth import Keep, Truth, site, through

STEPS, ROWS = 4, 6


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act, self.out = nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4)
        kill(self.fc, 2)

    def forward(self, noise: Tensor, keep: Keep = through, name: str = "act") -> Tensor:
        return self.out(self.act(keep(name, self.fc(noise))))


class Discriminator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(4, 6), nn.Linear(6, 1)
        kill(self.fc, 0, 3)

    def forward(self, sample: Tensor, keep: Keep = through, name: str = ":relu") -> Tensor:
        return self.out(F.relu(keep(name, self.fc(sample))))


class Both(nn.Module):
    """A composite whose forward is asked for one part or the other."""

    def __init__(self) -> None:
        super().__init__()
        self.g, self.d = Generator(), Discriminator()

    def forward(self, value: Tensor, part: str, keep: Keep = through) -> Tensor:
        named = () if keep is through else (keep, "g.act" if part == "g" else "d:relu")
        return (self.g if part == "g" else self.d)(value, *named)


G_SITE = site("act", "fc", 5, 2)
D_SITE = site(":relu", "fc", 6, 0, 3)


def gan_step(
    g: Any, d: Any, g_optimizer: Any, d_optimizer: Any, step: int, backward: Any = Tensor.backward
) -> None:
    """One step of a GAN: D on real and on generated samples, then G through D.

    backward: the slow truth's, in place of torch's own.
    """
    real, noise = x(ROWS, step, 4), x(ROWS, 100 + step)
    fake = g(noise)
    backward(F.softplus(-d(real)).mean() + F.softplus(d(fake.detach())).mean())
    d_optimizer.step()
    d_optimizer.zero_grad()
    g_optimizer.zero_grad()
    backward(F.softplus(-d(g(noise))).mean())
    g_optimizer.step()
    g_optimizer.zero_grad()
    d_optimizer.zero_grad()


def heard(truth: Truth, module: nn.Module, kept: list[Any]) -> Any:
    def forward(value: Tensor) -> Tensor:
        output, found = truth.forward(lambda keep: module(value, keep=keep))
        kept.append((truth, found))
        return output

    return forward


def together(kept: list[Any], loss: Tensor) -> None:
    """Every pre-activation's gradient, to each truth its own; then the ordinary backward."""
    for truth, found in kept:
        names = [name for name, _ in found]
        gradients = torch.autograd.grad(loss, [z for _, z in found], retain_graph=True, allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is not None:
                truth.gradients.setdefault(name, []).append(gradient.double().numpy())
    loss.backward()


def test_two_recorders_on_generator_and_discriminator() -> None:
    """D sees three batches a step, G two; gradients come back where a backward ran."""
    torch.manual_seed(0)
    g, d = Generator(), Discriminator()
    twins = copy.deepcopy((g, d))
    g_optimizer, d_optimizer = sgd(g), sgd(d)
    with (
        harness.Recorder(g, census_every=2) as of_g,
        harness.Recorder(d, census_every=2) as of_d,
    ):
        for step in range(STEPS):
            gan_step(g, d, g_optimizer, d_optimizer, step)
            of_g.step()
            of_d.step()
    truths = Truth((G_SITE,)), Truth((D_SITE,))
    g_optimizer, d_optimizer = sgd(twins[0]), sgd(twins[1])
    kept: list[Any] = []
    true_g, true_d = (heard(truth, twin, kept) for truth, twin in zip(truths, twins, strict=True))
    for step in range(STEPS):
        kept.clear()
        gan_step(true_g, true_d, g_optimizer, d_optimizer, step, lambda loss: together(kept, loss))
        for truth in truths:
            truth.steps += 1
            if truth.steps % 2 == 0:
                truth.census()
    for recorder, truth, n in zip((of_g, of_d), truths, (2, 3), strict=True):
        history = recorder.history()
        assert set(history.n) == {2 * n * ROWS}
        for step in (2, 4):
            true = truth.history[step // 2 - 1]
            assert_same_census(history[history.step == step], true)
    assert torch.equal(twins[0].fc.weight, g.fc.weight)
    assert torch.equal(twins[1].fc.weight, d.fc.weight)


def test_one_recorder_on_the_composite() -> None:
    """Each call of the composite is a forward; the sites of both parts grow."""
    torch.manual_seed(0)
    both = Both()
    g_optimizer, d_optimizer = sgd(both.g), sgd(both.d)
    with harness.Recorder(both, optimizer=[g_optimizer, d_optimizer], census_every=None) as recorder:
        for step in range(STEPS):
            gan_step(lambda v: both(v, "g"), lambda v: both(v, "d"), g_optimizer, d_optimizer, step)
            recorder.step()
        census = recorder.census()
    assert census.groupby("site").n.first().to_dict() == {
        "g.act": 2 * ROWS * STEPS,
        "d:relu": 3 * ROWS * STEPS,
    }
    found = census[census.state == "dead"]
    assert {2} <= set(found[found.site == "g.act"].unit)
    assert {0, 3} <= set(found[found.site == "d:relu"].unit)
    assert census.grad_norm.notna().all()


@pytest.mark.parametrize("root_only", [True, False])
def test_parts_called_outside_their_composite(root_only: bool) -> None:
    torch.manual_seed(0)
    both = Both()
    with harness.Recorder(both, census_every=None, root_only=root_only) as recorder:
        both(x(4), "g")
        both.g(x(9))
        both.d(x(9, columns=4))
        census = recorder.census()
    found = census.groupby("site").n.first().to_dict()
    assert found == ({"g.act": 4} if root_only else {"g.act": 13, "d:relu": 9})
