"""Build the activation module of a configuration."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from harness.activations.lookup import MODULES
from harness.activations.registry import OPTIONS, RECORDS
from harness.config.errors import ConfigError, did_you_mean
from harness.config.schema import Activation, LeakySwap, RunSpec
from harness.config.schema import Sugar as SugarRemedy
from harness.remedies import PartlyLeaky, Sugar

LEAKY_SWAP = "leaky_swap"


@dataclass
class Surrogate(Activation):
    """ReLU with the slope of B-SiLU as its gradient."""

    alpha: float = 0.0


def activation_of(spec: RunSpec) -> Activation:
    """Return the activation that a run uses: its own, or the one that its remedy puts in place.

    Example:
        >>> from harness.config import compose
        >>> activation_of(compose(["remedy=sugar"])), activation_of(compose(["activation=elu"])).name
        (Surrogate(name='sugar', alpha=1.67), 'elu')
    """
    match spec.remedy:
        case SugarRemedy():
            return Surrogate("sugar", spec.remedy.alpha)
        case LeakySwap():
            return Activation(LEAKY_SWAP)
    return spec.activation


def make_activation(activation: Activation, units: int) -> nn.Module:
    """Create an activation module, never in place, since the recorder observes the pre-activation.

    Args:
        activation: the choice and its parameters.
        units: width of the pre-activation; PReLU has one slope per unit.

    Raises:
        ConfigError: there is no such activation.

    Example:
        >>> from harness.config import compose
        >>> make_activation(compose(["activation=leaky_relu"]).activation, 8)
        LeakyReLU(negative_slope=0.01)
    """
    match activation:
        case Surrogate():
            return Sugar(activation.alpha)
        case Activation(name="leaky_swap"):
            return PartlyLeaky(units)
    name = activation.name
    if name not in OPTIONS:
        expected, hint = f"one of {', '.join(sorted(OPTIONS))}", did_you_mean(name, OPTIONS)
        raise ConfigError("activation", expected=expected, came=name, hint=hint)
    record = RECORDS[name]
    given = {argument: getattr(activation, option) for option, (argument, _) in OPTIONS[name].items()}
    cls = next(cls for cls, (known, _) in MODULES.items() if known == name)
    return cls(**given, **({record.units: units} if record.units else {}))


def widening(activation: Activation) -> int:
    """Outputs per unit: 2 for CReLU, otherwise 1 (also for activations that a remedy puts in place).

    Example:
        >>> from harness.config import compose
        >>> widening(compose(["activation=crelu"]).activation)
        2
    """
    return RECORDS[activation.name].outputs if activation.name in RECORDS else 1


def refuse_widening(activation: Activation, where: str) -> None:
    """Refuse CReLU if the activation's output is added to a tensor of the original width.

    Raises:
        ConfigError: key `activation`.
    """
    if widening(activation) != 1:
        raise ConfigError(
            "activation",
            f"{activation.name} doubles the width, which the shortcuts of {where} cannot follow",
            hint="Choose another activation, or a network without shortcuts around the activation.",
        )
