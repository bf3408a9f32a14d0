"""The layers of a stack, with explicit backward passes.

Legend: K members, B inputs, F units. All tensors have the memory layout (K, B, F). Each layer stores what its
backward pass needs, and owns the tensors that it returns: they are valid until its next pass of that kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness.config.schema import Activation
from harness.training.models import widening
from harness.training.stacked.activations import SLOPED, Pair, pair, slices, sloped
from harness.training.stacked.parameters import Parameter

EPS, MOMENTUM = 1e-5, 0.1  # defaults of torch's norm layers


class Room:
    """Named buffers that are reused as long as their shapes stay the same."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def __call__(self, name: str, like: Tensor, *shape: int) -> Tensor:
        buffer = self._kept.get(name)
        if buffer is None or buffer.shape != shape:
            buffer = self._kept[name] = like.new_empty(shape)
        return buffer


class Linear:
    """x Wᵀ + b of each member: (K, B, I) → (K, B, F)."""

    def __init__(self, parameters: Mapping[str, Parameter], name: str) -> None:
        self.weight, self.bias = parameters[f"{name}.weight"], parameters.get(f"{name}.bias")
        self._x = self.weight.value
        self._room = Room()

    def forward(self, x: Tensor, *, training: bool) -> Tensor:
        weight = self.weight.value.transpose(1, 2)
        z = self._room("z" if training else "held out", weight, *x.shape[:2], weight.shape[2])
        if training:
            self._x = x
        if self.bias is None:
            return torch.bmm(x, weight, out=z)
        return torch.baddbmm(self.bias.value.unsqueeze(1), x, weight, out=z)

    def backward(self, dz: Tensor, *, inputs: bool = True) -> Tensor | None:
        """Compute the parameter gradients, and ∂L/∂x if requested."""
        torch.bmm(dz.transpose(1, 2), self._x, out=self.weight.grad)
        if self.bias is not None:
            torch.sum(dz, 1, out=self.bias.grad)
        if not inputs:
            return None
        return torch.bmm(dz, self.weight.value, out=self._room("dx", dz, *self._x.shape))


class Head:
    """W x + b of each member with the classes before the inputs: (K, B, I) → (K, C, B).

    Since C is small, this layout makes the loops of the softmax run along B in memory, and the products are
    several times as fast.
    """

    def __init__(self, parameters: Mapping[str, Parameter], name: str) -> None:
        self.weight, self.bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
        self._x = self.weight.value
        self._room = Room()

    def forward(self, x: Tensor, *, training: bool) -> Tensor:
        if training:
            self._x = x
        return torch.baddbmm(self.bias.value.unsqueeze(2), self.weight.value, x.transpose(1, 2))

    def backward(self, dlogits: Tensor) -> Tensor:
        """Compute the parameter gradients and ∂L/∂x."""
        torch.bmm(dlogits, self._x, out=self.weight.grad)
        torch.sum(dlogits, 2, out=self.bias.grad)
        dx = self._room("dx", dlogits, *self._x.shape)
        return torch.bmm(dlogits.transpose(1, 2), self.weight.value, out=dx)


