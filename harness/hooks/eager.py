"""Compiled models run eagerly while anyone watches: compiled code calls no hooks."""

from __future__ import annotations

from contextlib import ExitStack

import torch


class Eager:
    """Shared by all observers of a process, who come and go in any order.

    Example:
        >>> Eager.enter()
        >>> Eager.leave()
    """

    _watching = 0
    _stance = ExitStack()

    @classmethod
    def enter(cls) -> None:
        """The first one switches compiled code off."""
        if cls._watching == 0:
            cls._stance.enter_context(torch.compiler.set_stance("force_eager"))
        cls._watching += 1

    @classmethod
    def leave(cls) -> None:
        """The last one gives the user's stance back."""
        cls._watching -= 1
        if cls._watching == 0:
            cls._stance.close()
