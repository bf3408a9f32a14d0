"""Hooks that leave nothing in copies: a model or optimizer that bears them can be copied and pickled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch.compiler import is_dynamo_compiling, is_exporting

from harness.hooks._torch import in_compiled_call, never_compiled, never_traced

# What a hook is given that is to take keywords, too, where a forward of another thread calls it just before
# torch has noted that it does.
NO_KEYWORDS: Mapping[str, Any] = MappingProxyType({})


class Inert:
    """What a copied or unpickled object holds in place of a hook."""

    def __call__(self, *_: Any) -> None:
        return None


class Hook:
    """A callable that is inert in copies and pickles, which so never count into the original's recorder.

    Example:
        >>> import copy
        >>> type(copy.deepcopy(Call(print))).__name__
        'Inert'
    """

    __slots__ = ()

    def __deepcopy__(self, memo: Any) -> Inert:
        return Inert()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Inert, ()


class EagerHook(Hook):
    """A hook of an optimizer: it calls `run`, in Python even where the step is compiled.

    Args:
        run: what it calls.
        failed: takes its errors, which do not reach the training.
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
    """A hook that calls `run`; its errors go to `failed` where there is one, and not into the training.

    Args:
        run: what it calls.
        failed: takes errors.
        traced: what it calls in compiled code in place of `run`.
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
