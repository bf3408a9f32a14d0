"""Initial weights and biases: each layer draws from its own random stream.

Sources: He et al. 2015 (arXiv 1502.01852); Glorot & Bengio 2010; LeCun et al. 1998; Saxe et al. 2013
(arXiv 1312.6120); randomized asymmetric initialisation, Lu et al. 2019 (arXiv 1903.06733); sign flipping
after Rister & Rubin 2020 (arXiv 2007.06192), see `sign_flip`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.config.schema import BiasBase, RunSpec, StoredInit
from harness.training.models.linear_maps import LinearMap, layers
from harness.training.models.wiring import feeds, zeroed
from harness.training.randomness import stream
from harness.training.sign_flip import sign_flip
from harness.training.state_files import load_weights

#: Scheme -> function that fills a weight (units, ...) in place, with fan_in = entries per unit. kaiming_*
#: uses the gain √2 for every activation, so that arms with different activations start equal.
SCHEMES: dict[str, Callable[[Tensor, torch.Generator], object]] = {
    "kaiming_normal": lambda w, g: nn.init.kaiming_normal_(w, nonlinearity="relu", generator=g),
    "kaiming_uniform": lambda w, g: nn.init.kaiming_uniform_(w, nonlinearity="relu", generator=g),
    "xavier_normal": lambda w, g: nn.init.xavier_normal_(w, generator=g),
    "xavier_uniform": lambda w, g: nn.init.xavier_uniform_(w, generator=g),
    "lecun_normal": lambda w, g: nn.init.normal_(w, 0.0, 1 / math.sqrt(w[0].numel()), generator=g),
    "orthogonal": lambda w, g: nn.init.orthogonal_(w, generator=g),
    "torch_default": lambda w, g: nn.init.kaiming_uniform_(w, a=math.sqrt(5), generator=g),
}
SCHEMES["sign_flip"] = SCHEMES["kaiming_normal"]
SCHEMES["own"] = SCHEMES["stored"] = SCHEMES["torch_default"]  # for units that a remedy redraws
BEGINNING = ("init",)
OWN = "own"  # scheme that keeps the weights drawn by the network's own code

TOGETHER = ("orthogonal", "xavier_normal", "xavier_uniform")  # a unit's distribution depends on the layer
RAI_DEVIATION = 0.6007  # multiplied by 1/sqrt(fan_in)


def initialise(
    model: nn.Module,
    spec: RunSpec,
    sample: Tensor | None = None,
    *,
    draw: tuple[str, *tuple[int, ...]] = BEGINNING,
) -> None:
    """Draw every weight and bias of a network, in place.

    The steps are: draw by the scheme, multiply the weights by `init.gain`, add `init.mean`/√fan_in to each
    weight, draw the base bias, add `bias.offset`, flip signs. The k-th layer (in order of registration, not
    counting norms) draws from `stream(seed, "init", k)`, so its draw depends only on its own shape. All draws
    are made in float32 and then cast, so runs in float64 start from the same numbers. Norm layers start at
    γ = 1, β = 0; positions stay as built.

    The offset is added where it shifts a pre-activation: to the bias of the layer that feeds an activation,
    or to β if a norm lies between. The head and attention projections only get the base bias. The scheme rai
    draws all biases itself and ignores the base. A branch that must start at zero (skip=zero_init) stays
    exactly zero.

    For model=custom, `own` as init or bias keeps what the network's code has drawn; other schemes redraw its
    linear, convolution, attention and norm layers.

    Args:
        model: a network from `harness.training.models.build`.
        spec: the run; `init`, `bias` and `seed` are read.
        sample: inputs (N, *shape) for sign_flip; the other schemes ignore it.
        draw: name and counters of the streams; use another name for another draw.

    Raises:
        ConfigError: stored weights do not fit.
        ValueError: sign_flip without a sample, or an offset or sign_flip for a model that does not declare
            which layers feed its activations.

    Example:
        >>> from harness.config import compose
        >>> from harness.training.models import build
        >>> spec = compose(["model.depth=1", "model.width=4", "bias.offset=-0.5"])
        >>> model = build(spec, (64,), 10)
        >>> initialise(model, spec)
        >>> model.layers[0].linear.bias.tolist(), model.head.bias.count_nonzero().item()
        ([-0.5, -0.5, -0.5, -0.5], 0)
    """
    if isinstance(spec.init, StoredInit) and draw == BEGINNING:
        load_weights(model, spec.init.path)
        return
    flips = spec.init.name == "sign_flip"
    if flips and sample is None:
        raise ValueError("init=sign_flip decides on inputs: give a sample")
    if spec.init.name == OWN and (spec.init.gain, spec.init.mean, spec.bias.base) == (1, 0, BiasBase.own):
        _add_offset(model, spec)
        return
    if (flips or spec.bias.offset) and not feeds(model):
        raise ValueError(f"{type(model).__name__} does not say which layers feed its activations")
    dtype = next(model.parameters()).dtype
    model.float()
    with torch.no_grad():
        _draw_all(model, spec, draw)
        _add_offset(model, spec)
        if flips and sample is not None:
            sign_flip(model, sample)
    model.to(dtype)


@torch.no_grad()
def _add_offset(model: nn.Module, spec: RunSpec) -> None:
    for layer in {feed.layer: None for feed in feeds(model)}:  # each layer once, even if several sites use it
        bias = model.get_submodule(layer).bias
        assert isinstance(bias, Tensor), f"{layer} feeds an activation and has no bias"
        bias.add_(spec.bias.offset)


def redraw(layer: LinearMap, units: Tensor, spec: RunSpec, generator: torch.Generator) -> Tensor:
    """Draw new float32 weights (len(units), ...) for some units of a layer, by the run's initial scheme.

    Other units are drawn too only if the scheme depends on the whole layer.

    Example:
        >>> from harness.config import compose
        >>> layer = LinearMap(torch.zeros(8, 3), torch.zeros(8))
        >>> redraw(layer, torch.tensor([2, 5]), compose([]), stream(0, "redo", 100, 0)).shape
        torch.Size([2, 3])
    """
    if spec.init.name in TOGETHER:
        return _draw(layer, spec, generator)[0][units]
    own = LinearMap(layer.weight[units], None if layer.bias is None else layer.bias[units])
    return _draw(own, spec, generator)[0]


def _draw_all(model: nn.Module, spec: RunSpec, draw: tuple[str, *tuple[int, ...]]) -> None:
    kept = zeroed(model)
    biases = spec.bias.base is not BiasBase.own or spec.init.name == "rai"  # otherwise they stay
    for index, (name, maps) in enumerate(layers(model)):
        name_of_draw, *counters = draw
        generator = stream(spec.seed, name_of_draw, *counters, index)
        for linear_map in maps:
            if name in kept:
                weight, bias = torch.zeros(()), torch.zeros(())
            else:
                weight, bias = _draw(linear_map, spec, generator)
                if spec.init.name == OWN:
                    weight = _turned(linear_map.weight, spec)
            linear_map.weight.copy_(weight)
            if linear_map.bias is not None and biases:
                linear_map.bias.copy_(bias)
    for module in model.modules():
        if isinstance(module, _BatchNorm | nn.LayerNorm | nn.GroupNorm) and spec.init.name != OWN:
            for parameter, start in ((module.weight, 1.0), (module.bias, 0.0)):
                if parameter is not None:
                    nn.init.constant_(parameter, start)


def _draw(shapes: LinearMap, spec: RunSpec, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw weight and bias of one map, in float32 on the CPU whatever the model's device."""
    weight = torch.empty(shapes.weight.shape)
    units, fan_in = len(weight), weight[0].numel()
    if spec.init.name == "rai":
        weight, bias = _rai(weight, shapes.bias is not None, generator)
    else:
        SCHEMES[spec.init.name](weight, generator)
        bias = torch.zeros(units)
        if spec.bias.base is BiasBase.torch_default:
            bias.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)
    return _turned(weight, spec), bias


def _turned(weight: Tensor, spec: RunSpec) -> Tensor:
    """Apply gain and mean to a weight."""
    return weight * spec.init.gain + spec.init.mean / math.sqrt(weight[0].numel())


def _rai(weight: Tensor, with_bias: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw weights and bias ~ N(0, .6007²/fan_in), then one random entry of each unit ~ Beta(2, 1)."""
    units, fan_in = len(weight), weight[0].numel()
    entries = torch.empty(units, fan_in + with_bias)
    entries.normal_(0.0, RAI_DEVIATION / math.sqrt(fan_in), generator=generator)
    chosen = torch.randint(entries.shape[1], (units, 1), generator=generator)
    beta = torch.rand(units, 1, generator=generator).sqrt()  # P(√U <= x) = x², which is Beta(2, 1)
    entries.scatter_(1, chosen, beta)
    bias = entries[:, fan_in] if with_bias else torch.zeros(units)
    return entries[:, :fan_in].reshape(weight.shape), bias
