"""What torch functions do to the units of their operands, by function name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Weight = TypeVar("Weight")

PLAIN_CONVOLUTIONS = {f"conv{d}d": d for d in (1, 2, 3)}
CONVOLUTIONS = PLAIN_CONVOLUTIONS | {f"conv_transpose{d}d": d for d in (1, 2, 3)}
CONVOLUTIONS |= {"convolution": 2, "deform_conv2d": 2}
CHANNEL_NORMS = {"batch_norm", "group_norm", "instance_norm", "native_batch_norm", "native_group_norm"}
TRAILING_NORMS = {"layer_norm", "rms_norm", "native_layer_norm"}
NORMS = CHANNEL_NORMS | TRAILING_NORMS
MIXING_NORMS = TRAILING_NORMS | {"group_norm", "native_group_norm"}  # outputs of a unit depend on the others
LAST_AXIS = {"linear", "embedding", "embedding_bag", "bilinear"}
FUSED_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell"}
FUSED_RECURRENT |= {"rnn_tanh_cell", "rnn_relu_cell"}
PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm", "mv", "addmv"}
PRODUCTS |= {"einsum", "tensordot"}
TURNS = {"T", "mT", "H", "mH"}  # attributes
TRANSPOSITIONS = TURNS | {"t", "adjoint", "transpose", "swapaxes", "swapdims", "permute"}
SELECTIONS = {"__getitem__", "chunk", "split", "narrow", "select", "unbind", "tensor_split"}
SELECTIONS |= {"split_with_sizes", "index_select", "take_along_dim"}  # they may leave entries out
MOVES = SELECTIONS | TRANSPOSITIONS - TURNS | {"flatten", "reshape", "view", "movedim", "moveaxis", "squeeze"}
MOVES |= {"unsqueeze", "unflatten", "expand", "expand_as", "view_as", "reshape_as", "ravel", "flip", "roll"}
MOVES |= {"repeat", "tile", "repeat_interleave", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle"}
SCALINGS = {"mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply", "div", "__truediv__", "divide"}
DIFFERENCES = {"sub", "__sub__", "__rsub__", "subtract", "rsub"}
JOINS = {"cat", "concat", "concatenate", "stack", "hstack", "vstack"}
EXTREMES = {"amax", "amin", "max", "min"}
REDUCTIONS = EXTREMES | {"mean", "sum", "prod", "norm", "logsumexp", "std", "var", "median"}
REDUCTIONS |= {"nanmean", "nansum", "vector_norm", "linalg_vector_norm", "linalg_norm", "argmax", "argmin"}
SQUARES = {"pow", "pow_", "__pow__", "square", "square_", "abs"}  # their sums are distances
POOLINGS = EXTREMES | {"mean", "sum", "nanmean", "nansum", "logsumexp"}
DISTANCES = {"cdist", "pairwise_distance", "cosine_similarity", "dist", "dot", "vdot", "inner"}
ORDER = {"topk", "sort", "msort", "kthvalue", "cummax", "cummin"}
CREATIONS = {"zeros", "ones", "full", "empty", "rand", "randn", "randint", "arange", "tensor", "linspace"}
CREATIONS |= {"eye", "as_tensor", "from_numpy", "bernoulli", "normal", "scalar_tensor"}
# Creations whose values may be a model's input: random numbers, or data of other libraries.
FROM_OUTSIDE = {"rand", "randn", "rand_like", "randn_like", "bernoulli", "normal"}
FROM_OUTSIDE |= {"tensor", "as_tensor", "from_numpy"}
COPIES = {"contiguous", "clone", "to", "float", "double", "half", "bfloat16", "type_as"}
DROPOUTS = {"dropout", "dropout_", "feature_dropout", "dropout1d", "dropout2d", "dropout3d"}
ADDITIONS = {"add", "add_", "__add__", "__radd__", "__iadd__"}
SUMS = ADDITIONS | DIFFERENCES
KEEP_DIRECT = ADDITIONS | COPIES | DROPOUTS | {"alpha_dropout", "requires_grad_", "pad"}
# Functions that pass on each unit separately, and a zero as a zero, at any position and for any other values.
KEEP_UNITS = COPIES | DROPOUTS | {"detach", "data"}
POOLS = {f"{a}{kind}_pool{d}d": d for a in ("", "adaptive_") for kind in ("max", "avg") for d in (1, 2, 3)}
KEEP_ZEROS = {"mean", "sum", "amax"}  # reductions over positions
FRESH = ("_like", "new_zeros", "new_ones", "new_full", "new_empty", "new_tensor")  # results with new values
OUT_PROJECTION = 11  # index of the weight among the arguments of multi_head_attention_forward


def of_last_layer(args: Sequence[Any], weights: Sequence[Weight]) -> list[Weight]:
    """The weights of a fused recurrent function's last layer, which makes its units.

    Args:
        args: its arguments; the first whole number among them is that of its layers.
        weights: the weights of all layers, in their order.
    """
    layers = next((arg for arg in args if isinstance(arg, int) and not isinstance(arg, bool)), 1)
    return list(weights[len(weights) - len(weights) // layers :]) if layers else list(weights)


def function_name(function: Any) -> str:
    """Name of a torch function, method or operator overload, or of a property that is read.

    >>> import torch
    >>> function_name(torch.Tensor.T.__get__), function_name(torch.ops.aten.relu.default)
    ('T', 'relu')
    """
    name = getattr(function, "__name__", "") or ""
    if name == "__get__":
        return getattr(function.__self__, "__name__", name)
    return name.split(".")[0]


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among some values, including those in tuples and lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from tensors_in(value)


def creates(name: str) -> bool:
    """Whether the result has new values that do not depend on the model's data."""
    return name in CREATIONS or name.endswith(FRESH)


