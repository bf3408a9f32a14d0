"""Every family of torchvision: classification, segmentation, detection, video, optical flow, quantisable."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import detection, optical_flow, quantization, segmentation, video

from tests.zoo.models import Animal, any_loss, by_caller, channels, image, last

CLASSIFIERS = {
    "resnet18": 32,
    "resnext50_32x4d": 32,
    "wide_resnet50_2": 32,
    "densenet121": 32,
    "squeezenet1_1": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "mobilenet_v3_large": 32,
    "shufflenet_v2_x0_5": 32,
    "mnasnet0_5": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_s": 32,
    "regnet_x_400mf": 32,
    "regnet_y_400mf": 32,
}


def cut(name: str) -> nn.Module:
    """AlexNet and VGG with heads of 32 units: 100 million parameters teach nothing here."""
    model = models.get_model(name, weights=None, **({"init_weights": False} if "vgg" in name else {}))
    head = cast("nn.Sequential", model.classifier)
    for i, layer in enumerate(head):
        if isinstance(layer, nn.Linear):
            head[i] = nn.Linear(layer.in_features if layer.in_features > 4096 else 32, 32)
    return model


def classification() -> Iterator[Animal]:
    def animal(name: str, build: Any, size: int, axis: Any = channels) -> Animal:
        return Animal(f"tv/{name}", build, image(size), any_loss, axis)

    for name, size in CLASSIFIERS.items():
        yield animal(name, partial(models.get_model, name, weights=None, num_classes=10), size)
    for name in ("alexnet", "vgg11", "vgg11_bn"):
        yield animal(name, partial(cut, name), 64)
    yield animal("googlenet", partial(models.googlenet, weights=None, num_classes=10, init_weights=False), 64)
    yield animal(
        "inception_v3", partial(models.inception_v3, num_classes=10, aux_logits=False, init_weights=False), 80
    )
    yield animal("convnext_tiny", partial(models.convnext_tiny, num_classes=10), 32, last)
    vit = partial(models.VisionTransformer, 32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)
    yield animal("vit", vit, 32, last)
    swin = partial(models.SwinTransformer, [4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=10)
    yield animal("swin", swin, 32, last)
    block = models.swin_transformer.SwinTransformerBlockV2
    merging = models.swin_transformer.PatchMergingV2
    v2 = partial(swin, block=block, downsample_layer=merging)
    # The sigmoid of the learned position bias is over (1, heads, query, key).
    yield animal("swin_v2", v2, 32, by_caller(last, {"features.*.attn": 1}))
    maxvit = partial(
        models.MaxVit,
        (64, 64),
        16,
        2,
        [16, 32],
        [1, 1],
        head_dim=8,
        stochastic_depth_prob=0.1,
        num_classes=10,
    )
    yield animal("maxvit", maxvit, 64, channels_or_tokens)


def channels_or_tokens(caller: str, z: Tensor) -> int:
    """MaxViT: convolutions are channels-first, the blocks of window and grid attention channels-last."""
    return -1 if "_attention" in caller else channels(caller, z)


def dense() -> Iterator[Animal]:
    for name in ("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"):
        build = getattr(segmentation, name)
        options = {"num_classes": 4} | ({} if "lraspp" in name else {"aux_loss": True})
        build = partial(build, weights=None, weights_backbone=None, **options)
        yield Animal(f"tv/{name}", build, image(32), any_loss, channels)
    yield Animal(
        "tv/raft_small",
        optical_flow.raft_small,
        lambda: {
            "image1": torch.rand(1, 3, 128, 128),
            "image2": torch.rand(1, 3, 128, 128),
            "num_flow_updates": 2,
        },
        any_loss,
        channels,
    )


def scenes(size: int, *, masks: bool = False) -> Any:
    """Two images with one box each."""

    def batch() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        target = {"boxes": torch.tensor([[8.0, 8.0, size - 16.0, size - 8.0]]), "labels": torch.tensor([1])}
        if masks:
            target["masks"] = torch.ones(1, size, size, dtype=torch.uint8)
        return [torch.rand(3, size, size) for _ in range(2)], [target, target]

    return batch


def detector_loss(model: nn.Module, batch: Any) -> Tensor:
    return torch.stack(list(model(*batch).values())).sum()


def detectors() -> Iterator[Animal]:
    bare: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": 3}
    resized = {"min_size": 64, "max_size": 64}
    # Scores are sigmoids of logits in which anchors, positions and levels have become one axis.
    for name, options, exempt in (
        ("fasterrcnn_mobilenet_v3_large_320_fpn", resized, ("rpn:sigmoid",)),
        ("ssdlite320_mobilenet_v3_large", {}, ()),
        ("fcos_resnet50_fpn", resized, (":sigmoid",)),
        ("retinanet_resnet50_fpn", resized, (":sigmoid",)),
        ("maskrcnn_resnet50_fpn", resized, ("rpn:sigmoid",)),
    ):
        yield Animal(
            f"tv/{name}",
            partial(getattr(detection, name), **(bare | options)),
            scenes(64, masks="mask" in name),
            detector_loss,
            channels,
            exempt=exempt,
        )


def videos() -> Iterator[Animal]:
    def clip(frames: int, size: int) -> Any:
        return lambda: torch.randn(1, 3, frames, size, size)

    for name in ("r3d_18", "mc3_18", "r2plus1d_18"):
        yield Animal(
            f"tv/{name}", partial(getattr(video, name), num_classes=4), clip(4, 32), any_loss, channels
        )
    yield Animal("tv/s3d", partial(video.s3d, num_classes=4), clip(16, 224), any_loss, channels)
    swin = partial(
        video.SwinTransformer3d, [2, 4, 4], 16, [2, 2], [2, 4], window_size=[2, 4, 4], num_classes=4
    )
    yield Animal("tv/swin3d", swin, clip(4, 32), any_loss, last)
    blocks = [
        video.mvit.MSBlockConfig(1, 16, 32, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 2, 2]),
        video.mvit.MSBlockConfig(2, 32, 32, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 1, 1]),
    ]
    pooled = {
        "residual_pool": True,
        "residual_with_cls_embed": False,
        "rel_pos_embed": True,
        "proj_after_attn": True,
    }
    mvit = partial(video.MViT, (32, 32), 4, blocks, **pooled, stochastic_depth_prob=0.1, num_classes=4)
    yield Animal("tv/mvit", mvit, clip(4, 32), any_loss, last)


def quantisable() -> Iterator[Animal]:
    for name in ("resnet18", "mobilenet_v2", "mobilenet_v3_large", "shufflenet_v2_x0_5"):
        build = partial(getattr(quantization, name), weights=None, quantize=False, num_classes=10)
        yield Animal(f"tv/quantizable_{name}", build, image(32), any_loss, channels)


def animals() -> list[Animal]:
    return [*classification(), *dense(), *detectors(), *videos(), *quantisable()]
