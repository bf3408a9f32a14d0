"""What a recorder warns of: what it does not observe of a model, each once."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from harness.graph.plan import Site
from harness.hooks.eager import EagerTaps

NO_STEP = (
    "step() was never called: all forwards are one window, labelled step 0. Call recorder.step() after each"
    " optimizer step."
)
NO_ACTIVATION = (
    "no activation was seen in this model: expected modules such as nn.ReLU or calls like F.relu"
    " in its forward. Did a forward run in the observed mode? Activations of your own are counted"
    " once harness.declare_activation has declared them."
)

GUESSED = (
    "{site.name} ({site.activation}): that its units lie along axis {site.axes[0]} is a guess. If it is"
    " wrong, choose another: axis={{'{site.name}': …}}"
)


class RecorderWarnings:
    """The warnings that a recorder has given.

    Args:
        taps: the taps of the training.
        probe: the taps of the probe.
        axis: the axes that the user has given.
    """

    def __init__(self, taps: EagerTaps, probe: EagerTaps, axis: Mapping[str, int]) -> None:
        self._taps, self._probe, self._axis = taps, probe, dict(axis)
        self._given: set[str] = set()

    def warn(self, unseen: Sequence[Site], known: Sequence[Site]) -> None:
        """Warn once of what is not observed; not during a pass, where a warning could become an error."""
        sites = [*unseen, *self._taps.book.without_inputs.values()]
        messages = [f"{site.name} ({site.activation}) is unobserved: {site.reason}" for site in sites]
        guessed = [site for site in known if site.guessed and site.axes]
        messages += [GUESSED.format(site=site) for site in guessed]
        names = [site.name for site in known]
        for name in self._axis:
            if name not in names:
                messages.append(f"axis: no site is named {name!r}, only {', '.join(names)}")
        for message in (*messages, *self._taps.counter.messages, *self._probe.counter.messages):
            if message not in self._given:
                self._given.add(message)
                warnings.warn(message, stacklevel=4)
