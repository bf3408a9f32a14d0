"""Training under a Recorder is training without one, to the last bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from small_nets import dropout_cnn
from torch import Tensor, nn

import harness
from harness.selftest.attention import Encoder
from harness.selftest.plain import mlp
from harness.selftest.sharing import Mixed


def resnet() -> nn.Module:
    from torchvision.models import resnet18

    return resnet18(num_classes=10)


def other_randomness() -> list[Any]:
    """The states of numpy's and Python's generators."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest, random.getstate()]


def trained(
    make: Callable[[], nn.Module], shape: tuple[int, ...], rule: str, steps: int, recorded: str
) -> list[Any]:
    """All that a training leaves: losses, parameters, buffers, moments, states of random generators."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    model = make()
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)
        if rule == "sgd"
        else torch.optim.Adam(model.parameters(), lr=0.01)
    )
    probe = torch.ones(5, *shape[1:]) if recorded == "probe" else None
    recorder = None
    if recorded != "no":
        recorder = harness.Recorder(model, optimizer=optimizer, census_every=7, probe=probe)
    losses = []
    with recorder or nullcontext():
        for _ in range(steps):
            # noise from all three generators, so that a draw anywhere would be seen
            noise = float(np.random.rand()) + random.random()
            loss = (model(torch.randn(shape)) - 1e-3 * noise).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
            if recorder:
                recorder.step()
    moments = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    assert losses[-1].isfinite()
    assert recorder is None or len(recorder.history()) > 0
    state = model.state_dict()
    return [*losses, *state, *state.values(), *moments, torch.get_rng_state(), *other_randomness()]


def assert_identical(plain: list[Any], watched: list[Any]) -> None:
    for a, b in zip(plain, watched, strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b


@pytest.mark.parametrize("rule", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("make", "shape"),
    [(mlp, (8, 6)), (dropout_cnn, (6, 1, 8, 8)), (Mixed, (8, 6)), (lambda: Encoder(0.2), (2, 3, 8))],
    ids=["mlp", "cnn", "mixed", "encoder"],
)
def test_training_is_bit_identical(make: Callable[[], nn.Module], shape: tuple[int, ...], rule: str) -> None:
    plain = trained(make, shape, rule, 40, "no")
    for recorded in ("plain", "probe"):
        assert_identical(plain, trained(make, shape, rule, 40, recorded))


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_training_a_resnet_is_bit_identical(rule: str) -> None:
    """torchvision's ResNet-18 on small images; three censuses."""
    shape = (4, 3, 16, 16)
    plain = trained(resnet, shape, rule, 22, "no")
    assert_identical(plain, trained(resnet, shape, rule, 22, "plain"))
