"""The modules of a model, including those added or replaced while it is observed."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from harness.graph.plan import qualified_names


class ModuleRegistry:
    """Modules and their names.

    Args:
        model: the root module.

    Attributes:
        names: module → its qualified name, for all that are or were in the tree.
        first: the same for the modules that were there at first.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.names = qualified_names(model)
        self.first = dict(self.names)
        self._look_at(self.names)

    def take(self) -> list[nn.Module]:
        """Modules added or put in place of others since the last call; from now on they are in `names`.

        The children are compared, since not every way to change them calls torch's registration hook:
        `insert` of a list does not, nor does writing to `_modules`.
        """
        if self._now() == self._children:
            return []
        now = qualified_names(self._model)
        came = [module for module in now if module not in self.names]
        self.names.update(now)
        self._look_at(now)
        return came

    def has_other_children(self, module: nn.Module) -> bool:
        """Whether a module's own children are others than at the last call of `take`."""
        place = self._places.get(module)
        return place is None or self._children[place] != tuple(module._modules.values())

    def _look_at(self, modules: Iterable[nn.Module]) -> None:
        self._modules = list(modules)
        self._places = {module: place for place, module in enumerate(self._modules)}
        self._children = self._now()

    def _now(self) -> list[tuple[nn.Module | None, ...]]:
        return [tuple(module._modules.values()) for module in self._modules]
