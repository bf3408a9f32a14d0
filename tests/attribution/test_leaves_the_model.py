"""A diagnosis only reads: the model has the same parameters afterwards, tied as before."""

from __future__ import annotations

import io

import pytest
import torch
from small_trainings import stepped
from torch import Tensor, nn

import harness


class Tied(nn.Module):
    """A head that is tied to an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.one, self.two = nn.Embedding(20, 8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.words.weight
        nn.init.constant_(self.one.bias[:6].detach(), -50.0)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.two(torch.relu(self.one(self.words(words)))))


class Prompted(nn.Module):
    """The embedding has a second name, as in models whose prompt is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Tied()
        self.word_embeddings = self.base.words

    def forward(self, words: Tensor) -> Tensor:
        return self.base(words)


@pytest.mark.parametrize("kind", [Tied, Prompted])
def test_parameters_stay_the_same_objects(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, words = kind(), torch.randint(0, 20, (4, 6))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(model, optimizer=optimizer, census_every=2, evidence=True) as recorder:
        for _ in range(4):
            loss = model(words).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss)
    before = [(n, id(p)) for n, p in model.named_parameters(remove_duplicate=False)]
    values = [p.detach().clone() for p in model.parameters()]
    assert recorder.diagnose().label == "bias_init"
    assert [(n, id(p)) for n, p in model.named_parameters(remove_duplicate=False)] == before
    assert all(map(torch.equal, values, model.parameters()))


def test_few_values_are_kept_of_large_outputs() -> None:
    """A language model's logits would take more memory than its parameters."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 40_000))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(model, optimizer=optimizer, census_every=2, evidence=True) as recorder:
        for _ in range(4):
            loss = nn.functional.cross_entropy(model(torch.randn(128, 4)), torch.arange(128))
            stepped(recorder, optimizer, loss)
    state = io.BytesIO()
    torch.save(recorder.state_dict(), state)
    assert len(state.getvalue()) < 8e6  # of 20 million bytes of outputs in each step
    assert not recorder.evidence().error
    assert recorder.evidence().loss["again_first"] < 1e-5
