"""Masks: padding is no input, wherever the positions and the units lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from masked_nets import BATCH, FEATURES, LENGTHS, LONG, LOOKS, MASK, Tokens, loss, padded, truth
from small_nets import dropout_cnn, sgd, small, x
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import harness


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("kind", ["bool", "integers", "floats"])
def test_padding_is_not_counted(look: str, kind: str) -> None:
    model = Tokens(LOOKS[look])
    mask = {"bool": MASK, "integers": MASK.long(), "floats": MASK.float()}[kind]
    batches = [padded(seed) for seed in range(20)]  # more than are traced
    n, active, rms = truth(model, batches, MASK)
    with harness.Recorder(model, census_every=None) as recorder:
        for batch in batches:
            recorder.mask(mask)
            loss(model(batch)).backward()
        census = recorder.census()
    assert census.n.tolist() == [n] * 8
    assert census.active.tolist() == active
    np.testing.assert_allclose(census.grad_rms, rms, rtol=1e-5)
    assert (census.state == "dead").tolist() == [True, *[False] * 7]
    scanned = harness.scan(model, batches, mask=[mask] * 20, loss=lambda out, batch: loss(out)).units
    assert scanned.active.tolist() == active
    np.testing.assert_allclose(scanned.grad_rms, rms, rtol=1e-5)
    assert not (harness.scan(model, batches).units.state == "dead").any()  # what the mask is for


def test_a_mask_holds_for_one_forward() -> None:
    model = Tokens()
    kept, whole = int(MASK.sum()), MASK.numel()
    with harness.Recorder(model, census_every=None) as recorder:
        for i in range(30):
            if i % 3 == 0:
                recorder.mask(MASK)
            model(padded())
        assert set(recorder.census().n) == {10 * kept + 20 * whole}
        recorder.mask(MASK)
        recorder.mask(None)
        model(padded())
        assert set(recorder.census().n) == {whole}
        recorder.mask(torch.zeros(BATCH, LONG))
        model(padded())
        assert set(recorder.census().n) == {0}
        recorder.mask(torch.ones(BATCH, LONG))
        model(padded())
        assert set(recorder.census().n) == {whole}


def test_a_backward_after_the_next_forward() -> None:
    """Every backward is masked as its own forward was."""
    model = Tokens()
    n, active, rms = truth(model, [padded(seed) for seed in range(8)], MASK)
    with harness.Recorder(model, census_every=None) as recorder:
        losses = []
        for seed in range(8):
            recorder.mask(MASK)
            losses.append(loss(model(padded(seed))))
        with torch.no_grad():
            model.eval()(padded())
        torch.stack(losses).sum().backward()
        census = recorder.census()
    assert (census.n.tolist(), census.active.tolist()) == ([n] * 8, active)
    np.testing.assert_allclose(census.grad_rms, rms, rtol=1e-5)


def test_reentrant_checkpoints() -> None:
    class Checkpointed(Tokens):
        def forward(self, sequences: Tensor) -> Any:
            return checkpoint(lambda t: self.act(self.layer(t)), sequences, use_reentrant=True)

    model = Checkpointed()
    n, active, rms = truth(model, [padded()], MASK)
    with harness.Recorder(model, census_every=None) as recorder:
        recorder.mask(MASK)
        loss(model(padded().requires_grad_())).backward()
        census = recorder.census()
    assert (census.n.tolist(), census.active.tolist()) == ([n] * 8, active)
    np.testing.assert_allclose(census.grad_rms, rms, rtol=1e-5)


def test_inputs_of_a_batch() -> None:
    """A mask over (batch,): the rest of a last batch, say, whatever the network."""
    keep = torch.tensor([True, True, False, True])
    torch.manual_seed(0)
    model = dropout_cnn()
    images = torch.randn(4, 1, 8, 8)
    want = harness.scan(model, images[keep]).units
    got = harness.scan(model, images, mask=keep).units
    assert got.n.tolist() == want.n.tolist()
    assert got.active.tolist() == want.active.tolist()
    with harness.Recorder(small(), census_every=None) as recorder:
        recorder.mask(torch.tensor([1, 0] * 5))
        recorder._model(x())
        assert set(recorder.census().n) == {5}


class Pooled(Tokens):
    """Tokens, then one row for each sequence, then every second position."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.top = nn.Linear(8, 4), nn.ReLU()
        self.strided, self.less = nn.Conv1d(8, 4, 3, stride=2), nn.ReLU()

    def forward(self, sequences: Tensor) -> Tensor:
        tokens = super().forward(sequences)
        strided = self.less(self.strided(tokens.transpose(1, 2)))
        return self.top(self.head(tokens.mean(1))) + strided.mean(2)


def test_what_does_not_fit_is_counted_whole_and_said() -> None:
    model, empty = Pooled(), MASK.clone()
    empty[1] = False
    with pytest.warns(UserWarning, match=r"less: the mask \(6, 9\) does not fit .* counted whole") as said:
        units = harness.scan(model, padded(), mask=empty).units
    assert len(said) == 1
    assert units.groupby("site").n.first().to_dict() == {"act": int(empty.sum()), "top": 5, "less": 6 * 4}


def test_a_cell_that_walks_over_the_positions() -> None:
    """Its rows are not the sequences': it cannot be told which position each call is of."""

    class Cell(Tokens):
        def forward(self, sequences: Tensor) -> Tensor:
            state = torch.zeros(BATCH, 8)
            for t in range(LONG):
                state = self.act(self.layer(sequences[:, t]) + state)
            return state

    with pytest.warns(UserWarning, match=r"act.*: the mask"):
        harness.scan(Cell(), padded(), mask=MASK)


