"""Taps: the hooks on activation modules, and the calls that they know.

A small network spends more time in Python than in arithmetic. So a call that came before takes a fast path:
autograd's graph tells whether the pre-activation is of the same making, and one compiled call counts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from harness.graph.autograd import Ancestry, is_made_by, ways_to
from harness.graph.units import UnitLayout, units_in
from harness.hooks._torch import graph_task, is_recompute, watch_gradient
from harness.hooks.hook import Hook
from harness.hooks.sites import Caller, OpenSite
from harness.kernels.prepared import PreparedCall

if TYPE_CHECKING:
    from harness.hooks.eager import EagerTaps


class ModuleTap(Hook):
    """A forward pre-hook: counts by the fast path where the call is a known one, else asks the taps."""

    __slots__ = ("_state", "_taps", "caller", "known")

    def __init__(self, taps: EagerTaps, caller: Caller) -> None:
        self._taps, self._state, self.caller, self.known = taps, taps.state, caller, KnownCalls()

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        try:
            state, known = self._state, self.known
            if state.fast and args and graph_task() == -1:  # not a checkpoint's recomputation
                call = known.only or known
                if call.count(args[0], state.forward):
                    return
            recompute = is_recompute()
            if not state.active and not recompute:
                return
            z = args[0] if args else next(iter(kwargs.values()), None)
            if isinstance(z, Tensor):
                self._taps.called.add(module)
                self._taps.count(self.caller, z, known, recompute)
        except Exception as error:  # never the training's
            self._taps.failed(self.caller.name, error)


class KnownCall:
    """A call of a site as it came before: how to recognise it, and the fast path to count it.

    Args:
        opened: the site.
        found: what autograd tells of the pre-activation; nothing where no graph is recorded.
        layout: of the units.
        z: the pre-activation.
        prepared: the fast path; None where there is none.
        gradients: whether ∂L/∂z is watched.
    """

    __slots__ = (
        "_backward",
        "_gradients",
        "_place",
        "_variable",
        "_ways",
        "behind",
        "layout",
        "ndim",
        "opened",
        "output",
        "prepared",
        "shape",
    )

    def __init__(
        self,
        opened: OpenSite,
        found: Ancestry,
        layout: UnitLayout,
        z: Tensor,
        prepared: PreparedCall | None,
        gradients: bool,
    ) -> None:
        self.opened, self.layout, self.shape, self.ndim = opened, layout, z.shape, z.ndim
        self._ways = ways_to(found.leaves)
        near = len(self._ways) == 1 and len(self._ways[0][0]) == 1  # the usual case: a layer right before it
        self._place, self._variable = (self._ways[0][0][0], self._ways[0][1]) if near else (-1, None)
        self.behind, self.output = found.identity, z.output_nr
        self.prepared, self._gradients = prepared, gradients
        self._backward = None if prepared is None else prepared.backward

    def count(self, z: Tensor, forward: int) -> bool:
        """Count a pre-activation; False, and nothing is counted, if it is not of this making."""
        prepared, place = self.prepared, self._place
        if prepared is None:
            return False
        if place < 0:
            if not is_made_by(z, self._ways) or z.output_nr != self.output:
                return False
        else:
            try:
                if z.grad_fn.next_functions[place][0].variable is not self._variable:  # pyright: ignore
                    return False
            except (AttributeError, IndexError):  # another kind of node
                return False
            if self.output and z.output_nr != self.output:
                return False
        opened = self.opened
        if not prepared.forward(z, opened.forward == forward):
            return False
        opened.forward = forward
        if self._gradients and z.requires_grad:
            watch_gradient(z, self._backward)  # pyright: ignore
        return True


MOST = 64  # kinds of calls that are remembered


class KnownCalls:
    """The known calls of one caller, tried in turn: a shared module is called in the same order every time.

    Attributes:
        only: the call, if there is just one.
        sites: names of all sites that the caller ever had.
    """

    __slots__ = ("_calls", "_turn", "only", "sites")

    def __init__(self) -> None:
        self._calls: list[KnownCall] = []
        self._turn = 0
        self.only: KnownCall | None = None
        self.sites: set[str] = set()

    def count(self, z: Any, forward: int) -> bool:
        """Count a pre-activation, if one of the known calls is of its making."""
        calls, turn = self._calls, self._turn
        for step in range(len(calls)):
            place = (turn + step) % len(calls)
            if calls[place].count(z, forward):
                self._turn = place + 1
                return True
        return False

    def add(self, call: KnownCall) -> None:
        """Remember a call."""
        if len(self._calls) >= MOST:
            self._calls.clear()
        self._calls.append(call)
        self.only = call if len(self._calls) == 1 else None

    def find(self, found: Ancestry, z: Tensor, *, shape: bool) -> KnownCall | None:
        """A call by the same parameters: of the same shape, or with the units on the same axes."""
        behind = found.identity
        for call in self._calls:
            if call.behind == behind and call.output == z.output_nr:
                fits = call.ndim == z.ndim and units_in(z.shape, call.layout) == call.opened.site.size
                if call.shape == z.shape if shape else fits:
                    return call
        return None
