"""A training that has not begun: what a cure can change from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from harness.recording.batches import Batch
from harness.recording.scan import scan
from harness.remedies import wire
from harness.remedies.lifting import liftable

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass
class FreshTraining:
    """A training that has not begun.

    Attributes:
        model: the model to train.
        optimizer: the optimizer of its parameters.
        inputs: the arguments of the first call of the model's forward.
        steps: length of the training.
        metric: measures the model on held-out data, higher is better; None if the training has no metric.
        factors: what multiplies the learning rates, as functions of (step, number of the group).
    """

    model: nn.Module
    optimizer: Optimizer
    inputs: Batch
    steps: int
    metric: Callable[[], float] | None = None
    factors: list[Callable[[int, int], float]] = field(default_factory=list)

    @property
    def every(self) -> int:
        """Number of steps between two applications of a remedy."""
        return max(1, self.steps // 20)

    def hidden(self) -> dict[str, Any]:
        """The layers that compute the pre-activations, by name."""
        names = {name for site in scan(self.model, [self.inputs]).plan.sites for name in site.producers}
        modules = self.model.named_modules()
        return {n: m for n, m in modules if n in names and isinstance(getattr(m, "weight", None), Tensor)}

    def replaceable(self) -> list[str]:
        """The sites at which ReDo can act."""
        return [one.site for one in wire(self.model, self.inputs).connections]

    def liftable(self) -> list[str]:
        """The sites whose biases can be lifted."""
        return [one.site for one in liftable(self.model, self.inputs)[0]]

    def written_out(self, code: str) -> str:
        """Fill a cure's code with the names and numbers of this training."""
        named = {
            "LAYERS": lambda: [name for name, layer in self.hidden().items() if isinstance(layer, WEIGHTED)],
            "BIASES": lambda: [name for name, layer in self.hidden().items() if has_bias(layer)],
            "EVERY": lambda: self.every,
            "REPLACEABLE": self.replaceable,
            "LIFTABLE": self.liftable,
        }
        for word, value in named.items():
            code = code.replace(word, str(value())) if word in code else code
        return code

    def after_each(self, act: Callable[[int], None]) -> None:
        """Call `act` with the number of completed steps after every optimizer step except the last."""
        done = 0

        def after(*_: Any) -> None:
            nonlocal done
            done += 1
            if done < self.steps:
                act(done)

        self.optimizer.register_step_post_hook(after)

    def at_rate(self, factor: Callable[[int, int], float]) -> None:
        """Multiply the learning rates by a factor of (step, number of the group), whatever their schedule."""
        self.factors.append(factor)
        if (
            len(self.factors) > 1
        ):  # the first one's hooks multiply by all: two pairs would undo each other wrongly
            return
        done = 0
        rates: list[Any] = []

        def before(optimizer: Optimizer, *_: Any) -> None:
            rates[:] = [group["lr"] for group in optimizer.param_groups]
            for number, group in enumerate(optimizer.param_groups):
                group["lr"] = group["lr"] * prod(one(done, number) for one in self.factors)

        def after(optimizer: Optimizer, *_: Any) -> None:
            nonlocal done
            done += 1
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate

        self.optimizer.register_step_pre_hook(before)
        self.optimizer.register_step_post_hook(after)


def has_bias(layer: Any) -> bool:
    """Whether the layer has a bias."""
    return isinstance(getattr(layer, "bias", None), Tensor)
