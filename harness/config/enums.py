"""Enumerations of configuration values."""

from __future__ import annotations

from enum import Enum


class Norm(Enum):
    """The normalisation between a layer and its activation."""

    none = "none"
    batch = "batch"
    layer = "layer"


class Skip(Enum):
    """How a residual branch is joined to its input."""

    none = "none"
    post_add = "post_add"
    pre_norm = "pre_norm"
    zero_init = "zero_init"


class BiasBase(Enum):
    """What biases are before the offset is added."""

    zero = "zero"
    torch_default = "torch_default"
    own = "own"


class Chosen(Enum):
    """Which units redo recycles."""

    dormant = "dormant"
    random = "random"


class Swapped(Enum):
    """Which units leaky_swap swaps."""

    dead = "dead"
    all = "all"


class Device(Enum):
    """Where a run trains; auto takes a GPU if there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Dtype(Enum):
    """Arithmetic of a run; bfloat16 means autocast over float32 parameters."""

    float32 = "float32"
    float64 = "float64"
    bfloat16 = "bfloat16"
