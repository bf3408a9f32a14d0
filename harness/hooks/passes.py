"""Which passes through autograd's graph train: those of `backward()`, but not those inside a loss.

A gradient hook fires in every pass. A loss that takes gradients itself (a gradient penalty, the derivatives
of a physics-informed network, the inner steps of MAML) runs passes of `torch.autograd.grad`, which do not
compute gradients of the loss. A pass of `backward()` is recognised by its accumulation into the leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle, unserializable_hook

from harness.graph.autograd import nodes
from harness.hooks._torch import accumulates, graph_task, leaf_node

MOST = 10_000  # nodes visited in search of a leaf
NOT_KNOWN = (
    "grad_rms is not known: it is of the passes of backward(), but gradients were taken by "
    "torch.autograd.grad or torch.func alone"
)

WRITTEN_VIEW = "grad_rms is not known: its activation writes into a view whose gradient cannot be observed"
USED_TWICE = (
    "grad_rms is not known in compiled code, since something else is computed from its pre-activation, too"
)
OUT_OF_SIGHT = (
    "grad_rms is not known: it runs without a graph (under torch.no_grad, or in a checkpoint with "
    "use_reentrant=True), and no module shows that it runs again in the backward pass"
)


class GradientPasses:
    """Tells hooks on pre-activations whether the running pass trains.

    Args:
        model: backward passes usually accumulate into its parameters.

    Attributes:
        dropped: whether some pass did not train.
    """

    __slots__ = ("_known", "_latest", "_model", "dropped")

    def __init__(self, model: nn.Module) -> None:
        self._model = ref(model)  # a graph that the model keeps holds hooks that hold this
        self._known = (-1, True)  # the last pass that was examined, and whether it trains
        self._latest: Callable[[], Tensor | None] = lambda: None  # a leaf that it reached, tried first
        self.dropped = False

    def train(self, below: Any = None) -> bool:
        """Whether the running pass is one of `backward()`.

        Args:
            below: nodes behind the hooked tensor, as returned by the function `below`, or a leaf's node.
        """
        task, known = graph_task(), self._known
        if known[0] == task:
            return known[1]
        try:
            found = accumulates(below) or self._accumulates(below)
        except Exception:  # inside torch.func.grad, where parameters have no node
            found = False
        self.dropped |= not found
        self._known = task, found
        return found

    def hook(self, backward: Callable[[Tensor], None], below: Any, gradient: Tensor) -> None:
        """Pass a gradient on if the running pass trains."""
        if self.train(below):
            backward(gradient)

    def _accumulates(self, below: Any) -> bool:
        """Whether the running pass accumulates into some leaf."""
        latest = self._latest()
        if latest is not None and latest.requires_grad and accumulates(leaf_node(latest)):
            return True
        for node in self._leaves(below):
            if accumulates(node):
                self._latest = ref(node.variable)
                return True
        return False

    def _leaves(self, below: Any) -> Iterator[Any]:
        """Nodes of leaves: those of the model's parameters, then all behind a tensor."""
        model = self._model()
        parameters = () if model is None else (p for p in model.parameters() if p.requires_grad)
        leaf = below() if isinstance(below, ref) else None
        behind = [leaf_node(leaf)] if leaf is not None else below if isinstance(below, tuple) else ()
        leaves = (node for node in nodes(behind, MOST) if hasattr(node, "variable"))
        return chain(map(leaf_node, parameters), leaves)


class LeafHooks:
    """Hooks on leaves of the graph, which outlive a backward pass: parameters, or inputs that are trained.

    Each is removed once a pass that trains has given it a gradient, which is that of all calls on the leaf.

    Args:
        passes: decides which passes train.
    """

    __slots__ = ("_handles", "_passes")

    def __init__(self, passes: GradientPasses) -> None:
        self._passes = passes
        self._handles: dict[tuple[int, int], tuple[ref[Tensor], RemovableHandle]] = {}

    def watch(self, leaf: Tensor, statistics: object, backward: Callable[[Tensor], None]) -> None:
        """Pass the next gradient of a leaf on, once for the same statistics."""
        place, behind = (id(leaf), id(statistics)), ref(leaf)
        known = self._handles.get(place)
        if known is not None and known[0]() is leaf:
            return

        @unserializable_hook
        def hook(gradient: Tensor) -> None:
            if self._passes.train(behind):
                self._handles.pop(place)[1].remove()
                backward(gradient)

        if len(self._handles) >= MOST:
            self._handles = {place: known for place, known in self._handles.items() if known[0]() is not None}
        self._handles[place] = behind, leaf.register_hook(hook)

    def detach(self) -> None:
        """Remove the hooks that are left."""
        for _, handle in self._handles.values():
            handle.remove()
        self._handles.clear()


def unless_recorded(backward: Callable[[Tensor], None], gradient: Tensor) -> None:
    """Pass a gradient on, except in a pass that records a graph.

    A forward that runs again in a backward pass may take derivatives itself; the pass that then propagates
    the gradient of the loss records none.
    """
    if not torch.is_grad_enabled():
        backward(gradient)


def below(z: Tensor) -> Any:
    """Nodes behind a tensor, without its own, which would keep alive a hook that holds it."""
    node = z.grad_fn
    if node is None:
        return ref(z)
    return tuple(parent for parent, _ in node.next_functions if parent is not None)
