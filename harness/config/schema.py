"""Types and ranges of all that configures a run; values stand in `configs/`, activations' in their records.

Each class is one choice of a Hydra group (or a whole group); its field names are the dotted keys of
the command line. Defaults live in the YAML files, so that a user finds each in one place; ranges live
here, beside the types (see `ranges.py`). Optimizers, learning rates and lengths stand in `optimisation.py`,
remedies in `remedy_schema.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from harness.config.enums import BiasBase, Device, Dtype, Norm, Skip
from harness.config.optimisation import Adam, Cosine, Momentum, Optim, Schedule, Step, Train, Warmup
from harness.config.ranges import limits
from harness.config.remedy_schema import (
    Auto,
    BiasLift,
    ContinualBackprop,
    LeakySwap,
    Redo,
    Remedy,
    ShrinkPerturb,
    Sugar,
)

# --- data ---------------------------------------------------------------------------------------


@dataclass
class Data:
    """Options that every data set has, applied in the order standardise, negate, scale, shift."""

    name: str = MISSING
    root: str = MISSING  # folder of downloaded data sets
    standardise: bool = MISSING  # zero mean and unit deviation per channel; else [0, 1]
    negate: bool = MISSING  # x -> -x
    scale: float = limits(above=0, at_most=1e6)  # every input is multiplied by it
    shift: float = limits(at_least=-1e6, at_most=1e6)  # added to every input
    label_noise: float = limits(at_least=0, at_most=1)  # share of training labels replaced by another class
    imbalance: float = limits(at_least=1)  # most frequent / least frequent class
    reshuffle_labels_every: int = limits(at_least=0)  # epochs; 0 = never
    permute_inputs_every: int = limits(at_least=0)  # epochs; 0 = never
    subset: int = limits(at_least=0)  # training inputs kept; 0 = all
    probe_size: int = limits(at_least=1)  # held-out inputs of the probe
    augment: bool = MISSING  # crop and flip


@dataclass
class Images(Data):
    """digits, mnist, fashion_mnist, kmnist, cifar10, cifar100."""


@dataclass
class Arrays(Data):
    """The user's own .npz with x_train, y_train, x_test, y_test."""

    path: str = MISSING


@dataclass
class Synthetic(Data):
    """Gaussian inputs, labelled by a random ReLU teacher."""

    features: int = limits(at_least=1)  # of an input
    classes: int = limits(at_least=2)  # outputs of the teacher
    train_size: int = limits(at_least=1)  # training inputs
    test_size: int = limits(at_least=1)  # held-out inputs
    teacher_seed: int = limits(at_least=0)  # of inputs and labels; the run's seed is another


@dataclass
class CustomData(Data):
    """Arrays or torch data sets that a function of one's own returns."""

    target: str = MISSING  # package.module:function
    args: dict[str, Any] = field(default_factory=dict)  # its keyword arguments


# --- network ------------------------------------------------------------------------------------


@dataclass
class Model:
    """A network; each choice below has its own sizes."""

    name: str = MISSING


@dataclass
class Mlp(Model):
    """A multilayer perceptron."""

    depth: int = limits(at_least=1, at_most=1000)
    width: int = limits(at_least=1)
    norm: Norm = MISSING
    skip: Skip = MISSING


@dataclass
class Cnn(Model):
    """Two convolutions with pooling, one hidden linear layer."""

    channels: int = limits(at_least=1)
    width: int = limits(at_least=1)
    norm: Norm = MISSING


@dataclass
class Vgg(Model):
    """VGG (Simonyan & Zisserman 2014) with a single linear head."""

    depth: int = limits(one_of=(11, 13, 16))
    channels: int = limits(at_least=1)
    norm: Norm = MISSING


@dataclass
class Resnet(Model):
    """CIFAR ResNet-20 (He et al. 2015) or torchvision's ResNet-18 with a CIFAR stem."""

    depth: int = limits(one_of=(18, 20))


@dataclass
class Rnn(Model):
    """Image rows as a sequence through cells that are written out."""

    width: int = limits(at_least=1)
    layers: int = limits(at_least=1)  # cells, one behind the other


@dataclass
class Transformer(Model):
    """Patches through pre-norm encoder blocks."""

    patch: int = limits(at_least=1)
    width: int = limits(at_least=1)  # features of a token
    depth: int = limits(at_least=1, at_most=1000)  # encoder blocks
    heads: int = limits(at_least=1)  # of the attention; they divide the width
    mlp_ratio: int = limits(at_least=1)


@dataclass
class CustomModel(Model):
    """A network that a function or class of one's own makes."""

    target: str = MISSING  # package.module:factory
    args: dict[str, Any] = field(default_factory=dict)  # its keyword arguments


