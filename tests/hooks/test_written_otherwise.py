"""Models with branches, late modules, recursion, traced, scripted, exported and rewritten parts.

Each is right, or unobserved with the true reason; truth is what the model itself writes down as it runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import harness

ROWS, STEPS = 6, 24


class Noting(nn.Module):
    """Notes (name, pre-activation) of every call as it is made."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[tuple[str, Tensor]] = []
        self.forwards = 0

    def note(self, name: str, z: Tensor) -> Tensor:
        self.notes.append((name, z.detach().clone()))
        return z


class Branches(Noting):
    """Which layer feeds the shared activation hangs on the data; both have the same width."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.act, self.head = nn.Linear(4, 5), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = bool(x.sum() > 0)
        layer, name = (self.a, "a") if first else (self.b, "b")
        return self.head(self.act(self.note(name, layer(x))))


class ChangingOrder(Noting):
    """Both layers run every time; the order in which their outputs are activated changes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.act, self.head = nn.Linear(4, 5), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        made = {"a": self.a(x), "b": self.b(x)}
        order = ("a", "b") if bool(x.sum() > 0) else ("b", "a")
        return self.head(sum(self.act(self.note(name, made[name])) for name in order))  # type: ignore[arg-type]


class ChangingOrderOfFunctions(Noting):
    """The same with a function."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        made = {"a": self.a(x), "b": self.b(x)}
        order = ("a", "b") if bool(x.sum() > 0) else ("b", "a")
        return self.head(sum(F.relu(self.note(name, made[name])) for name in order))  # type: ignore[arg-type]


class Depth(Noting):
    """Stochastic depth: a residual branch is dropped in every third forward."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.act, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        h = self.act(self.note("a", self.a(x)))
        if self.forwards % 3:
            h = h + self.act(self.note("b", self.b(h)))
        return self.head(h)


class Late(Noting):
    """A layer and its activation come with the 13th forward."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.act, self.head = nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        h = self.act(self.note("a", self.a(x)))
        if self.forwards == 13:
            self.late = nn.Sequential(nn.Linear(5, 5), nn.ReLU())
        if self.forwards > 13:
            h = self.late[1](self.note("late.0", self.late[0](h)))
        return self.head(h)


class Recursive(Noting):
    """A part calls itself, as deep as the input says."""

    class Node(nn.Module):
        def __init__(self, note: Callable[[str, Tensor], Tensor]) -> None:
            super().__init__()
            self.fc, self.act = nn.Linear(4, 4), nn.ReLU()
            self.note = note

        def forward(self, x: Tensor, depth: int) -> Tensor:
            h = self.act(self.note("node.fc", self.fc(x)))
            return self(h, depth - 1) if depth else h

    def __init__(self) -> None:
        super().__init__()
        self.node, self.head = Recursive.Node(self.note), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.node(x, int(x[0, 0] > 0) + 1))


class Called(Noting):
    """A part is called by functional_call with other parameters than its own."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.scale = nn.Sequential(nn.Linear(4, 5), nn.ReLU()), nn.Parameter(torch.ones(()))
        self.head = nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        parameters = {name: p * self.scale for name, p in self.part.named_parameters()}
        self.note("part.0", F.linear(x, parameters["0.weight"], parameters["0.bias"]))
        return self.head(functional_call(self.part, parameters, (x,)))


