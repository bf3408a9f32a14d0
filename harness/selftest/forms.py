"""Every spelling of every activation: modules, functions, methods, in place and not."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.selftest.case import Case, kill, normal, sequential
from harness.selftest.plain import mlp
from harness.selftest.truth import Keep, site, through

RELU_FORMS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "F.relu": ("relu", F.relu),
    "F.relu inplace": ("relu", lambda z: F.relu(z, inplace=True)),
    "F.relu_": ("relu", F.relu_),
    "torch.relu": ("relu", torch.relu),
    "torch.relu_": ("relu", torch.relu_),
    "Tensor.relu": ("relu", lambda z: z.relu()),
    "Tensor.relu_": ("relu", lambda z: z.relu_()),
    "clamp(min=0)": ("clamp", lambda z: z.clamp(min=0)),
    "torch.clamp(0)": ("clamp", lambda z: torch.clamp(z, 0)),
    "clamp_(min=0)": ("clamp", lambda z: z.clamp_(min=0)),
    "clamp_min": ("clamp", lambda z: z.clamp_min(0)),
    "maximum": ("maximum", lambda z: torch.maximum(z, torch.zeros_like(z))),
    "maximum reversed": ("maximum", lambda z: torch.maximum(torch.zeros(()), z)),
    "F.threshold": ("threshold", lambda z: F.threshold(z, 0.0, 0.0)),
}
OTHER_FORMS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "clamp(0, 1)": ("clamp", lambda z: z.clamp(0, 1)),
    "F.relu6": ("relu6", F.relu6),
    "F.hardtanh": ("hardtanh", F.hardtanh),
    "F.leaky_relu": ("leaky_relu", F.leaky_relu),
    "F.gelu": ("gelu", F.gelu),
    "F.gelu tanh": ("gelu", lambda z: F.gelu(z, approximate="tanh")),
    "F.elu": ("elu", F.elu),
    "F.selu": ("selu", F.selu),
    "F.celu": ("celu", F.celu),
    "F.silu": ("silu", F.silu),
    "F.mish": ("mish", F.mish),
    "F.softplus": ("softplus", F.softplus),
    "F.hardswish": ("hardswish", F.hardswish),
    "F.hardsigmoid": ("hardsigmoid", F.hardsigmoid),
    "torch.tanh": ("tanh", torch.tanh),
    "Tensor.tanh": ("tanh", lambda z: z.tanh()),
    "torch.sigmoid": ("sigmoid", torch.sigmoid),
    "Tensor.sigmoid": ("sigmoid", lambda z: z.sigmoid()),
    "F.logsigmoid": ("logsigmoid", F.logsigmoid),
    "F.softsign": ("softsign", F.softsign),
    "F.softshrink": ("softshrink", F.softshrink),
    "F.hardshrink": ("hardshrink", F.hardshrink),
    "F.tanhshrink": ("tanhshrink", F.tanhshrink),
}
MODULE_FORMS: dict[str, Callable[[], nn.Module]] = {
    "relu6": nn.ReLU6,
    "hardtanh": nn.Hardtanh,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "celu": nn.CELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "logsigmoid": nn.LogSigmoid,
    "softsign": nn.Softsign,
    "softshrink": nn.Softshrink,
    "hardshrink": nn.Hardshrink,
    "tanhshrink": nn.Tanhshrink,
    "threshold": lambda: nn.Threshold(0.5, 0.0),
}


class Functional(nn.Module):
    """An activation called twice as a function, in the root's own forward."""

    def __init__(self, name: str, function: Callable[[Tensor], Tensor], gain: float = 1.0) -> None:
        super().__init__()
        self.fc1, self.fc2, self.head = nn.Linear(6, 7), nn.Linear(7, 5), nn.Linear(5, 2)
        self.name, self.function = name, function
        with torch.no_grad():
            self.fc1.weight *= gain
        kill(self.fc1, 3)
        kill(self.fc2, 4)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.function(keep(f":{self.name}", self.fc1(x)))
        x = self.function(keep(f":{self.name}#1", self.fc2(x)))
        return self.head(x)


def functional(form: str) -> Case:
    if form in RELU_FORMS:
        name, function = RELU_FORMS[form]
        gate, gone = None, ((3,), (4,))
    else:
        name, function = OTHER_FORMS[form]
        gate, gone = function, ((), ())
    sites = (
        site(f":{name}", "fc1", 7, *gone[0], function=gate),
        site(f":{name}#1", "fc2", 5, *gone[1], function=gate),
    )
    return Case(lambda: Functional(name, function, 1.0 if gate is None else 6.0), sites, normal(9, 6))


def module_form(name: str) -> Case:
    layer = MODULE_FORMS[name]()
    sites = (site("1", "0", 10, function=layer), site("3", "2", 8, function=layer))

    def make() -> nn.Module:
        model = mlp(MODULE_FORMS[name])
        with torch.no_grad():
            model[0].weight *= 6
        return model

    return Case(make, sites, normal(9, 6), sequential({1: "1", 3: "3"}))


CASES = {form: functional(form) for form in (*RELU_FORMS, *OTHER_FORMS)} | {
    f"module {form}": module_form(form) for form in MODULE_FORMS
}
