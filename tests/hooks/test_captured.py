"""A captured CUDA graph: replays run no Python; what they compute is counted all the same, or said not to be.

Where there is no GPU, a stand-in captures on the CPU: it notes every operation below autograd, undoes it, and
replays the notes. A question to the device breaks a capture, there as here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import harness
from harness.kernels import dispatch

CUDA = torch.cuda.is_available()


class StandIn(TorchDispatchMode):
    """Notes what is computed; nothing that was there before is changed."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, Any]] = []
        self._before: list[tuple[Tensor, Tensor]] = []
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        assert "_local_scalar_dense" not in str(func), "the device was asked for a value"
        for tensor in filter(lambda leaf: isinstance(leaf, Tensor), tree_leaves((args, kwargs))):
            self._keep(tensor)
        out = func(*args, **kwargs)
        for tensor in filter(lambda leaf: isinstance(leaf, Tensor), tree_leaves(out)):
            self._seen.add(tensor.untyped_storage().data_ptr())
        self._calls.append((func, args, kwargs, out))
        return out

    def _keep(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            whole = torch.empty(0, dtype=torch.uint8).set_(storage)
            self._before.append((whole, whole.clone()))

    def undo(self) -> None:
        for now, before in self._before:
            now.copy_(before)

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, noted in self._calls:
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(noted), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class Captured:
    """A CUDA graph, or what stands in for one."""

    def __init__(self, device: str) -> None:
        self.graph: Any = torch.cuda.CUDAGraph() if device == "cuda" else StandIn()

    @contextmanager
    def capture(self) -> Iterator[None]:
        if isinstance(self.graph, torch.cuda.CUDAGraph):
            with torch.cuda.graph(self.graph):
                yield
            return
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "is_initialized", lambda: True)
            patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
            patch.setattr(dispatch, "LIKE", {})  # operations of torch alone can be noted
            with self.graph:
                yield
        self.graph.undo()

    def replay(self) -> None:
        self.graph.replay()


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not CUDA, reason="needs a GPU"))]


class Functions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.relu(self.b(torch.relu(self.a(x)))))


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.act = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.act(self.b(self.act(self.a(x)))))


def modules() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))


def normed() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 6)),
        nn.Conv1d(1, 4, 3),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 2),
    )


MODELS = {"modules": modules, "functions": Functions, "shared": Shared, "normed": normed}