def test_said_once_at_the_census() -> None:
    model = Pooled()
    with harness.Recorder(model, census_every=2) as recorder:
        for i in range(6):
            recorder.mask(MASK)
            model(padded(i)).sum().backward()
            if i == 1:
                with pytest.warns(UserWarning, match="less: the mask"):
                    recorder.step()
            else:
                recorder.step()


def test_masks_of_several_batches() -> None:
    model = Tokens()
    batches = [padded(0), padded(1)]
    n, active, _ = truth(model, batches, MASK)
    for mask in ([MASK, MASK], (MASK for _ in range(2)), lambda batch: MASK):
        units = harness.scan(model, batches, mask=mask).units
        assert (units.n.tolist(), units.active.tolist()) == ([n] * 8, active)
    with pytest.raises(ValueError, match="mask: expected one for each batch"):
        harness.scan(model, batches, mask=MASK)


def test_statistics_of_ones_own() -> None:
    class Largest:
        def zero(self, units: int, device: Any) -> None:
            self.z, self.rows = torch.full((units,), -torch.inf), 0

        def update(self, z: Tensor) -> None:
            self.z, self.rows = torch.maximum(self.z, z.amax(0)), self.rows + len(z)

        def update_gradient(self, gradient: Tensor) -> None:
            self.rows += len(gradient)

        def merge(self, other: Any) -> None: ...

        def columns(self) -> dict[str, Any]:
            return {"largest": self.z.numpy(), "rows": np.full(len(self.z), self.rows)}

    model = Tokens()
    with harness.Recorder(model, census_every=None, statistics=[Largest()]) as recorder:
        recorder.mask(MASK)
        model(padded()).sum().backward()
        census = recorder.census()
    assert census.largest.tolist() == census["max"].tolist()
    assert set(census.rows) == {2 * int(MASK.sum())}


def test_training_is_not_changed() -> None:
    outcomes = []
    for watched in (False, True):
        model = Tokens()
        optimizer = sgd(model)
        recorder = harness.Recorder(model, census_every=None)
        if watched:
            recorder.attach()
        for seed in range(12):
            if watched:
                recorder.mask(MASK)
            model(padded(seed)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        recorder.detach()
        outcomes.append(model.state_dict())
    assert all(torch.equal(outcomes[0][name], outcomes[1][name]) for name in outcomes[0])


@pytest.mark.parametrize(
    ("mask", "kind", "message"),
    [
        ([1, 0], TypeError, "mask: expected a tensor, but got list"),
        (torch.ones(2, 3, 4), ValueError, r"mask: expected the shape \(batch,\) or \(batch, positions\)"),
        (torch.tensor([0.0, -torch.inf]), ValueError, "expected True and False"),
        (torch.tensor([0, 2]), ValueError, "expected True and False"),
    ],
)
def test_arguments(mask: Any, kind: type[Exception], message: str) -> None:
    recorder = harness.Recorder(small())
    with pytest.raises(RuntimeError, match="outside the block"):
        recorder.mask(torch.ones(2))
    recorder.attach()
    with pytest.raises(kind, match=message):
        recorder.mask(mask)
    recorder.detach()
    with pytest.raises(kind, match=message):
        harness.scan(small(), [x(2)], mask=[mask])
    with pytest.raises(TypeError, match="mask: expected a tensor, one for each"):
        harness.scan(small(), x(2), mask=3)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("long", [LONG, 5])
def test_the_mask_of_an_encoder_is_none_of_the_decoders(long: int) -> None:
    """Whether or not the targets are as many as the inputs."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=50, d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2,
            decoder_start_token_id=0, pad_token_id=0,  # pyright: ignore[reportCallIssue]
        )
    )  # fmt: skip
    ids, labels = torch.randint(1, 50, (BATCH, LONG)), torch.randint(1, 50, (BATCH, long))
    batch = {"input_ids": ids, "attention_mask": MASK.long(), "labels": labels}
    with pytest.warns(UserWarning, match=r"decoder.*: the mask is of the encoder's inputs"):
        units = harness.scan(model, batch).units
    n = units.groupby(units.site.str.split(".").str[0]).n.first()
    assert n.to_dict() == {"encoder": int(MASK.sum()), "decoder": BATCH * long}


@pytest.mark.parametrize("gradients", [True, False])
def test_packed_rows_hold_no_padding_and_nothing_is_said(gradients: bool) -> None:
    """As in the data of a PackedSequence: positions that count, one after the other."""
    torch.manual_seed(0)
    layer = nn.Linear(FEATURES, 8)
    model = nn.Sequential(layer, nn.ReLU())
    packed = nn.utils.rnn.pack_padded_sequence(padded(), LENGTHS, batch_first=True, enforce_sorted=False)
    with harness.Recorder(model, census_every=None, gradients=gradients) as recorder:
        recorder.mask(MASK)
        model(packed.data).square().sum().backward()
        census = recorder.census()
    assert set(census["n"]) == {int(LENGTHS.sum())}
    assert census["active"].tolist() == (layer(padded()[MASK]) > 0).sum(0).tolist()


@pytest.mark.parametrize("shape", [(7, FEATURES), (28, 3, FEATURES), (6, 4, FEATURES)])
def test_other_rows_are_counted_whole_and_said(shape: tuple[int, ...]) -> None:
    assert int(LENGTHS.sum()) == 28
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU())
    with harness.Recorder(model, census_every=None) as recorder:
        recorder.mask(MASK)
        model(torch.randn(shape))
        with pytest.warns(UserWarning, match="it is counted whole, padding too"):
            recorder.census()
