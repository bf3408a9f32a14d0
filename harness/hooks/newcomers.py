"""Newcomers: modules that are added to a model, or put in the place of others, while it is watched."""

from __future__ import annotations

import weakref

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from harness.hooks.sites import qualified_names


class Newcomers:
    """The modules of a model, and those that come.

    Args:
        model: the root.

    Attributes:
        names: module → its qualified name, of all that are or were in the tree.
        first: the same of those that were there at first.
        expected: whether some have come, or may have while nobody was listening.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.names = qualified_names(model)
        self.first = dict(self.names)
        self.expected = False
        self._forgotten: weakref.finalize | None = None

    def listen(self) -> None:
        """Hear of modules that are registered; torch tells of those of all models."""
        heard = weakref.WeakMethod(self._registered)  # torch's own list must not keep the model alive
        handle = register_module_module_registration_hook(lambda *what: (hear := heard()) and hear(*what))
        self._forgotten = weakref.finalize(self, handle.remove)
        self._forgotten.atexit = False

    def stop(self) -> None:
        """Hear no more."""
        if self._forgotten is not None:
            self._forgotten()
            self._forgotten = None
        self.expected = True

    def take(self) -> list[nn.Module]:
        """Those that came since it was asked last; they are in `names` from now on."""
        if not self.expected:
            return []
        self.expected = False
        now = qualified_names(self._model)
        came = [module for module in now if module not in self.names]
        self.names.update(now)
        return came

    def _registered(self, parent: nn.Module, name: str, module: nn.Module | None) -> None:
        self.expected |= parent in self.names
