"""Mehta et al. 2019: filters that die under batch normalisation, Adam and L2, and not under SGD."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.nn import functional

import harness
from experiments.contrasts import contrast
from experiments.images import images
from experiments.paper import Row, share, word_of
from experiments.threads import one_thread
from experiments.verdicts import judge

L2, BATCH = 5e-4, 32
ARMS: dict[str, tuple[Any, dict[str, float]]] = {
    "Adam + L2": (torch.optim.Adam, {"lr": 1e-3, "weight_decay": L2}),
    "SGD + L2": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": L2}),
    "Adam": (torch.optim.Adam, {"lr": 1e-3}),
}
SMALL = (16, 0, 32, 0, 64, 64, 64)  # channels of each convolution; 0: pooling
VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
TRAIN, TEST, SEEDS, EPOCHS, SHRINK = 500, 1000, 6, 800, 4


def vgg(channels: tuple[int, ...]) -> nn.Sequential:
    """3 × 3 convolutions, each with batch normalisation and ReLU; a linear layer on the mean."""
    layers: list[nn.Module] = []
    width = 3
    for channel in channels:
        if not channel:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(width, channel, 3, padding=1, bias=False), nn.BatchNorm2d(channel), nn.ReLU()]
        width = channel
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def measure(
    root: Path,
    channels: tuple[int, ...] = SMALL,
    seeds: Sequence[int] = range(SEEDS),
    epochs: int = EPOCHS,
    train: int = TRAIN,
    shrink: int = SHRINK,
) -> pd.DataFrame:
    """Dead filters on held-out images after training, and the accuracy there, by arm."""
    data = images("cifar10", root, train=train, test=TEST)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, x_test = (
        functional.avg_pool2d(one - data.x.mean(), shrink).to(device) for one in (data.x, data.x_test)
    )
    y, y_test = data.y.to(device), data.y_test.to(device)
    found = []
    with one_thread():
        for seed in seeds:
            for arm, (kind, options) in ARMS.items():
                torch.manual_seed(seed)
                model = vgg(channels).to(device)
                optimizer = kind(model.parameters(), **options)
                for _ in range(epochs):
                    for rows in torch.randperm(len(x)).to(device).split(BATCH)[: len(x) // BATCH]:
                        optimizer.zero_grad()
                        functional.cross_entropy(model(x[rows]), y[rows]).backward()
                        optimizer.step()
                report = harness.scan(model, x_test.split(250))
                with torch.no_grad():
                    right = (model.eval()(x_test).argmax(1) == y_test).float().mean()
                found.append((seed, arm, report.dead_fraction, float(right)))
    return pd.DataFrame(found, columns=pd.Index(["seed", "arm", "dead_share", "accuracy"]))


def decide(table: pd.DataFrame) -> str:
    """Adam with L2 against the worse of the others: it has to kill more than either."""
    others = table[table["arm"] != "Adam + L2"].groupby("seed")["dead_share"].max()
    worse = pd.DataFrame({"seed": others.index, "arm": "others", "dead_share": others.to_numpy()})
    sides = ({"arm": "Adam + L2"}, {"arm": "others"})
    both = pd.concat([table, worse])
    return word_of(judge(contrast(both, "dead_share", *sides, label="Adam + L2", at_least=0.05)))


def tell(table: pd.DataFrame) -> str:
    return "dead " + "; ".join(
        f"{arm} {share(table, 'dead_share', arm=arm)} (accuracy {share(table, 'accuracy', arm=arm)})"
        for arm in ARMS
    )


SOURCE = "Public logs beside Mehta, Kim & Theobalt 2019, 1811.12495: VGG16 on CIFAR-10, L2 5e-4"
THEIRS = "Adam kills 431 of 512 filters of conv5_1 and 237 of 512 of conv4_3; SGD none; Adam without L2 none"
SETTING = (
    "Convolutions with batch normalisation and ReLU; Adam at 0.001 and SGD at 0.05 with momentum "
    "0.9, L2 5e-4 "
    "in the gradient, none for the third arm; constant rates, batches of 32, no augmentation; dead on 1,000 "
    "held-out images, all positions."
)
ROWS = (
    Row(
        name="mehta_2019",
        source=SOURCE,
        read="source",
        theirs=THEIRS,
        setting=f"{SETTING} Five convolutions of 16 to 64 filters, {TRAIN} images averaged to 8 × 8, "
        f"{EPOCHS} epochs (12,000 steps). Asked: 5 points more than each of the other arms.",
        scaled="five convolutions in place of VGG16's thirteen, a hundredth of the images at a "
        "quarter of the "
        "resolution. The length was chosen after looking at the first arm of seed 0, in which "
        "nothing dies in "
        "the first 3,000 steps.",
        measure=measure,
        tell=tell,
        decide=decide,
    ),
    Row(
        name="mehta_2019_full",
        source=SOURCE,
        read="source",
        theirs=THEIRS,
        setting=f"{SETTING} VGG16's thirteen convolutions, all 50,000 images, 200 epochs. The logs' learning "
        "rates and augmentation are not known here.",
        measure=partial(measure, channels=VGG16, epochs=200, train=0, shrink=1),
        tell=tell,
        decide=decide,
        heavy="hours on a GPU",
    ),
)
