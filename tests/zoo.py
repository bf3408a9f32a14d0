"""Awkward models whose dead units are known by construction.

Every forward takes `keep`, called with a site's name on each pre-activation (see oracle.py); in ordinary use
it does nothing. Where the forward cannot show its pre-activations, `Case.reference` computes the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from oracle import Keep, TrueSite, through
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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


def sum_of_squares(output: Tensor) -> Tensor:
    """A loss that is finite for zero-size batches too."""
    return (output - 0.3).square().sum() / 16


def normal(*shape: int, batches: int = 5) -> Callable[[], list[Tensor]]:
    """Batches of Gaussian inputs."""

    def make() -> list[Tensor]:
        g = torch.Generator().manual_seed(7)
        return [torch.randn(*shape, generator=g) for _ in range(batches)]

    return make


@dataclass
class Case:
    """One model, its inputs and what is known about it.

    Attributes:
        make: builds the model; called after torch.manual_seed.
        sites: in order of first call; `dead` holds the units dead by construction.
        reference: the forward that shows the pre-activations; by default the model's own.
        train: False: forwards only.
        quiet: False if the recorder must warn.
    """

    make: Callable[[], Any]
    batches: Callable[[], list[Any]]
    sites: tuple[TrueSite, ...]
    reference: Callable[[Any, Any, Keep], Tensor] = lambda model, x, keep: model(x, keep)
    loss: Callable[[Tensor], Tensor] = sum_of_squares
    accumulate: int = 1
    train: bool = True
    quiet: bool = True
    recorder: dict[str, Any] = field(default_factory=dict)


def kill(layer: Any, *units: int) -> None:
    """Make units never positive: nothing comes in, and the bias is negative."""
    with torch.no_grad():
        for unit in units:
            layer.weight[unit] = 0
            layer.bias[unit] = -1


def dead(*units: int) -> frozenset[int]:
    return frozenset(units)


def sequential(names: dict[int, str]) -> Callable[[Any, Any, Keep], Tensor]:
    """Forward of a Sequential; names: position of an activation → site."""

    def reference(model: Any, x: Any, keep: Keep) -> Tensor:
        for i, layer in enumerate(model):
            x = layer(keep(names[i], x) if i in names else x)
        return x

    return reference


# ------------------------------------------------------------------------------------------ plain nets


def mlp(activation: Callable[[], nn.Module] = nn.ReLU) -> Any:
    model = nn.Sequential(nn.Linear(6, 10), activation(), nn.Linear(10, 8), activation(), nn.Linear(8, 3))
    kill(model[0], 2, 7)
    kill(model[2], 0)
    return model


MLP_SITES = (
    TrueSite("1", producer="0", size=10, dead=dead(2, 7)),
    TrueSite("3", producer="2", size=8, dead=dead(0)),
)


def starved_mlp() -> nn.Sequential:
    """Everything behind the first activation is dead, so its live units get no gradient."""
    model = mlp()
    kill(model[2], *range(8))
    return model


class SharedReLU(nn.Module):
    """One ReLU after three layers: three sites."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 7), nn.Linear(7, 8), nn.Linear(8, 9)
        self.relu, self.head = nn.ReLU(), nn.Linear(9, 2)
        kill(self.fc1, 1)
        kill(self.fc2, 2, 3)
        kill(self.fc3, 4)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.relu(keep("relu", self.fc1(x)))
        x = self.relu(keep("relu#1", self.fc2(x)))
        x = self.relu(keep("relu#2", self.fc3(x)))
        return self.head(x)


