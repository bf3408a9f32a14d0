"""A mask of one input is not applied to another that happens to be as long."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import harness

BATCH, LONG, WIDTH = 4, 6, 8
MASK = torch.tensor([[1, 1, 0, 0, 0, 0]] * BATCH)
KEPT, WHOLE = int(MASK.sum()), BATCH * LONG
Counts = dict[Any, int]


class Pair(nn.Module):
    """An encoder and a decoder, each with an activation."""

    def __init__(self, *, shared: bool = False) -> None:
        super().__init__()
        self.enc = nn.Linear(3, WIDTH)
        self.dec = self.enc if shared else nn.Linear(3, WIDTH)

    def forward(self, src: Tensor, tgt: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        hidden = F.relu(self.enc(src))
        if attention_mask is not None:
            hidden = hidden * attention_mask[..., None]
        return torch.relu(self.dec(tgt) + hidden.sum(1, keepdim=True))


class Reader(nn.Module):
    """Latents, as many as the tokens, that read them by attention."""

    def __init__(self, attention: str) -> None:
        super().__init__()
        self.tokens, self.latents = nn.Linear(3, WIDTH), nn.Parameter(torch.randn(LONG, WIDTH))
        self.read = nn.MultiheadAttention(WIDTH, 2, batch_first=True) if attention == "module" else None
        self.mix = nn.Linear(WIDTH, WIDTH)

    def forward(self, src: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = F.relu(self.tokens(src))
        latents = self.latents.expand(len(src), -1, -1)
        if self.read is None:
            scores = (latents @ hidden.transpose(1, 2)).masked_fill(attention_mask[:, None] == 0, -1e9)
            read = scores.softmax(-1) @ hidden
        else:
            read = self.read(latents, hidden, hidden, key_padding_mask=attention_mask == 0)[0]
        return torch.relu(self.mix(latents + read))


class Seeing(nn.Module):
    """Patches of an image, as many as the tokens of a text."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.words = nn.Conv2d(3, WIDTH, 2, 2), nn.Embedding(9, WIDTH)
        self.see, self.read = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, pixels: Tensor, ids: Tensor, attention_mask: Tensor) -> Tensor:
        seen = torch.relu(self.see(self.patches(pixels).flatten(2).transpose(1, 2)))
        return seen.mean(1) + F.relu(self.read(self.words(ids))).mean(1) + attention_mask.sum()


class Encoder(nn.Module):
    """Several inputs of the tokens' shape, all of them about the same rows."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.kinds = nn.Embedding(9, WIDTH), nn.Embedding(2, WIDTH)
        self.places = nn.Parameter(torch.randn(1, LONG, WIDTH))
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True)
        self.last = nn.Linear(WIDTH, WIDTH)

    def forward(self, labels: Tensor, ids: Tensor, kinds: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.words(ids) + self.kinds(kinds) + self.places
        hidden = F.gelu(self.last(self.layer(hidden, src_key_padding_mask=attention_mask == 0)))
        return F.cross_entropy(hidden.flatten(0, 1), labels.flatten())


def scanned(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Counts, list[str]]:
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        units = harness.scan(model, dict(batch)).units
    return units.groupby("site").n.first().to_dict(), [str(one.message) for one in given]


def tokens() -> Tensor:
    return torch.randint(0, 8, (BATCH, LONG))


def test_a_target_as_long_as_the_source() -> None:
    batch = {"src": torch.randn(BATCH, LONG, 3), "tgt": torch.randn(BATCH, LONG, 3), "attention_mask": MASK}
    counts, messages = scanned(Pair(), batch)
    assert counts == {":relu": KEPT, ":relu#1": WHOLE}
    assert len(messages) == 1
    assert "tgt" in messages[0]
    assert "src" in messages[0]


@pytest.mark.parametrize("attention", ["module", "products"])
def test_latents_as_many_as_the_tokens(attention: str) -> None:
    batch = {"src": torch.randn(BATCH, LONG, 3), "attention_mask": MASK}
    counts, messages = scanned(Reader(attention), batch)
    assert counts == {":relu": KEPT, ":relu#1": WHOLE}
    assert len(messages) == 1


def test_patches_as_many_as_the_tokens() -> None:
    batch = {"pixels": torch.randn(BATCH, 3, 4, 6), "ids": tokens(), "attention_mask": MASK}
    counts, messages = scanned(Seeing(), batch)
    assert counts == {":relu": WHOLE, ":relu#1": KEPT}
    assert len(messages) == 1


def test_inputs_of_the_same_rows() -> None:
    kinds = torch.zeros(BATCH, LONG, dtype=torch.long)
    batch = {"labels": tokens(), "ids": tokens(), "kinds": kinds, "attention_mask": MASK}
    counts, messages = scanned(Encoder(), batch)
    assert set(counts.values()) == {KEPT}
    assert len(counts) == 2
    assert not messages


def train(model: nn.Module, length: Callable[[int], int], steps: int) -> tuple[Counts, int, list[str]]:
    """Counts of a training, the rows of all targets, and the warnings."""
    optimizer, rows = torch.optim.SGD(model.parameters(), 0.01), 0
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
            for step in range(steps):
                target = torch.randn(BATCH, length(step), 3)
                rows += target.shape[0] * target.shape[1]
                model(torch.randn(BATCH, LONG, 3), target, attention_mask=MASK).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                recorder.step()
    assert recorder.latest is not None
    assert not recorder.latest.grad_rms.isna().any()
    return recorder.latest.groupby("site").n.first().to_dict(), rows, [str(one.message) for one in given]


@pytest.mark.parametrize("late", [0, 10])
def test_in_forwards_that_are_not_traced(late: int) -> None:
    """The target is as long as the source from the first forward on, or later alone."""
    steps = 30
    counts, rows, messages = train(Pair(), lambda step: LONG if step >= late else LONG + 1, steps)
    assert counts == {":relu": steps * KEPT, ":relu#1": rows}
    assert messages


def test_one_layer_for_both() -> None:
    """Each call is told apart, though the layer is the same."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act = nn.Linear(3, WIDTH), nn.ReLU()

        def forward(self, src: Tensor, tgt: Tensor, attention_mask: Tensor) -> Tensor:
            return self.act(self.layer(src)) + self.act(self.layer(tgt)) + attention_mask[..., None]

    counts, rows, messages = train(Shared(), lambda _: LONG, 30)
    assert counts == {"act": 30 * KEPT + rows}
    assert messages
