"""What a forward writes into its modules' own attributes: a counter, a hidden state, a list of losses."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.parameter import UninitializedBuffer, is_lazy

OWN = frozenset(vars(nn.Module()))  # torch's own attributes of every module
MOST = 10_000  # largest number of items of a container that is restored


def has_lazy_parts(model: nn.Module) -> bool:
    """Whether a parameter or buffer has no shape yet, as a forward gives it one.

    Example:
        >>> has_lazy_parts(nn.LazyLinear(2)), has_lazy_parts(nn.Linear(1, 2))
        (True, False)
    """
    return any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers()))


def copy_of_lazy(model: nn.Module) -> nn.Module:
    """A deep copy of a model with lazy parameters or buffers, which stay lazy in both.

    Example:
        >>> has_lazy_parts(copy_of_lazy(nn.LazyBatchNorm1d()))
        True
    """
    make: Any = UninitializedBuffer  # these cannot be copied
    lazy = [buffer for buffer in model.buffers() if isinstance(buffer, make)]
    memo = {id(buffer): make(device=buffer.device, dtype=buffer.data.dtype) for buffer in lazy}
    return copy.deepcopy(model, memo)


@contextmanager
def preserve_attributes(model: nn.Module) -> Iterator[None]:
    """Restore the attributes of modules, and the items of lists, dicts and sets in them, after the block.

    Modules of torch itself are left alone. Nothing is restored if the block has made or replaced modules,
    parameters or buffers: a flag says that it has.

    Example:
        >>> class Counter(nn.Module):
        ...     calls = 0
        ...     def forward(self, x):
        ...         self.calls += 1
        ...         return x
        >>> model = Counter()
        >>> with preserve_attributes(model):
        ...     _ = model(1)
        >>> model.calls
        0
    """
    modules = [module for module in model.modules() if not type(module).__module__.startswith("torch.")]
    before = [(module, _attributes(module)) for module in modules]
    items = [(value, value.copy()) for _, own in before for value in own.values() if _is_small(value)]
    structure = _structure(model)
    try:
        yield
    finally:
        if structure is not None and structure == _structure(model):
            for module, own in before:
                for name in _attributes(module).keys() - own.keys():
                    del vars(module)[name]
                vars(module).update(own)
            for container, kept in items:
                _refill(container, kept)


@contextmanager
def preserve_tensors(model: nn.Module) -> Iterator[None]:
    """Restore which parameters and buffers the modules have after the block.

    `torch.func.functional_call` leaves its own in their places if a tied parameter's module has two names.
    """
    modules = list(model.modules())
    tables: list[Any] = [table for module in modules for table in (module._parameters, module._buffers)]
    before = [(table, dict(table)) for table in tables]
    try:
        yield
    finally:
        for table, own in before:
            if any(table.get(name) is not tensor for name, tensor in own.items()):
                table.update(own)


def _attributes(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in OWN}


def _is_small(value: Any) -> bool:
    return type(value) in (list, dict, set) and len(value) <= MOST


def _refill(container: Any, items: Any) -> None:
    """Put back the items of a container, unless it still holds the same objects."""
    if _identities(container) != _identities(items):
        container.clear()
        if isinstance(container, list):
            container.extend(items)
        else:
            container.update(items)


def _identities(container: Any) -> list[int]:
    values = container.values() if isinstance(container, dict) else ()
    return [id(one) for one in (*container, *values)]


def _structure(model: nn.Module) -> list[Any] | None:
    """Which modules there are, and the names of their parameters and buffers; None if some are lazy."""
    if has_lazy_parts(model):
        return None
    names = [(name, id(module)) for name, module in model.named_modules(remove_duplicate=False)]
    return [
        *names,
        *(name for name, _ in model.named_parameters()),
        *(name for name, _ in model.named_buffers()),
    ]