class Training:
    """Ten steps: three of them eagerly, the rest by one graph, or eagerly too."""

    def __init__(self, build: Any, device: str, **options: Any) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = build().to(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.batches = [torch.randn(16, 6).to(device) for _ in range(10)]
        self.x = self.batches[0].clone()
        self.device, self.options = device, options

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=False)
        self.model(self.x).square().mean().backward()
        self.optimizer.step()

    def capture_and_replay(self, recorder: harness.Recorder) -> None:
        graph = Captured(self.device)
        with graph.capture():
            self.step()
        graph.replay()
        recorder.step()

    def run(self, *, captured: bool) -> harness.Recorder:
        recorder = harness.Recorder(self.model, optimizer=self.optimizer, census_every=None, **self.options)
        with recorder:
            graph = Captured(self.device)
            for number, batch in enumerate(self.batches):
                self.x.copy_(batch)
                if captured and number == 3:
                    with graph.capture():
                        self.step()
                if captured and number >= 3:
                    graph.replay()
                else:
                    self.step()
                recorder.step()
            recorder.census()
        return recorder


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MODELS)
def test_replays_are_counted_as_eager_steps_are(name: str, device: str) -> None:
    eager, replayed = Training(MODELS[name], device), Training(MODELS[name], device)
    expected, found = eager.run(captured=False).census(), replayed.run(captured=True).census()
    for one, other in zip(eager.model.parameters(), replayed.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    exact = ["step", "site", "unit", "n", "active", "silent_for", "state"]
    assert found[exact].equals(expected[exact])
    assert (found.n == 160 * (4 if name == "normed" else 1)).all()
    for column in ("mean", "std", "max", "grad_rms", "grad_norm"):
        torch.testing.assert_close(
            torch.tensor(found[column]), torch.tensor(expected[column]), rtol=1e-4, atol=1e-6, equal_nan=True
        )


@pytest.mark.parametrize("device", DEVICES)
def test_each_window_has_the_replays_since_the_last_census(device: str) -> None:
    training = Training(modules, device)
    with harness.Recorder(training.model, census_every=2) as recorder:
        graph = Captured(device)
        for number, batch in enumerate(training.batches):
            training.x.copy_(batch)
            if number == 4:
                with graph.capture():
                    training.step()
            graph.replay() if number >= 4 else training.step()
            recorder.step()
    assert recorder.history().groupby("step").n.unique().map(list).to_dict() == {
        step: [32] for step in (2, 4, 6, 8, 10)
    }


@pytest.mark.parametrize("device", DEVICES)
def test_a_capture_before_any_forward_is_unobserved(device: str) -> None:
    training = Training(modules, device)
    if device == "cuda":  # as torch asks for
        training.step()
    with harness.Recorder(training.model, census_every=None) as recorder:
        graph = Captured(device)
        with graph.capture():
            training.step()
        for _ in range(3):
            graph.replay()
            recorder.step()
        with pytest.warns(UserWarning, match="run a few steps before"):
            census = recorder.census()
    assert set(census.state) == {"unobserved"}


class Late(nn.Module):
    """Its second activation is called once a flag is set."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.first, self.second, self.both = (
            nn.Linear(6, 8),
            nn.Linear(8, 2),
            nn.ReLU(),
            nn.ReLU(),
            False,
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(self.a(x))
        return self.second(self.b(h)) if self.both else self.b(h)


def test_a_call_that_no_step_before_the_capture_had_is_unobserved_with_the_reason() -> None:
    training = Training(Late, "cpu")
    with harness.Recorder(training.model, census_every=None) as recorder:
        for _ in range(3):
            training.step()
            recorder.step()
        training.model.both = True  # pyright: ignore[reportArgumentType]
        training.capture_and_replay(recorder)
        with pytest.warns(UserWarning, match="second.*before the capture"):
            census = recorder.census()
    assert set(census[census.site == "first"].n) == {64}
    assert set(census[census.site == "second"].state) == {"unobserved"}


class Threshold(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z * (z > 0.5)


def test_declared_gates_are_said_not_to_be_counted() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), Threshold(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))

    training = Training(build, "cpu")
    harness.declare_activation(Threshold, open=lambda z: z > 0.5)
    with pytest.warns(UserWarning, match="1 .*some calls are not counted: a captured CUDA graph"):
        census = training.run(captured=True).census()
    counted = census.groupby("site").n.unique().map(list).to_dict()
    assert counted == {"1": [48], "3": [160]}


def test_masks_leave_the_capture_unobserved() -> None:
    training = Training(modules, "cpu")
    with harness.Recorder(training.model, census_every=None) as recorder:
        for _ in range(3):
            recorder.mask(torch.arange(16) > 0)
            training.step()
            recorder.step()
        training.capture_and_replay(recorder)
        with pytest.warns(UserWarning, match="mask"):
            census = recorder.census()
    assert set(census[census.site != ":model"].n) == {45}


def test_evidence_is_switched_off_and_says_why() -> None:
    training = Training(modules, "cpu", evidence=True)
    with pytest.warns(UserWarning, match="captured CUDA graph run no Python"):
        recorder = training.run(captured=True)
    assert set(recorder.census().n) == {160}


def test_watch_counts_the_steps_that_it_is_told_of() -> None:
    training = Training(modules, "cpu")
    recorder = harness.watch(training.model, training.optimizer, census_every=5)
    graph = Captured("cpu")
    for batch in training.batches[:4]:
        training.x.copy_(batch)
        training.step()
    with graph.capture():
        training.step()
    graph.replay()
    with pytest.warns(UserWarning, match="call recorder.step\\(\\) after each replay"):
        recorder.step()
    for batch in training.batches[5:]:
        training.x.copy_(batch)
        graph.replay()
        recorder.step()
    recorder.close()
    assert recorder.history().groupby("step").n.unique().map(list).to_dict() == {5: [80], 10: [80]}


def test_step_inside_of_the_capture_is_none() -> None:
    training = Training(modules, "cpu")
    with harness.Recorder(training.model, census_every=1) as recorder:
        training.step()
        recorder.step()
        with Captured("cpu").capture():
            training.step()
            recorder.step()
        assert recorder.steps == 1
        training.step()
        with pytest.warns(UserWarning, match="after each replay"):
            recorder.step()
    assert recorder.history().groupby("step").n.unique().map(list).to_dict() == {1: [16], 2: [16]}
