"""A walk through timm, where it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import nn

from tests.zoo.models import Animal, any_loss, by_caller, channels, image, last

# name: (image size, unit axis, options)
MODELS: dict[str, tuple[int, Any, dict[str, Any]]] = {
    "resnet10t": (32, channels, {}),
    "resnetv2_50": (32, channels, {}),
    "skresnet18": (32, channels, {}),
    "resnest14d": (32, channels, {}),
    "seresnet18": (32, channels, {}),
    "cspresnet50": (32, channels, {}),
    "dla46_c": (32, channels, {}),
    "hrnet_w18_small": (64, channels, {}),
    "ghostnet_050": (32, channels, {}),
    "lcnet_035": (32, channels, {}),
    "tinynet_e": (32, channels, {}),
    "hardcorenas_a": (32, channels, {}),
    "mobilenetv4_conv_small": (32, channels, {}),
    "mobileone_s0": (32, channels, {}),
    "repvgg_a0": (32, channels, {}),
    "nf_regnet_b0": (32, channels, {}),
    # One convolution along the channels: its output has a single channel, and they are its positions.
    "eca_nfnet_l0": (32, by_caller(channels, {"*.attn_last.gate": 1}), {}),
    # Queries and keys of linear attention: a view has split the channels into (heads, d).
    "efficientvit_b0": (32, by_caller(channels, {"*.kernel_func": (1, 3)}), {}),
    "efficientvit_m0": (64, channels, {}),
    "convnext_atto": (32, channels, {}),
    "convnext_nano": (32, channels, {}),
    "edgenext_xx_small": (64, by_caller(channels, {"stages.*.mlp.act": last}), {}),
    "mobilevit_xxs": (64, channels, {}),
    "mobilevitv2_050": (64, channels, {}),
    "poolformer_s12": (32, channels, {}),
    "fastvit_t8": (64, channels, {}),
    "levit_128s": (64, channels, {"img_size": 64}),
    "mixer_s32_224": (64, last, {"img_size": 64}),
    "resmlp_12_224": (32, last, {"img_size": 32}),
    "gmlp_ti16_224": (32, last, {"img_size": 32}),
    "deit_tiny_patch16_224": (32, last, {"img_size": 32}),
    "cait_xxs24_224": (32, last, {"img_size": 32}),
    "xcit_nano_12_p16_224": (64, channels, {}),
    "pvt_v2_b0": (32, last, {}),
    "vovnet39a": (32, channels, {}),
    "inception_next_atto": (32, channels, {}),
}


def build(name: str, options: dict[str, Any]) -> nn.Module:
    timm: Any = import_module("timm")  # an extra, which may be absent

    return timm.create_model(name, num_classes=10, **options).train()


#: Queries and keys are slices of one convolution's output.
SLICES = {"efficientvit_b0": ("*.kernel_func",)}


def animals() -> Iterator[Animal]:
    if find_spec("timm") is None:
        return
    for name, (size, axis, options) in MODELS.items():
        slices = SLICES.get(name, ())
        yield Animal(
            f"timm/{name}", partial(build, name, options), image(size), any_loss, axis, slices=slices
        )
