"""Attention masks that a forward is given are masks of padding, unless something says otherwise."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from masked_nets import BATCH, LONG, MASK, Tokens, padded, truth
from torch import Tensor

import harness


class Named(Tokens):
    """Called as a language model is."""

    def forward(self, inputs: Tensor, attention_mask: Tensor | None = None) -> Tensor:  # pyright: ignore
        return super().forward(inputs)


@pytest.mark.parametrize("target", [False, True])
def test_the_attention_mask_of_a_dict(target: bool) -> None:
    model = Named()
    n, active, _ = truth(model, [padded()], MASK)
    batch: Any = {"inputs": padded(), "attention_mask": MASK.long()}
    batches = [(batch, torch.zeros(BATCH))] if target else batch
    assert harness.scan(model, batches).units.active.tolist() == active
    with harness.Recorder(model, census_every=1, probe=batches) as recorder:
        for _ in range(2):
            model(padded())
            recorder.step()
    history = recorder.history()
    probed = history[history.evidence == "probe"]
    assert probed.groupby("step").n.first().tolist() == [n] * 3
    assert probed[probed.step == 2].active.tolist() == active
    assert set(history[history.evidence == "stream"].n) == {MASK.numel()}
    whole = harness.scan(model, batches, mask=lambda batch: None).units
    assert set(whole.n) == {MASK.numel()}
    square = batch | {"attention_mask": MASK[:, None].expand(-1, LONG, -1)}  # which token sees which
    assert set(harness.scan(model, square).units.n) == {MASK.numel()}


class Encoder(Tokens):
    """Takes the mask by keyword, as the models of Transformers do."""

    def forward(self, sequences: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return super().forward(sequences)


def counted(*given: Any, tell: Any = ...) -> pd.Series:
    """n and how often unit 0, which opens on padding alone, was open after a forward for each argument."""
    model = Encoder()
    with harness.Recorder(model, census_every=None) as recorder:
        for mask in given:
            if tell is not ...:
                recorder.mask(tell)
            model(padded(), attention_mask=mask).sum().backward()
        return recorder.census().iloc[0][["n", "active"]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.long, torch.float32])
def test_the_attention_mask_of_a_training_forward(dtype: torch.dtype) -> None:
    found = counted(*[MASK.to(dtype)] * 12)
    assert found.tolist() == [12 * int(MASK.sum()), 0]
    assert counted(MASK.to(dtype), None).tolist() == [int(MASK.sum()) + MASK.numel(), int((~MASK).sum())]


def test_stream_probe_and_scan_speak_of_the_same_inputs() -> None:
    model, batch = Encoder(), {"sequences": padded(), "attention_mask": MASK.long()}
    with harness.Recorder(model, census_every=None, probe=batch) as recorder:
        model(**batch)
        recorder.step()
        census = recorder.census()
    scanned = harness.scan(model, batch).units
    for _, units in census.groupby("evidence"):
        assert units.n.tolist() == scanned.n.tolist()
        assert units.active.tolist() == scanned.active.tolist()
    assert census.evidence.nunique() == 2


def test_what_is_told_goes_before_the_keyword() -> None:
    assert counted(MASK, tell=None).tolist() == [MASK.numel(), int((~MASK).sum())]
    assert counted(MASK, tell=torch.ones(BATCH)).tolist() == [MASK.numel(), int((~MASK).sum())]
    assert counted(torch.ones(BATCH, LONG), tell=MASK).tolist() == [int(MASK.sum()), 0]


@pytest.mark.parametrize(
    "mask",
    [
        MASK[:, None, None],
        torch.zeros(BATCH, LONG).masked_fill(~MASK, -1e9),
        torch.zeros(BATCH, LONG),  # added, and no position is padding
        torch.zeros(BATCH, LONG, dtype=torch.bool),  # True would be padding
        "none",
        torch.ones(()),
    ],
)
def test_other_attention_masks_are_left_alone(mask: Any) -> None:
    assert counted(mask).n == MASK.numel()


def test_a_mask_whose_true_seems_to_mark_padding_is_said() -> None:
    mask = torch.zeros(BATCH, LONG, dtype=torch.bool)
    mask[0, -1] = True
    with pytest.warns(UserWarning, match="leaves out most inputs: those where it is True are counted"):
        assert counted(mask).n == 1
