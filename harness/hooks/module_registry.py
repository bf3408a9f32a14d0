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
        self._children = _children(self.names)

    def take(self) -> list[nn.Module]:
        """Modules added or put in place of others since the last call; from now on they are in `names`.

        The children are compared, since not every way to change them calls torch's registration hook:
        `insert` of a list does not, nor does writing to `_modules`.
        """
        if _children(self._children) == self._children:
            return []
        now = qualified_names(self._model)
        came = [module for module in now if module not in self.names]
        self.names.update(now)
        self._children = _children(now)
        return came

    def has_other_children(self, module: nn.Module) -> bool:
        """Whether a module's own children are others than at the last call of `take`."""
        return self._children.get(module) != tuple(module._modules.values())


def _children(modules: Iterable[nn.Module]) -> dict[nn.Module, tuple[nn.Module | None, ...]]:
    return {module: tuple(module._modules.values()) for module in modules}
