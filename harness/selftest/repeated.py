"""Repeated weights and blocks: nested, tied, recursive, concatenated, split."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.selftest.case import Case, kill, normal
from harness.selftest.truth import Keep, site, through


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act = nn.Linear(6, 6), nn.ReLU()
        kill(self.fc, 1)

    def forward(self, x: Tensor, keep: Keep = through, name: str = "") -> Tensor:
        return self.act(keep(name, self.fc(x)))


class Outer(nn.Module):
    """Its own layer, then the activation of a shared block, then that block."""

    def __init__(self, inner: Inner) -> None:
        super().__init__()
        self.inner, self.fc = inner, nn.Linear(6, 6)

    def forward(self, x: Tensor, keep: Keep = through, name: str = "") -> Tensor:
        x = self.inner.act(keep(name, self.fc(x)))
        return self.inner(x, keep, "a.inner.act#1") if keep is not through else self.inner(x)


class Nested(nn.Module):
    """One inner block inside two outer ones: its units are called twice per forward."""

    def __init__(self) -> None:
        super().__init__()
        inner = Inner()
        self.a, self.b, self.head = Outer(inner), Outer(inner), nn.Linear(6, 2)
        kill(self.a.fc, 0)
        kill(self.b.fc, 2, 5)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.a(x, keep, "a.inner.act") if keep is not through else self.a(x)
        x = self.b(x, keep, "a.inner.act#2") if keep is not through else self.b(x)
        return self.head(x)


class Tied(nn.Module):
    """Two layers with one weight and separate biases have different units."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.act, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)
        self.two.weight = self.one.weight
        with torch.no_grad():
            self.one.bias[1] = -100.0
            self.two.bias[2] = -100.0

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.act(keep("act", self.one(x)))
        return self.head(self.act(keep("act#1", self.two(x))))


class Borrowed(nn.Module):
    """A layer that is never called itself: a function uses its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(6, 5), nn.Linear(5, 2)
        kill(self.fc, 3)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        return self.head(F.relu(keep(":relu", F.linear(x, self.fc.weight, self.fc.bias))))


class Recursive(nn.Module):
    """The root calls itself."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act, self.head = nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)
        kill(self.fc, 4)

    def forward(self, x: Tensor, keep: Keep = through, depth: int = 3) -> Tensor:
        x = self.act(keep("act", self.fc(x)))
        return self(x, keep, depth - 1) if depth > 1 else self.head(x)


class Tree(nn.Module):
    """A module that calls itself on halves of its input, as often as the input requires."""

    class Node(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act = nn.Linear(6, 6), nn.ReLU()
            kill(self.fc, 2)

        def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
            if x.shape[1] > 1:
                left, right = x.chunk(2, 1)
                x = self(left, keep) + self(right, keep)
            return self.act(keep("node.act", self.fc(x)))

    def __init__(self) -> None:
        super().__init__()
        self.node, self.head = Tree.Node(), nn.Linear(6, 2)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        return self.head(self.node(x, keep)[:, 0])


class Loop(nn.Module):
    """A loop over a ModuleList with one activation function: one site per layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList(nn.Linear(6, 6) for _ in range(4)), nn.Linear(6, 2)
        for i, layer in enumerate(self.layers):
            kill(layer, i)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = F.relu(keep(f":relu#{i}" if i else ":relu", layer(x)))
        return self.head(x)


class Dense(nn.Module):
    """The concatenated units of two layers have no single layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.act, self.head = nn.Linear(6, 4), nn.Linear(6, 3), nn.ReLU(), nn.Linear(7, 2)
        kill(self.a, 1)
        kill(self.b, 2)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        return self.head(self.act(keep("act", torch.cat([self.a(x), self.b(x)], -1))))


class Gated(nn.Module):
    """One half of a layer's units goes through the activation, the other bypasses it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(6, 8), nn.Linear(4, 2)
        kill(self.fc, 1)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        gate, value = self.fc(x).chunk(2, -1)
        return self.head(F.relu(keep(":relu", gate)) * value)


CASES: dict[str, Case] = {
    "nested shared blocks": Case(
        Nested,
        (
            site("a.inner.act", "a.fc", 6, 0),
            site("a.inner.act#1", "a.inner.fc", 6, 1),
            site("a.inner.act#2", "b.fc", 6, 2, 5),
        ),
    ),
    "tied weights": Case(
        Tied,
        (site("act", "one", 6, 1), site("act#1", "two", 6, 2)),
    ),
    "borrowed weights": Case(Borrowed, (site(":relu", "fc", 5, 3),)),
    "recursive root": Case(Recursive, (site("act", "fc", 6, 4),), normal(8, 6)),
    "recursive part": Case(Tree, (site("node.act", "node.fc", 6, 2),), normal(5, 4, 6)),
    "module list in a loop": Case(
        Loop, tuple(site(f":relu#{i}" if i else ":relu", f"layers.{i}", 6, i) for i in range(4))
    ),
    "concatenation": Case(Dense, (site("act", None, 7, 1, 6),)),
    "half of a layer": Case(Gated, (site(":relu", None, 4, 1),)),
}
