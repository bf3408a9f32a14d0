"""Cures applied from outside, to any model and optimizer, before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from harness.remedies import sugar
from harness.trials import apply_cures
from harness.trials.cures import ACTIVATION, NETWORK, NUMBER, SHAPING, AnyCure
from harness.trials.fresh_training import FreshTraining


@dataclass(frozen=True)
class CodeCure(AnyCure):
    """One change to a user's own training.

    Attributes:
        code: Python code that applies it; `FreshTraining.written_out` fills in the names.
        apply: applies the cure; raises ValueError if that is impossible.
    """

    code: str
    apply: apply_cures.Apply

    def __add__(self, other: CodeCure) -> CodeCure:
        def both(training: FreshTraining) -> None:
            self.apply(training)
            other.apply(training)

        return CodeCure(*self.described_with(other), f"{self.code}\n{other.code}", both)


def by_name(name: str) -> CodeCure:
    """Return the cure with this name; names joined by " + " give their combination."""
    first, *others = (CODE_CURES[part] for part in name.split(" + "))
    for other in others:
        first = first + other
    return first


FAST = ("step_size", "bias_lr", "target_scale", "labels", "bad_batch")
RATE = 'for group in optimizer.param_groups:  # before a scheduler is made\n    group["lr"] /= {}'
WARM = "torch.optim.lr_scheduler.LinearLR(optimizer, 1e-3, total_iters=steps // 10)  # and step it"
CLIP = "nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # before optimizer.step()"
UNDECAYED = 'for group in optimizer.param_groups:\n    group["weight_decay"] = 0.0'
HE = "for name in LAYERS:\n    nn.init.kaiming_normal_(model.get_submodule(name).weight)"
ZERO = "for name in BIASES:\n    nn.init.zeros_(model.get_submodule(name).bias)"
SCALED = "x = (x - x_train.mean()) / x_train.std()  # of every input, also when testing"
PER_BATCH = "x = (x - x.mean()) / x.std()  # of every batch, also when testing"
STOP = "keep the model with the best metric on held-out data, and stop when it no longer improves"
ONE_RATE = (
    'for group in optimizer.param_groups:\n    group["lr"] = min(g["lr"] for g in optimizer.param_groups)'
)
GROUPED = (
    "for name, child in list(model.named_modules(remove_duplicate=False)):  # before the optimizer is made\n"
    "    if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):\n"
    "        model.set_submodule(name, nn.GroupNorm(1, child.num_features))"
)
SWAP = (
    "for name, child in list(model.named_modules(remove_duplicate=False)):\n"
    "    if type(child) is nn.ReLU:\n        model.set_submodule(name, {})"
)
REMEDY = "if step % EVERY == 0:  # in the loop, after optimizer.step()\n    harness.remedies.{}"


def _cures() -> Iterator[CodeCure]:
    def one(
        name: str, apply: apply_cures.Apply, code: str, groups: str, change: int, labels: tuple[str, ...] = ()
    ) -> CodeCure:
        return CodeCure(name, labels, change, frozenset(groups.split()), code, apply)

    for part in (3, 10, 30):
        yield one(
            f"learning rate / {part}", apply_cures.slower(part), RATE.format(part), "rate", NUMBER, FAST
        )
    yield one("warm-up", apply_cures.warm_up, WARM, "rate", SHAPING, ("step_size",))
    labels = ("step_size", "bad_batch", "target_scale")
    yield one("gradient clipping", apply_cures.clipped, CLIP, "clip", SHAPING, labels)
    bounded, sudden = "harness.remedies.clip_updates(optimizer)", ("step_size", "bad_batch")
    yield one("update clipping", apply_cures.updates_clipped, bounded, "clip", SHAPING, sudden)
    yield one("one learning rate", apply_cures.one_rate, ONE_RATE, "rates", NUMBER, ("bias_lr",))
    yield one("early stopping", apply_cures.stopped_early, f"# {STOP}", "stop", SHAPING, ("labels",))
    yield one("no decay", apply_cures.undecayed, UNDECAYED, "decay", NUMBER, ("decay",))
    yield one("zero bias", apply_cures.zero_bias, ZERO, "start", NUMBER, ("bias_init",))
    yield one("He weights", apply_cures.he, HE, "start", NUMBER, ("weight_init",))
    both = ("weight_init", "bias_init")
    yield one("He weights and zero bias", apply_cures.he_and_zero, f"{HE}\n{ZERO}", "start", 2 * NUMBER, both)
    yield one("standardised inputs", apply_cures.standardised, SCALED, "inputs", SHAPING, ("input_offset",))
    moving = ("input_shift", "bad_batch")
    yield one("standardised batches", apply_cures.standardised_batches, PER_BATCH, "inputs", SHAPING, moving)
    yield one(
        "group norm for batch norm", apply_cures.without_batch_norm, GROUPED, "norm", NETWORK, ("norm_stats",)
    )
    leaky, gelu = SWAP.format("nn.LeakyReLU(0.01)"), SWAP.format("nn.GELU()")
    yield one("leaky_relu", apply_cures.swapped(nn.LeakyReLU), leaky, "activation", ACTIVATION)
    yield one("gelu", apply_cures.swapped(nn.GELU), gelu, "activation", ACTIVATION)
    sugared = "harness.remedies.sugar(model)"
    yield one("sugar", lambda t: sugar(t.model), sugared, "activation", NETWORK)
    gone = ("surgery",)
    recycled = apply_cures.regularly(apply_cures.recycle, FreshTraining.replaceable)
    code = REMEDY.format("redo(model, optimizer, x, tau=0.025, sites=REPLACEABLE)")
    yield one("redo", recycled, code, "remedy", NETWORK, gone)
    lifted = apply_cures.regularly(apply_cures.lift, FreshTraining.liftable)
    code = REMEDY.format("bias_lift(model, optimizer, x, sites=LIFTABLE)")
    yield one("bias_lift", lifted, code, "remedy", NETWORK, gone)
    swapped = apply_cures.regularly(apply_cures.swap, apply_cures.swappable)
    code = REMEDY.format("leaky_swap(model, x)")
    yield one("leaky_swap", swapped, code, "remedy activation", NETWORK)


CODE_CURES = {cure.name: cure for cure in _cures()}
#: Changes that cannot be made from outside → how to write them by hand.
BY_HAND = {
    "batch norm": "nn.BatchNorm1d(width) (2d after convolutions) between a layer and its activation",
    "layer norm": "nn.LayerNorm(width) between a layer and its activation",
    "skip connections": "x = x + block(x), where the shapes agree",
}
