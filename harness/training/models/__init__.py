"""Build the networks of the harness from a configuration."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from harness.config.errors import ConfigError
from harness.config.schema import Cnn, CustomModel, Dtype, Mlp, Resnet, Rnn, RunSpec, Transformer, Vgg
from harness.training.models.activations import activation_of, make_activation, widening
from harness.training.models.cnn import CNN
from harness.training.models.custom import custom_network
from harness.training.models.mlp import MLP
from harness.training.models.resnet import ResNet18, ResNet20
from harness.training.models.rnn import RNN
from harness.training.models.transformer import VisionTransformer
from harness.training.models.vgg import VGG
from harness.training.models.wiring import Feed, feeds, zeroed
from harness.training.randomness import stream

__all__ = ["Feed", "activation_of", "build", "feeds", "make_activation", "widening", "zeroed"]


def build(
    spec: RunSpec, shape: tuple[int, ...], classes: int, *, draw: tuple[str, *tuple[int, ...]] = ("custom",)
) -> nn.Module:
    """Build the network of a run on the CPU, in the run's precision (float32 under autocast).

    Its weights are placeholders until `harness.training.initialisation.initialise` draws them; model=custom
    draws its weights in its own code. Torch's global random state does not change.

    Args:
        spec: the run; `model`, `activation`, `remedy`, `seed` and `dtype` are read.
        shape: shape of one input, (C, H, W) or (F,).
        classes: number of outputs.
        draw: name and counters of the random stream for the code of model=custom.

    Returns:
        A module (N, *shape) -> (N, classes); the built-in networks call their output layer `head`.

    Raises:
        ConfigError: the model cannot read such data, or cannot carry the activation.

    Example:
        >>> from harness.config import compose
        >>> model = build(compose(["model.depth=1", "model.width=4"]), (1, 8, 8), 10)
        >>> model(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
        >>> [feed.layer for feed in feeds(model)]
        ['layers.0.linear']
    """
    with torch.random.fork_rng(devices=[]):
        if isinstance(spec.model, CustomModel):
            model = custom_network(spec, spec.model, shape, classes, draw)
        else:
            model = _network(spec, shape, classes)
    return model.double() if spec.dtype is Dtype.float64 else model


def _network(spec: RunSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    config, activation = spec.model, activation_of(spec)
    if isinstance(config, Mlp):
        return MLP(config, activation, shape, classes)
    if len(shape) != 3:
        raise ConfigError(
            "model",
            f"{config.name} needs images, but data={spec.data.name} has inputs of shape {shape}",
            hint="model=mlp takes vectors.",
        )
    image = cast("tuple[int, int, int]", shape)
    match config:
        case Cnn():
            return CNN(config, activation, image, classes)
        case Vgg():
            return VGG(config, activation, image, classes)
        case Resnet():
            return (ResNet20 if config.depth == 20 else ResNet18)(activation, image, classes)
        case Rnn():
            return RNN(config, activation, image, classes)
        case Transformer():
            return VisionTransformer(config, activation, image, classes, stream(spec.seed, "positions"))
    raise ConfigError("model", f"there is no network called {config.name}")
