"""Hooks that leave nothing in copies: a model or optimizer that bears them can be copied and pickled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

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


class Call(Hook):
    """A hook that calls `run`; its errors go to `failed` where there is one, and not into the training."""

    __slots__ = ("failed", "run")

    def __init__(self, run: Callable[..., None], failed: Callable[[Exception], None] | None = None) -> None:
        self.run, self.failed = run, failed

    def __call__(self, *args: Any) -> None:
        try:
            self.run(*args)
        except Exception as error:
            if self.failed is None:
                raise
            self.failed(error)
