"""Batches as loaders give them: a target is no input, and a batch that does not fit is explained."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from small_nets import global_hooks, hooks_of, small, x
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import harness


def counted(model: nn.Module, batches: Any) -> tuple[int, list[int]]:
    """n and active of the first site: of a scan, which a probe has to agree with."""
    units = harness.scan(model, batches).units
    with harness.Recorder(model, census_every=None, probe=batches) as recorder:
        pass
    probed = recorder.history()
    assert probed.active.tolist() == units.active.tolist()
    assert probed.n.tolist() == units.n.tolist()
    first = units[units.site == units.site.iloc[0]]
    return int(first.n.iloc[0]), first.active.tolist()


def loaded(*tensors: Tensor) -> Any:
    return next(iter(DataLoader(TensorDataset(*tensors), batch_size=16)))


TARGETS = {
    "labels": torch.zeros(16, dtype=torch.int64),
    "numbers": torch.zeros(16),
    "column": torch.zeros(16, 1),
    "two columns, as the output": torch.zeros(16, 2),
    "one-hot integers": torch.zeros(16, 2, dtype=torch.int64),
    "double": x(16).double(),
    "flags": torch.zeros(16, dtype=torch.bool),
}


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("outer", [list, tuple])
def test_the_target_is_no_input(kind: str, outer: type) -> None:
    model = small()
    want = counted(model, x(16))
    batch = outer(loaded(x(16), TARGETS[kind]))
    assert counted(model, batch) == want


@pytest.mark.parametrize(
    "target",
    [
        (torch.zeros(16), torch.zeros(16)),
        {"boxes": torch.zeros(16, 4)},
        ["a"] * 16,
        [torch.zeros(16, 4), "meta"],
        "name",
        None,
        torch.tensor(3.0),
    ],
    ids=str,
)
def test_nested_targets(target: Any) -> None:
    model = small()
    assert counted(model, (x(16), target)) == counted(model, x(16))


def test_three_parts() -> None:
    model = small()
    batch = loaded(x(16), torch.zeros(16, 1), torch.arange(16))
    assert counted(model, batch) == counted(model, x(16))


def test_batches_stay_batches() -> None:
    """Lists of several batches are not taken for one."""
    model = small()
    both = counted(model, torch.cat([x(16), x(16, seed=1)]))
    for batches in (
        [x(16), x(16, seed=1)],
        (x(16), x(16, seed=1)),
        [(x(16),), (x(16, seed=1),)],
        [(x(16), torch.zeros(16)), (x(16, seed=1), torch.zeros(16))],
        [x(16), (x(16, seed=1), torch.zeros(16))],
        torch.cat([x(16), x(16, seed=1)]).split(16),
        DataLoader(TensorDataset(torch.cat([x(16), x(16, seed=1)])), batch_size=16),
    ):
        assert counted(model, batches) == both
    assert counted(model, [x(16), x(9, seed=1)])[0] == 25
    assert counted(model, [x(4), x(4, seed=1), x(4, seed=2)])[0] == 12


def test_sentences_of_two_lengths_are_asked_about() -> None:
    """By the rule they are a pair; it is said how they are made two batches."""
    model = nn.Sequential(nn.Embedding(9, 4), nn.ReLU())
    short, long = torch.zeros(8, 5, dtype=torch.int64), torch.zeros(8, 7, dtype=torch.int64)
    with pytest.warns(UserWarning, match=r"\[\(first,\), \(second,\)\]"):
        assert counted(model, [short, long])[0] == 8 * 5
    assert counted(model, [(short,), (long,)])[0] == 8 * 12


def autoencoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))


def test_autoencoders() -> None:
    """The target is of the input's shape, and of the output's: a pair."""
    model = autoencoder()
    want = counted(model, x(16))
    assert counted(model, loaded(x(16), x(16))) == want
    noisy = loaded(x(16), x(16, seed=1))
    with pytest.warns(UserWarning, match="input, target"):
        assert counted(model, noisy) == want
    assert counted(model, [noisy]) == want  # said, and so nothing is to be warned of
    assert counted(model, x(16).chunk(2)) == want  # parts of one tensor are batches
    convolutional = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
    images = torch.rand(8, 1, 5, 5)
    assert counted(convolutional, loaded(images, images))[0] == 8 * 25


def test_what_was_in_doubt_is_settled_once() -> None:
    model = autoencoder()
    recorder = harness.Recorder(model, census_every=1, probe=[x(16), x(16, seed=1)])
    with pytest.warns(UserWarning, match="input, target"):
        recorder.attach()
    for _ in range(3):  # where a second warning would be an error
        model(x())
        recorder.step()
    recorder.detach()
    assert set(recorder.history().query("evidence == 'probe'").n) == {16}


class Two(nn.Module):
    """Two inputs, and a third if one likes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.act = nn.Linear(3, 4), nn.Linear(3, 4), nn.ReLU()

    def forward(self, a: Tensor, b: Tensor, weight: Tensor | None = None) -> Tensor:
        out = self.act(self.a(a) + self.b(b))
        return out if weight is None else out * weight


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch 2.11's own
@pytest.mark.parametrize(
    "wrap", [lambda m: m, torch.compile, nn.DataParallel], ids=["", "compiled", "wrapped"]
)
def test_several_inputs(wrap: Any) -> None:
    model = Two()
    a, b = x(16), x(16, seed=1)
    want = counted(model, {"a": a, "b": b})
    model = wrap(model)
    for batch in (
        (a, b),
        loaded(a, b),
        loaded(a, b, torch.zeros(16, dtype=torch.int64)),
        [loaded(a, b)],
        ((a, b), torch.zeros(16)),
        ((a, b), torch.zeros(16, 3)),
        {"a": a, "b": b, "labels": torch.zeros(16)},
    ):
        assert counted(model, batch) == want


