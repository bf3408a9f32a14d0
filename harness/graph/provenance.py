"""Where tensors come from: which weights made their units, followed through one forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.graph import operations as ops
from harness.graph import units
from harness.graph.copies import at_knots, have_knots, spans, with_own_weights
from harness.graph.joins import SIDE_BY_SIDE, joined, side_by_side
from harness.graph.operations import tensors_in as _tensors
from harness.graph.origin import DATA, Origin, adapted, application, made, moved, normed, reduced
from harness.graph.producers import Producer, turned
from harness.graph.recurrence import Recurrence
from harness.graph.tensor_map import TensorMap
from harness.graph.weights import KnownWeights

CHOSEN = "its inputs are multiplied by weights that are chosen for each of them"


class TensorProvenance:
    """Tensor → Origin during one forward; does not keep tensors alive.

    Args:
        model: the model whose parameters are known.

    Attributes:
        recurrence: detects the state of a cell; may be shared with another provenance.
        weights: the parameters, and what is computed from them alone.
    """

    def __init__(self, model: nn.Module) -> None:
        self.recurrence = Recurrence()
        self.weights = KnownWeights(model)
        self._known = TensorMap[Origin]()
        self._zeros = TensorMap[bool]()
        self._constants = TensorMap[bool]()  # buffers, and what is made of constants
        self._constants.put_all(model.buffers(), True)

    def __len__(self) -> int:
        return len(self._known)

    def put(self, tensor: Tensor, origin: Origin) -> None:
        """Set the origin of a tensor."""
        self._known.put(tensor, origin)

    def get(self, tensor: Tensor) -> Origin | None:
        """The origin of a tensor; None if unknown: a constant, or made unobserved."""
        return self._known.get(tensor)

    def enter(self, module: nn.Module) -> None:
        """Enter a module's forward."""
        self.weights.enter(module)

    def made_of_zeros(self, tensor: Tensor) -> bool:
        """Whether it was created by a function that fills with zeros, in this forward."""
        return bool(self._zeros.get(tensor))

    def before(self, z: Tensor) -> Origin | Producer | None:
        """What an activation is called on: the origin of z, or its producer if z is weights."""
        return self.get(z) or self.weights.kept_in_range(z)

    def activated(self, z: Origin | Producer | None, shape: torch.Size, out: Any) -> None:
        """Set the origin of `out`, an activation's output for a tensor of that shape (z: see `before`)."""
        if isinstance(z, Producer):
            if isinstance(out, Tensor):
                self.weights.put(out, z)
        elif isinstance(out, Tensor):
            origin = z or DATA
            same = out.shape == shape
            units_ = origin.units if same else None
            self.put(out, origin._replace(units=units_, activated=True, direct=False))

    def follow(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
        """Set the origins of the results of a call."""
        name = ops.function_name(function)
        outs = [t for t in _tensors([out]) if t.is_floating_point() or t.is_complex()]
        given = list(_tensors([*args, *kwargs.values()]))
        if name in ("__setitem__", "copy_") and args and isinstance(args[0], Tensor):
            self.recurrence.hand_on(given, args[:1])
            self._written(args)
            return
        if not outs:
            return
        self.recurrence.hand_on(given, outs)
        if ops.creates(name):
            if ops.creates_zeros(name):
                self._zeros.put_all(outs, True)
            if name not in ops.FROM_OUTSIDE:
                self._constants.put_all(outs, True)
            return
        if name in ops.NORMS or name in ops.PRODUCTS:
            for tensor in given:
                if self._is_foreign(tensor):
                    self.put(tensor, DATA)
        operands = [t for t in given if self.get(t) is not None]
        weights = [(t, w) for t in given if (w := self.weights.of(t)) is not None]
        if weights:
            self.recurrence.apply(one for _, w in weights for one in (w, turned(w)))
        layer = self._is_layer(name, args, weights)
        if not operands and not layer:
            if weights:
                self.weights.derive(name, args, weights, outs)
            elif not any(self._is_foreign(t) for t in given):
                self._constants.put_all(outs, True)
            return
        first: Any = args[0] if args else None
        if layer or (name not in ops.PRODUCTS and self.get(first) is not None):  # then it is no weight here
            used = [(t, w) for t, w in weights if t is not first]
        else:
            used = weights
        found = self._origins(name, function, args, kwargs, operands, used, outs)
        for tensor, origin in zip(outs, found, strict=False):
            self.put(tensor, origin)
        if weights and all(self.weights.of(t) is not None for t in operands or [first]):
            self.weights.derive(name, args, used or weights, outs)  # it may serve as weights, too

    # --- what a function does -----------------------------------------------------------------------

    def _origins(
        self,
        name: str,
        function: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        operands: list[Tensor],
        weights: list[tuple[Tensor, Producer]],
        outs: list[Tensor],
    ) -> Iterable[Origin]:
        first = outs[0]
        if name in ops.CONVOLUTIONS:
            dims = ops.CONVOLUTIONS[name] if name != "convolution" else first.ndim - 2
            if name != "deform_conv2d" and self._is_per_input(args, kwargs):
                return [self._union(operands)._replace(units=None, reason=CHOSEN)]
            return [made(weights, first, -dims - 1)]
        if name in ops.LAST_AXIS:
            return [made(weights, first, -1)]
        if name in ops.FUSED_RECURRENT:
            return [made(ops.of_last_layer(args, weights), one, -1) for one in outs]
        if name == "multi_head_attention_forward":  # the last matrix makes the units
            last = [*args[ops.OUT_PROJECTION :], kwargs.get("out_proj_weight")]
            found = [(t, w) for t in _tensors(last) if (w := self.weights.of(t)) is not None]
            return [made(found, first, -1), *(Origin(reason="attention weights") for _ in outs[1:])]
        if name == "scaled_dot_product_attention":
            value = args[2] if len(args) > 2 else kwargs.get("value", operands[-1])
            return [adapted(self.get(value) or DATA, first)]
        if name in ops.CHANNEL_NORMS or name in ops.TRAILING_NORMS:
            before = self.get(operands[0]) or DATA
            return [normed(name, args, kwargs, before, operands[0], weights, one) for one in outs]
        if name in ops.PRODUCTS:
            return [self._product(name, args, kwargs, operands, weights, first)]
        if name in ops.JOINS:
            tensors = list(_tensors(args[:1])) or list(_tensors([kwargs.get("tensors", ())]))
            parts = [(one, self.get(one)) for one in tensors]
            return [joined(name, args, kwargs, parts, self._union(operands), first)]
        source = self.get(operands[0])
        if source is None:
            return []
        if name in ops.ORDER and (source.units is None or units.varying(source.units)):
            return [source._replace(units=None, reason="order statistics have no fixed units") for _ in outs]
        centres = args[1] if len(args) > 1 else kwargs.get("x2")
        if name == "cdist" and any(t is centres for t, _ in weights):
            return [made(weights, first, -1)]  # distances to learned centres, each of which is a unit
        if name in ops.DISTANCES:
            return [self._union(operands)._replace(units=None, term=True)] * len(outs)
        if name in ops.REDUCTIONS and first.ndim <= operands[0].ndim and first.shape != operands[0].shape:
            return [reduced(name, source, operands[0], args, kwargs, one) for one in outs]
        if (name in ops.MOVES or name in ops.TURNS) and (len(operands) == 1 or name.endswith("_as")):
            found = moved(name, function, source, operands[0], args, kwargs, outs)
            if name not in ops.SELECTIONS or first.numel() == operands[0].numel():
                return found
            return [one._replace(applied=application()) for one in found]  # other inputs, perhaps
        matrices = [(t, w) for t, w in weights if t.ndim > 1]
        if weights and first.shape != operands[0].shape and ops.broadcasts([*args, *kwargs.values()], first):
            return [self._spread(name, operands, weights, first)]
        constants = filter(self._constants.get, _tensors(args))
        if name in ops.DIFFERENCES and have_knots(constants, operands, first):
            return [at_knots(self._elementwise(operands, first), first)]
        if matrices and first.ndim and first.shape != operands[0].shape:  # a product under another name
            if any(t.ndim > 2 for t, _ in matrices):
                return [self._union(operands)._replace(units=None, reason=CHOSEN)] * len(outs)
            return [made(matrices, one, -1) for one in outs]
        found = [with_own_weights(self._elementwise(operands, one), weights, one) for one in outs]
        if name not in ops.KEEP_UNITS:
            found = [origin._replace(path=(*origin.path, name)) for origin in found]
        return found if name in ops.KEEP_DIRECT else [origin._replace(direct=False) for origin in found]

    def _product(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        operands: list[Tensor],
        weights: list[tuple[Tensor, Producer]],
        out: Tensor,
    ) -> Origin:
        """A matrix product: its units lie on the weight's own axis of the result."""
        factors = list(_tensors(args))
        if name in ("addmm", "baddbmm", "addmv"):
            factors = factors[1:]
        matrices = [(t, w) for t, w in weights if t.ndim > 1]
        if name == "einsum":
            for tensor, _ in matrices:
                place = next(i for i, t in enumerate(factors) if t is tensor)
                axes = ops.einsum_axes(args[0], place, len(factors), out.ndim)
                if axes is not None:
                    return made(matrices, out, *axes)
            return self._union(operands)._replace(units=None, activated=False)
        if len(factors) != 2:
            return Origin()
        left, right = factors
        if name == "tensordot" and matrices:
            own = next(t for t, _ in matrices if t is left or t is right)
            axes = ops.tensordot_axes(args, kwargs, own.ndim, out.ndim, first=own is left)
            return made(matrices, out, *axes) if axes else self._union(operands)._replace(units=None)
        if matrices:
            matrix, owner = next((t, w) for t, w in matrices if t is left or t is right)
            if owner.gathered:
                return self._union(operands)._replace(units=None, reason=CHOSEN)
            rows = matrix is left and out.ndim > 1 and right.ndim > 1
            if not rows:
                owner = turned(owner)
            batch = [axis for axis in range(-min(matrix.ndim, out.ndim), -2) if spans(matrix, axis)]
            return made([(matrix, owner)], out, *batch, -2 if rows else -1)
        origin = self._union(operands)._replace(units=None, activated=False)
        for tensor, axis, inner in ((right, -1, -2), (left, -2, -1)):
            known = self.get(tensor)
            if known is None or known.units is None or min(out.ndim, tensor.ndim) < 2:
                continue
            along = units.varying(known.units)
            if axis not in along or inner in along or any(out.shape[a] != tensor.shape[a] for a in along):
                continue
            if along == [axis]:
                return origin._replace(units=units.fresh(out.ndim, axis, out.shape[axis]))
            if tensor.ndim == out.ndim:  # heads and their features
                return origin._replace(units=known.units)
        return origin

    def _spread(
        self, name: str, operands: list[Tensor], weights: list[tuple[Tensor, Producer]], out: Tensor
    ) -> Origin:
        """Weights that are added or multiplied entry by entry and make new axes: x[..., None] * w."""
        axes = {axis for t, _ in weights for axis in range(-min(t.ndim, out.ndim), 0) if spans(t, axis)}
        if all(any(t.ndim >= -axis and t.shape[axis] > 1 for t in operands) for axis in axes):
            return self._elementwise(operands, out)
        before, union = self._elementwise(operands, out), self._union(operands)
        own = union.producers if before.units is not None and not union.activated else ()
        if before.units is not None:
            axes |= set(units.varying(before.units))
        return Origin(
            tuple(dict.fromkeys((*own, *(w for _, w in weights)))),
            units.fresh_along(out.ndim, {axis: out.shape[axis] for axis in axes}),
            part=True,
            applied=application(),
            scaled=name in ops.SCALINGS,
        )

    def _elementwise(self, operands: list[Tensor], out: Tensor) -> Origin:
        """Everything else: units are kept if their axes keep their places and sizes."""
        origin = self._union(operands)
        fitting = []
        for tensor in operands:
            known = self.get(tensor)
            if known is None or known.units is None:
                continue
            index = known.units
            if index.ndim < out.ndim and tensor.ndim < out.ndim:
                index = index.reshape((1,) * (out.ndim - index.ndim) + tuple(index.shape))
            if units.fits(index, out.shape):
                fitting.append(index)
        wide = [i for i in fitting if units.varying(i)]
        if not fitting:
            return origin._replace(units=None)
        chosen = max(wide or fitting, key=lambda index: len(units.varying(index)))
        if any(not {*units.varying(i)} <= {*units.varying(chosen)} for i in wide):
            return origin._replace(units=None)
        lost = not wide and any(o.units is None for t in operands if (o := self.get(t)) is not None)
        return origin._replace(units=None if lost else chosen)

    # --- helpers ------------------------------------------------------------------------------------

    def _union(self, operands: Sequence[Tensor]) -> Origin:
        """The joint origin of several operands."""
        distinct = {id(t): o for t in operands if (o := self.get(t)) is not None}
        known = list(distinct.values())
        unknown = all(o.units is None for o in known)
        fresh = [o for o in known if o.producers and not o.activated]
        chosen = fresh or [o for o in known if o.producers] or known
        producers = tuple(dict.fromkeys(p for o in chosen for p in o.producers))
        activated = bool(chosen) and all(o.activated for o in chosen)
        return Origin(
            producers,
            known[0].units if len(known) == 1 else None,
            activated=activated,
            summed=any(o.summed or o.activated != activated or o.producers != producers for o in known),
            part=any(o.part for o in chosen),
            term=unknown and any(o.term for o in known),
            reason=next((o.reason for o in known if o.reason), "") if unknown else "",
            direct=any(o.direct for o in known),
            applied=frozenset[object]().union(*(o.applied for o in chosen)),
            path=chosen[0].path if chosen else (),
        )

    def _is_foreign(self, tensor: Tensor) -> bool:
        """Whether nothing here made it: an input in an object not looked into, say, or random numbers.

        A layer's input is such a tensor rather than a constant, unless it is a buffer or made of constants.
        """
        known = self.get(tensor) is not None or self.weights.of(tensor) is not None
        return tensor.is_floating_point() and not known and not self._constants.get(tensor)

    def _is_layer(self, name: str, args: Sequence[Any], weights: Sequence[tuple[Tensor, Producer]]) -> bool:
        """Whether a call makes units: of an input, which may be learned (queries, a constant image)."""
        layer = name in ops.LAST_AXIS or name in ops.CONVOLUTIONS or name in ops.FUSED_RECURRENT
        input_ = args[0] if layer and args else None
        return isinstance(input_, Tensor) and any(t is not input_ for t, _ in weights)

    def _is_per_input(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether a convolution has a kernel for each input, computed from inputs, in groups."""
        kernel = args[1] if len(args) > 1 else kwargs.get("weight")
        groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
        if not isinstance(kernel, Tensor) or not isinstance(groups, int) or groups < 2:
            return False
        return self.weights.of(kernel) is None and self.get(kernel) is not None

    def _written(self, args: Sequence[Any]) -> None:
        """Record `x[…] = value` or `x.copy_(value)`: x gets the units of the value if the axes match."""
        target, value = args[0], args[-1]
        origin = self.get(value) if isinstance(value, Tensor) else None
        if origin is None:
            return
        index, before = origin.units, self.get(target)
        if before is not None:
            both = self._union([target, value])
            same = before.units is not None and index is not None and torch.equal(before.units, index)
            if same and side_by_side(before, origin):
                both, same = both._replace(reason=SIDE_BY_SIDE), False
            self.put(target, both._replace(units=index if same else None))
            return
        self.put(target, origin._replace(units=index if units.fits(index, target.shape) else None))
