"""One activation, called on several parts of one layer or after several operations, in changing order.

Every model keeps its own pre-activations, so that the truth is independent of what the hooks know.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import harness

Parts = Mapping[str, Callable[[Tensor, Tensor], Tensor]]  # (z, x) → pre-activation of a site of its own


def of_columns(*columns: slice) -> Parts:
    return {str(c): (lambda z, x, c=c: z[:, c]) for c in columns}


CASES: dict[str, Parts] = {
    "halves": of_columns(slice(0, 4), slice(4, 8)),
    "overlapping slices": of_columns(slice(0, 4), slice(2, 6)),
    "every second": of_columns(slice(0, 8, 2), slice(1, 8, 2)),
    "chunks": {str(k): (lambda z, x, k=k: z.chunk(2, 1)[k]) for k in (0, 1)},
    "uneven split": {str(k): (lambda z, x, k=k: z.split([4, 1, 3], 1)[k]) for k in (0, 1, 2)},
    "narrowed": {str(k): (lambda z, x, k=k: z.narrow(1, k, 4)) for k in (0, 4)},
    "unbound": {str(k): (lambda z, x, k=k: z.view(-1, 2, 4).unbind(1)[k]) for k in (0, 1)},
    "selected from a view": {str(k): (lambda z, x, k=k: z.view(-1, 2, 4)[:, k]) for k in (0, 1)},
    "slices that are copied": {str(k): (lambda z, x, k=k: z[:, k : k + 4] * 1.0) for k in (0, 4)},
    "indexed": {str(k): (lambda z, x, k=k: z[:, torch.arange(k, k + 4)]) for k in (0, 4)},
    "index_select": {str(k): (lambda z, x, k=k: z.index_select(1, torch.arange(k, k + 4))) for k in (0, 4)},
    "with the input added": {"plain": lambda z, x: z, "sum": lambda z, x: z + x},
    "with others added": {"scaled": lambda z, x: z * 2, "sum": lambda z, x: z + x.abs()},
}


class Net(nn.Module):
    """Calls its activation on each part, on the first ones only in some forwards, and keeps what it saw."""

    def __init__(self, parts: Parts, call: str, start: int) -> None:
        super().__init__()
        self.fc, self.parts = nn.Linear(8, 8), parts
        self.act = nn.ReLU() if call == "module" else F.relu
        self.forwards, self.start, self.seen = 0, start, defaultdict(list)

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        z, total = self.fc(x), torch.zeros(())
        names = list(self.parts)
        if self.forwards % 3 == 0:
            names = names[1:]
        elif self.forwards % 3 == 1:
            names = names[::-1]
        if self.forwards <= self.start:
            names = [n for n in names if n != next(iter(self.parts))]
        for name in names:
            part = self.parts[name](z, x)
            self.seen[name].append(part.detach().clone())
            total = total + self.act(part).sum()
        return total


def recorded(case: str, call: str, start: int) -> tuple[Net, pd.DataFrame]:
    """A trained net and its census."""
    torch.manual_seed(0)
    net = Net(CASES[case], call, start)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    with harness.Recorder(net, census_every=None) as recorder:
        for _ in range(41):
            optimizer.zero_grad()
            net(torch.randn(5, 8)).backward()
            optimizer.step()
            recorder.step()
        return net, recorder.census()


@pytest.mark.parametrize("call", ["module", "function"])
@pytest.mark.parametrize("case", list(CASES))
def test_each_part_has_its_own_counts(case: str, call: str) -> None:
    net, census = recorded(case, call, start=0)
    found = {(len(g), g.n.iloc[0], tuple(g.active)) for _, g in census.groupby("site")}
    truth = {name: torch.cat(parts) for name, parts in net.seen.items()}
    assert found == {(z.shape[1], len(z), tuple((z > 0).sum(0).tolist())) for z in truth.values()}
    assert census.groupby("site").ngroups == len(truth)


@pytest.mark.parametrize("call", ["module", "function"])
@pytest.mark.parametrize("case", list(CASES))
def test_a_part_that_comes_late_is_never_counted_as_another(case: str, call: str) -> None:
    """Its first call is not counted, since nobody knew of it; its next ones are."""
    net, census = recorded(case, call, start=20)
    found = {(g.n.iloc[0], tuple(g.active)) for _, g in census.groupby("site")}
    late = next(iter(net.parts))
    truth = {}
    for name, parts in net.seen.items():
        z = torch.cat(parts[1:] if name == late else parts)
        truth[name] = len(z), tuple((z > 0).sum(0).tolist())
    assert found == set(truth.values())


@pytest.mark.parametrize("steps", [12, 40, 90])
def test_the_time_step_does_not_tell_sites_apart(steps: int) -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act = nn.Linear(3, 6), nn.ReLU()

        def forward(self, x: Tensor, last: int) -> Tensor:
            z = self.fc(x)
            parts = [self.act(z[:, t]) for t in range(last)]
            return torch.stack([*parts, *(self.act(p) for p in z.unbind(1)[:last])]).sum()

    torch.manual_seed(0)
    net = Steps()
    n, active = 0, torch.zeros(6, dtype=torch.long)
    with harness.Recorder(net, census_every=None) as recorder:
        for k in range(30):
            x, last = torch.randn(4, steps, 3), steps if k > 20 else steps // 2  # later ones are known, too
            z = net.fc(x)[:, :last]
            n, active = n + 8 * last, active + 2 * (z > 0).sum((0, 1))
            net(x, last).backward()
        census = recorder.census()
    assert set(census.site) == {"act"}
    assert set(census.n) == {n}
    assert census.active.tolist() == active.tolist()


@pytest.mark.parametrize("call", ["module", "function"])
@pytest.mark.parametrize("before", [5, 20, 70])
def test_forwards_without_a_graph_before_the_first_step_cost_no_input(before: int, call: str) -> None:
    """Agents act under no_grad until their replay buffer is full."""
    torch.manual_seed(0)
    net = Net(CASES["with others added"], call, 0)
    with harness.Recorder(net, census_every=None) as recorder:
        with torch.no_grad():
            for _ in range(before):
                net(torch.randn(1, 8))
        for _ in range(11):
            net(torch.randn(5, 8)).backward()
            recorder.step()
        census = recorder.census()
    truth = {name: torch.cat(parts) for name, parts in net.seen.items()}
    found = {(g.n.iloc[0], tuple(g.active)) for _, g in census.groupby("site")}
    assert found == {(len(z), tuple((z > 0).sum(0).tolist())) for z in truth.values()}
