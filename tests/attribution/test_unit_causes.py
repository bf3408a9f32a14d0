"""The cause of each unit: the table, the text and explain agree, and say what closed it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness
from harness.attribution.unit_causes import BIRTH_REASONS, CAUSE_OF_REASON, UNIT_CAUSES


def noise(step: int, n: int = 32) -> Tensor:
    return torch.randn(n, 20, generator=torch.Generator().manual_seed(step))


def trained(model: nn.Module, steps: int = 20, *, evidence: bool = True, **options: Any) -> harness.Recorder:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    recorder = harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=evidence, **options)
    with recorder:
        for step in range(steps):
            loss = model(noise(step)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    return recorder


class Between(nn.Module):
    """A layer, something of the model's own code, an activation."""

    def __init__(self, between: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.norm, self.out = nn.Linear(20, 32), nn.LayerNorm(32), nn.Linear(32, 2)
        self.weight = nn.Parameter(torch.randn(32, 20) / 9)
        self.register_buffer("offset", torch.full((32,), -3.0))
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.between(self, x)))


CONSTANTS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "number": lambda m, x: m.layer(x) - 3.0,
    "buffer": lambda m, x: m.layer(x) + m.offset,
    "parameters by themselves": lambda m, x: F.linear(x, m.weight) - 3.0,
    "behind a norm": lambda m, x: m.norm(m.layer(x)) - 4.5,
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_constant_of_the_models_own_code_is_no_chance(name: str) -> None:
    torch.manual_seed(0)
    recorder = trained(Between(CONSTANTS[name]))
    found = recorder.diagnose()
    assert found.label == "constant"
    assert found.units["cause"].eq("constant").all()
    assert "by a constant of the model's own code" in found.text
    assert "chance" not in found.text
    assert "a constant of the model's own code" in recorder.explain(":relu", int(found.units["unit"][0]))


def test_a_threshold_of_the_activation_is_such_a_constant() -> None:
    torch.manual_seed(0)
    found = trained(nn.Sequential(nn.Linear(20, 32), nn.Threshold(3.0, 0.0), nn.Linear(32, 2))).diagnose()
    assert (found.label, set(found.units["cause"])) == ("constant", {"constant"})


def test_what_is_added_and_varies_is_no_constant() -> None:
    torch.manual_seed(0)
    found = trained(Between(lambda m, x: m.layer(x) - x.norm(dim=1, keepdim=True))).diagnose()
    assert len(found.units) > 20
    assert "constant" not in found.text


def test_statistics_that_only_evaluation_uses_are_the_cause_in_table_text_and_explain() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(16, momentum=0.0)
    norm.running_mean.fill_(50.0)  # type: ignore[union-attr]
    model = nn.Sequential(nn.Linear(20, 16), norm, nn.ReLU(), nn.Linear(16, 2))
    recorder = trained(model, probe=noise(99, 200))
    found = recorder.diagnose()
    assert found.label == "norm_stats"
    assert found.units["cause"].eq("norm_stats").all()
    assert "16 by the running statistics of a norm" in found.text
    assert "cause       the running statistics of a norm; dead on the probe" in recorder.explain("2", 0)


def test_every_reason_has_a_word_that_is_explained() -> None:
    assert {CAUSE_OF_REASON.get(reason, reason) for reason in BIRTH_REASONS} <= set(UNIT_CAUSES)


def test_without_evidence_explain_says_what_a_cause_takes() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 2))
    nn.init.constant_(model[0].bias, -30.0)
    recorder = trained(model, evidence=False)
    assert "cause       not known: it takes Recorder(..., optimizer=…, evidence=True)" in recorder.explain(
        "1", 0
    )


def test_a_declaration_that_was_taken_back_is_said() -> None:
    class Own(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return torch.where(z > 0.0, z, 0.0)

    harness.declare_activation(Own, threshold=0.0)
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(20, 8), Own(), nn.Linear(8, 2))
    nn.init.constant_(model[0].bias, -30.0)
    recorder = trained(model)
    assert recorder.diagnose().label == "bias_init"
    harness.undeclare_activation(Own)
    assert "Own is no longer declared as an activation" in recorder.diagnose().text
    harness.declare_activation(Own, threshold=0.0)
    assert "no longer" not in recorder.diagnose().text
    harness.undeclare_activation(Own)
