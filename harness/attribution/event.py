"""An event: what departed from its past in a training, and when."""

from __future__ import annotations

from typing import NamedTuple

EPISODE = 10  # steps within which events are one episode
INPUTS = ("input_mean", "input_rms")
DRIFT = "inputs"  # the column of a slow drift of the inputs
SLOW = "slow loss"  # that of a slow rise of the loss
UNTRAINED = "untrained"  # that of what `harness.attribution.untrained` watches, which is of these kinds:
NUMBER, BUFFER, NORM, FROZEN, NAMES, MODE = "number", "buffer", "norm", "frozen", "names", "mode"
SETTINGS = ("written_norm", "input_rms", "input_mean", "weight_decay", "lr")
OUTSIDE = (*SETTINGS, UNTRAINED)  # these are not consequences
#: Columns in their causal order inside a step.
ORDER = (*SETTINGS, "loss", "grad_norm", "update_norm")


class Event(NamedTuple):
    """A dated event.

    Attributes:
        step: the optimizer step in which it appeared.
        label: the cause that it suggests.
        column: the scalar that deviated first.
        ratio: ratio to its baseline (for the inputs' mean: the shift in units of their rms).
        text: description.
        inner: whether the training itself produced it, which makes it a symptom, not a cause.
        again: the later steps in which it came again, if it recurs.
    """

    step: int
    label: str
    column: str
    ratio: float
    text: str
    inner: bool = False
    again: tuple[int, ...] = ()

    @property
    def lasts(self) -> bool:
        """Whether deaths may follow late: it came from outside, or goes on."""
        return self.column in (*OUTSIDE, DRIFT, SLOW) or self.label == "loss_penalty"


def with_cause(found: list[Event], cause: Event) -> list[Event]:
    """Add an event that lasts: later ones are symptoms, unless they come from outside."""
    after = [e._replace(inner=e.inner or (e.step >= cause.step and e.column not in OUTSIDE)) for e in found]
    return sorted([*after, cause], key=lambda event: event.step)
