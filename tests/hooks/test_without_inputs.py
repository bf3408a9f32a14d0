"""What is called on no input, or never, or under vmap: the reason is said wherever somebody asks."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

import harness

EMPTY = "it was called without any input"


class Expert(nn.Module):
    """Counts its load itself."""

    def __init__(self, load: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.act, self.b, self.load = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4), load
        self.register_buffer("usage", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.a(x))
        self.usage += self.load(h.detach()).sum()
        return self.b(h)


class Experts(nn.Module):
    """All inputs go to the first."""

    def __init__(self, load: Callable[[Tensor], Tensor] = lambda h: h) -> None:
        super().__init__()
        self.experts, self.out = nn.ModuleList([Expert(load), Expert(load)]), nn.Linear(4, 1)
        self.chosen = 0

    def forward(self, x: Tensor) -> Tensor:
        none = x[:0]
        return self.out(
            sum(expert(x if i == self.chosen else none).sum(0) for i, expert in enumerate(self.experts))
        )


LOADS: dict[str, Callable[[Tensor], Tensor]] = {
    "rows": lambda h: h.double().reshape(-1, 6).sum(0),
    "one row": lambda h: h.reshape(h.shape[0], 6).mean(0).nan_to_num(),
    "view": lambda h: h.view(h.size(0), 2, 3).sum((0, 1)),
    "unflattened": lambda h: h.unflatten(-1, (2, 3)).flatten(0, 1).sum(0),
    "moved": lambda h: h.transpose(0, 1).reshape(6, -1).sum(1),
    "largest": lambda h: F.pad(h, (0, 0, 0, 1)).amax(0),
}


@pytest.mark.parametrize("load", LOADS)
def test_an_expert_without_inputs_says_so_and_nothing_fails(load: str) -> None:
    torch.manual_seed(0)
    model = Experts(LOADS[load])
    with pytest.warns(UserWarning, match=EMPTY) as said:
        report = harness.scan(model, torch.randn(20, 4))
    assert [str(one.message) for one in said] == [f"experts.1.act (relu) is unobserved: {EMPTY}"]
    units = report.units.groupby("site")["state"].agg(set)
    assert units["experts.1.act"] == {"unobserved"}
    assert "unobserved" not in units["experts.0.act"]
    assert f"unobserved: experts.1.act (relu): {EMPTY}" in str(report.plan)


def test_it_is_as_any_once_an_input_comes() -> None:
    torch.manual_seed(0)
    model = Experts()
    with harness.Recorder(model, census_every=None) as recorder:
        model(torch.randn(20, 4))
        with pytest.warns(UserWarning, match=EMPTY):
            recorder.census()
        assert recorder.explain("experts.1.act", 0).endswith(f"{EMPTY}.")
        assert recorder.sites[1].reason == EMPTY
        model.chosen = 1
        model(torch.randn(20, 4))
        census = recorder.census()
        model.chosen = 0
        model(torch.randn(20, 4))
        recorder.census()  # not in this window, but it is known
    assert set(census.loc[census["site"].eq("experts.1.act"), "n"]) == {20}
    assert recorder.sites[1].reason == ""
    assert "unobserved" not in str(recorder.plan)
    assert "gate        open on" in recorder.explain("experts.1.act", 0)


def test_what_was_never_called_is_explained_by_that() -> None:
    class Unused(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            return self[1](self[0](input))

    model = Unused(nn.Linear(4, 3), nn.ReLU(), nn.Tanh())
    with harness.Recorder(model, census_every=None) as recorder:
        model(torch.randn(20, 4))
        with pytest.warns(UserWarning, match="never called"):
            recorder.census()
    assert recorder.explain("2", 0) == "2: unobserved, so nothing is known of its units: it was never called."
    with pytest.raises(ValueError, match=r"expected a site and one of its units, but got '7', 0. Sites: 1"):
        recorder.explain("7", 0)


@pytest.mark.parametrize("transform", ["vmap", "grad of vmap", "grad"])
def test_transforms_with_evidence_raise_nothing(transform: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def inner(x: Tensor) -> Tensor:
        values: dict[str, Tensor] = dict(model.named_parameters())
        if transform != "vmap":
            found = torch.func.grad(lambda v: functional_call(model, v, (x,)).square().mean())(values)
            values = {name: v - 0.1 * found[name] for name, v in values.items()}
        return functional_call(model, values, (x,)).square().mean()

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with harness.Recorder(model, optimizer=optimizer, census_every=5, evidence=True) as recorder:
            for _ in range(10):
                x = torch.randn(3, 6, 2)
                loss = inner(x[0]) if transform == "grad" else vmap(inner)(x).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                recorder.step(loss=loss)
            text = recorder.diagnose().text
    assert not any("switched off" in str(one.message) for one in said)
    if transform == "grad":
        assert "units dead" in text
    else:
        assert text.startswith("Nothing was observed")
        assert "it was called under vmap" in recorder.explain("1", 0)
