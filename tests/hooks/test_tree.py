"""tree: every module, and the sites below the one that calls them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import harness
from harness.selftest.unseen import Recurrent


class Net(nn.Module):
    """A shared activation, a functional call, a module that is never called, an output that is a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 2)
        self.act, self.unused = nn.ReLU(), nn.Linear(2, 2)
        nn.init.constant_(self.b.bias, -9)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": torch.relu(self.c(self.act(self.a(x)) + self.act(self.b(x))))}


def test_sites_stand_below_their_callers_with_the_names_of_the_site_table() -> None:
    torch.manual_seed(0)
    found = harness.tree(Net(), torch.rand(40, 4))
    assert [(line.depth, line.text) for line in found.lines] == [
        (0, "Net"),
        (1, ":relu ← c"),
        (1, "a (Linear)"),
        (1, "b (Linear)"),
        (1, "c (Linear)"),
        (1, "act (ReLU)"),
        (2, "act ← a"),
        (2, "act#1 ← b"),
        (1, "unused (Linear)"),
    ]
    shown = {line.text: line for line in found.lines}
    assert shown["Net"].output == "(40, 2)"
    assert (shown["a (Linear)"].output, shown["a (Linear)"].parameters) == ("(40, 8)", "40")
    assert (shown["unused (Linear)"].output, shown["unused (Linear)"].parameters) == ("–", "6")
    assert (shown["act#1 ← b"].units, shown["act#1 ← b"].dead) == ("8", "100.0 %")
    assert found.total == 40 + 40 + 18 + 6
    assert set(found.report.summary["site"]) == {":relu", "act", "act#1"}


def test_what_lies_deeper_is_told_of_the_last_module_that_is_shown() -> None:
    inner = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    model = nn.Sequential(nn.Sequential(inner, nn.Linear(8, 4)), nn.ReLU())
    lines = harness.tree(model, torch.rand(9, 4), depth=1).lines
    assert [(line.depth, line.text, line.parameters) for line in lines] == [
        (0, "Sequential", ""),
        (1, "0 (Sequential)", "76"),
        (2, "0.0.1 ← 0.0.0", ""),
        (1, "1 (ReLU)", ""),
        (2, "1 ← 0.1", ""),
    ]
    with pytest.raises(ValueError, match="depth: expected a whole number"):
        harness.tree(model, torch.rand(9, 4), depth=-1)


def test_nothing_is_left_in_the_model_even_if_it_raises() -> None:
    model = Net().train()
    harness.tree(model, torch.rand(9, 4))
    with pytest.raises(ValueError, match="shape"):
        harness.tree(model, torch.rand(9, 5))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_a_site_that_cannot_be_seen_says_why() -> None:
    with pytest.warns(UserWarning, match="rnn"):
        lines = harness.tree(Recurrent(nn.LSTM), torch.rand(4, 3, 3)).lines
    (unseen,) = [line for line in lines if line.text == "rnn"]
    assert (unseen.depth, unseen.units) == (2, "–")
    assert unseen.dead.startswith("unobserved: ")


def test_notebooks_show_both_as_tables() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.ReLU()))
    found = harness.tree(model, torch.rand(9, 4))
    html = found._repr_html_()
    assert html.count("<tr>") == 1 + len(found.lines)
    assert ">1.0 ← 0</td>" in html
    shown = found.report._repr_html_()
    assert "<th>made by</th>" in shown
    assert "units dead" in shown
