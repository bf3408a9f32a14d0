"""StopOnDeadUnits: one name for the trainers of Lightning and of Transformers."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Self

from harness.integrations.watch import Watching
from harness.tracking.alert import Condition

#: The module with the face of a library → the names that it is installed under.
FACES = {
    "harness.integrations.lightning": ("lightning", "pytorch_lightning"),
    "harness.integrations.transformers": ("transformers",),
}
BOTH = "harness.integrations.any_trainer"


class StopOnDeadUnits(Watching):
    """A callback that ends a training at the first census with too many dead units.

    It is a `NeuronHealth` for Lightning's Trainer and a `NeuronHealthCallback` for that of Transformers:
    whichever of the two libraries is imported, or else installed; where both are, it serves either.

    Args:
        above: the dead share above which the training ends, or a function of the `Verdict`.
        options: further arguments of `NeuronHealth` or `NeuronHealthCallback`.

    Raises:
        ImportError: neither library is installed.
        TypeError, ValueError: an argument out of range.

    Example:
        >>> from lightning.pytorch import Trainer  # doctest: +SKIP
        >>> Trainer(callbacks=[harness.StopOnDeadUnits(0.9)])  # doctest: +SKIP
    """

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """An instance of the face that fits."""
        face: Any = _face() if cls is StopOnDeadUnits else cls
        return object.__new__(face)

    def __init__(self, above: Condition = 0.5, **options: Any) -> None:
        super().__init__(alert=above, **options)  # pyright: ignore[reportCallIssue] (of the face)

    @property
    def should_stop(self) -> bool:
        """Whether a census has had too many dead units."""
        return self.recorder is not None and self.recorder.should_stop


def _face() -> type[StopOnDeadUnits]:
    fitting = [face for face, names in FACES.items() if any(name in sys.modules for name in names)]
    fitting = fitting or [face for face, names in FACES.items() if any(map(find_spec, names))]
    if not fitting:
        raise ImportError(
            "StopOnDeadUnits is a callback for Lightning or Transformers, and neither is installed: "
            "pip install 'dying-relu-harness[lightning]' or 'dying-relu-harness[transformers]'"
        )
    return import_module(fitting[0] if len(fitting) == 1 else BOTH).StopOnDeadUnits
