"""Keepsakes: what a training must remember to be asked afterwards "what if this had not changed?".

The parameters at the start and at the last census at which they were finite; inputs of the first window and
of the latest forwards. A clean probe cannot show that the inputs moved, so the inputs are the stream's own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.attribution.step_metrics import tensors_in
from harness.hooks.hook import Call
from harness.hooks.sites import plain_name

INPUTS = 512  # of the first window, and of the latest
BYTES = 2**26  # that they may take, each

Inputs = tuple[Any, dict[str, Any]]  # arguments of one forward
Values = dict[str, Tensor]  # name → parameter or buffer


class Keepsakes:
    """What one model's training leaves to remember.

    Attributes:
        start: parameters and buffers before the first step.
        latest: the same at the last census at which all were finite.
        modes: module name → whether it was in training mode in the last forward.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._handle: Any = None
        self.start: Values = values_of(model)
        self.latest: Values = {}
        self.modes: dict[str, bool] = {}
        self._first: list[Inputs] = []
        self._recent: deque[Inputs] = deque()
        self._looked = False
        self._full = False  # enough of the first inputs are kept
        self._inputs = 0  # of the latest forwards that are kept

    @property
    def first_inputs(self) -> list[Inputs]:
        return self._first

    @property
    def latest_inputs(self) -> list[Inputs]:
        return list(self._recent)

    def attach(self) -> None:
        """Begin to remember inputs."""
        self._handle = self._model.register_forward_pre_hook(Call(self._forward), with_kwargs=True)

    def detach(self) -> None:
        """Stop."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def census(self) -> None:
        """Remember the parameters as they are now, if they are finite."""
        now = values_of(self._model)
        floating = [value for value in now.values() if value.is_floating_point()]
        if all(bool(torch.isfinite(value).all()) for value in floating):
            self.latest = now
        self._looked = False

    def asked_now(self) -> bool:
        """Make ready to be asked; False if the network of the start cannot be run again.

        It can as long as the model has all that it began with, in the same shapes; more may have come.
        """
        now = _shapes(_named(self._model))
        if _shapes(self.latest) != now:
            self.census()
        return bool(self._first) and _shapes(self.start).items() <= now.items()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "start": self.start,
            "latest": self.latest,
            "modes": self.modes,
            "first": list(self._first),
            "recent": list(self._recent),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.start, self.latest, self.modes = state["start"], state["latest"], state["modes"]
        self._first, self._recent = list(state["first"]), deque(state["recent"])
        self._full = _count(self._first) >= INPUTS or _bytes(self._first) >= BYTES
        self._inputs = _count(self._recent)

    def _forward(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        if not module.training:
            return
        if not self._looked:  # once in a window: walking over the modules costs more than a small step
            self.modes = {plain_name(name): part.training for name, part in module.named_modules()}
            self._looked = True
        kept = _copied(args, kwargs)
        if kept is None:
            return
        if not self._full:
            self._first.append(kept)
            self._full = _count(self._first) >= INPUTS or _bytes(self._first) >= BYTES
        self._recent.append(kept)
        self._inputs += _size(kept)
        while len(self._recent) > 1 and (
            self._inputs - _size(self._recent[0]) >= INPUTS or len(self._recent) * _bytes([kept]) > BYTES
        ):
            self._inputs -= _size(self._recent.popleft())


def values_of(model: nn.Module) -> Values:
    """Copies of all parameters and buffers, by the names that `functional_call` takes."""
    return {name: value.detach().clone() for name, value in _named(model).items()}


def _named(model: nn.Module) -> Values:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _shapes(values: Values) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in values.items()}


def on(device: torch.device | None, inputs: Inputs) -> Inputs:
    """The same inputs on a device."""
    return _mapped(inputs, lambda tensor: tensor.to(device))


def _copied(args: Any, kwargs: Mapping[str, Any]) -> Inputs | None:
    """A copy of at most INPUTS inputs; None where there is no tensor."""
    tensors = list(tensors_in((args, dict(kwargs))))
    if not tensors:
        return None
    sizes = {t.shape[0] if t.ndim else -1 for t in tensors}
    whole = len(sizes) > 1 or -1 in sizes
    return _mapped(
        (args, dict(kwargs)), lambda t: t.detach().clone() if whole else t.detach()[:INPUTS].clone()
    )


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {name: _mapped(inner, change) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_mapped(inner, change) for inner in value)
    return value


def _size(inputs: Inputs) -> int:
    first = next(tensors_in(inputs))
    return first.shape[0] if first.ndim else 1


def _count(kept: Any) -> int:
    return sum(_size(inputs) for inputs in kept)


def _bytes(kept: Any) -> int:
    return sum(t.numel() * t.element_size() for inputs in kept for t in tensors_in(inputs))
