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
    " in its forward. Did a forward run in the observed mode? Activations of your own, such as (z + |z|) / 2,"
    " are counted once harness.declare_activation has declared them. Functions that are called outside of"
    " every module's forward (as in model.encode) or in code of torch.jit are not seen."
)
ONLY_TERMS = (
    "activations were called, but only on sums or distances that no longer contain units ({terms}); "
    "recorder.plan lists them as terms"
)

GUESSED = (
    "{site.name} ({site.activation}): that its units lie along axis {site.axes[0]} is a guess. If it is"
    " wrong, choose another: axis={{'{site.name}': …}}"
)


NO_FORWARD = (
    "nothing was observed: no forward pass of this model in the observed mode was seen. Was it called, and "
    "not a copy of it? In which mode: model.train(), or observe='eval' or 'all'?"
)
OTHER_MODE = (
    "nothing was counted in steps {first:,} to {last:,}: the forward passes that train ran in a mode that "
    "is not observed. Call model.train(), or use observe='all'"
)
LAZY = (
    "the probe has no census before the first step: the model has lazy parameters, which the first forward "
    "of the training draws. Pass one batch through it before the recorder is attached, to see the start"
)
NOTHING = "nothing was observed: "


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
        self._in_other_mode = False  # warned of already
        self._forwards = (0, 0)  # of the observed mode, and others with a graph, at the last census

    def warn_of_nothing(self) -> None:
        """Warn once that no activation was seen at all."""
        self._give(NOTHING + self.nothing_seen if self._taps.forwards else NO_FORWARD)

    @property
    def nothing_seen(self) -> str:
        """Why no unit was observed in the forwards."""
        terms = ", ".join(site.name for site in self._taps.plan(()).terms)
        return ONLY_TERMS.format(terms=terms) if terms else NO_ACTIVATION

    def warn_of_other_mode(self, since: int, steps: int) -> None:
        """Warn once if a window with steps holds no forward of the observed mode, but others that train."""
        before, self._forwards = self._forwards, (self._taps.forwards, self._taps.unobserved_with_graph)
        observed, others = (now - then for now, then in zip(self._forwards, before, strict=True))
        if not self._in_other_mode and steps > since and before[0] and others and not observed:
            self._in_other_mode = True
            self._give(OTHER_MODE.format(first=since + 1, last=steps))

    def warn(self, unseen: Sequence[Site], known: Sequence[Site]) -> None:
        """Warn once of what is not observed; not during a pass, where a warning could become an error."""
        sites = [*unseen, *self._taps.without_counts.values()]
        messages = [f"{site.name} ({site.activation}) is unobserved: {site.reason}" for site in sites]
        guessed = [site for site in known if site.guessed and site.axes]
        messages += [GUESSED.format(site=site) for site in guessed]
        names = [site.name for site in known]
        for name in self._axis:
            if name not in names:
                messages.append(f"axis: no site is named {name!r}, only {', '.join(names)}")
        for message in (*messages, *self._taps.counter.messages, *self._probe.counter.messages):
            self._give(message)

    def _give(self, message: str) -> None:
        if message not in self._given:
            self._given.add(message)
            warnings.warn(message, stacklevel=5)
