"""What a forward uses and no optimizer trains: numbers of modules, buffers, frozen parameters, the structure.

A dropout's probability, a scale, the running mean of a norm in evaluation mode, a mask put on a weight:
nothing else shows that one of them changed. They are compared at every census, which says between which
steps it was.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from harness.attribution.event import BUFFER, FROZEN, MODE, NAMES, NORM, NUMBER
from harness.attribution.replay import NORMS
from harness.attribution.snapshots import Values
from harness.graph.plan import plain_name, qualified_names
from harness.kernels.same_values import same_values
from harness.recording.listener import Guard

CHANGED = 0.02  # share of its norm by which a tensor must change
MOST = 200  # largest number of names whose changes are kept


class UntrainedState:
    """Compares one model's untrained state from census to census.

    Attributes:
        changes: name → kind; before, after and last (numbers, modes; of a tensor, the share of its norm that
            changed); one_way (whether a number always rose, or always fell); windows (the pairs of steps
            between which it changed).
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._guard = Guard("what is not trained")  # its errors disable only this
        self._step = self._before = 0  # at the last call, and at the one before
        self._modes: dict[str, bool] = {}  # of the norms, in the first forward of the last window
        self._numbers: dict[str, float] = {}
        self._objects: dict[str, weakref.ref[nn.Parameter]] = {}
        self.changes: dict[str, dict[str, Any]] = {}

    def read(
        self, step: int, before: Values, now: Values, trained: Collection[int], modes: Mapping[str, bool]
    ) -> None:
        """Compare with the last call.

        Args:
            step: completed steps.
            before: parameters and buffers at the last call; may be empty.
            now: those of now.
            trained: ids of the parameters that an optimizer trains.
            modes: module → whether it was in training mode in between, where that is known.
        """
        self._guard.run(self._read, step, before, now, trained, modes)

    def state_dict(self) -> dict[str, Any]:
        """State that consists of plain values."""
        return {"step": self._step, "numbers": self._numbers, "changes": self.changes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self._step, self._numbers, self.changes = state["step"], state["numbers"], state["changes"]

    # --- inside -------------------------------------------------------------------------------------

    def _read(
        self, step: int, before: Values, now: Values, trained: Collection[int], modes: Mapping[str, bool]
    ) -> None:
        numbers = dict(_numbers(self._model))
        for name, value in numbers.items():
            old = self._numbers.get(name, value)
            if old != value and not (old != old and value != value):
                self._note(name, NUMBER, step, old, value)
        norms = {name: modes[name] for name in _norms(self._model) if name in modes}
        for name in norms.keys() & self._modes.keys():
            if norms[name] != self._modes[name]:  # since the first forward of the last window
                self._note(f"{name}.training", MODE, step, self._modes[name], norms[name], since=self._before)
        kinds = dict(_tensors(self._model, trained, modes))
        for name in kinds.keys() & before.keys() & now.keys() if step > self._step else ():
            share = _change(before[name], now[name])
            if share >= CHANGED:
                self._note(plain_name(name, self._model), kinds[name], step, 0.0, share)
        were, are = ({plain_name(name, self._model) for name in names} for names in (before, now))
        if gone := were - are:  # further names alone may be a new part
            shown = (", ".join(sorted(names)[:2]) for names in (gone, are - were))
            self._note(" → ".join(filter(None, shown)), NAMES, step, 0.0, len(gone))
        own = dict(self._model.named_parameters())
        new = {n for n, p in own.items() if (old := self._objects.get(n)) is not None and old() is not p}
        if new := {n for n in new & before.keys() & now.keys() if _change(before[n], now[n]) >= CHANGED}:
            shown = ", ".join(sorted(plain_name(name, self._model) for name in new)[:2])
            self._note(f"others in place of {shown}", NAMES, step, 0.0, len(new))
        self._objects = {name: weakref.ref(parameter) for name, parameter in own.items()}
        if step > self._step:
            self._before, self._step, self._modes = self._step, step, norms
        self._numbers = numbers

    def _note(
        self, name: str, kind: str, step: int, before: float, after: float, since: int | None = None
    ) -> None:
        if name not in self.changes and len(self.changes) < MOST:
            first = {"before": before, "after": after, "last": before, "one_way": True}
            self.changes[name] = {"kind": kind, **first, "windows": []}
        if name in self.changes:
            change = self.changes[name]
            same_way = (change["after"] - change["before"]) * (after - change["last"]) > 0
            change["one_way"] &= same_way or kind != NUMBER
            change["last"] = after
            window = (self._step, step) if since is None else (since, self._step + 1)
            change["windows"].append(window)


def _numbers(model: nn.Module) -> Iterator[tuple[str, float]]:
    """The numbers and switches that modules hold; whole numbers only where they are switches."""
    for module, name in qualified_names(model).items():
        for key, value in vars(module).items():
            if isinstance(value, float | bool) and key != "training" and not key.startswith("_"):
                yield f"{name}.{key}" if name else key, float(value)


def _norms(model: nn.Module) -> Iterator[str]:
    """The names of the norms whose statistics are others in evaluation mode."""
    for name, module in model.named_modules():
        if isinstance(module, NORMS) and getattr(module, "running_mean", None) is not None:
            yield plain_name(name, model)


def _tensors(
    model: nn.Module, trained: Collection[int], modes: Mapping[str, bool]
) -> Iterator[tuple[str, str]]:
    """Name → kind of the buffers that forwards do not update, and of the frozen parameters."""
    for prefix, module in model.named_modules():
        norm = isinstance(module, NORMS)
        for name, _ in module.named_buffers(prefix, recurse=False):
            if not (norm and modes.get(plain_name(prefix, model), module.training)):
                yield name, NORM if norm else BUFFER
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if id(parameter) not in trained:
                yield name, FROZEN


def _change(before: Tensor, now: Tensor) -> float:
    """Size of a change over the size before; a change from 0 is infinite."""
    if before.shape != now.shape or before.device != now.device or same_values(before, now):
        return 0.0
    old, new = (value if value.is_complex() else value.double() for value in (before, now))
    return float((new - old).norm() / old.norm())
