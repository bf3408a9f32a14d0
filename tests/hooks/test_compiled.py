"""Compiled models: observed eagerly while a Recorder is attached, compiled again afterwards."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.act, self.two, self.head = nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.Linear(4, 2)
        with torch.no_grad():
            self.one.bias[2] = -100.0  # dead
            self.two.bias[1] = -100.0

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.two(self.act(self.one(x)))))


@pytest.mark.parametrize("fullgraph", [False, True])
@pytest.mark.parametrize("attached", ["before", "after", "to the compiled"])
def test_a_compiled_model_is_counted_as_the_plain_one(attached: str, fullgraph: bool) -> None:
    torch.manual_seed(0)
    model = Net()
    batches = [torch.randn(n, 6) for n in (8, 3, 8)]
    calls = []

    def backend(graph: Any, inputs: Any) -> Any:  # what dynamo hands over runs as it is
        def run(*args: Any) -> Any:
            calls.append(len(args))
            return graph.forward(*args)

        return run

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(model, backend=backend, fullgraph=fullgraph)
        if attached != "before":
            compiled(batches[0])
            assert len(calls) == 1
        watched = compiled if attached == "to the compiled" else model
        recorder = harness.Recorder(watched, census_every=None)  # type: ignore[arg-type]
        with recorder:
            for x in batches:
                compiled(x).sum().backward()
        before = len(calls)
        compiled(batches[0])
        assert len(calls) > before  # compiled again
    units = recorder.census()
    assert [site.name for site in recorder.sites] == ["act", ":relu"]
    assert set(units["n"]) == {19}
    z1 = torch.cat([model.one(x) for x in batches])
    z2 = model.two(z1.relu())
    assert units["active"].tolist() == [*(z1 > 0).sum(0).tolist(), *(z2 > 0).sum(0).tolist()]
    assert units["state"].tolist()[2] == "dead"
