"""A stack of any network: the passes of all members at once, by `torch.func.vmap` and autograd.

Legend: K members, B inputs, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.training.stacked.network import Seen
from harness.training.stacked.parameters import Parameter

FEW = 128  # held-out inputs of a member that are in memory at once


class StackedModule:
    """The passes of a network with a leading member axis; the same interface as `StackedMLP`.

    Args:
        model: a member's network on the stack's device; its hooks stay, its own parameters are not read.
        calls: (name of the activation module, number of its site) of each call in a forward pass, in order.
        parameters: parameters of the stack; every member has all of them.
        buffers: buffers of the stack, (K, ...), updated in place.
        shape: shape of one input.

    Raises:
        ValueError: an activation is not a module, or a parameter is frozen.
    """

    def __init__(
        self,
        model: nn.Module,
        calls: Sequence[tuple[str, int]],
        parameters: Sequence[Parameter],
        buffers: Mapping[str, Tensor],
        shape: tuple[int, ...],
    ) -> None:
        self._model, self._shape, self._parameters, self._buffers = model, shape, parameters, buffers
        self._leaves = {p.name: p.value.detach().requires_grad_() for p in parameters}
        self._seen: Seen | None = None
        self._back: Seen | None = None
        self._logits = torch.empty(0)
        frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
        if frozen:
            raise ValueError(f"{frozen[0]}: a stack trains all parameters, but this one is frozen")
        self._calls, self._next = calls, 0
        for name in {name: None for name, _ in calls}:
            if not name:
                raise ValueError("a stack counts only activations that are modules, but one is a function")
            model.get_submodule(name).register_forward_pre_hook(partial(self._tap, name))

    def forward(self, x: Tensor, seen: Seen | None = None, *, training: bool = True) -> Tensor:
        """Compute logits (K, C, B) from inputs (K, B, F); `seen` is called with every pre-activation."""
        self._model.train(training)
        self._seen, state = seen, (self._leaves, dict(self._buffers))
        parts = [x] if training else x.split(FEW, 1)  # held-out inputs come by the thousand
        with torch.set_grad_enabled(training), _plain_attention():
            found = [vmap(self._one)(*state, part.unflatten(2, self._shape)) for part in parts]
        if training:
            self._logits = found[0]
        return torch.cat([logits.detach() for logits in found], 1).transpose(1, 2).contiguous()

    def backward(self, dlogits: Tensor, seen: Seen | None = None) -> None:
        """Compute all gradients; `seen` is called with ∂L/∂z of every activation, last one first."""
        self._back = seen
        for leaf in self._leaves.values():
            leaf.grad = None
        self._logits.backward(dlogits.transpose(1, 2))
        self._logits = self._logits.detach()
        for p in self._parameters:
            gradient = self._leaves[p.name].grad
            if gradient is None:
                raise ValueError(f"{p.name}: a stack trains all parameters, but this one gets no gradient")
            p.grad.copy_(gradient)

    def _one(self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor) -> Tensor:
        self._next = 0
        logits = functional_call(self._model, (parameters, buffers), (x,))  # pyright: ignore[reportArgumentType]
        if self._seen is not None and self._next != len(self._calls):
            raise ValueError("the network does not call the same activations in every forward pass")
        return logits

    def _tap(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._seen is None:
            return None
        called, number = self._calls[self._next] if self._next < len(self._calls) else ("nothing", 0)
        if called != name:
            raise ValueError(f"{name}: it is called where a member's own network calls {called}")
        self._next += 1
        overwrites = bool(getattr(module, "inplace", False))
        return (_Tap.apply(args[0], partial(self._watch, number, overwrites)), *args[1:])

    def _watch(self, number: int, overwrites: bool, z: Tensor) -> Tensor:
        assert self._seen is not None
        self._seen(number, z.detach())
        if not z.requires_grad:
            return z
        z.register_hook(partial(self._watch_back, number))
        return z.clone() if overwrites else z  # an overwritten view would lose its hook

    def _watch_back(self, number: int, gradient: Tensor) -> None:
        if self._back is not None:
            self._back(number, gradient)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Context manager: attention is computed step by step, since its fused kernels cannot be stacked."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Tap(torch.autograd.Function):
    """The identity on a pre-activation; under vmap, `watch` gets the values of all members (K, B, ...)."""

    @staticmethod
    def forward(*_: Any) -> Any:
        raise RuntimeError("a stack's network is called under vmap alone")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        z, watch = args
        return watch(z.movedim(in_dims[0], 0)), 0
