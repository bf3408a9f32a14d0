"""The cures that are worth trying on a run of ours, each as overrides of its command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.activations.registry import RECORDS
from harness.config import RunSpec
from harness.config import schema as s

NUMBER, SHAPING, ACTIVATION, NETWORK = 1, 2, 3, 4  # how much a cure changes


@dataclass(frozen=True)
class Cure:
    """One thing that is made otherwise.

    Attributes:
        name: in words.
        labels: the causes that it stands for (`harness.attribution.causes.LABELS`).
        words: overrides of the command line.
        change: how much of the training it changes: a number that is there (1), the inputs or the course of
            the training (2), the activation or its gradient (3), the network or what acts on it (4).
    """

    name: str
    labels: tuple[str, ...]
    words: tuple[str, ...]
    change: int

    @property
    def touches(self) -> frozenset[str]:
        """The groups of the configuration that it sets something in."""
        return frozenset(word.partition("=")[0].partition(".")[0] for word in self.words)

    def __add__(self, other: Cure) -> Cure:
        """Both at once; what both set is as the second has it."""
        labels = tuple(dict.fromkeys((*self.labels, *other.labels)))
        words = tuple(merged(self.words, other.words))
        return Cure(f"{self.name} + {other.name}", labels, words, self.change + other.change)


def cures(spec: RunSpec, label: str, mean: float, steps: int) -> list[Cure]:
    """What is worth trying, the likeliest first; what the run has already is left out.

    Families of cures take turns, those that stand for the cause a turn ahead: a small budget tries the first
    of every family rather than all of one, since a diagnosis can be wrong.

    Args:
        spec: the run.
        label: of its diagnosis.
        mean: of its inputs, as the network sees them.
        steps: of the whole run.

    Example:
        >>> from harness.config import compose
        >>> [cure.name for cure in cures(compose(["bias.offset=-2"]), "bias_init", 0.3, 880)][:2]
        ['zero bias', 'learning rate / 10']
    """
    families = (
        _added(spec),
        _rates(spec, label, steps),
        _starts(spec),
        _inputs(spec, mean),
        _activations(spec),
        _network(spec),
        _remedies(spec, steps),
    )
    placed = [
        (place + (label not in cure.labels), label not in cure.labels, cure)
        for family in families
        for place, cure in enumerate(family)
    ]
    return [cure for *_, cure in sorted(placed, key=lambda one: one[:2])]


def merged(words: Sequence[str], changes: Sequence[str]) -> list[str]:
    """Overrides with others on top; choosing a group anew forgets the values of its earlier choice.

    Example:
        >>> merged(["activation=prelu", "activation.slope=0.1", "seed=1"], ["activation=gelu"])
        ['seed=1', 'activation=gelu']
    """
    keys = [word.partition("=")[0] for word in changes]
    groups = tuple(f"{key}." for key in keys if "." not in key)
    stays = [w for w in words if w.partition("=")[0] not in keys and not w.startswith(groups or ("\0",))]
    return [*stays, *changes]


def _added(spec: RunSpec) -> Iterator[Cure]:
    """What the run does besides training on its data."""
    data = spec.data
    if spec.optim.weight_decay:
        yield Cure("no weight decay", ("decay",), ("optim.weight_decay=0.0",), NUMBER)
    if data.label_noise or data.reshuffle_labels_every:
        words = ("data.label_noise=0.0", "data.reshuffle_labels_every=0")
        yield Cure("true labels", ("labels",), words, SHAPING)
    if data.permute_inputs_every:
        words = ("data.permute_inputs_every=0",)
        yield Cure("one order of the inputs", ("input_shift",), words, SHAPING)


def _rates(spec: RunSpec, label: str, steps: int) -> Iterator[Cure]:
    lr, schedule, warm = spec.optim.lr, spec.schedule, max(1, steps // 10)
    fractions = (3, 10, 30, 100) if label == "step_size" else (10, 3)
    fast = ("step_size", "bias_lr", "target_scale", "labels", "bad_batch")
    for part in fractions:
        yield Cure(f"learning rate / {part}", fast, (f"optim.lr={lr / part:.6g}",), NUMBER)
    if isinstance(schedule, s.Cosine) and schedule.warmup_steps < warm:
        yield Cure("warm-up", ("step_size",), (f"schedule.warmup_steps={warm}",), SHAPING)
    elif schedule.name == "constant":
        yield Cure("warm-up", ("step_size",), ("schedule=warmup", f"schedule.steps={warm}"), SHAPING)
    if spec.train.clip_grad is None or spec.train.clip_grad > 1:
        labels = ("step_size", "bad_batch", "target_scale")
        yield Cure("gradient clipping", labels, ("train.clip_grad=1.0",), SHAPING)


def _starts(spec: RunSpec) -> Iterator[Cure]:
    init, bias = spec.init, spec.bias
    he = ("init=kaiming_normal",)
    drawn = (init.name, init.gain, init.mean) != ("kaiming_normal", 1.0, 0.0)
    moved = bias.base is not s.BiasBase.zero or bias.offset != 0
    if moved:
        yield Cure("zero bias", ("bias_init",), ("bias=zero",), NUMBER)
    if drawn:
        yield Cure("He weights", ("weight_init",), he, NUMBER)
    if drawn and moved:
        labels = ("bias_init", "weight_init")
        yield Cure("He weights and zero bias", labels, (*he, "bias=zero"), 2 * NUMBER)
    if init.name != "rai" and not isinstance(spec.model, s.CustomModel):
        yield Cure("asymmetric weights (RAI)", ("weight_init",), ("init=rai",), NUMBER)


def _inputs(spec: RunSpec, mean: float) -> Iterator[Cure]:
    data, off = spec.data, ("input_offset",)
    if abs(mean) > 0.01 and not data.standardise:
        yield Cure("centred inputs", off, (f"data.shift={data.shift - mean:.6g}",), SHAPING)
    if not data.standardise or data.shift:
        yield Cure("standardised inputs", off, ("data.standardise=true", "data.shift=0.0"), SHAPING)


def _activations(spec: RunSpec) -> Iterator[Cure]:
    if spec.activation.name not in ("relu", "relu6"):
        return
    for name in ("leaky_relu", "gelu", "elu"):
        if RECORDS[name].outputs == RECORDS[spec.activation.name].outputs:
            yield Cure(name, (), (f"activation={name}",), ACTIVATION)


def _network(spec: RunSpec) -> Iterator[Cure]:
    model = spec.model
    if isinstance(model, s.Mlp | s.Cnn | s.Vgg) and model.norm is s.Norm.none:
        yield Cure("batch norm", ("input_offset", "input_shift"), ("model.norm=batch",), NETWORK)
        yield Cure("layer norm", ("input_shift",), ("model.norm=layer",), NETWORK)
    if isinstance(model, s.Mlp) and model.skip is s.Skip.none and model.depth > 2:
        yield Cure("skip connections", (), ("model.skip=pre_norm",), NETWORK)


def _remedies(spec: RunSpec, steps: int) -> Iterator[Cure]:
    if spec.remedy.name != "none":
        return
    every = max(1, min(100, steps // 20))
    for name in ("redo", "bias_lift", "leaky_swap"):
        yield Cure(name, (), (f"remedy={name}", f"remedy.every={every}"), NETWORK)
    yield Cure("sugar", (), ("remedy=sugar",), NETWORK)
    yield Cure("continual_backprop", (), ("remedy=continual_backprop",), NETWORK)
