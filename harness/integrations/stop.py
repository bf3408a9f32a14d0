"""StopOnDeadUnits: one class for the trainers of Lightning and of Transformers."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Self

from harness.integrations.watch import Watching
from harness.tracking.alert import Condition

#: Module with the implementation for a library → package names of the library.
FACES = {
    "harness.integrations.lightning": ("lightning", "pytorch_lightning"),
    "harness.integrations.transformers": ("transformers",),
}
BOTH = "harness.integrations.any_trainer"


class StopOnDeadUnits(Watching):
    """A callback that ends training at the first census with too many dead units.

    It is a `NeuronHealth` for Lightning's Trainer, or a `NeuronHealthCallback` for the Trainer of
    Transformers, depending on which library is imported, or else installed; with both, it serves either.

    Args:
        above: the dead share above which training ends, or a function of the `Verdict`.
        options: further arguments of `NeuronHealth` or `NeuronHealthCallback`.

    Raises:
        ImportError: neither library is installed.
        TypeError, ValueError: an argument is out of range.

    Example:
        >>> from lightning.pytorch import Trainer  # doctest: +SKIP
        >>> Trainer(callbacks=[harness.StopOnDeadUnits(0.9)])  # doctest: +SKIP
    """

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Create an instance of the implementation that fits."""
        face: Any = _face() if cls is StopOnDeadUnits else cls
        return object.__new__(face)

    def __init__(self, above: Condition = 0.5, **options: Any) -> None:
        super().__init__(alert=above, **options)  # pyright: ignore[reportCallIssue] (of the face)

    @property
    def should_stop(self) -> bool:
        """Whether a census had too many dead units."""
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
