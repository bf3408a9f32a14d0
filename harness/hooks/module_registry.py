"""The modules of a model, including those added or replaced while it is observed."""

from __future__ import annotations

import weakref

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from harness.graph.plan import qualified_names


class ModuleRegistry:
    """Modules and their names.

    Args:
        model: the root module.

    Attributes:
        names: module → its qualified name, for all that are or were in the tree.
        first: the same for the modules that were there at first.
        changed: whether modules were added, or may have been while `listen` was off.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.names = qualified_names(model)
        self.first = dict(self.names)
        self.changed = False
        self._stop: weakref.finalize | None = None

    def listen(self) -> None:
        """Watch for newly registered modules; torch reports those of all models."""
        registered = weakref.WeakMethod(self._registered)  # torch's own list must not keep the model alive
        handle = register_module_module_registration_hook(
            lambda *what: (call := registered()) and call(*what)
        )
        self._stop = weakref.finalize(self, handle.remove)
        self._stop.atexit = False

    def stop(self) -> None:
        """Stop watching."""
        if self._stop is not None:
            self._stop()
            self._stop = None
        self.changed = True

    def take(self) -> list[nn.Module]:
        """Modules added since the last call; from now on they are in `names`."""
        if not self.changed:
            return []
        self.changed = False
        now = qualified_names(self._model)
        came = [module for module in now if module not in self.names]
        self.names.update(now)
        return came

    def _registered(self, parent: nn.Module, name: str, module: nn.Module | None) -> None:
        self.changed |= parent in self.names
