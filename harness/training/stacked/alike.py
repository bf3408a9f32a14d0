"""Which runs may be trained as one stack."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.config import RunSpec, to_mapping
from harness.config import schema as s
from harness.training.models import widening

#: Keys in which the members of a stack may differ (or that decide nothing in it).
FREE = frozenset(
    [
        "seed",
        "output",
        "force",
        "schedule",
        "init",
        "bias",
        "detect",
        "record.gate_eps",
        "record.tensorboard",
        "data.standardise",
        "data.negate",
        "data.shift",
        "data.label_noise",
        "optim.lr",
        "optim.weight_decay",
        "optim.momentum",
        "optim.nesterov",
        "optim.betas",
        "train.clip_grad",
        "train.checkpoint_seconds",
    ]
)


def refusal(spec: RunSpec) -> str:
    """Why a run cannot be part of a stack; "" if it can.

    Example:
        >>> from harness.config import compose
        >>> refusal(compose([])), refusal(compose(["model=cnn"]))
        ('', 'only model=mlp is stacked')
    """
    if not isinstance(spec.model, s.Mlp):
        return "only model=mlp is stacked"
    if spec.dtype is s.Dtype.bfloat16:
        return "autocast is not stacked"
    if spec.data.augment:
        return "crops and flips are not stacked"
    if spec.device is s.Device.cuda or (spec.device is s.Device.auto and torch.cuda.is_available()):
        return "stacks are trained on the CPU"
    if isinstance(spec.optim, s.Momentum) and spec.optim.nesterov and not spec.optim.momentum:
        return "Nesterov's method needs a momentum"  # the run fails alone, as it would by itself
    return ""


def alike(spec: RunSpec) -> str:
    """What runs of one stack have in common: equal texts may share one.

    Example:
        >>> from harness.config import compose
        >>> a, b, c = (compose([o]) for o in ("optim.lr=0.1", "activation=elu", "model.width=8"))
        >>> alike(a) == alike(b), alike(a) == alike(c)
        (True, False)
    """
    shared = {
        group: {k: v for k, v in value.items() if f"{group}.{k}" not in FREE}
        if isinstance(value, dict)
        else value
        for group, value in to_mapping(spec).items()
        if group not in FREE
    }
    shared["activation"] = {"widening": widening(spec.activation)}
    return repr(shared)


def check(specs: Sequence[RunSpec]) -> None:
    """Raise ValueError where runs cannot be trained as one stack."""
    if not specs:
        raise ValueError("expected at least one run")
    for spec in specs:
        if refusal(spec):
            raise ValueError(refusal(spec))
        if alike(spec) != alike(specs[0]):
            raise ValueError("expected runs that share network, data, length, optimizer and recording")
