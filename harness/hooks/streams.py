"""Which inputs of a forward the rows of a tensor belong to: a mask of one input is not of another.

Two inputs may be padded to the same length, and latents or patches may be as many as the tokens. Then the
shape of a pre-activation does not tell whether a mask is of its rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from harness.graph import operations as ops
from harness.graph.operations import tensors_in
from harness.graph.tensor_map import TensorMap

Inputs = frozenset[str]
NONE: Inputs = frozenset()
UNKNOWN: Inputs = frozenset("?")  # made where nothing was seen, as in a scripted part
QUERIES = {"scaled_dot_product_attention": "query", "multi_head_attention_forward": "query"}
ROWS = ops.LAST_AXIS | set(ops.CONVOLUTIONS) | set(QUERIES)  # each row of the first operand gives one
MOST = 64  # inputs with names
BATCHED = 3  # axes of a first factor that has rows of its own, unlike a matrix of weights


class InputStreams:
    """Tensor → names of the inputs that its rows belong to, in one traced forward.

    Does not keep tensors alive. In a product and in attention the rows are those of the first operand; what
    is the same at all positions adds none.

    Args:
        module: the module that is called.
        args: its positional arguments.
        kwargs: its keyword arguments.
        positions: number of positions of the mask.

    Attributes:
        shapes: input → its shape; without masks.

    Example:
        >>> import torch
        >>> x, y = torch.rand(2, 3), torch.rand(2, 3)
        >>> streams = InputStreams(nn.Bilinear(3, 3, 1), [x, y], {}, 3)
        >>> out = x + y
        >>> streams.follow("add", [x, y], {}, out)
        >>> sorted(streams.of(out))
        ['input1', 'input2']
    """

    def __init__(
        self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], positions: int
    ) -> None:
        self._positions = positions
        self._known = TensorMap[Inputs]()
        self.shapes: dict[str, tuple[int, ...]] = {}
        for name, value in (*zip(_names(module), args, strict=False), *kwargs.items()):
            if not isinstance(value, Tensor):
                continue
            if "mask" in name:
                self._known.put(value, NONE)
                continue
            self.shapes[name] = tuple(value.shape)
            self._known.put(value, frozenset([name]))

    def of(self, tensor: Tensor) -> Inputs:
        """The inputs of a tensor's rows; none for a parameter."""
        found = self._known.get(tensor)
        if found is not None:
            return found
        return NONE if isinstance(tensor, nn.Parameter) else UNKNOWN

    def follow(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
        """Set the inputs of the results of a torch function."""
        written = name in ("__setitem__", "copy_") and bool(args)
        outs = list(tensors_in(args[:1] if written else [out]))
        if not outs:
            return
        if ops.creates(name):
            found = NONE
        else:
            found = NONE.union(*map(self.of, self._givers(name, args, kwargs, outs[0])))
        for one in outs:
            self._known.put(one, found)

    def activated(self, z: Tensor, out: Any) -> None:
        """Set the inputs of an activation's output."""
        if isinstance(out, Tensor):
            self._known.put(out, self.of(z))

    def _givers(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
    ) -> Sequence[Tensor]:
        """The operands whose rows a result has."""
        given = list(tensors_in([*args, *kwargs.values()]))
        first = args[0] if args else kwargs.get(QUERIES.get(name, "input"))
        if name in ROWS and isinstance(first, Tensor):
            return [first]
        if name in ops.PRODUCTS:
            factors = given[1:] if name in ("addmm", "baddbmm", "addmv") else given
            return factors[:1] if factors and factors[0].ndim >= BATCHED else factors
        if name in ops.JOINS or name in ("__setitem__", "copy_"):
            return given
        return [operand for operand in given if not self._is_spread(operand, out)] or given

    def _is_spread(self, operand: Tensor, out: Tensor) -> bool:
        """Whether an operand is the same at all positions of the result, on any axis but the last."""
        if operand.ndim > out.ndim:
            return False
        pairs = zip(reversed(operand.shape), reversed(out.shape), strict=False)
        spread = [size for own, size in list(pairs)[1:] if own == 1 < size]
        return self._positions in spread or (bool(spread) and out.ndim <= BATCHED)  # else over heads


def _names(module: nn.Module) -> Iterator[str]:
    """Names of the positional arguments of a module's forward."""
    try:
        known = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return
    for parameter in known:
        if parameter.kind is parameter.VAR_POSITIONAL:
            yield from (f"{parameter.name}[{place}]" for place in range(MOST))
        yield parameter.name
