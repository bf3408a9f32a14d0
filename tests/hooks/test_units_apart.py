"""Units are told apart: by expert, head or member, by layer, by gate, and in shuffled layouts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness
from harness.remedies import leaky_swap

LOW = -99.0  # a bias that closes a unit for good


class Batched(nn.Module):
    """Three experts with six units each, in one weight; those of the first are dead."""

    def __init__(self, product: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.product = product
        self.w, self.b = nn.Parameter(torch.randn(3, 8, 6)), nn.Parameter(torch.zeros(3, 1, 6))
        self.b.data[0] = LOW

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.product(x, self.w) + self.b)


PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bmm": torch.bmm,
    "matmul": lambda x, w: x @ w,
    "from the left": lambda x, w: (w.mT @ x.mT).mT,
    "baddbmm": lambda x, w: torch.baddbmm(torch.zeros(3, 1, 6), x, w),
    "einsum": lambda x, w: torch.einsum("ecd,edh->ech", x, w),
    "written out": lambda x, w: (x[..., None] * w[:, None]).sum(2),
}


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
def test_units_of_experts_in_one_weight(product: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    report = harness.scan(Batched(product), [(torch.randn(3, 50, 8),)])
    (site,) = report.plan.sites
    assert (site.size, site.guessed, site.exact) == (18, False, False)
    assert report.units["n"].eq(50).all()
    assert report.units["state"].eq("dead").tolist() == [True] * 6 + [False] * 12


def test_an_expanded_weight_has_no_more_units() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(8, 6))

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(torch.bmm(x, self.w.expand(len(x), -1, -1)))

    report = harness.scan(Shared(), [(torch.randn(5, 4, 8),)])
    assert len(report.units) == 6
    assert report.units["n"].eq(20).all()


def test_heads_and_features_of_one_weight() -> None:
    class Heads(nn.Module):
        def __init__(self, of_heads: bool) -> None:
            super().__init__()
            self.of_heads = of_heads
            self.w, self.b = nn.Parameter(torch.randn(3, 8, 6)), nn.Parameter(torch.zeros(3, 6))
            self.v, self.c = nn.Parameter(torch.randn(8, 6)), nn.Parameter(torch.zeros(8, 6))
            self.b.data[0] = self.c.data[0] = LOW

        def forward(self, x: Tensor) -> Tensor:
            if self.of_heads:
                return F.relu(torch.einsum("btd,hdk->bthk", x, self.w) + self.b)
            return F.relu(x[..., None] * self.v + self.c)  # each number embedded by itself

    heads, numbers = (
        harness.scan(Heads(True), torch.randn(10, 5, 8)),
        harness.scan(Heads(False), torch.randn(50, 8)),
    )
    assert (len(heads.units), int(heads.units["state"].eq("dead").sum())) == (18, 6)
    assert (len(numbers.units), int(numbers.units["state"].eq("dead").sum())) == (48, 6)


class Routed(nn.Module):
    """Experts in a loop; those that a batch does not need are not called."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.out = nn.Parameter(torch.randn(3, 4, 6)), nn.Parameter(torch.randn(3, 6, 2))
        self.w.data[1] = 0

    def forward(self, x: Tensor, experts: list[int]) -> Tensor:
        return torch.stack([F.relu(x @ self.w[one]) @ self.out[one] for one in experts]).sum(0)


def test_experts_in_a_loop_are_sites_of_their_own_in_a_training() -> None:
    torch.manual_seed(0)
    model = Routed()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    called = [[0, 1], [2, 0], [1, 2], [0]] * 5
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        for experts in called:
            model(torch.randn(7, 4), experts).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step()
        census = recorder.census()
    owners = {site.name: site.producers[0] for site in recorder.plan.sites}
    found = census.assign(owner=census["site"].map(owners)).groupby("owner")
    assert found["n"].first().to_dict() == {
        f"w[{one}]": 7 * sum(one in experts for experts in called) for one in range(3)
    }
    assert found["state"].agg(lambda states: states.eq("dead").all()).tolist() == [False, True, False]


