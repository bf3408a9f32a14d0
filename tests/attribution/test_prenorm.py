"""The inputs of a layer behind a norm are not the model's inputs, and are not blamed as such."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import harness


class Block(nn.Module):
    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if norm == "layer" else nn.RMSNorm(width)
        self.up, self.down, self.functional = nn.Linear(width, 64), nn.Linear(64, width), norm == "functional"

    def forward(self, h: Tensor) -> Tensor:
        a = nn.functional.layer_norm(h, h.shape[-1:]) if self.functional else self.norm(h)
        return h + self.down(torch.relu(self.up(a)))


class PreNorm(nn.Module):
    """Tokens with a large common offset: behind the norm, each feature still is far off its own centre."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 24)
        self.offset = nn.Parameter(4 * torch.randn(24))
        self.blocks = nn.Sequential(*(Block(24, norm) for _ in range(3)))
        self.head = nn.Linear(24, 50)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(tokens) + self.offset))


def diagnosed(
    model: nn.Module, lr: float, make: str = "tokens"
) -> tuple[harness.Diagnosis, harness.Recorder]:
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    draw = torch.Generator().manual_seed(0)
    with harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True) as recorder:
        for _ in range(60):
            if make == "tokens":
                x = torch.randint(0, 50, (32, 12), generator=draw)
                out = model(x).flatten(0, 1)
                loss = nn.functional.cross_entropy(out, x.roll(1, 1).flatten())
            else:
                x = torch.randn(64, 24, generator=draw) + 5.0
                loss = nn.functional.cross_entropy(model(x), torch.randint(0, 5, (64,), generator=draw))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    return recorder.diagnose(), recorder


@pytest.mark.parametrize("norm", ["layer", "rms", "functional"])
def test_a_high_rate_is_blamed_not_what_a_norm_hands_on(norm: str) -> None:
    torch.manual_seed(0)
    found, recorder = diagnosed(PreNorm(norm), lr=0.1)
    layers = recorder.evidence().layers
    assert layers["source"].eq("norm").all()
    assert layers["off_centre"].iloc[0] > 0.5  # the inputs of the first layer would be blamed otherwise
    assert found.label == "step_size"
    assert "inputs" not in found.text.split("Cause:")[1]


def test_the_models_own_inputs_are_still_blamed_and_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 5))
    found, recorder = diagnosed(model, lr=0.03, make="numbers")
    assert recorder.evidence().layers["source"].tolist() == ["inputs"]
    assert found.label == "input_offset"
    assert "the model's inputs, as the first layer gets them (“0”, before “1”)" in found.text


def test_inputs_that_a_norm_centres_first_are_not_blamed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(24), nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 5))
    found, recorder = diagnosed(model, lr=1.0, make="numbers")
    assert recorder.evidence().layers["source"].tolist() == ["norm"]
    assert found.label != "input_offset"


def test_behind_another_layer_it_is_said_whose_outputs_they_are() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 24), nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 5))
    found, recorder = diagnosed(model, lr=0.03, make="numbers")
    assert recorder.evidence().layers["source"].tolist() == ["inputs, through layers"]
    if found.label == "input_offset":
        assert (
            "what earlier layers hand to the first layer with an activation (“1”, before “2”)" in found.text
        )
