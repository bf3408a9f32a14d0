"""Hooks that leave nothing in copies: a model or optimizer with them can be copied and pickled.

A pickle needs nothing of this package: in it, a hook is a method of the standard library that does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any
from weakref import WeakMethod

from torch import nn
from torch.compiler import is_dynamo_compiling, is_exporting

from harness.hooks._torch import in_compiled_call, never_compiled, never_traced, remove_hooks

# Default for a hook's keyword arguments: a forward in another thread may call the hook just before torch has
# recorded that it accepts them.
NO_KEYWORDS: Mapping[str, Any] = MappingProxyType({})


def weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls a method as long as its object lives, without keeping it alive; then gives None.

    For hooks on a graph: the model may keep the graph of its last output, and must not be kept by it.
    """
    found = WeakMethod(method)

    def call(*args: Any, **kwargs: Any) -> Any:
        own = found()
        return None if own is None else own(*args, **kwargs)

    return call


class Inert:
    """Replaces a hook in copied objects; a module loses it when it is called."""

    def __call__(self, *args: Any) -> None:
        if args and isinstance(args[0], nn.Module) and not is_dynamo_compiling():
            remove_hooks(args[0], Inert)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (nullcontext(), "__exit__")  # takes any arguments, and returns None


class Hook:
    """A callable that is inert in copies and pickles, so that these never count into the original's recorder.

    Example:
        >>> import copy
        >>> type(copy.deepcopy(Call(print))).__name__
        'Inert'
        >>> import pickle
        >>> pickle.loads(pickle.dumps(Call(print)))("anything", "given")
    """

    __slots__ = ()

    def __deepcopy__(self, memo: Any) -> Inert:
        return Inert()

    def __reduce__(self) -> tuple[Any, ...]:
        return Inert().__reduce__()


class EagerHook(Hook):
    """A hook of an optimizer: it calls `run` in Python even if the step is compiled.

    Args:
        run: the function to call.
        failed: receives its errors, which do not reach the training.
    """

    __slots__ = ("_eager", "_run")

    def __init__(self, run: Callable[..., None], failed: Callable[[Exception], None]) -> None:
        self._run = Call(run, failed)
        self._eager = never_traced(self._run)

    @never_compiled
    def __call__(self, *args: Any) -> None:
        if is_dynamo_compiling() or in_compiled_call():
            self._eager(*args)
        else:
            self._run(*args)


class Call(Hook):
    """A hook that calls `run`; errors go to `failed`, if given, instead of the training.

    Args:
        run: the function to call.
        failed: receives errors.
        traced: called in compiled code instead of `run`.
    """

    __slots__ = ("failed", "run", "traced")

    def __init__(
        self,
        run: Callable[..., None],
        failed: Callable[[Exception], None] | None = None,
        traced: Callable[..., None] | None = None,
    ) -> None:
        self.run, self.failed, self.traced = run, failed, traced

    @never_compiled
    def __call__(self, *args: Any) -> None:
        if is_dynamo_compiling():
            if self.traced is not None and not is_exporting():
                self.traced(*args)
            return
        try:
            run = self.traced if in_compiled_call() else self.run  # between two graphs
            if run is not None:
                run(*args)
        except Exception as error:
            if self.failed is None:
                raise
            self.failed(error)
