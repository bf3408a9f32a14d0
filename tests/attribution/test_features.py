"""Effective rank and collapse, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness


def by_numpy(features: np.ndarray) -> float:
    values = np.linalg.svd(features, compute_uv=False)
    p = values / values.sum()
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


@pytest.mark.parametrize("shape", [(40, 7), (5, 9), (1, 3)])
def test_the_rank_is_that_of_its_definition(shape: tuple[int, int]) -> None:
    features = np.random.default_rng(0).normal(size=shape)
    assert harness.effective_rank(torch.from_numpy(features)) == pytest.approx(by_numpy(features))


def test_every_site_has_the_rank_of_what_it_hands_on() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 6, 3)
            self.act = nn.LeakyReLU(0.2)
            self.one, self.two, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.act(self.conv(x)).mean((2, 3))
            x = F.elu(self.one(x), alpha=0.5)
            return self.head(self.two(x).clamp(min=0))

    torch.manual_seed(0)
    model: Any = Mixed()
    x = torch.randn(30, 1, 6, 6)
    with torch.no_grad():
        conv = model.act(model.conv(x))
        first = F.elu(model.one(conv.mean((2, 3))), alpha=0.5)
        second = model.two(first).clamp(min=0)
    expected = {
        "act": by_numpy(conv.permute(0, 2, 3, 1).reshape(-1, 6).double().numpy()),
        ":elu": by_numpy(first.double().numpy()),
        ":clamp": by_numpy(second.double().numpy()),
    }
    found = harness.feature_ranks(model, [x[:10], x[10:]]).set_index("site")
    for site, rank in expected.items():
        assert found["effective_rank"][site] == pytest.approx(rank, rel=1e-5), site
    assert found["n"]["act"] == 30 * 16
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_a_collapsed_network_is_told_from_one_that_is_not() -> None:
    model: Any = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.rand(20, 2)
    assert harness.feature_ranks(model, x).attrs["collapsed"] is False
    with torch.no_grad():
        model[0].bias.fill_(-10)
    found = harness.feature_ranks(model, x)
    assert found.attrs["collapsed"] is True
    assert found["effective_rank"].tolist() == [0.0]
    assert harness.feature_ranks(model, x[:1]).attrs["collapsed"] is None


def test_features_that_are_not_finite_have_no_rank() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU())
    found = harness.feature_ranks(model, torch.tensor([[float("nan"), 1.0], [0.0, 1.0]]))
    assert np.isnan(found["effective_rank"].item())
    assert found.attrs["collapsed"] is None
