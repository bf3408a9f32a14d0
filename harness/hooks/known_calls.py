"""Known calls: how a repeated call is recognised, and the fast path that counts it.

A small network spends more time in Python than in arithmetic. So if autograd's graph shows that a
pre-activation was made like an earlier one, one compiled call counts it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from harness.graph.autograd import Leaf, ancestry, choices_of, has_choices, ways_to
from harness.graph.units import UnitLayout, units_in
from harness.hooks._torch import base_to_watch, number_of, numbers_of, watch_gradient
from harness.hooks.course import Course
from harness.hooks.passes import GradientPasses, below
from harness.hooks.sites import OpenSite
from harness.kernels.prepared import CheckedCall, PreparedCall

MOST = 64  # shapes of one making with a fast path
MANY = 512  # known makings of one caller

FastPath = PreparedCall | CheckedCall


def _never() -> bool:
    return False


def _is_trained(z: Tensor) -> bool:
    """Whether a parameter, and not only an input, is behind a pre-activation."""
    return any(isinstance(leaf.variable, nn.Parameter) for leaf in ancestry(z).leaves)


class KnownCall:
    """Calls of a site with the same making: how to recognise them, and the fast paths that count them.

    Args:
        opened: the site.
        leaves: the parameters behind the pre-activation; empty if no graph shows them.
        layout: layout of the units.
        z: a pre-activation.
        course: knows which layer ran last, which decides if no parameter leads to the pre-activation.
        passes: decides which gradients count; None: ∂L/∂z is not observed.
        before: called for every gradient before it is counted.
        writes: whether the activation works in place now.

    Attributes:
        without: whether its pre-activations have no graph.
    """

    __slots__ = (
        "_before",
        "_choices",
        "_kind",
        "_last",
        "_latest",
        "_layer",
        "_passes",
        "_path_for",
        "_place",
        "_prepared",
        "_variable",
        "_ways",
        "_writes",
        "layout",
        "ndim",
        "opened",
        "without",
    )

    def __init__(
        self,
        opened: OpenSite,
        leaves: tuple[Leaf, ...],
        layout: UnitLayout,
        z: Tensor,
        course: Course,
        passes: GradientPasses | None,
        before: Callable[[], None] | None,
        writes: Callable[[], bool],
    ) -> None:
        self._writes = writes
        self._last = course.last
        self._layer = self._last.layer
        self.opened, self.layout, self.ndim = opened, layout, z.ndim
        self._ways = ways_to(z, leaves)
        self._kind: type = type(z.grad_fn)
        self.without = z.grad_fn is None
        self._choices = choices_of(z, self._ways, numbers_of, number_of)
        near = len(self._ways) == 1 and len(self._ways[0].places) == 1  # usually: a layer right before it
        self._place = self._ways[0].places[0] if near and not self._choices else -1
        self._variable = self._ways[0].variable if near else None
        self._passes, self._before = passes, before
        self._path_for: Callable[[Tensor], FastPath | None] | None = None
        self._prepared: dict[Any, FastPath] = {}
        self._latest: FastPath | None = None

    def count(self, z: Any, forward: int) -> bool:
        """Count a pre-activation; return False without counting if its making or shape differs."""
        prepared, place, leaf = self._latest, self._place, None
        if prepared is None:
            return False
        if place < 0:
            if self.without:
                if getattr(z, "grad_fn", z) is not None or self._last.layer is not self._layer:
                    return False
            elif not self.made(z):
                return False
        else:
            try:
                node = z.grad_fn
                if type(node) is not self._kind:
                    return False
                leaf = node.next_functions[place][0]
                if leaf.variable is not self._variable:
                    return False
            except AttributeError:  # a frozen parameter
                return False
        opened = self.opened
        same_forward = opened.forward == forward
        if not prepared.forward(z, same_forward):
            prepared = self._like(z)
            if prepared is None or not prepared.forward(z, same_forward):
                return False
            self._latest = prepared
        opened.forward = forward
        if self._passes is not None and z.requires_grad:
            base = base_to_watch(z, self._writes)
            behind = below(z if base is None else base) if place < 0 else leaf
            watch_gradient(z, partial(_counted, self._passes, self._before, behind, prepared), base)
        return True

    def _like(self, z: Tensor) -> FastPath | None:
        """The fast path for tensors like z, which is made now if it is new."""
        try:
            like = z.shape, z.stride(), z.dtype
        except RuntimeError:  # nested
            return None
        found = self._prepared.get(like)
        if found is None and self._path_for is not None and type(z) is Tensor and self.fits(z):
            found = self._path_for(z)
            if found is not None:
                if len(self._prepared) >= MOST:
                    del self._prepared[next(iter(self._prepared))]
                self._prepared[like] = found
        return found

    def prepare(self, z: Tensor, path_for: Callable[[Tensor], FastPath | None] | None) -> None:
        """Take the fast path for tensors like z from now on.

        Args:
            z: a pre-activation.
            path_for: makes the fast path for tensors like one; None if the site has none.
        """
        if self._path_for is None and path_for is not None:
            self._path_for = path_for
            self._latest = self._like(z)

    def made(self, z: Tensor) -> bool:
        """Whether z was made in the same way."""
        return self._leads(z) and has_choices(z, self._choices, number_of)

    def fits(self, z: Tensor) -> bool:
        """Whether z has the same unit layout."""
        return self.ndim == z.ndim and units_in(z.shape, self.layout) == self.opened.site.size

    def covers(self, z: Tensor) -> bool:
        """Whether z belongs to the same site and has the same making except for choices such as slices.

        From now on these choices are covered, too: what differs between two calls of a site, such as the time
        step, does not tell sites apart.
        """
        if self.ndim != z.ndim or not self._leads(z):
            return False
        self._choices &= choices_of(z, self._ways, numbers_of, number_of)
        return True

    def _leads(self, z: Tensor) -> bool:
        node = z.grad_fn
        if type(node) is not self._kind:
            return False
        if self._ways:
            return all(way.leads_from(node) for way in self._ways)
        return self._last.layer is self._layer and (self.without or not _is_trained(z))


def _counted(
    passes: GradientPasses,
    before: Callable[[], None] | None,
    leaf: Any,
    prepared: FastPath,
    gradient: Tensor,
) -> None:
    """Count ∂L/∂z of a pass that trains; `GradientPasses.hook` would cost another call.

    No method: it must not keep the model alive, which may keep the graph of its last output.
    """
    if passes.train(leaf):
        if before is not None:
            before()
        prepared.backward(gradient)


class KnownCalls:
    """The known calls of one caller, tried in turn: a shared module is called in the same order every time.

    Without a graph, nothing tells the sites of a caller apart but the order of its calls in a forward.

    Args:
        course: the course of the running forward.
        writes: whether the activation works in place now.

    Attributes:
        writes: the same.
        only: the known call, if there is just one.
        ordered: whether calls without a graph are told apart by their order.
    """

    __slots__ = (
        "_calls",
        "_course",
        "_forward",
        "_now",
        "_orders",
        "_taken",
        "_turn",
        "_without",
        "only",
        "ordered",
        "writes",
    )

    def __init__(self, course: Course, writes: Callable[[], bool] = _never) -> None:
        self.writes, self.ordered = writes, False
        self._calls: list[KnownCall] = []
        self._turn = 0
        self.only: KnownCall | None = None
        self._without: KnownCall | None = None  # the known call without a graph, unless they are ordered
        self._course = course
        self._orders: dict[Any, list[KnownCall]] = {}  # by course
        self._now: list[KnownCall] = []  # calls without a graph in the forward that came last
        self._forward, self._taken = 0, None  # its number and course

    def count(self, z: Any, forward: int) -> bool:
        """Count a pre-activation if one of the known calls has its making and shape."""
        if (self.ordered or self._without is not None) and getattr(z, "grad_fn", z) is None:
            call = self._next(forward) if self.ordered else self._without
            if call is None or not call.count(z, forward):
                return False
            if self.ordered:
                self._now.append(call)
            return True
        calls, turn = self._calls, self._turn
        for step in range(len(calls)):
            place = (turn + step) % len(calls)
            if calls[place].count(z, forward):
                self._turn = place + 1
                return True
        return False

    @property
    def full(self) -> bool:
        """Whether no further making can be added."""
        return len(self._calls) >= MANY

    def add(self, call: KnownCall) -> None:
        """Add a known call."""
        self._calls.append(call)
        self.only = call if len(self._calls) == 1 else None
        if call.without:
            several = any(one.without for one in self._calls[:-1])
            self._without = None if several else call

    def find(self, z: Tensor, forward: int) -> KnownCall | None:
        """A known call with the same making and the same unit layout."""
        if self.ordered and z.grad_fn is None:
            call = self._next(forward)
            if call is None or not call.fits(z) or not call.made(z):
                return None
            self._now.append(call)
            return call
        return self.knows(z)

    def knows(self, z: Tensor) -> KnownCall | None:
        """The same, without telling the sites of calls without a graph apart."""
        return next((call for call in self._calls if call.fits(z) and call.made(z)), None)

    def learn(self, call: KnownCall, forward: int) -> None:
        """Record a call without a graph in a traced forward."""
        if forward != self._forward:
            self._start(forward)
        self._now.append(call)

    def _next(self, forward: int) -> KnownCall | None:
        """The call that comes next in this forward, as in earlier ones that took the same course."""
        if forward != self._forward:
            self._start(forward)
        order = self._orders.get(self._taken, ())
        if len(self._now) >= len(order):
            return None
        self._course.relied = True
        return order[len(self._now)]

    def _start(self, forward: int) -> None:
        """Compare the last forward with those before, and start another."""
        if self._now and self._orders.setdefault(self._taken, self._now) != self._now:
            if self.ordered:
                self._course.broken = True
            else:
                self._orders[self._taken] = self._now
        self._forward, self._taken, self._now = forward, self._course.taken, []

    def is_ambiguous(self, z: Tensor, opened: OpenSite) -> bool:
        """Whether a call of another site has the same making, so that only a trace tells them apart."""
        return any(call.opened is not opened and call.fits(z) and call.made(z) for call in self._calls)

    def of(self, z: Tensor, opened: OpenSite, layout: UnitLayout) -> KnownCall | None:
        """The known call of this site that covers z."""
        same = (call for call in self._calls if call.opened is opened and call.layout == layout)
        return next((call for call in same if call.covers(z)), None)