@dataclass
class Activation:
    """An activation without parameters."""

    name: str = MISSING


@dataclass
class Sloped(Activation):
    """leaky_relu, and prelu with its initial slope."""

    slope: float = limits(at_least=-1000, at_most=1000)  # below 0


@dataclass
class Scaled(Activation):
    """elu and celu."""

    alpha: float = limits(at_least=1e-6, at_most=1e6)  # the output's lower bound is -alpha


@dataclass
class Softplus(Activation):
    """log(1 + exp(beta z)) / beta."""

    beta: float = limits(at_least=1e-6, at_most=1e6)  # sharpness of the bend


@dataclass
class Init:
    """How weights are drawn; gain multiplies the scheme's own, mean is in units of 1/sqrt(fan_in)."""

    name: str = MISSING
    gain: float = limits(above=0, at_most=1e6)
    mean: float = limits(at_least=-1e6, at_most=1e6)


@dataclass
class StoredInit(Init):
    """Weights and biases of a stored training, as they are: gain is 1, mean 0, bias.offset 0."""

    path: str = MISSING  # checkpoint.pt of a run, or a state_dict


@dataclass
class Bias:
    """Initial biases of the layers that feed an activation: base + offset."""

    base: BiasBase = MISSING  # own: as a custom model's code made them
    offset: float = limits(at_least=-1e6, at_most=1e6)


# --- what is stored and shown ----------------------------------------------------------------------


@dataclass
class Record:
    """What is kept of the observation. Counting itself happens at every step."""

    enabled: bool = MISSING  # false: no hooks, no verdict
    census_every: int | None = limits(at_least=1)  # steps between two censuses; null: 50, if the share pays
    early: bool = MISSING  # also after steps 1, 2, 4, 8, ...
    census_share: float | None = limits(above=0, at_most=1)  # of the training that the probe may cost at most
    probe: bool = MISSING  # a census on held-out inputs too, from step 0 on
    gradients: bool = MISSING  # of the pre-activations too
    gate_eps: float = limits(at_least=0, below=0.1)
    tensorboard: bool = MISSING  # write what TensorBoard shows
    evidence: bool = MISSING  # what causes are found from; kept by runs on their own, not by those of a sweep


@dataclass
class Detect:
    """Thresholds of the verdict; they can be changed later without training again."""

    rare: float = limits(at_least=0, at_most=1)
    confidence: float = limits(above=0, below=1)
    healthy: float = limits(at_least=0, at_most=1)  # dead share below which a network is called healthy


@dataclass
class RunSpec:
    """One run, fully specified. Build it with `harness.config.composition`."""

    data: Data = MISSING
    model: Model = MISSING
    activation: Activation = MISSING
    init: Init = MISSING
    bias: Bias = MISSING
    optim: Optim = MISSING
    schedule: Schedule = MISSING
    remedy: Remedy = MISSING
    train: Train = MISSING
    record: Record = MISSING
    detect: Detect = MISSING
    seed: int = limits(at_least=0, at_most=2**32 - 1)
    device: Device = MISSING
    dtype: Dtype = MISSING
    output: str = MISSING
    force: bool = MISSING  # train again


#: Keys whose value is a mapping that takes any key.
OPEN = ("model.args", "data.args")
#: Choice → the choice whose class it has.
LIKE = {
    "adamw": "adam",
    **dict.fromkeys(("digits", "mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100"), "images"),
}
#: Choice of a group -> its class. A choice that is missing here takes the group's general class.
SCHEMAS: dict[str, dict[str, type]] = {
    "data": {"images": Images, "arrays": Arrays, "synthetic": Synthetic, "custom": CustomData},
    "model": {
        "mlp": Mlp,
        "cnn": Cnn,
        "vgg": Vgg,
        "resnet": Resnet,
        "rnn": Rnn,
        "transformer": Transformer,
        "custom": CustomModel,
    },
    "activation": {"plain": Activation, "sloped": Sloped, "scaled": Scaled, "softplus": Softplus},
    "init": {"init": Init, "stored": StoredInit},
    "bias": {"bias": Bias},
    "optim": {"sgd": Optim, "momentum": Momentum, "adam": Adam},
    "schedule": {"constant": Schedule, "warmup": Warmup, "cosine": Cosine, "step": Step},
    "remedy": {
        "none": Remedy,
        "redo": Redo,
        "continual_backprop": ContinualBackprop,
        "shrink_perturb": ShrinkPerturb,
        "bias_lift": BiasLift,
        "leaky_swap": LeakySwap,
        "sugar": Sugar,
        "auto": Auto,
    },
    "train": {"train": Train},
    "record": {"record": Record},
    "detect": {"detect": Detect},
}
