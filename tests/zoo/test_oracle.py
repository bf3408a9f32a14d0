"""The oracle is right where the truth is known by construction."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.oracle import Key, Oracle, Sums


def last(caller: str, z: Tensor) -> int:
    return -1


def channels(caller: str, z: Tensor) -> int:
    return 1 if z.ndim > 2 else -1


def seen(net: nn.Module, *inputs: Tensor, axis=last, train: bool = False) -> list[tuple[Key, Sums]]:
    oracle = Oracle(net, axis)
    for x in inputs:
        with oracle.forward():
            y = net(x)
        if train:
            y.sum().backward()
    return list(oracle.truth.sites.items())


def killed(layer: nn.Linear | nn.Conv2d, *units: int) -> nn.Linear | nn.Conv2d:
    assert layer.bias is not None
    nn.init.uniform_(layer.weight, -0.01, 0.01)
    nn.init.constant_(layer.bias, 100.0)
    layer.bias.data[list(units)] = -100.0
    return layer


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_units_killed_by_their_bias_are_the_closed_ones(inplace: bool, train: bool):
    net = nn.Sequential(killed(nn.Linear(3, 5), 1, 4), nn.ReLU(inplace), nn.Linear(5, 2))
    [(key, sums)] = seen(net, torch.randn(7, 3), torch.randn(2, 3), train=train)
    assert key == Key("1", "relu", frozenset({"0.weight", "0.bias"}), 5)
    assert (sums.n, sums.calls, sums.active.tolist()) == (9, 2, [9, 0, 9, 9, 0])
    assert (sums.peak > 0).tolist() == [True, False, True, True, False]


def test_positions_of_an_image_count_and_channels_are_units():
    net = nn.Sequential(
        killed(nn.Conv2d(1, 3, 3), 0), nn.ReLU(), nn.Flatten(), killed(nn.Linear(12, 4), 2), nn.GELU()
    )
    (_, image), (_, flat) = seen(net, torch.randn(2, 1, 4, 4), axis=channels)
    assert (image.n, image.active.tolist()) == (8, [0, 8, 8])
    assert (flat.n, flat.active.tolist()) == (2, [2, 2, 0, 2])


class Shared(nn.Module):
    """One ReLU after two layers, the first used twice: two sites."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.act = (
            killed(nn.Linear(4, 4), 0),
            killed(nn.Linear(4, 4), 1, 2),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.two(self.act(self.one(self.act(self.one(x))))))


def test_calls_are_kept_apart_by_the_layers_that_feed_them():
    (one, first), (two, second) = seen(Shared(), torch.randn(3, 4))
    assert (one.caller, two.caller) == ("act", "act")
    assert (one.producers, first.n, first.calls) == ({"one.weight", "one.bias"}, 6, 2)
    assert first.active.tolist() == [0, 6, 6, 6]
    assert (two.producers, second.active.tolist()) == ({"two.weight", "two.bias"}, [3, 0, 0, 3])


class Residual(nn.Module):
    """Functional calls, a residual sum, and a clamp that is arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 1, bias=False), nn.BatchNorm2d(2)
        nn.init.constant_(self.norm.bias, 100.0)
        self.norm.bias.data[1] = -100.0

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.conv(x)))
        y = (self.norm(self.conv(y)) + y * 0).clamp(min=0)
        return y / y.square().sum(1, keepdim=True).clamp(min=0)


def test_clamp_counts_on_what_layers_put_out_only():
    first, *rest = seen(Residual(), torch.randn(2, 2, 3, 3), axis=channels)
    assert first[0] == Key("", "relu", frozenset({"norm.weight", "norm.bias"}), 2)
    assert first[1].active.tolist() == [18, 0]
    assert not rest  # `y * 0` is no plain residual, and a norm is no layer's output

    class Plain(Residual):
        def forward(self, x: Tensor) -> Tensor:
            return (self.norm(self.conv(x)) + self.conv(x)).clamp_(0, 6)

    [(key, sums)] = seen(Plain(), torch.rand(2, 2, 3, 3), axis=channels)
    assert (key.kind, sums.n) == ("relu6", 18)
    assert sums.active.tolist() == [0, 0]  # 100 is beyond 6


@pytest.mark.parametrize(
    ("activation", "kind", "closed"),
    [
        (nn.ReLU6(), "relu6", [-100.0, -0.5, 100.0]),
        (nn.Hardtanh(), "hardtanh", [-100.0, 100.0]),
        (nn.LeakyReLU(), "leaky_relu", []),
        (nn.PReLU(), "prelu", []),
        (nn.ELU(), "elu", [-100.0]),
        (nn.SELU(), "selu", [-100.0]),
        (nn.CELU(0.5), "celu", [-100.0]),
        (nn.GELU(), "gelu", [-100.0]),
        (nn.GELU("tanh"), "gelu", [-100.0]),
        (nn.SiLU(), "silu", [-100.0]),
        (nn.Mish(), "mish", [-100.0]),
        (nn.Softplus(), "softplus", [-100.0]),
        (nn.Hardswish(), "hardswish", [-100.0]),
        (nn.Hardsigmoid(), "hardsigmoid", [-100.0, 100.0]),
        (nn.Sigmoid(), "sigmoid", [-100.0, 100.0]),
        (nn.Tanh(), "tanh", [-100.0, 100.0]),
        (nn.LogSigmoid(), "logsigmoid", [100.0]),
        (nn.Threshold(0.0, 0.0), "relu", [-100.0, -0.5]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_gates_are_open_where_the_slope_is_not_zero(activation: nn.Module, kind: str, closed: list[float]):
    layer = nn.Linear(1, 4)
    nn.init.zeros_(layer.weight)
    values = [-100.0, -0.5, 0.5, 100.0]
    layer.bias.data = torch.tensor(values)
    [(key, sums)] = seen(nn.Sequential(layer, activation), torch.zeros(2, 1))
    assert key.kind == kind
    assert [v for v, a in zip(values, sums.active.tolist(), strict=True) if not a] == closed


def test_a_recurrent_layer_is_named_and_its_gates_are_not_calls():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0]).relu()

    oracle = Oracle(Net(), last)
    with oracle.forward():
        oracle.model(torch.randn(2, 5, 3))
    assert oracle.truth.fused == {"rnn"}
    assert [(key.caller, sums.n) for key, sums in oracle.truth.sites.items()] == [("", 10)]


def test_the_fast_path_of_an_encoder_is_switched_off_and_back():
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True).eval()
    with torch.no_grad():
        [(key, sums)] = seen(layer, torch.randn(2, 3, 8))
    assert (key.caller, key.kind, key.width, sums.n) == ("", "relu", 16, 6)
    assert torch.backends.mha.get_fastpath_enabled()


def test_loss_functions_are_no_part_of_the_model():
    net = nn.Linear(3, 2)
    oracle = Oracle(net, last)
    with oracle.forward():
        net(torch.randn(4, 3)).relu().sigmoid()
    assert not oracle.truth.sites