class BatchNorm:
    """Normalises each unit over the batch, or with the running statistics in evaluation."""

    def __init__(self, parameters: Mapping[str, Parameter], name: str, buffers: Mapping[str, Tensor]) -> None:
        self.gamma, self.beta = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
        self._mean, self._var = buffers[f"{name}.running_mean"], buffers[f"{name}.running_var"]
        self._batches = buffers[f"{name}.num_batches_tracked"]
        self._room = Room()

    def forward(self, z: Tensor, *, training: bool) -> Tensor:
        gamma, beta = self.gamma.value.unsqueeze(1), self.beta.value.unsqueeze(1)
        if not training:
            scale = gamma * (self._var + EPS).rsqrt().unsqueeze(1)
            shift = torch.addcmul(beta, self._mean.unsqueeze(1), scale, value=-1)
            return torch.addcmul(shift, z, scale, out=self._room("held out", z, *z.shape))
        n = z.shape[1]
        mean = z.mean(1, keepdim=True)
        distance = torch.sub(z, mean, out=self._room("normal", z, *z.shape))
        # torch.var is ten times slower along this axis
        var = torch.mul(distance, distance, out=self._room("y", z, *z.shape)).mean(1, keepdim=True)
        self._batches += 1
        self._mean.mul_(1 - MOMENTUM).add_(mean.squeeze(1), alpha=MOMENTUM)
        self._var.mul_(1 - MOMENTUM).add_(var.squeeze(1), alpha=MOMENTUM * n / (n - 1))
        self._inverse = (var + EPS).rsqrt_()
        self._normal = distance.mul_(self._inverse)
        return torch.addcmul(beta, self._normal, gamma, out=self._room("y", z, *z.shape))

    def backward(self, dy: Tensor) -> Tensor:
        n, dz = dy.shape[1], self._room("dz", dy, *dy.shape)
        torch.sum(dy, 1, out=self.beta.grad)
        torch.sum(torch.mul(dy, self._normal, out=dz), 1, out=self.gamma.grad)
        torch.sub(dy, (self.beta.grad / n).unsqueeze(1), out=dz)
        dz.addcmul_(self._normal, (self.gamma.grad / n).unsqueeze(1), value=-1)
        return dz.mul_(self.gamma.value.unsqueeze(1) * self._inverse)


class LayerNorm:
    """Normalises each input over its units."""

    def __init__(self, parameters: Mapping[str, Parameter], name: str) -> None:
        self.gamma, self.beta = parameters[f"{name}.weight"], parameters[f"{name}.bias"]

    def forward(self, z: Tensor, *, training: bool) -> Tensor:
        normal, mean, inverse = torch.native_layer_norm(z, z.shape[-1:], None, None, EPS)
        if training:
            self._z, self._normal, self._mean, self._inverse = z, normal, mean, inverse
        return torch.addcmul(self.beta.value.unsqueeze(1), normal, self.gamma.value.unsqueeze(1))

    def backward(self, dy: Tensor) -> Tensor:
        torch.sum(dy, 1, out=self.beta.grad)
        torch.sum(dy * self._normal, 1, out=self.gamma.grad)
        dnormal = dy * self.gamma.value.unsqueeze(1)
        shape, mask = list(dy.shape[-1:]), [True, False, False]
        return torch.ops.aten.native_layer_norm_backward(
            dnormal, self._z, shape, self._mean, self._inverse, None, None, mask
        )[0]


class Activations:
    """Applies each member's own activation: (K, B, F) → (K, B, F), or twice as wide for CReLU.

    Attributes:
        slopes: parameters that hold members' slopes.
        output: output of the last training pass.
    """

    def __init__(
        self, parameters: Mapping[str, Parameter], name: str, activations: Sequence[Activation]
    ) -> None:
        self.slopes = [p for kind in SLOPED.values() if (p := parameters.get(f"{name}.{kind}")) is not None]
        self._slices = [(part, self._sloped(part) or pair(a)) for part, a in slices(activations)]
        self._widening = widening(activations[0])
        self._room = Room()

    def forward(self, z: Tensor, *, training: bool) -> Tensor:
        a = self._room("a" if training else "held out", z, *z.shape[:2], z.shape[2] * self._widening)
        for part, functions in self._slices:
            functions.forward(z[part], a[part])
        if training:
            self._z, self.output = z, a
        return a

    def backward(self, da: Tensor) -> Tensor:
        dz = self._room("dz", da, *self._z.shape)
        for part, functions in self._slices:
            functions.backward(da[part], self._z[part], self.output[part], dz[part])
        return dz

    def _sloped(self, part: slice) -> Pair | None:
        """Return the activation of members with slopes in the stack; None for the others."""
        for p in self.slopes:
            if part.start in p.members:
                return sloped(p)
        return None