class TwoNames(nn.Module):
    """A module under two names bears its first; two ReLUs after one layer are two sites."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = nn.ReLU()
        self.other = nn.ReLU(inplace=True)
        self.fc, self.head = nn.Linear(6, 6), nn.Linear(6, 2)
        kill(self.fc, 5)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.second(keep("first", self.fc(x)))
        x = self.other(keep("other", self.fc(x)))
        return self.head(x)


class Listed(nn.Module):
    """Layers in a ModuleList, activations in a ModuleDict."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.acts = nn.ModuleDict({"relu": nn.ReLU(), "tanh": nn.Tanh()})
        self.head = nn.Linear(6, 2)
        for i, layer in enumerate(self.layers):
            kill(layer, i)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.acts["relu"](keep("acts.relu", self.layers[0](x)))
        x = self.acts["tanh"](keep("acts.tanh", self.layers[1](x)))
        return self.head(self.acts["relu"](keep("acts.relu#1", self.layers[2](x))))


# -------------------------------------------------------------------------------- what lies in between


class ConvNet(nn.Module):
    """Units are channels: alive at one position is alive."""

    def __init__(
        self, norm: Callable[[int], nn.Module] = lambda _: nn.Identity(), drop: bool = False
    ) -> None:
        super().__init__()
        self.conv1, self.norm1, self.relu1 = nn.Conv2d(2, 6, 3, padding=1), norm(6), nn.ReLU(inplace=True)
        self.conv2, self.norm2, self.relu2 = nn.Conv2d(6, 4, 3, stride=2, groups=2), norm(4), nn.ReLU()
        self.drop = nn.Dropout2d(0.3) if drop else nn.Identity()
        self.head = nn.Linear(4 * 3 * 3, 3)
        plain = isinstance(self.norm1, nn.Identity)
        kill(self.conv1 if plain else self.norm1, 0, 3)
        kill(self.conv2 if plain else self.norm2, 2)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.relu1(keep("relu1", self.drop(self.norm1(self.conv1(x)))))
        x = self.relu2(keep("relu2", self.norm2(self.conv2(x))))
        return self.head(x.flatten(1))


def conv_sites(producers: tuple[str, str]) -> tuple[TrueSite, ...]:
    return (
        TrueSite("relu1", axis=1, producer=producers[0], size=6, dead=dead(0, 3)),
        TrueSite("relu2", axis=1, producer=producers[1], size=4, dead=dead(2)),
    )


def group_norm(units: int) -> nn.Module:
    return nn.GroupNorm(2, units)


def batch_norm_without_parameters(units: int) -> nn.Module:
    return nn.BatchNorm2d(units, affine=False)


class PlainNormConvNet(ConvNet):
    """BatchNorm without γ and β: the convolution is the nearest module with parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = batch_norm_without_parameters(6), batch_norm_without_parameters(4)


class Conv1dNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm, self.relu = nn.Conv1d(3, 5, 3), nn.BatchNorm1d(5), nn.ReLU()
        self.conv2, self.head = nn.Conv1d(5, 4, 3), nn.Linear(4, 2)
        kill(self.norm, 1)
        kill(self.conv2, 0)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.relu(keep("relu", self.norm(self.conv1(x))))
        x = self.relu(keep("relu#1", self.conv2(x)))
        return self.head(x.mean(-1))


class Decoder(nn.Module):
    """Transposed convolution: the weight's second axis holds the units."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.relu, self.head = nn.ConvTranspose2d(3, 5, 2, stride=2), nn.ReLU(), nn.Conv2d(5, 1, 1)
        with torch.no_grad():
            self.up.weight[:, 4] = 0
            assert self.up.bias is not None
            self.up.bias[4] = -1

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        return self.head(self.relu(keep("relu", self.up(x))))


class NormMLP(nn.Module):
    """Linear → norm → dropout → ReLU, on any number of leading axes."""

    def __init__(self, norm: nn.Module, dropout: nn.Module) -> None:
        super().__init__()
        self.fc, self.norm, self.drop, self.relu = nn.Linear(6, 8), norm, dropout, nn.ReLU()
        self.head = nn.Linear(8, 3)
        kill(self.fc if isinstance(norm, nn.Identity) else norm, 1, 6)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        return self.head(self.relu(keep("relu", self.drop(self.norm(self.fc(x))))))


def norm_mlp_site(producer: str) -> tuple[TrueSite, ...]:
    return (TrueSite("relu", producer=producer, size=8, dead=dead(1, 6)),)


