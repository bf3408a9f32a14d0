"""SiteSums: adds what a call brings, and later its gradient, to the sums of its site."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from torch import Tensor

from harness.activations.gates import Gate
from harness.graph.units import UnitLayout, arranged
from harness.hooks._torch import outside_transforms, without_transforms
from harness.hooks.captured import is_capturing
from harness.hooks.forward_state import ForwardStates
from harness.hooks.hook import weakly
from harness.hooks.known_calls import FastPath
from harness.hooks.masks import Mask, Masking
from harness.hooks.sites import Caller, OpenSite
from harness.kernels.layout import as_units
from harness.kernels.prepared import CheckedCall, prepare
from harness.kernels.statistics import UnitStatistics, update, update_gradient, update_open
from harness.kernels.unit_statistic import unit_rows


class SiteSums:
    """Counts values that are known to belong to a site.

    Args:
        states: states of the model's forwards.
        masking: which inputs of a forward count.
        gate_eps: a gate is open where |f'(z)| exceeds it.
        refused: receives a caller and the error that one of its calls raised.
        failed: receives what could not be observed, and the error.

    Attributes:
        lock: held while sums change.
        on_gradient: called for every ∂L/∂z before it is counted.
    """

    def __init__(
        self,
        states: ForwardStates,
        masking: Masking,
        gate_eps: float,
        refused: Callable[[Caller, Exception], None],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._states, self._masking, self._eps = states, masking, gate_eps
        self._refused, self._failed = refused, failed
        self.lock = threading.RLock()
        self.on_gradient: Callable[[], None] | None = None
        self._callers: dict[str, Caller] = {}  # by the names of sites with a fast path
        self._backward, self._again = weakly(self._add_gradient), weakly(self._repeat)
        self._gate = weakly(self._learned_gate)

    def opens(self, caller: Caller, z: Tensor, plain: Tensor) -> Tensor | None:
        """Which gates are open, where a declaration computes it."""
        if caller.open_of is None:
            return None
        state = self._states.own
        fast, state.fast, state.busy = state.fast, False, True
        try:
            with outside_transforms(z, plain):
                return caller.open_of(plain)
        finally:
            state.fast, state.busy = fast, False

    def add(
        self,
        caller: Caller,
        opened: OpenSite,
        layout: UnitLayout,
        z: Tensor,
        opens: Tensor | None = None,
        mask: Mask | None = None,
        *,
        same_forward: bool,
        captured: bool = False,
    ) -> None:
        """Count a call.

        Args:
            caller: caller of the activation.
            opened: its site.
            layout: unit layout in z.
            z: a plain tensor of pre-activations.
            opens: which gates are open, where `opens` knows it.
            mask: which inputs count, if not all.
            same_forward: whether the site was called before in this forward.
            captured: whether the call is replayed without Python.
        """
        value, axes = arranged(z.detach(), layout), layout.axes
        is_open = None if opens is None else arranged(opens, layout)
        if mask is not None:
            found = self._masking.rows(mask, value, is_open, axes, caller.key, opened.site.name)
            value, is_open, axes = found
        if is_open is None:
            gate = caller.gate_of(self._eps) if opened.gate is None else opened.gate
            update(opened.statistics, value, gate, axes, same_forward=same_forward, captured=captured)
        else:
            update_open(opened.statistics, value, is_open, axes, same_forward=same_forward)
        for extension in opened.statistics.extensions:
            extension.update(unit_rows(as_units(value, axes)))

    def backward(
        self, statistics: UnitStatistics, layout: UnitLayout, *, captured: bool
    ) -> Callable[..., None]:
        """What counts ∂L/∂z, and takes a mask; graphs hold it, so it does not keep the model alive."""
        return partial(self._backward, statistics, layout, captured=captured)

    def fast_paths(
        self, caller: Caller, opened: OpenSite, layout: UnitLayout, back: Callable[[Tensor], None]
    ) -> Callable[[Tensor], FastPath | None] | None:
        """What makes the fast path of a site for tensors like a given one; None if it has none."""
        if opened.gate is None and (caller.spelling != "module" or not caller.lasts):
            return None  # the arguments of the next call may give another gate
        self._callers[opened.site.name] = caller
        return partial(self._path_for, opened, layout, back)

    # --- inside -------------------------------------------------------------------------------------

    def _path_for(
        self, opened: OpenSite, layout: UnitLayout, back: Callable[[Tensor], None], z: Tensor
    ) -> FastPath | None:
        """The fast path for tensors like z; graphs hold it, too."""
        name = opened.site.name
        if self._callers[name].open_of is None and not opened.statistics.extensions:
            gate = partial(self._gate, name) if opened.gate is None else opened.gate
            arrange = partial(arranged, layout=layout)
            found = prepare(opened.statistics, z, layout.axes, gate, back, arrange)
            if found is not None:
                return found
        return CheckedCall(z, partial(self._again, opened, layout), back) if z.numel() else None

    def _repeat(self, opened: OpenSite, layout: UnitLayout, z: Tensor, same_forward: bool) -> bool:
        """Count a known call for which there is no compiled loop; returns False if it is being captured."""
        if is_capturing():
            return False
        state, caller = self._states.own, self._callers[opened.site.name]
        try:
            opens = self.opens(caller, z, z)
            state.busy = True  # our own computations are not part of the model
            self.add(caller, opened, layout, z, opens, same_forward=same_forward)
        except Exception as error:
            self._refused(caller, error)
        finally:
            state.busy = False
        return True

    def _learned_gate(self, name: str) -> Gate:
        return self._callers[name].gate_of(self._eps)

    def _add_gradient(
        self,
        statistics: UnitStatistics,
        layout: UnitLayout,
        gradient: Tensor,
        mask: Mask | None = None,
        *,
        captured: bool = False,
    ) -> None:
        try:
            if self.on_gradient is not None:
                self.on_gradient()
            plain = without_transforms(gradient)
            if plain is not None and plain.device.type != "meta":
                with self.lock, outside_transforms(gradient, plain):
                    value, axes = arranged(plain.detach(), layout), layout.axes
                    if mask is not None:
                        value, axes = mask.rows(value, axes) or (value, axes)
                    update_gradient(statistics, value, axes, captured=captured)
                    for extension in statistics.extensions:
                        extension.update_gradient(unit_rows(as_units(value, axes)))
        except Exception as error:
            self._failed("a gradient", error)
