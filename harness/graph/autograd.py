"""Which parameters made a tensor, according to autograd's own graph.

Uses public attributes only: `grad_fn.next_functions`, and `variable` of the node of a leaf. A known call is
recognised in half a microsecond; otherwise a walk finds the nearest parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor

MOST = 96  # largest number of nodes in a walk
DEEP = 6  # largest number of views and casts between a product and its weight
VIEWS = ("T", "Transpose", "View", "UnsafeView", "Permute", "ToCopy", "Expand", "Reshape", "ReshapeAlias")
VIEWS += ("Clone", "Squeeze", "Unsqueeze", "Alias", "Slice", "Select", "Contiguous", "Mul", "Div")
PRODUCTS = ("Addmm", "Mm", "Bmm", "Baddbmm", "Addmv", "Mv", "Linear", "Convolution", "Bilinear")
PRODUCTS += ("MkldnnConvolution", "SlowConv", "Embedding", "ThnnConv")
NORMS = ("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "NativeLayerNorm", "NativeGroupNorm")
NORMS += ("FusedRmsNorm",)
ACTIVATIONS = ("Relu", "Gelu", "Silu", "Elu", "LeakyRelu", "Hardtanh", "Hardswish", "Hardsigmoid", "Sigmoid")
ACTIVATIONS += ("Tanh", "Softplus", "Threshold", "Mish", "Prelu", "PreluKernel", "Celu", "Selu", "Clamp")
CHOOSING = ("Slice", "Select", "Split", "SplitWithSizes", "Unbind", "Transpose", "Permute", "AsStrided")
CHOOSING += (
    "Diagonal",
    "Unfold",
    "Flip",
    "Roll",
    "Index",
    "IndexSelect",
)  # the numbers they store tell which part of a tensor they select


def nodes(start: Iterable[Any], most: int, stop: Container[Any] = ()) -> Iterator[Any]:
    """At most so many nodes of a graph from some nodes on, without those to stop at and all behind them."""
    queue = [node for node in start if node not in stop]
    seen = set(queue)
    for node in queue:  # grows during the loop
        yield node
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen and parent not in stop and len(seen) < most:
                seen.add(parent)
                queue.append(parent)


class Leaf(NamedTuple):
    """A parameter behind a pre-activation.

    Attributes:
        path: places in `next_functions` that lead to it from the pre-activation's node.
        variable: the parameter.
        layer: path to the node that used it.
        kind: kind of that node, such as Addmm or Convolution.
    """

    path: tuple[int, ...]
    variable: Tensor
    layer: tuple[int, ...] = ()
    kind: str = ""


class Ancestry(NamedTuple):
    """The nearest parameters behind a tensor.

    Attributes:
        leaves: in the order of the walk; empty if no graph is recorded.
        hidden: whether the walk met a layer without a trainable parameter (such as a frozen one).
    """

    leaves: tuple[Leaf, ...] = ()
    hidden: bool = False


NOTHING = Ancestry()


def ancestry(tensor: Tensor) -> Ancestry:
    """The nearest parameters behind a tensor.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 3)
        >>> found = ancestry(layer(torch.ones(1, 2)) + 1)
        >>> found.leaves[0].path, found.leaves[0].variable is layer.bias
        ((0, 0), True)
    """
    root = tensor.grad_fn
    if root is None:
        return NOTHING
    leaves: list[Leaf] = []
    hidden = False
    queue: list[tuple[Any, tuple[int, ...]]] = [(root, ())]
    seen = {root}
    for node, path in queue:  # grows during the loop
        kind = _kind(node)
        inside = kind in PRODUCTS or kind in NORMS
        own, others = [], []
        for place, (parent, _) in enumerate(node.next_functions):
            if parent is None:
                continue
            leaf = _leaf(parent, (*path, place), path, kind, DEEP if inside else 1)
            if leaf is not None:
                own.append(leaf)
            elif parent not in seen:
                seen.add(parent)
                others.append((parent, (*path, place)))
        leaves += own
        if own and inside:
            continue
        if inside and any(parent is None for parent, _ in node.next_functions):
            hidden = True
            if kind in PRODUCTS:
                continue
        if kind not in ACTIVATIONS and len(queue) < MOST:
            queue += others
    return Ancestry(tuple(leaves), hidden)


def is_of_compiled(tensor: Tensor) -> bool:
    """Whether compiled code made a tensor or one of its ancestors, hidden from autograd's graph.

    Example:
        >>> import torch
        >>> is_of_compiled(torch.nn.Linear(2, 3)(torch.ones(1, 2)))
        False
    """
    queue = [tensor.grad_fn]
    seen = {*queue}
    for node in queue:  # grows during the loop
        if node is None or len(seen) > MOST:
            continue
        kind = _kind(node)
        if kind == "CompiledFunction":
            return True
        if kind not in ACTIVATIONS:
            queue += [parent for parent, _ in node.next_functions if parent not in seen]
            seen.update(queue)
    return False


class Way(NamedTuple):
    """The path from a pre-activation to a parameter behind it, by which a call is recognised.

    Attributes:
        kinds: types of the nodes on the path, starting with the pre-activation's.
        places: for each node, the place of the next one in `next_functions`.
        variable: the parameter.
    """

    kinds: tuple[type, ...]
    places: tuple[int, ...]
    variable: Tensor

    def leads_from(self, node: Any) -> bool:
        """Whether the path leads from a node, through nodes of the same kinds, to the parameter."""
        for kind, place in zip(self.kinds, self.places, strict=True):
            if type(node) is not kind:
                return False
            node = node.next_functions[place][0]
        return getattr(node, "variable", None) is self.variable


def ways_to(tensor: Tensor, leaves: tuple[Leaf, ...]) -> tuple[Way, ...]:
    """A path to one parameter of each layer behind a tensor, shortest first."""
    layers: dict[tuple[int, ...], Leaf] = {}
    for leaf in leaves:
        layers.setdefault(leaf.layer, leaf)
    ways = []
    for leaf in sorted(layers.values(), key=lambda one: len(one.path)):
        kinds = tuple(type(node_at(tensor, leaf.path[:depth])) for depth in range(len(leaf.path)))
        ways.append(Way(kinds, leaf.path, leaf.variable))
    return tuple(ways)


Choice = tuple[tuple[int, ...], str, Any]  # path to a node, name of a number that it stores, the number
Read = Callable[[Any, str], Any]


def choices_of(
    tensor: Tensor, ways: tuple[Way, ...], names: Callable[[Any], Sequence[str]], read: Read
) -> set[Choice]:
    """Which part of a layer's output a tensor is, from the selections on the paths to its parameters.

    Args:
        tensor: the pre-activation.
        ways: paths to its parameters.
        names: node → names of the numbers that it stores, such as the start of a slice.
        read: (node, name) → such a number.
    """
    choices: set[Choice] = set()
    for way in ways or (Way((type(tensor.grad_fn),), (0,), tensor),):
        for depth in range(len(way.places)):
            path = way.places[:depth]
            node = node_at(tensor, path)
            kind = "" if node is None else _kind(node)
            if kind in CHOOSING:
                choices |= {(path, name, read(node, name)) for name in names(node)}
            if kind in CHOOSING or (not depth and kind not in PRODUCTS and kind not in NORMS):
                choices.add((path, "", output_at(tensor, path)))
    return choices


def has_choices(tensor: Tensor, choices: set[Choice], read: Read) -> bool:
    """Whether the same part is selected in another tensor with the same paths."""
    return all(
        (read(node_at(tensor, path), name) if name else output_at(tensor, path)) == value
        for path, name, value in choices
    )


def node_at(tensor: Tensor, path: tuple[int, ...]) -> Any:
    """The node of autograd's graph at a path from a tensor."""
    node: Any = tensor.grad_fn
    for place in path:
        node = node.next_functions[place][0]
    return node


def output_at(tensor: Tensor, path: tuple[int, ...]) -> int:
    """Which output of the node at a path is used."""
    return node_at(tensor, path[:-1]).next_functions[path[-1]][1] if path else tensor.output_nr


def _leaf(node: Any, path: tuple[int, ...], layer: tuple[int, ...], kind: str, depth: int) -> Leaf | None:
    """The parameter behind a node, if only views and casts lie in between."""
    for _ in range(depth):
        variable = getattr(node, "variable", None)
        if variable is not None:
            return Leaf(path, variable, layer, kind)
        parents = [(place, p) for place, (p, _) in enumerate(node.next_functions) if p is not None]
        if len(parents) != 1 or _kind(node) not in VIEWS:
            return None
        path, node = (*path, parents[0][0]), parents[0][1]
    variable = getattr(node, "variable", None)
    return None if variable is None else Leaf(path, variable, layer, kind)


def _kind(node: Any) -> str:
    """AddmmBackward0 → Addmm."""
    return node.name().split("Backward")[0].rpartition("::")[2]