def test_dicts() -> None:
    """Keys that the forward does not take are no inputs; a forward of a whole batch gets it whole."""

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small()

        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            return self.inner(batch["image"])

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small()

        def forward(self, image: Tensor, *, scale: float = 1.0) -> Tensor:
            return self.inner(image * scale)

    want = counted(small(), x(16))[0]
    for model in (Whole(), Named()):
        for batch in ({"image": x(16), "label": torch.zeros(16)}, [{"image": x(16)}]):
            assert counted(model, batch)[0] == want


@pytest.mark.parametrize(
    ("model", "batch", "expected", "came"),
    [
        (small(), x(16, columns=5), r"forward\(input\)", r"tensor \(16, 5\) float32"),
        (small(), (torch.zeros(16, dtype=torch.int64), x(16)), r"forward\(input\)", r"tensor \(16,\) int64"),
        (Two(), x(16), r"forward\(a, b, \[weight\]\)", r"tensor \(16, 3\) float32"),
        (Two(), {"a": x(16), "c": x(16)}, r"forward\(a, b, \[weight\]\)", r"'c': tensor \(16, 3\) float32"),
        (small(), {"pixels": x(16)}, r"forward\(input\)", "'pixels': tensor"),
        (nn.Sequential(nn.Embedding(9, 4), nn.ReLU()), x(16), r"forward\(input\)", "float32"),
    ],
)
def test_a_batch_that_the_model_rejects(model: nn.Module, batch: Any, expected: str, came: str) -> None:
    with pytest.raises(ValueError, match=expected) as raised:
        harness.scan(model, [batch])
    assert raised.match(came)
    assert raised.match("batches: .*Give batches that are")
    assert raised.value.__cause__ is not None
    hooks, everywhere = hooks_of(model), global_hooks()
    with pytest.raises(ValueError, match=expected), harness.Recorder(model, probe=[batch]):
        pass
    assert (hooks_of(model), global_hooks()) == (hooks, everywhere)


def test_warnings_in_a_model_stay_what_they_are() -> None:
    class Warns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small()

        def forward(self, batch: Tensor) -> Tensor:
            warnings.warn("mine", RuntimeWarning, stacklevel=1)
            return self.inner(batch)

    with pytest.raises(RuntimeWarning, match="mine"):
        harness.scan(Warns(), x())


class Language(nn.Module):
    """Scores for the next word; the targets may be given along."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.inner, self.scores = nn.Embedding(9, 6), nn.Linear(6, 8), nn.Linear(8, 9)

    def forward(self, words: Tensor, targets: Tensor | None = None) -> Tensor:
        return self.scores(torch.relu(self.inner(self.words(words))))


def test_the_targets_of_a_language_model_are_no_inputs() -> None:
    torch.manual_seed(0)
    model, words, targets = Language(), torch.randint(0, 5, (16, 4)), torch.randint(5, 9, (16, 4))
    want = counted(model, words)
    for batch in (loaded(words, targets), (words, targets)):
        with pytest.warns(UserWarning, match=r"taken as one \(input, target\) batch"):
            assert counted(model, batch) == want


class Graph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 8)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        h = torch.relu(self.layer(nodes))
        return torch.zeros_like(h).index_add(0, edges[1], h[edges[0]])


def test_inputs_of_several_lengths_are_one_batch_if_the_forward_takes_them_all() -> None:
    torch.manual_seed(0)
    pair = torch.randn(20, 4), torch.randint(0, 20, (2, 30))
    model = Graph()
    assert counted(model, pair) == counted(model, [pair])
    assert counted(model, pair)[0] == 20


class Resized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 8)
        self.register_buffer("seen", torch.zeros(0))

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("seen").resize_(3).fill_(1.0)
        return torch.relu(self.layer(x))


def test_a_buffer_that_a_pass_resizes_is_restored() -> None:
    model = Resized()
    harness.scan(model, x(16, columns=4))
    assert model.get_buffer("seen").shape == (0,)
