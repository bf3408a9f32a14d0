"""What taps do in compiled code: plain tensor operations that `torch.compile` traces into its graph.

A compiled graph has neither autograd's graph nor Python between two calls. So a tap relies on what the traced
forwards have shown: the calls of its activation in their order. A call that differs is not counted and sets
a flag.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling
from torch.overrides import TorchFunctionMode

from harness.activations.gates import Gate
from harness.activations.lookup import TABLE
from harness.graph.units import UnitLayout, arranged, units_in
from harness.hooks._torch import never_compiled
from harness.kernels.accumulators import Accumulators
from harness.kernels.traced import accumulate, squares


class GradientTap(torch.autograd.Function):
    """Identity of z whose backward also counts ∂L/∂z, as the gradient of a leaf (`UnitStatistics.returned`).

    The forward copies z, since an activation may write into it.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, leaf: Tensor, layout: UnitLayout) -> Tensor:
        ctx.layout = layout
        return z.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore
        found = squares(arranged(gradient.detach(), ctx.layout), ctx.layout.axes)
        inputs = found.new_full((1,), gradient.numel() // ctx.layout.size)
        return gradient, torch.cat([found, inputs]), None


class TracedCall:
    """A call of an activation, as compiled code counts it.

    Args:
        running: the sums of its site.
        counted: (2,) int64; the first element is the number of counted inputs.
        leaf: its gradient receives the statistics of ∂L/∂z; None: ∂L/∂z is not observed.
        layout: layout of the units.
        ndim: number of axes of the pre-activation.
        gate: gate of the activation.
        same_forward: whether the site was called before in the same forward.
        functions: must not count the functions that the counting itself calls.
    """

    def __init__(
        self,
        running: Accumulators,
        counted: Tensor,
        leaf: Tensor | None,
        layout: UnitLayout,
        ndim: int,
        gate: Gate,
        *,
        same_forward: bool,
        functions: TracedFunctions,
    ) -> None:
        self._functions = functions
        self._running, self._counted, self._layout, self._ndim = running, counted, layout, ndim
        self._gate, self._leaf, self._same_forward = gate, leaf, same_forward

    def fits(self, z: Any) -> bool:
        """Whether z has the expected unit layout."""
        if not isinstance(z, Tensor) or not z.is_floating_point() or z.ndim != self._ndim:
            return False
        return units_in(z.shape, self._layout) == self._layout.size

    def count(self, z: Tensor) -> None:
        """Count z."""
        self._functions.counting = True
        layout = self._layout
        value = arranged(z.detach(), layout)
        n = accumulate(self._running, value, layout.axes, self._gate, same_forward=self._same_forward)
        self._counted[0].add_(n)
        self._functions.counting = False

    def tapped(self, z: Tensor) -> Tensor:
        """A copy of z whose gradient is counted, or z if none is."""
        if self._leaf is None or not z.requires_grad or not torch.is_grad_enabled():
            return z
        self._functions.counting = True
        copy = GradientTap.apply(z, self._leaf, self._layout)  # pyright: ignore
        self._functions.counting = False
        return copy


class TracedCalls:
    """The calls of one caller in a forward, in their order.

    Args:
        root: the model.
        training: the mode in which its forwards count; None: both.
        calls: the expected calls, None for those that are not counted.
        further: used for every further call, if all calls belong to one site.

    Attributes:
        turn: number of calls so far.
        missed: whether a call differed from the expected one and was not counted.
        waiting: the call and the pre-activation to count after the running activation.
        writes: whether that activation writes into the pre-activation.
    """

    def __init__(
        self,
        root: nn.Module,
        training: bool | None,
        calls: Sequence[TracedCall | None] = (),
        further: TracedCall | None = None,
    ) -> None:
        self._root, self._training, self._calls, self._further = root, training, calls, further
        self.turn = 0
        self.missed = False
        self.waiting: tuple[TracedCall, Tensor] | None = None
        self.writes = False

    def next(self, z: Any) -> TracedCall | None:
        """The call to count z with; None if it is not counted."""
        if self._training is not None and self._root.training is not self._training:
            return None
        turn = self.turn
        self.turn = turn + 1
        known = turn < len(self._calls)
        call = self._calls[turn] if known else self._further
        if call is None:
            self.missed = self.missed or not known
            return None
        if call.fits(z):
            return call
        self.missed = True
        return None

    def tap(self, call: TracedCall, z: Tensor, *, later: bool, in_place: bool) -> Tensor:
        """What to call the activation on instead of z, which is counted now or by `finish`.

        If z is read before the activation, torch's partitioner takes the two uses to be far apart, stores the
        activation's mask for the backward pass instead of computing it again, and fuses less: a step of
        convolutions with batch norm and pooling took twice as long.

        Args:
            call: the call.
            z: the pre-activation.
            later: whether `finish` is called after the activation.
            in_place: whether the activation writes into its argument.
        """
        tapped = call.tapped(z)
        if later and tapped is not z:
            self.waiting, self.writes = (call, z), in_place
        else:  # the activation may write into z
            call.count(z)
        return tapped

    def finish(self, output: Any) -> Any:
        """Count what waits, after the activation; returns the output to use instead, None for the same."""
        assert self.waiting is not None
        (call, z), self.waiting = self.waiting, None
        call.count(z)
        return z.copy_(output) if self.writes else None


class FunctionCall(NamedTuple):
    """How an owner calls an activation as a function.

    Attributes:
        function: as a function mode sees it.
        place: position or keyword of the pre-activation among the arguments.
        in_place: whether it writes into the pre-activation.
        caller: calls of its caller; None: not counted.
    """

    function: Any
    place: int | str
    in_place: bool
    caller: TracedCalls | None


class TracedOwner:
    """The activations that a module calls as functions in one of its forwards, in their order.

    Attributes:
        turn: number of calls so far in the running forward.
        missed: whether another function was called.
    """

    def __init__(self, calls: Sequence[FunctionCall]) -> None:
        self._calls = calls
        self.turn = 0
        self.missed = False

    def next(self, function: Any) -> FunctionCall | None:
        """The next call, if it is of this function."""
        turn = self.turn
        if turn < len(self._calls) and self._calls[turn].function is function:
            self.turn = turn + 1
            return self._calls[turn]
        self.missed = True
        return None


class TracedFunctions(TorchFunctionMode):
    """Counts activations that are called as functions while their owners' own forwards are traced.

    Attributes:
        owners: None for children during whose forward the mode is off.
        places: module → index in `owners`.
        stack: indices of owners and children whose forward runs, innermost last. (Not a property: the
            compiler cannot look one up on a function mode.)
        counting: whether our own computations are being traced.
        missed: whether a forward that calls an activation could not be followed.
        allowed: whether owners' forwards are known to be in one graph, where the compiler supports modes.
        unsure: whether an owner's forward was compiled without that being known, and so was not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.owners: list[TracedOwner | None] = []
        self.places: dict[nn.Module, int] = {}
        self._entered = False
        self.stack: list[int] = []
        self.counting = self.missed = self.allowed = self.unsure = False

    def place_of(self, module: nn.Module) -> int:
        """The index of an owner, or of a child whose functions are not counted."""
        if module not in self.places:
            self.places[module] = len(self.owners)
            self.owners.append(None)
        return self.places[module]

    def begin(self, index: int) -> None:
        """Enter the forward of an owner or of a child."""
        if not is_dynamo_compiling():  # between two graphs, where the compiler confuses modes
            return
        if not self.allowed:  # first it must be shown that this gives one graph
            self.unsure = self.unsure or self.owners[index] is not None
            return
        self.stack.append(index)
        owner = self.owners[index]
        if owner is not None:
            owner.turn = 0
        self._switch()

    def end(self) -> None:
        """Leave a forward."""
        if len(self.stack) > 0 and is_dynamo_compiling():
            owner = self.owners[self.stack.pop()]
            if owner is not None and owner.turn == 0:  # the compiler has given up on its forward
                owner.missed = True
            self._switch()

    def _switch(self) -> None:
        on = len(self.stack) > 0 and self.owners[self.stack[-1]] is not None
        if on and not self._entered:
            self._entered = True
            self.__enter__()
        elif self._entered and not on:
            self._entered = False
            self.__exit__(None, None, None)

    @never_compiled
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_dynamo_compiling() and func in TABLE and not self.counting and len(self.stack) > 0:
            owner = self.owners[self.stack[-1]]
            found = None if owner is None else owner.next(func)
            if found is not None and found.caller is not None:
                return _called(found, found.caller, func, args, kwargs)
        return func(*args, **kwargs)


class TracedOwnForward:
    """Hooks that tell `TracedFunctions` whose forward runs.

    Args:
        functions: counts the functions called in it.
        index: index of the module among the owners.
    """

    def __init__(self, functions: TracedFunctions, index: int) -> None:
        self._functions, self._index = functions, index

    def begin(self, module: nn.Module, args: Any, kwargs: Any = None) -> None:
        self._functions.begin(self._index)

    def end(self, module: nn.Module, args: Any, output: Any) -> None:
        self._functions.end()


def _called(found: FunctionCall, caller: TracedCalls, func: Any, args: Any, kwargs: Any) -> Any:
    """Call an activation on its counted pre-activation."""
    place = found.place
    # The compiler may pass by keyword what torch passes by position.
    if isinstance(place, str) and place not in kwargs:
        place = 0
    elif place == 0 and len(args) == 0:
        place = "input"
    z = kwargs.get(place) if isinstance(place, str) else args[place] if place < len(args) else None
    call = caller.next(z)
    if call is None or z is None:
        return func(*args, **kwargs)
    tapped = caller.tap(call, z, later=True, in_place=found.in_place)
    if tapped is z:
        return func(*args, **kwargs)
    if isinstance(place, str):
        kwargs = {**kwargs, place: tapped}
    else:
        args = (*args[:place], tapped, *args[place + 1 :])
    out = func(*args, **kwargs)
    written = caller.finish(out)
    return out if written is None else written
