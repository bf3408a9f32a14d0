"""Snapshots: copies made while a model trains, to ask later "what if this had not changed?".

Copied are the parameters at the start and at the last census at which they were finite, and the inputs of the
first window and of the latest forwards. The inputs are the stream's own, since a fixed probe cannot show that
the inputs moved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

from harness.attribution.entrances import PartsForward
from harness.attribution.loss_graph import first_values, outputs_of
from harness.attribution.model_inputs import Inputs, are_plain, byte_count, copy_inputs, input_count
from harness.graph.plan import qualified_names
from harness.kernels.same_values import same_values
from harness.recording.attributes import has_lazy_parts
from harness.recording.listener import Guard

INPUTS = 512  # largest number of the first inputs, and of the latest
OUTPUTS = 2**16  # largest number of values kept of each of the first outputs
BYTES = 2**26  # largest size of each of these

Values = dict[str, Tensor]  # name → parameter or buffer


class Snapshot(NamedTuple):
    """Parameters and buffers by name, and inputs, at one time."""

    values: Values
    inputs: list[Inputs]


class Snapshots:
    """Copies of one model's parameters, buffers and inputs.

    Attributes:
        start: parameters and buffers before the first step.
        latest: the same at the last census at which all were finite.
        modes: module name → whether it was in training mode in the last forward.
        by_parts: whether the inputs are those of submodules called on their own.
        first_outputs: what the first of the kept forwards gave; empty if it was not one of the model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._handles: list[RemovableHandle] = []
        self.start: Values = {}
        self.latest: Values = {}
        self.modes: dict[str, bool] = {}
        self._first: list[Inputs] = []
        self._recent: deque[Inputs] = deque()
        self._recent_count = 0  # number of inputs in them
        self._first_complete = self._modes_read = False
        self._running: list[Inputs | None] = []  # what was kept of the forwards that have not ended
        self._trains = False  # whether autograd has recorded a forward
        self._uncopied = False  # whether inputs have come that cannot be copied
        self._idle = False  # whether the model's own forward uses no parameter: its inputs are not kept
        self._lazy = False  # whether parameters of the model have no values yet
        self.by_parts = False
        self.first_outputs: list[Tensor] = []

    def first(self) -> Snapshot:
        """The values at the start, and the first inputs."""
        return Snapshot(self.start, self._first)

    def last(self) -> Snapshot:
        """The latest finite values, and the latest inputs."""
        return Snapshot(self.latest or self.start, list(self._recent))

    def attach(self, guard: Guard) -> None:
        """Start copying inputs; the first time, copy the parameters, too."""
        if self._is_sharded():
            return
        self.start = self.start or copy_values(self._model)
        self._lazy = has_lazy_parts(self._model)
        begin, end = guard.hook(self._forward), guard.hook(self._ended)
        self._handles.append(self._model.register_forward_pre_hook(begin, with_kwargs=True))
        self._handles.append(self._model.register_forward_hook(end))

    def detach(self) -> None:
        """Stop copying."""
        while self._handles:
            self._handles.pop().remove()

    def step(self) -> None:
        """Discard the inputs of forwards that have raised since the last step."""
        for inputs in self._running:
            self._first = [one for one in self._first if one is not inputs]
            self._recent = deque(one for one in self._recent if one is not inputs)
        if self._running:
            self._running.clear()
            self._first_complete = _is_complete(self._first)
            self._recent_count = sum(map(input_count, self._recent))

    def census(self) -> None:
        """Copy the current parameters, if they are finite."""
        if self._is_sharded():
            return
        values = copy_values(self._model)
        floating = [value for value in values.values() if value.is_floating_point()]
        if all(bool(torch.isfinite(value).all()) for value in floating):
            self.latest = values
        self._modes_read = False

    def prepare_replay(self) -> str:
        """Copy the current values if the latest ones are missing or do not fit.

        Returns:
            Why the initial network cannot be run again, or "". It can if the model still has everything it
            started with, in the same shapes; additions are allowed.
        """
        if self._is_sharded():  # FSDP2 gathers its own parameters, and ignores others passed to the forward
            return "the parameters are sharded, so that the network of the start cannot be run again"
        shapes = _shapes(_named_values(self._model))
        if _shapes(self.latest) != shapes:
            self.census()
        if not self._first and self._uncopied:
            return "what the model is called with cannot be copied, so that it cannot be run again"
        if not self._first and self._model.training:
            return "the model itself was never called, at most a copy or a part of it was"
        if not self._first:
            return (
                "no input was seen in training mode, and what evaluation mode does (running statistics of "
                "norms, no dropout) is not examined; call model.train(), and eval() of norms to be frozen"
            )
        fits = _shapes(self.start).items() <= shapes.items()
        return "" if fits else "the model has changed, so that the network of the start cannot be run again"

    def state_dict(self) -> dict[str, Any]:
        """State that consists of tensors and plain values."""
        return {
            "start": self.start,
            "latest": self.latest,
            "modes": self.modes,
            "first": [*filter(are_plain, self._first)],
            "recent": [*filter(are_plain, self._recent)],
            "trains": self._trains,
            "by_parts": self.by_parts,
            "outputs": self.first_outputs,
            "uncopied": self._uncopied or not all(map(are_plain, self._first)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of `state_dict`."""
        self.start, self.latest, self.modes = state["start"], state["latest"], state["modes"]
        self._first, self._recent = list(state["first"]), deque(state["recent"])
        self._trains, self.by_parts = state.get("trains", True), state.get("by_parts", False)
        self._uncopied = state.get("uncopied", False)
        self.first_outputs = list(state.get("outputs", ()))
        self._first_complete = _is_complete(self._first)
        self._recent_count = sum(map(input_count, self._recent))

    def _is_sharded(self) -> bool:
        return any(hasattr(parameter, "full_tensor") for parameter in self._model.parameters())

    def follow_root(self) -> None:
        """Keep the inputs of the model's own forward, since it trains."""
        self._idle = False
        if self.by_parts:
            self._clear()

    def follow_parts(self) -> None:
        """Keep the inputs of submodules, since the model's own forward uses no parameter."""
        if not self._idle and not self.by_parts:
            self._clear()
        self._idle = True

    def add_parts(self, forward: PartsForward) -> None:
        """Keep the inputs of a forward through submodules called on their own."""
        if not self._is_sharded():
            self._keep(tuple(forward.calls), {}, graph=forward.graph, by_parts=True)

    # --- inside -------------------------------------------------------------------------------------

    def _forward(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        graph = torch.is_grad_enabled()
        wanted = module.training and not self._idle
        kept = self._keep(args, kwargs, graph=graph, by_parts=False) if wanted else None
        self._running.append(kept)

    def _clear(self) -> None:
        """Discard the inputs."""
        self._first.clear()
        self._recent.clear()
        self.first_outputs.clear()
        self._recent_count, self._first_complete, self.by_parts = 0, False, False

    def _ended(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._lazy:  # the forward has drawn what had no values yet
            self.start = copy_values(self._model) | self.start
            self._lazy = has_lazy_parts(self._model)
        inputs = self._running.pop() if self._running else None
        is_first = inputs is not None and bool(self._first) and inputs is self._first[0]
        if is_first and not self.first_outputs and self._is_at_start():
            outputs = [out[:INPUTS] for out in outputs_of(output) if out.ndim]
            self.first_outputs = [first_values(out, OUTPUTS) for out in outputs]

    def _is_at_start(self) -> bool:
        """Whether nobody has written into the parameters since the copy of the start."""
        named, start = self._model.named_parameters(), self.start
        return all(name in start and same_values(start[name], parameter) for name, parameter in named)

    def _keep(self, args: Any, kwargs: Mapping[str, Any], *, graph: bool, by_parts: bool) -> Inputs | None:
        """Keep inputs of one kind: preferably with a graph, and of the model rather than its submodules."""
        if graph is not self._trains or by_parts is not self.by_parts:
            kept = bool(self._first)
            if (self._trains, not self.by_parts) > (graph, not by_parts) and kept:
                return None
            self._clear()
            self._trains, self.by_parts = graph, by_parts
        if not self._modes_read:  # once per window: iterating over the modules costs more than a small step
            self.modes = {name: part.training for part, name in qualified_names(self._model).items()}
            self._modes_read = True
        inputs = copy_inputs(args, kwargs, INPUTS)
        if inputs is None:
            self._uncopied = True
            return None
        if not self._first_complete:
            self._first.append(inputs)
            self._first_complete = _is_complete(self._first)
        recent, size = self._recent, byte_count(inputs)
        recent.append(inputs)
        self._recent_count += input_count(inputs)
        while len(recent) > 1 and (
            self._recent_count - input_count(recent[0]) >= INPUTS or len(recent) * size > BYTES
        ):
            self._recent_count -= input_count(recent.popleft())
        return inputs


def copy_values(model: nn.Module) -> Values:
    """Copies of all parameters and buffers, by the names used in `functional_call`."""
    return {name: value.detach().clone() for name, value in _named_values(model).items()}


def _named_values(model: nn.Module) -> Values:
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: value for name, value in named if not is_lazy(value)}


def _shapes(values: Values) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in values.items()}


def _is_complete(first: list[Inputs]) -> bool:
    return sum(map(input_count, first)) >= INPUTS or sum(map(byte_count, first)) >= BYTES