# ------------------------------------------------------------------------------------ sums and repeats


class Residual(nn.Module):
    """The last ReLU follows a sum: no producer, no grad_norm."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.relu = nn.Linear(6, 6), nn.Linear(6, 6), nn.ReLU()
        self.head = nn.Linear(6, 2)
        kill(self.fc1, 3)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        y = self.relu(keep("relu", self.fc1(x)))
        return self.head(self.relu(keep("relu#1", x + self.fc2(y))))


class BasicBlock(nn.Module):
    """torchvision's: one in-place ReLU module called twice, after a norm and after a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        kill(self.bn1, 2)

    def forward(self, x: Tensor, keep: Keep = through, name: str = "relu") -> Tensor:
        out = self.relu(keep(name, self.bn1(self.conv1(x))))
        out = self.bn2(self.conv2(out))
        out += x
        return self.relu(keep(f"{name}#1", out))


class ResNet(nn.Module):
    """A stem and two basic blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn, self.relu = (
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
        )
        self.layer = nn.Sequential(BasicBlock(), BasicBlock())
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.relu(keep("relu", self.bn(self.stem(x))))
        if keep is through:
            x = self.layer(x)
        else:
            for i, block in enumerate(self.layer):
                x = block(x, keep, f"layer.{i}.relu")
        return self.head(x.mean((2, 3)))


def block_sites(name: str, prefix: str = "") -> tuple[TrueSite, ...]:
    return (
        TrueSite(name, axis=1, producer=f"{prefix}bn1", size=4, dead=dead(2)),
        TrueSite(f"{name}#1", axis=1, producer=None, size=4),
    )


class Twice(nn.Module):
    """A block called twice: the same units, so n doubles."""

    def __init__(self, second: str = "block.1") -> None:
        super().__init__()
        self.block, self.head = nn.Sequential(nn.Linear(6, 6), nn.ReLU()), nn.Linear(6, 2)
        self.name = second
        kill(self.block[0], 4)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        for name in ("block.1", self.name):
            x = self.block[1](keep(name, self.block[0](x))) if keep is not through else self.block(x)
        return self.head(x)


class Cell(nn.Module):
    """A hand-written recurrent cell: its time steps are one site."""

    def __init__(self, steps: int = 4) -> None:
        super().__init__()
        self.fc, self.head, self.steps = nn.Linear(3 + 5, 5), nn.Linear(5, 2), steps
        kill(self.fc, 0)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        h = x.new_zeros(len(x), 5)
        for t in range(self.steps):
            h = F.relu(keep(":relu", self.fc(torch.cat([x[:, t], h], -1))))
        return self.head(h)


# ------------------------------------------------------------------------------------------- functions


class Functional(nn.Module):
    """An activation as a function, twice, in the root's own forward."""

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
        gate, gone = None, (dead(3), dead(4))
    else:
        name, function = OTHER_FORMS[form]
        gate, gone = function, (dead(), dead())
    sites = (
        TrueSite(f":{name}", producer="fc1", function=gate, size=7, dead=gone[0]),
        TrueSite(f":{name}#1", producer="fc2", function=gate, size=5, dead=gone[1]),
    )
    return Case(lambda: Functional(name, function, 1.0 if gate is None else 6.0), normal(9, 6), sites)


def module_form(name: str) -> Case:
    layer = MODULE_FORMS[name]()
    sites = (
        TrueSite("1", producer="0", function=layer, size=10),
        TrueSite("3", producer="2", function=layer, size=8),
    )

    def make() -> nn.Module:
        model = mlp(MODULE_FORMS[name])
        with torch.no_grad():
            model[0].weight *= 6
        return model

    return Case(make, normal(9, 6), sites, sequential({1: "1", 3: "3"}))