def test_weights_that_each_input_chooses_are_not_observed() -> None:
    class Chosen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.router = nn.Parameter(torch.randn(3, 4, 6)), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(torch.bmm(x[:, None], self.w[self.router(x).argmax(1)]))

    with pytest.warns(UserWarning, match="chosen for each"):
        report = harness.scan(Chosen(), torch.randn(20, 4))
    assert not report.plan.sites
    assert "chosen for each" in report.plan.unobserved[0].reason


class Joined(nn.Module):
    """Two layers, joined; the first is dead."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.join = nn.Linear(4, 6), nn.Linear(4, 6), join
        self.a.bias.data.fill_(LOW)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.join(self.a(x), self.b(x)))


def test_units_of_stacked_layers_are_told_apart() -> None:
    report = harness.scan(Joined(lambda a, b: torch.stack([a, b], 1)), torch.randn(10, 3, 4))
    assert (len(report.units), int(report.units["state"].eq("dead").sum())) == (12, 6)


@pytest.mark.parametrize("axis", [0, 1])
def test_layers_side_by_side_along_inputs_or_positions_are_not_observed(axis: int) -> None:
    with pytest.warns(UserWarning, match="side by side"):
        report = harness.scan(Joined(lambda a, b: torch.cat([a, b], axis)), torch.randn(10, 3, 4))
    assert "side by side" in report.plan.unobserved[0].reason


def test_layers_side_by_side_by_short_names() -> None:
    along_units = harness.scan(Joined(lambda a, b: torch.hstack([a, b])), torch.randn(10, 4))
    assert (len(along_units.units), int(along_units.units["state"].eq("dead").sum())) == (12, 6)
    with pytest.warns(UserWarning, match="side by side"):
        assert not harness.scan(Joined(lambda a, b: torch.vstack([a, b])), torch.randn(10, 4)).plan.sites


def test_pixel_shuffle_keeps_the_channels_at_any_size() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.PixelShuffle(2), nn.ReLU())
    model[0].get_parameter("bias").data[5] = LOW
    images = [torch.randn(20, 3, 6, 6), torch.randn(20, 3, 8, 8)]
    report = harness.scan(model, [(one,) for one in images])
    z = [model[1](model[0](one)).view(20, 2, -1, 2, one.shape[-1], 2) for one in images]
    rates = sum(one.gt(0).sum((0, 2, 4)) for one in z) / (20 * (36 + 64))
    assert report.units["n"].eq(20 * 100).all()
    assert report.units["rate"].tolist() == pytest.approx(torch.as_tensor(rates).flatten().tolist())
    assert report.units["state"].eq("dead").sum() == 1


class Gates(nn.Module):
    """One layer, several gates behind it."""

    def __init__(self, gates: Callable[[Tensor, nn.Module], list[Tensor]]) -> None:
        super().__init__()
        self.layer, self.act, self.gates, self.head = nn.Linear(4, 6), nn.ReLU(), gates, nn.Linear(6, 2)
        self.layer.bias.data[:3] -= 2

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(x)
        return self.head(torch.stack(self.gates(z, self.act)).sum(0))


GATES: dict[str, tuple[Callable[[Tensor, nn.Module], list[Tensor]], list[Callable[[Tensor], Tensor]]]] = {
    "module": (lambda z, act: [act(z), act(-z)], [lambda z: z, lambda z: -z]),
    "function": (lambda z, _: [F.relu(z), F.relu(-z)], [lambda z: z, lambda z: -z]),
    "behind another": (lambda z, act: [act(act(z) - 0.5)], [lambda z: z, lambda z: z - 0.5]),
    "behind a function": (lambda z, _: [F.relu(1 - F.relu(z))], [lambda z: z, lambda z: 1 - z.relu()]),
    "shifted": (lambda z, _: [F.relu(z - knot) for knot in (-1.0, 1.0)], [lambda z: z + 1, lambda z: z - 1]),
}


@pytest.mark.filterwarnings("ignore:act .relu. is unobserved")
@pytest.mark.parametrize("name", GATES)
def test_gates_behind_one_layer_are_told_apart(name: str) -> None:
    gates, spelled = GATES[name]
    torch.manual_seed(0)
    model = Gates(gates)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    opened = torch.zeros(2, 6)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        for _ in range(12):
            x = torch.randn(20, 4)
            with torch.no_grad():
                z = model.layer.weight @ x.T + model.layer.bias[:, None]
                opened += torch.stack([one(z).gt(0).sum(1) for one in spelled])
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step()
        census = recorder.census()
    census = census[census["n"] > 0]
    assert census["n"].eq(240).all()
    assert census["rate"].tolist() == pytest.approx((opened / 240).flatten().tolist())


def test_a_tied_decoder_is_another_site() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(6, 6))
            self.b, self.c = nn.Parameter(torch.full((6,), LOW)), nn.Parameter(-torch.tensor(LOW))

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(F.relu(x @ self.w + self.b) @ self.w.T + self.c)

    report = harness.scan(Tied(), torch.randn(20, 6))
    assert report.units.groupby("site")["state"].agg(lambda states: states.eq("dead").sum()).tolist() == [
        6,
        0,
    ]


def test_a_relu_of_weights_is_no_site() -> None:
    """An input convex network keeps its weights positive by a ReLU."""

    class Convex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.skip, self.act = nn.Linear(4, 8), nn.Linear(4, 8), nn.ReLU()
            self.w = nn.Parameter(torch.randn(8, 8))
            self.skip.bias.data.fill_(-999.0)

        def forward(self, x: Tensor) -> Tensor:
            h = self.act(self.first(x))
            return self.act(F.linear(h, self.act(self.w)) + self.skip(x))

    report = harness.scan(Convex(), torch.randn(20, 4))
    assert report.units["n"].eq(20).all()
    assert report.units.groupby("site")["state"].agg(lambda states: states.eq("dead").all()).tolist() == [
        False,
        True,
    ]


def test_a_leaky_swap_leaves_units_along_several_axes_as_they_are() -> None:
    shuffled = nn.Conv2d(3, 8, 3, padding=1), nn.PixelShuffle(2), nn.ReLU(), nn.Flatten()
    model = nn.Sequential(*shuffled, nn.Linear(128, 4), nn.ReLU())
    for layer in (model[0], model[4]):
        layer.get_parameter("bias").data.fill_(LOW)
    with pytest.warns(UserWarning, match="2: its units lie along several axes"):
        events = leaky_swap(model, torch.randn(5, 3, 4, 4))
    assert events[0].site == "5"
    assert model(torch.randn(5, 3, 4, 4)).lt(0).all()


def test_a_cell_of_bare_matrices_is_one_site() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wx, self.wh = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(6, 6))

        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(x[:, 0] @ self.wx)
            for step in x.unbind(1)[1:]:
                h = F.relu(step @ self.wx + h @ self.wh)
            return h

    report = harness.scan(Cell(), torch.randn(10, 5, 4))
    assert report.units["n"].tolist() == [50] * 6


@pytest.mark.parametrize("side", ["values", "transposed"])
def test_values_keep_their_heads_when_positions_are_mixed(side: str) -> None:
    """An activation right behind attention: its units are the heads' features, with no guess."""

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value, self.mix, self.act = nn.Linear(8, 6), nn.Linear(8, 10), nn.ReLU()
            self.value.bias.data[4] = LOW  # the second head's second feature

        def forward(self, x: Tensor) -> Tensor:
            mix = self.mix(x).softmax(-1)[:, None]  # (batch, 1, positions, positions)
            value = self.value(x).unflatten(-1, (2, 3)).transpose(1, 2)  # (batch, heads, positions, 3)
            if side == "values":
                return self.act(mix @ value)
            return self.act(value.mT @ mix.mT)

    torch.manual_seed(0)
    report = harness.scan(Attending(), [(torch.randn(5, 10, 8),)])
    (site,) = report.plan.sites
    assert (site.size, site.guessed) == (6, False)
    assert report.units["n"].eq(50).all()
    assert report.units["state"].eq("dead").tolist() == [False] * 4 + [True, False]
