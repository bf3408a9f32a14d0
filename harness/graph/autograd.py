"""Which parameters made a tensor, as autograd's own graph tells it.

Only public attributes are used: `grad_fn.next_functions`, and `variable` of the node of a leaf. So a call can
be held against the Plan in half a microsecond, and without one the nearest parameters are found by a walk.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

MOST = 96  # nodes of a walk
DEEP = 6  # views and casts between a product and its weight
VIEWS = ("T", "Transpose", "View", "UnsafeView", "Permute", "ToCopy", "Expand", "Reshape", "ReshapeAlias")
VIEWS += ("Clone", "Squeeze", "Unsqueeze", "Alias", "Slice", "Select", "Contiguous", "Mul", "Div")
PRODUCTS = ("Addmm", "Mm", "Bmm", "Baddbmm", "Addmv", "Mv", "Linear", "Convolution", "Bilinear")
PRODUCTS += ("MkldnnConvolution", "SlowConv", "Embedding", "ThnnConv")
NORMS = ("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "NativeLayerNorm", "NativeGroupNorm")
NORMS += ("FusedRmsNorm",)
ACTIVATIONS = ("Relu", "Gelu", "Silu", "Elu", "LeakyRelu", "Hardtanh", "Hardswish", "Hardsigmoid", "Sigmoid")
ACTIVATIONS += ("Tanh", "Softplus", "Threshold", "Mish", "Prelu", "PreluKernel", "Celu", "Selu", "Clamp")


class Leaf(NamedTuple):
    """A parameter behind a pre-activation.

    Attributes:
        path: to it from the pre-activation's node: places in `next_functions`.
        variable: the parameter.
        layer: path to the node that used it.
        kind: of that node, such as Addmm or Convolution.
    """

    path: tuple[int, ...]
    variable: Tensor
    layer: tuple[int, ...] = ()
    kind: str = ""


class Ancestry(NamedTuple):
    """The nearest parameters behind a tensor.

    Attributes:
        leaves: in the order of the walk; empty where no graph is recorded.
        hidden: whether a layer without a trainable parameter stood in the way (it is frozen, say).
    """

    leaves: tuple[Leaf, ...] = ()
    hidden: bool = False

    @property
    def identity(self) -> frozenset[int]:
        """What tells calls by different layers apart."""
        return frozenset(id(leaf.variable) for leaf in self.leaves)


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
    for node, path in queue:  # grows while it is walked
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


Way = tuple[tuple[int, ...], Tensor]  # path to a parameter, and the parameter


def ways_to(leaves: tuple[Leaf, ...], most: int = 4) -> tuple[Way, ...]:
    """What a call is held against: one parameter of each layer, the nearest layers first."""
    layers: dict[tuple[int, ...], Leaf] = {}
    for leaf in leaves:
        layers.setdefault(leaf.layer, leaf)
    nearest = sorted(layers.values(), key=lambda leaf: len(leaf.path))[:most]
    return tuple((leaf.path, leaf.variable) for leaf in nearest)


def is_made_by(tensor: Tensor, ways: tuple[Way, ...]) -> bool:
    """Whether these parameters stand behind a tensor in these places; without any: whether no graph does."""
    node: Any = tensor.grad_fn
    if not ways:
        return node is None
    root = node
    try:
        for path, variable in ways:
            node = root
            for place in path:
                node = node.next_functions[place][0]
            if node.variable is not variable:
                return False
    except (AttributeError, IndexError):
        return False
    return True


def _leaf(node: Any, path: tuple[int, ...], layer: tuple[int, ...], kind: str, depth: int) -> Leaf | None:
    """The parameter behind a node, through views and casts alone."""
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