class Ensemble(Noting):
    """A list of experts of one width; each batch goes through one of them, by turns."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(4, 5) for _ in range(5))
        self.head = nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        turn = (self.forwards * self.forwards) % 5
        return self.head(F.relu(self.note(f"experts.{turn}", self.experts[turn](x))))


class Interpreted(Noting):
    """A part is a torch.fx graph."""

    def __init__(self) -> None:
        super().__init__()

        class Inner(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc, self.act = nn.Linear(4, 5), nn.ReLU()

            def forward(self, x: Tensor) -> Tensor:
                return F.relu(self.act(self.fc(x)) - 0.1)

        self.part, self.head = torch.fx.symbolic_trace(Inner()), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.note("part.fc", self.part.fc(x))  # type: ignore[operator]
        return self.head(self.part(x))


MODELS = [Branches, ChangingOrder, ChangingOrderOfFunctions, Depth, Recursive, Called, Ensemble, Late]


def trained(model: Any, **options: Any) -> harness.Recorder:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    with harness.Recorder(model, optimizer=optimizer, census_every=None, **options) as recorder:
        for step in range(STEPS):
            x = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(step))
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step()
    return recorder


@pytest.mark.parametrize("make", MODELS)
def test_every_call_is_booked_on_the_layer_that_made_it(make: type[Noting]) -> None:
    torch.manual_seed(0)
    model: Any = make()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.constant_(module.bias[:1].detach(), -100.0)
    recorder = trained(model)
    census = recorder.census()
    sites = {site.name: site for site in recorder.sites if not site.reason}
    true: dict[str, list[Tensor]] = {}
    for name, z in model.notes:
        true.setdefault(name, []).append(z)
    found = {site.producers[0]: name for name, site in sites.items()}
    assert set(found) == set(true), recorder.plan
    for producer, name in found.items():
        rows = census[census.site == name]
        zs = torch.cat(true[producer])
        assert set(rows.n) == {len(zs)}, (name, producer)
        assert rows.active.tolist() == (zs > 0).sum(0).tolist()
        assert rows.state.tolist()[0] == "dead"


def test_a_rewritten_part() -> None:
    torch.manual_seed(0)
    model = Interpreted()
    recorder = trained(model)
    census = recorder.census()
    zs = torch.cat([z for _, z in model.notes])
    (first,) = [s.name for s in recorder.sites if s.producers == ("part.fc",) and s.spelling == "module"]
    assert census[census.site == first].active.tolist() == (zs > 0).sum(0).tolist()
    assert set(census.n) == {ROWS * STEPS}


def inner() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU())


def silently(make: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


PARTS: dict[str, Callable[[], Any]] = {
    "scripted": lambda: torch.jit.script(inner()),
    "traced": lambda: torch.jit.trace(inner(), torch.randn(2, 4)),
    "exported": lambda: torch.export.export(inner(), (torch.randn(ROWS, 4),)).module(),
}


@pytest.mark.filterwarnings("ignore:.*unobserved.*", "ignore:.*is deprecated.*", "ignore:.*not supported.*")
@pytest.mark.parametrize("root", [False, True], ids=["part", "root"])
@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_python_does_not_run(name: str, root: bool) -> None:
    """Its own activations are unobserved; what follows it is right."""
    torch.manual_seed(0)
    part = silently(PARTS[name])
    model = part if root else nn.Sequential(part, nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 1))
    recorder = trained(model, observe="all")
    census = recorder.census()
    unseen = [site for site in recorder.sites if site.reason]
    if name != "exported":
        assert [site.activation for site in unseen] == ["scripted"]
        assert "scripted" in unseen[0].reason
    else:
        assert set(census.n) == {ROWS * STEPS}
    if not root:
        assert set(census[census.site == "2"].n) == {ROWS * STEPS}
        assert (census.site == "2").sum() == 6
    x = torch.randn(ROWS, 4)
    report = silently(lambda: harness.scan(model, x))
    assert set(report.units.site) == set(census.site)


def test_an_activation_right_behind_a_traced_layer() -> None:
    """Channels are units, though nothing but autograd knows of the layer."""
    torch.manual_seed(0)
    layer = silently(lambda: torch.jit.trace(nn.Conv1d(2, 4, 3), torch.randn(1, 2, 9)))
    model = nn.Sequential(layer, nn.ReLU())
    x = torch.randn(3, 2, 9)
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(STEPS):
            model(x).sum().backward()
        census = silently(recorder.census)
    rows = census[census.site == "1"]
    assert rows.active.tolist() == (STEPS * (layer(x) > 0).sum((0, 2))).tolist()


def test_the_plan_is_a_page_to_read() -> None:
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.act = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU()
            self.fc, self.unused = nn.Linear(3, 4), nn.Tanh()

        def forward(self, x: Tensor) -> Tensor:
            h = self.act(self.norm(self.conv(x))).mean((2, 3))
            z = F.gelu(self.fc(h))
            return z + F.relu((h - 1).square().sum(1, keepdim=True) - 1)

    plan = silently(lambda: harness.scan(Net(), torch.randn(2, 1, 6, 6))).plan
    assert str(plan).splitlines() == [
        "site   activation  spelling  units  axes   producers",
        "────────────────────────────────────────────────────",
        "act    relu        module    3      (1,)   norm",
        ":gelu  gelu        function  4      (-1,)  fc",
        "terms, not counted (their units were summed away before the call): :relu (relu)",
        "unobserved: unused (tanh): it was never called",
    ]
