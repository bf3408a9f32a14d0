"""A user's own network: created by a function or class, and checked with one forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from harness.activations.stored import stored
from harness.config.enums import BiasBase
from harness.config.errors import ConfigError, type_of
from harness.config.schema import CustomModel, LeakySwap, RunSpec
from harness.config.schema import Sugar as SugarRemedy
from harness.config.targets import arguments, call, error_text, imported
from harness.recording.batches import preserve_state
from harness.remedies.leaky import all_partly_leaky
from harness.remedies.surrogate import Sugar, sugar
from harness.remedies.wiring import trace
from harness.training.models.activations import make_activation
from harness.training.models.linear_maps import layers
from harness.training.models.wiring import DECLARED, Feed
from harness.training.randomness import stream

INPUTS = 2  # batch size of the checking forward pass; batch normalisation needs more than one input


def custom_network(
    spec: RunSpec, config: CustomModel, shape: tuple[int, ...], classes: int, draw: tuple[Any, ...]
) -> nn.Module:
    """Create the network of `model.target`, with the weights that its own code draws.

    Args:
        spec: the run.
        config: its `model`.
        shape: shape of one input.
        classes: number of outputs.
        draw: name and counters of the stream that seeds torch, together with the run's seed.

    Raises:
        ConfigError: it cannot be created or trained, or a setting of the run would have no effect on it.
    """
    place, used = config.target, list[str]()

    def activation(units: int = 1) -> nn.Module:
        used.append(spec.activation.name)
        return make_activation(spec.activation, units)

    factory = imported(place, "model.target")
    offered = {
        "classes": classes,
        "num_classes": classes,
        "input_shape": shape,
        "activation": activation,
    }
    keywords = arguments(factory, config.args, offered, "model.args")
    torch.manual_seed(stream(spec.seed, *draw).initial_seed())
    model = call(place, factory, keywords, "model.target")
    if not isinstance(model, nn.Module):
        raise ConfigError(
            "model.target", f"{place} returned {type_of(model)}, but a torch.nn.Module is needed"
        )
    if spec.activation.name != "relu" and not used:
        problem = f"{spec.activation.name} has no effect, since {place} takes no argument `activation`"
        hint = "It would be a function: activation(units) makes the module."
        raise ConfigError("activation", problem, hint=hint)
    sample = torch.zeros(INPUTS, *shape)
    _check_output(place, model, sample, classes)
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError("model.target", f"the network of {place} has no parameters to train")
    _refuse_idle_init(place, spec, model)
    _take_remedy(spec, model, sample)
    setattr(model, DECLARED, _feeds(place, model, sample) if spec.bias.offset else ())
    return model


def _check_output(place: str, model: nn.Module, sample: Tensor, classes: int) -> None:
    """Refuse a network that cannot read such inputs, or whose outputs are not class scores."""
    model.train()
    try:
        with torch.no_grad():
            if any(is_lazy(p) for p in (*model.parameters(), *model.buffers())):
                model.eval()(sample)  # sets lazy shapes without changing running statistics
                model.train()
            with preserve_state(model):
                output = model(sample)
    except KeyboardInterrupt:
        raise
    except Exception as error:
        problem = (
            f"the network of {place} cannot read a batch of shape {tuple(sample.shape)}: {error_text(error)}"
        )
        raise ConfigError("model.target", problem) from error
    wanted = (INPUTS, classes)
    if not isinstance(output, Tensor) or tuple(output.shape) != wanted or not output.is_floating_point():
        came = type_of(output)
        if isinstance(output, Tensor):
            came = f"{tuple(output.shape)} {str(output.dtype).removeprefix('torch.')}"
        problem = f"the network of {place} returns {came} for {INPUTS} inputs of {classes} classes"
        raise ConfigError("model.target", problem, hint=f"A float tensor of shape {wanted} is needed.")


def _refuse_idle_init(place: str, spec: RunSpec, model: nn.Module) -> None:
    """Refuse `init` and `bias` if the network has nothing that they act on."""
    maps = [one for _, found in layers(model) for one in found]
    drawn = (spec.init.name, spec.init.gain, spec.init.mean) != ("own", 1.0, 0.0)
    if drawn and not maps:
        problem = f"has no effect: the network of {place} has no linear or convolution layers"
        raise ConfigError("init", problem, hint="init=own leaves the weights as its code draws them.")
    if spec.bias.base is not BiasBase.own and all(one.bias is None for one in maps):
        problem = f"has no effect: no linear or convolution layer of {place} has a bias"
        raise ConfigError("bias", problem, hint="bias=own leaves them as its code makes them.")


def _take_remedy(spec: RunSpec, model: nn.Module, sample: Tensor) -> None:
    """Replace the network's ReLUs with the activation modules of its remedy, if it has any."""
    try:
        if isinstance(spec.remedy, SugarRemedy):
            if not any(isinstance(module, Sugar) for module in model.modules()):
                sugar(model, alpha=spec.remedy.alpha)
        elif isinstance(spec.remedy, LeakySwap):
            all_partly_leaky(model, sample)
    except ValueError as error:
        raise ConfigError("remedy", f"{spec.remedy.name}: {error}") from None


def _feeds(place: str, model: nn.Module, sample: Tensor) -> tuple[Feed, ...]:
    """Find the layers whose bias alone shifts the units of an activation, from one forward pass."""
    found = [
        Feed(one.site, one.norm_name or one.name)
        for one in trace(model, sample).found
        if one.site and isinstance(stored(one.norm or one.layer, "bias"), Tensor)
    ]
    if not found:
        problem = f"has no effect: no bias in the network of {place} alone feeds an activation"
        raise ConfigError("bias.offset", problem)
    return tuple(found)