class Mixed(nn.Module):
    """Modules and functions, in the root and below it."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.again, self.act = nn.Linear(6, 6), nn.Linear(6, 6), nn.ReLU()
            kill(self.fc, 1)

        def forward(self, x: Tensor, keep: Keep = through, prefix: str = "") -> Tensor:
            x = F.relu(keep(f"{prefix}:relu", self.fc(x)))
            return self.act(keep(f"{prefix}.act", self.again(x)))

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = Mixed.Block(), Mixed.Block(), nn.Linear(6, 6)
        self.act, self.head = nn.ReLU(inplace=True), nn.Linear(6, 2)
        kill(self.fc, 0)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.a(x, keep, "a") if keep is not through else self.a(x)
        x = torch.relu(keep(":relu", self.fc(x)))
        x = self.b(x, keep, "b") if keep is not through else self.b(x)
        return self.head(self.act(keep("act", self.fc(x))))


# -------------------------------------------------------------------------------------- what is unseen


class NeverCalled(nn.Module):
    """A ReLU that no forward uses."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.relu, self.unused, self.head = nn.Linear(6, 5), nn.ReLU(), nn.ReLU(), nn.Linear(5, 2)
        kill(self.fc, 2)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        return self.head(self.relu(keep("relu", self.fc(x))))


class Recurrent(nn.Module):
    """A fused recurrent kernel shows none of its gates."""

    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.rnn, self.relu, self.head = kind(3, 4, batch_first=True), nn.ReLU(), nn.Linear(4, 2)
        self.fc = nn.Linear(4, 4)
        kill(self.fc, 1)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        return self.head(self.relu(keep("relu", self.fc(self.rnn(x)[0][:, -1]))))


# --------------------------------------------------------------------------- transformers, checkpoints


class Encoder(nn.Module):
    """Two stock transformer layers."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 2)
        for block in self.encoder.layers:
            kill(block.linear1, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))


def encoder_reference(model: Any, x: Tensor, keep: Keep) -> Tensor:
    for i, layer in enumerate(model.encoder.layers):
        attended = layer.self_attn(x, x, x, need_weights=False)[0]
        x = layer.norm1(x + layer.dropout1(attended))
        z = keep(f"encoder.layers.{i}:relu", layer.linear1(x))
        x = layer.norm2(x + layer.dropout2(layer.linear2(layer.dropout(F.relu(z)))))
    return model.head(x)


class Checkpointed(nn.Module):
    """The middle is computed twice; its inputs count once."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.stem, self.relu, self.head = nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)
        self.middle = nn.Sequential(nn.Linear(6, 7), nn.ReLU(inplace=True), nn.Linear(7, 6))
        self.reentrant = reentrant
        kill(self.stem, 0)
        kill(self.middle[0], 1)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.relu(keep("relu", self.stem(x)))
        if keep is through:
            x = checkpoint(self.middle, x, use_reentrant=self.reentrant)  # pyright: ignore[reportAssignmentType]
        else:
            x = self.middle[2](self.middle[1](keep("middle.1", self.middle[0](x))))
        return self.head(x)


CHECKPOINT_SITES = (
    TrueSite("relu", producer="stem", size=6, dead=dead(0)),
    TrueSite("middle.1", producer="middle.0", size=7, dead=dead(1)),
)


# -------------------------------------------------------------------------------------- awkward inputs


def with_gaps() -> list[Tensor]:
    """NaN and infinities that reach some units only (see `apart`)."""
    batches = normal(8, 6, 2)()
    batches[1][0, 0, 0] = float("nan")
    batches[1][1, 1, 1] = float("inf")
    batches[2][2, 1, 0] = -float("inf")
    batches[4][:, 2] = float("nan")
    return batches


def apart() -> nn.Sequential:
    """Channel i reaches unit i only, so one bad input spoils one unit; unit 4 is never positive."""
    model = nn.Sequential(nn.Conv1d(6, 6, 1, groups=6), nn.ReLU(), nn.Conv1d(6, 2, 1))
    kill(model[0], 4)
    return model


def varying(*sizes: int) -> Callable[[], list[Tensor]]:
    g = torch.Generator().manual_seed(3)
    return lambda: [torch.randn(size, 6, generator=g.manual_seed(size + 1)) for size in sizes]