def creates_zeros(name: str) -> bool:
    """Whether all values of the result are 0."""
    return name in ("zeros", "zeros_like", "new_zeros")


def broadcasts(given: Iterable[Any], out: Tensor) -> bool:
    """Whether a result has the shape to which all tensors among some arguments broadcast.

    >>> import torch
    >>> broadcasts([torch.ones(2, 3, 1), torch.ones(3, 4)], torch.ones(2, 3, 4))
    True
    """
    try:
        return torch.broadcast_shapes(*(tensor.shape for tensor in tensors_in(given))) == out.shape
    except RuntimeError:
        return False


def keeps_units(name: str, x: Tensor, axes: Sequence[int]) -> bool:
    """Whether a function passes on each unit separately, and a zero as a zero.

    Args:
        name: name of the function.
        x: its first argument.
        axes: axes, from the end, along which the unit changes.

    >>> import torch
    >>> x = torch.zeros(2, 3, 4)
    >>> keeps_units("max_pool1d", x, [-2]), keeps_units("max_pool1d", x, [-1]), keeps_units("mul", x, [-2])
    (True, False, False)
    """
    pooled = x.ndim - 2 if name == "interpolate" else POOLS.get(name, 0)
    if pooled:
        return all(axis < -pooled for axis in axes)
    return name in KEEP_UNITS or name in MOVES or name in TURNS


def einsum_axes(equation: Any, weight: int, operands: int, ndim: int) -> list[int] | None:
    """Axes of the result, from the end, along which the weights differ; None if they cannot be told.

    Args:
        equation: equation of the einsum.
        weight: index of the weight among the operands.
        operands: number of operands.
        ndim: number of axes of the result.

    >>> einsum_axes("oc,bcl->bol", 0, 2, 3), einsum_axes("bi,oi->bo", 1, 2, 2)
    ([-2], [-1])
    >>> einsum_axes("btd,hdk->bthk", 1, 2, 4), einsum_axes("...d,dh->h...", 1, 2, 3)
    ([-2, -1], [-3])
    """
    if not isinstance(equation, str) or "->" not in equation:
        return None
    left, right = equation.replace(" ", "").split("->")
    terms = left.split(",")
    if len(terms) != operands or "." in terms[weight]:
        return None
    head, _, tail = right.partition("...") if "..." in right else ("", "", right)
    own = [label for label in terms[weight] if label in right]
    places = [head.index(one) - ndim if one in head else tail.index(one) - len(tail) for one in own]
    return sorted(places) or None


def tensordot_axes(
    args: Sequence[Any], kwargs: Mapping[str, Any], own: int, ndim: int, *, first: bool
) -> list[int]:
    """Axes of the result, from the end, that are the weight's own.

    Args:
        args: arguments of `tensordot`.
        kwargs: its keyword arguments.
        own: number of axes of the weight.
        ndim: number of axes of the result.
        first: whether the weight is the first factor.

    >>> tensordot_axes((None, None, 1), {}, 2, 3, first=False), tensordot_axes((), {}, 3, 2, first=True)
    ([-1], [-2])
    >>> tensordot_axes((None, None, ([1, 2], [0, 1])), {}, 3, 2, first=False)
    [-1]
    """
    dims = args[2] if len(args) > 2 else kwargs.get("dims", 2)
    kept = own - (dims if isinstance(dims, int) else len(dims[0]))
    start = -ndim if first else -kept
    return list(range(start, start + kept))


def transposes(name: str, args: Sequence[Any], ndim: int) -> bool:
    """Whether a call swaps the last two of so many axes.

    >>> transposes("t", (), 2), transposes("transpose", (None, 0, 1), 3)
    (True, False)
    """
    if name not in TRANSPOSITIONS or ndim < 2:
        return False
    dims = list(args[1]) if len(args) == 2 and isinstance(args[1], list | tuple) else list(args[1:])
    if name == "permute":
        return [dim % ndim for dim in dims[-2:]] == [ndim - 1, ndim - 2]
    return not dims or {dim % ndim for dim in dims} == {ndim - 1, ndim - 2}


def dims_of(args: Sequence[Any], kwargs: Any, place: int = 1) -> list[int] | None:
    """The axes given to a reduction, None for all."""
    given = kwargs.get("dim", kwargs.get("axis", args[place] if len(args) > place else None))
    if isinstance(given, bool | Tensor):
        return None
    if isinstance(given, int):
        return [given]
    if isinstance(given, list | tuple) and all(isinstance(one, int) for one in given):
        return list(given) or None
    return None
