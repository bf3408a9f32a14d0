"""Lineage: which layer a tensor comes from, followed through the functions of one forward pass."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from harness.hooks.sites import Origin

SHAPE_FREE = {"transpose", "permute", "movedim", "swapaxes", "t", "T", "mT", "__get__"}
CONVOLUTIONS = {f"conv{transposed}{d}d": d for d in (1, 2, 3) for transposed in ("", "_transpose")}
NORMS = {"batch_norm": 1, "group_norm": 1, "instance_norm": 1, "layer_norm": -1, "rms_norm": -1}
FRESH = ("_like", "new_zeros", "new_ones", "new_full", "new_empty", "new_tensor")  # values of their own
PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm", "einsum", "bilinear"}
OUT_PROJECTION = 11  # place of the weight among the arguments of multi_head_attention_forward


class Lineage:
    """Tensor → Origin during one forward; tensors are not kept alive.

    Args:
        model: whose parameters are known.
    """

    def __init__(self, model: nn.Module) -> None:
        self._owners: dict[int, nn.Module] = {}  # parameter id → module
        for module in model.modules():
            self.own(module)
        self.known: dict[int, tuple[weakref.ref[Tensor], Origin]] = {}

    def own(self, module: nn.Module) -> None:
        """The parameters of a module are known as its own."""
        self._owners.update((id(p), module) for p in module.parameters(recurse=False))

    def clear(self) -> None:
        self.known.clear()

    def put(self, tensor: Tensor, origin: Origin) -> None:
        self.known[id(tensor)] = (weakref.ref(tensor), origin)

    def get(self, tensor: Tensor) -> Origin | None:
        found = self.known.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else None

    def follow(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
        """Give the result(s) of the function `name` their origin."""
        if isinstance(out, Tensor):
            origin = self._origin(name, args, kwargs, out)
            if origin is not None:
                self.put(out, origin)
        elif isinstance(out, tuple | list):
            for part in out:
                if isinstance(part, Tensor):
                    self.follow(name, args, kwargs, part)

    def _origin(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
    ) -> Origin | None:
        if name.endswith(FRESH):
            return None
        weight = self._weight(args, kwargs)
        if name == "multi_head_attention_forward":  # its last matrix makes the units
            last = [*args[OUT_PROJECTION:], kwargs.get("out_proj_weight")]
            return Origin(self._weight(last, {}), -1, direct=False)
        if name in CONVOLUTIONS:
            return Origin(weight, -CONVOLUTIONS[name] - 1, direct=False)
        if name in NORMS:
            axis = -1 if NORMS[name] == -1 else 1 - out.ndim
            return Origin(weight or self._join(args, out, same_shape=True).producer, axis, direct=False)
        if name in ("linear", "embedding"):
            return Origin(weight, -1, direct=False)
        if name in PRODUCTS:
            return Origin(weight, -1, direct=False)
        tensors = list(_tensors(args))
        source = tensors[0] if tensors else None
        known = self.get(source) if source is not None else None
        if name in ("cat", "concat", "concatenate", "stack"):
            return self._join_parts(tensors, out)
        if known is None and len(tensors) < 2:
            return None
        if any(t.shape == out.shape for t in tensors):
            reordered = name in SHAPE_FREE and source is not None
            return self._moved(source, known, out) if reordered else self._join(args, out)
        if known is None or source is None:
            return None
        return self._moved(source, known, out)

    def _weight(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> nn.Module | None:
        """The module whose parameter of two or more axes (or norm weight) takes part in the call."""
        owned = [t for t in _tensors([*args, *kwargs.values()]) if id(t) in self._owners]
        matrices = [t for t in owned if t.ndim > 1] or owned
        return self._owners[id(matrices[0])] if matrices else None

    def _join(self, args: Sequence[Any], out: Tensor, *, same_shape: bool = False) -> Origin:
        """Elementwise: the common origin of the operands that are data (not parameters or constants)."""
        operands = [t for t in _tensors(args) if t.shape == out.shape and id(t) not in self._owners]
        origins = [self.get(t) for t in operands]
        known = [o for o in origins if o is not None]
        axes = {o.axis for o in known}
        producers = {o.producer for o in known}
        single = len(known) == len(origins) and len(producers) == 1
        return Origin(
            producers.pop() if single or (same_shape and len(producers) == 1) else None,
            axes.pop() if len(axes) == 1 else None,
            direct=False,
        )

    def _join_parts(self, parts: list[Tensor], out: Tensor) -> Origin | None:
        origins = [self.get(t) for t in parts]
        first = origins[0] if origins else None
        if first is None or any(o is None or o.axis != first.axis for o in origins):
            return None
        grown = first.axis is not None and out.shape[first.axis] != parts[0].shape[first.axis]
        same = len({o.producer for o in origins if o is not None}) == 1 and not grown
        return Origin(first.producer if same else None, first.axis, direct=False)

    def _moved(self, source: Tensor | None, known: Origin | None, out: Tensor) -> Origin | None:
        """A view: the unit axis is where its stride and size still stand."""
        if source is None or known is None:
            return None
        if known.axis is None:
            return Origin(None, None, direct=False)
        size = source.shape[known.axis]
        stride = source.stride(known.axis)
        shares = out.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()
        if shares:
            places = [d for d in range(out.ndim) if out.shape[d] == size and out.stride(d) == stride]
            if len(places) == 1:
                return Origin(known.producer, places[0] - out.ndim, direct=False)
            parts = [d for d in range(out.ndim) if out.stride(d) == stride and out.shape[d] < size]
            return Origin(None, parts[0] - out.ndim if len(parts) == 1 else -1, direct=False)
        if out.ndim == source.ndim and out.shape[known.axis] == size:  # pooling, padding, slices that copy
            return Origin(known.producer, known.axis, direct=False)
        return Origin(None, -1 if out.ndim <= 2 else None, direct=False)


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)