MLP_REFERENCE = sequential({1: "1", 3: "3"})
IMAGES = normal(4, 2, 8, 8, batches=3)

CASES: dict[str, Case] = {
    "mlp": Case(mlp, normal(16, 6), MLP_SITES, MLP_REFERENCE),
    "starved": Case(
        starved_mlp,
        normal(16, 6),
        (MLP_SITES[0], TrueSite("3", producer="2", size=8, dead=dead(*range(8)))),
        MLP_REFERENCE,
    ),
    "inplace": Case(lambda: mlp(lambda: nn.ReLU(inplace=True)), normal(16, 6), MLP_SITES, MLP_REFERENCE),
    "accumulation": Case(mlp, normal(5, 6, batches=12), MLP_SITES, MLP_REFERENCE, accumulate=3),
    "varying batches": Case(mlp, varying(5, 1, 9, 2, 30), MLP_SITES, MLP_REFERENCE),
    "empty batch": Case(mlp, varying(5, 0, 3, 0, 0), MLP_SITES, MLP_REFERENCE),
    "sequence": Case(mlp, normal(3, 5, 6), MLP_SITES, MLP_REFERENCE),
    "one sample": Case(mlp, normal(6), MLP_SITES, MLP_REFERENCE),
    "shared relu": Case(
        SharedReLU,
        normal(16, 6),
        (
            TrueSite("relu", producer="fc1", size=7, dead=dead(1)),
            TrueSite("relu#1", producer="fc2", size=8, dead=dead(2, 3)),
            TrueSite("relu#2", producer="fc3", size=9, dead=dead(4)),
        ),
    ),
    "two names": Case(
        TwoNames,
        normal(16, 6),
        (
            TrueSite("first", producer="fc", size=6, dead=dead(5)),
            TrueSite("other", producer="fc", size=6, dead=dead(5)),
        ),
    ),
    "module list": Case(
        Listed,
        normal(16, 6),
        (
            TrueSite("acts.relu", producer="layers.0", size=6, dead=dead(0)),
            TrueSite("acts.tanh", producer="layers.1", function=torch.tanh, size=6),
            TrueSite("acts.relu#1", producer="layers.2", size=6, dead=dead(2)),
        ),
    ),
    "conv": Case(ConvNet, IMAGES, conv_sites(("conv1", "conv2"))),
    "conv channels_last": Case(
        lambda: ConvNet().to(memory_format=torch.channels_last),  # pyright: ignore[reportCallIssue]
        lambda: [x.contiguous(memory_format=torch.channels_last) for x in IMAGES()],
        conv_sites(("conv1", "conv2")),
    ),
    "conv batchnorm": Case(lambda: ConvNet(nn.BatchNorm2d), IMAGES, conv_sites(("norm1", "norm2"))),
    "conv batchnorm dropout": Case(
        lambda: ConvNet(nn.BatchNorm2d, drop=True), IMAGES, conv_sites(("norm1", "norm2"))
    ),
    "conv groupnorm": Case(lambda: ConvNet(group_norm), IMAGES, conv_sites(("norm1", "norm2"))),
    "conv plain batchnorm": Case(
        PlainNormConvNet,
        IMAGES,
        tuple(
            TrueSite(s.name, axis=1, producer=p, size=s.size, dead=s.dead)
            for s, p in zip(conv_sites(("", "")), ("conv1", "conv2"), strict=True)
        ),
    ),
    "conv1d": Case(
        Conv1dNet,
        normal(4, 3, 9),
        (
            TrueSite("relu", axis=1, producer="norm", size=5, dead=dead(1)),
            TrueSite("relu#1", axis=1, producer="conv2", size=4, dead=dead(0)),
        ),
    ),
    "transposed conv": Case(
        Decoder,
        normal(3, 3, 4, 4),
        (TrueSite("relu", axis=1, producer="up", size=5, dead=dead(4), transposed=True),),
    ),
    "batchnorm1d": Case(
        lambda: NormMLP(nn.BatchNorm1d(8), nn.Identity()), normal(16, 6), norm_mlp_site("norm")
    ),
    "layernorm": Case(lambda: NormMLP(nn.LayerNorm(8), nn.Identity()), normal(16, 6), norm_mlp_site("norm")),
    "layernorm sequence dropout": Case(
        lambda: NormMLP(nn.LayerNorm(8), nn.Dropout(0.4)), normal(3, 5, 6), norm_mlp_site("norm")
    ),
    "dropout": Case(lambda: NormMLP(nn.Identity(), nn.Dropout(0.5)), normal(16, 6), norm_mlp_site("fc")),
    "residual": Case(
        Residual,
        normal(16, 6),
        (TrueSite("relu", producer="fc1", size=6, dead=dead(3)), TrueSite("relu#1", size=6)),
    ),
    "basic block": Case(BasicBlock, normal(3, 4, 5, 5), block_sites("relu")),
    "resnet": Case(
        ResNet,
        IMAGES,
        (
            TrueSite("relu", axis=1, producer="bn", size=4),
            *block_sites("layer.0.relu", "layer.0."),
            *block_sites("layer.1.relu", "layer.1."),
        ),
    ),
    "block twice": Case(
        Twice, normal(16, 6), (TrueSite("block.1", producer="block.0", size=6, dead=dead(4)),)
    ),
    "block twice per call": Case(
        lambda: Twice("block.1#1"),
        normal(16, 6),
        (
            TrueSite("block.1", producer="block.0", size=6, dead=dead(4)),
            TrueSite("block.1#1", producer="block.0", size=6, dead=dead(4)),
        ),
        recorder={"per_call": True},
    ),
    "cell": Case(Cell, normal(6, 4, 3), (TrueSite(":relu", producer="fc", size=5, dead=dead(0)),)),
    "mixed": Case(
        Mixed,
        normal(16, 6),
        (
            TrueSite("a:relu", producer="a.fc", size=6, dead=dead(1)),
            TrueSite("a.act", producer="a.again", size=6),
            TrueSite(":relu", producer="fc", size=6, dead=dead(0)),
            TrueSite("b:relu", producer="b.fc", size=6, dead=dead(1)),
            TrueSite("b.act", producer="b.again", size=6),
            TrueSite("act", producer="fc", size=6, dead=dead(0)),
        ),
    ),
    "never called": Case(
        NeverCalled,
        normal(16, 6),
        (TrueSite("relu", producer="fc", size=5, dead=dead(2)), TrueSite("unused")),
        quiet=False,
    ),
    "lstm": Case(
        lambda: Recurrent(nn.LSTM),
        normal(4, 3, 3),
        (TrueSite("relu", producer="fc", size=4, dead=dead(1)), TrueSite("rnn")),
        quiet=False,
    ),
    "rnn": Case(
        lambda: Recurrent(lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k)),
        normal(4, 3, 3),
        (TrueSite("relu", producer="fc", size=4, dead=dead(1)), TrueSite("rnn")),
        quiet=False,
    ),
    "non-finite": Case(
        apart,
        with_gaps,
        (TrueSite("1", axis=1, producer="0", size=6, dead=dead(4)),),
        sequential({1: "1"}),
        train=False,
    ),
    "encoder": Case(
        Encoder,
        normal(3, 4, 8, batches=3),
        tuple(
            TrueSite(
                f"encoder.layers.{i}:relu", producer=f"encoder.layers.{i}.linear1", size=12, dead=dead(5)
            )
            for i in range(2)
        ),
        encoder_reference,
    ),
    "checkpoint": Case(lambda: Checkpointed(False), normal(8, 6), CHECKPOINT_SITES),
    "checkpoint reentrant": Case(lambda: Checkpointed(True), normal(8, 6), CHECKPOINT_SITES),
}
for form in (*RELU_FORMS, *OTHER_FORMS):
    CASES[form] = functional(form)
for form in MODULE_FORMS:
    CASES[f"module {form}"] = module_form(form)
