"""What is left when a Recorder is gone, also after interrupts: nothing, not even memory."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_nets import hooks_of, sgd, small, train_step, x
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import harness
from harness.selftest.case import kill
from harness.selftest.forms import Functional
from harness.selftest.sharing import Mixed

MAKERS = {"modules": small, "functions": lambda: Functional("relu", F.relu), "both": Mixed}


@pytest.fixture(params=MAKERS)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return MAKERS[request.param]()


def batch_of(model: Any, rows: int = 4, seed: int = 0) -> Tensor:
    return x(rows, seed, 3 if isinstance(model, nn.Sequential) else 6)


def function_modes() -> int:
    return len(torch.overrides._get_current_function_mode_stack())


def test_the_recorder_is_freed_while_the_model_lives_on(model: Any) -> None:
    optimizer = sgd(model)
    recorder = harness.Recorder(model, optimizer=optimizer, census_every=1, probe=batch_of(model))
    with recorder:
        train_step(model, optimizer, batch_of(model))
        recorder.step()
    gone = weakref.ref(recorder)
    del recorder
    gc.collect()
    assert gone() is None
    train_step(model, optimizer, batch_of(model))


def freed(make: Callable[[], Any]) -> list[Any]:
    """Weak references to a model, a parameter and a recorder that no one else holds."""
    model = make()
    with harness.Recorder(model, census_every=None) as recorder:
        model(batch_of(model)).sum().backward()
        recorder.step()
    return [weakref.ref(one) for one in (model, next(model.parameters()), recorder)]


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_model_and_recorder_are_freed_together(make: Callable[[], Any]) -> None:
    references = freed(make)
    gc.collect()
    assert [one() for one in references] == [None] * 3


def test_no_activation_is_kept_alive(model: Any) -> None:
    """While attached: what a step computed is freed with its loss, without help of the collector."""
    outputs: list[Any] = []
    layer = next(one for one in model.modules() if isinstance(one, nn.Linear))
    layer.register_forward_hook(lambda module, args, output: outputs.append(weakref.ref(output)))
    with harness.Recorder(model, census_every=None) as recorder:
        gc.disable()
        try:
            for grad in (True, False, True):
                with torch.set_grad_enabled(grad):
                    loss = model(batch_of(model)).sum()
                if grad:
                    loss.backward()
                    recorder.step()
                del loss
        finally:
            gc.enable()
        assert outputs
        assert [one() for one in outputs] == [None] * len(outputs)


class Interrupted(nn.Module):
    """Raises in the middle of a forward, once."""

    def __init__(self, error: BaseException | None) -> None:
        super().__init__()
        self.one, self.act, self.two, self.head = nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.Linear(4, 2)
        self.error = error
        kill(self.one, 1)
        kill(self.two, 3)

    def forward(self, batch: Tensor) -> Tensor:
        z = self.two(self.act(self.one(batch)))
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return self.head(F.relu(z))


ERRORS = [KeyboardInterrupt(), SystemExit(3), ValueError("mine"), torch.OutOfMemoryError("cuda")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_in_a_forward_that_ends_the_block(error: BaseException) -> None:
    torch.manual_seed(0)
    model = Interrupted(error)
    before = hooks_of(model)
    recorder = harness.Recorder(model, census_every=None)

    def body() -> None:
        with recorder:
            model(x(7, columns=6))

    with pytest.raises(type(error)):
        body()
    assert hooks_of(model) == before
    assert function_modes() == 0
    with harness.Recorder(model, census_every=None) as again:  # nothing is left that disturbs the next
        model(x(4, columns=6)).sum().backward()
        again.step()
    census = again.census()
    assert census.groupby("site").n.first().to_dict() == {"act": 4, ":relu": 4}
    assert census[census.state == "dead"].unit.isin([1, 3]).sum() == 2


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_in_a_forward_that_the_user_survives(error: BaseException) -> None:
    """Caught inside the block, as notebooks and retry loops do: the next forwards count as ever."""
    torch.manual_seed(0)
    model = Interrupted(error)
    with harness.Recorder(model, census_every=None) as recorder:
        with pytest.raises(type(error)):
            model(x(7, columns=6))
        recorder.census()
        for _ in range(2):
            model(x(4, columns=6)).sum().backward()
        with torch.no_grad():
            model.eval()(x(9, columns=6))
        census = recorder.census()
    assert census.groupby("site").n.first().to_dict() == {"act": 8, ":relu": 8}
    assert census.grad_rms.notna().all()
    assert function_modes() == 0


def test_an_error_in_a_backward() -> None:
    """A loss that fails halfway back leaves forwards countable."""

    class Breaking(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: Tensor) -> Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            raise ValueError("mine")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.act, self.head = nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)

        def forward(self, batch: Tensor) -> Tensor:
            part = checkpoint(lambda v: Breaking.apply(self.act(self.one(v))), batch, use_reentrant=False)
            assert isinstance(part, Tensor)
            return self.head(part)

    model = Net()
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(3):
            with pytest.raises(ValueError, match="mine"):
                model(x(4)).sum().backward()
        census = recorder.census()
    assert set(census.n) == {12}
    assert census.grad_rms.isna().all()


def test_entering_again_continues() -> None:
    """The same Recorder a second time: steps and silences go on, forwards in between do not count."""
    model = small()
    optimizer = sgd(model)
    recorder = harness.Recorder(model, optimizer=optimizer, census_every=2)
    for _ in range(2):
        with recorder:
            for _ in range(3):
                train_step(model, optimizer, x(5))
                recorder.step()
        model(x(50))
    history = recorder.history()
    assert history.groupby("step").n.first().to_dict() == {2: 10, 3: 5, 4: 5, 6: 10}
    assert history.groupby("step").silent_for.first().to_dict() == {2: 10, 3: 15, 4: 20, 6: 30}


def test_a_detached_model_is_pickled_as_if_never_watched(model: Any) -> None:
    before = pickle.dumps(model)
    with harness.Recorder(model, census_every=None):
        model(batch_of(model))
        assert len(pickle.loads(pickle.dumps(model)).state_dict()) == len(model.state_dict())
    assert len(pickle.dumps(model)) == len(before)
    twin = pickle.loads(pickle.dumps(model))
    assert not any(value for _, kind, value in hooks_of(twin) if kind != "forward")
