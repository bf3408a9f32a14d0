"""Compiled models run eagerly while anyone watches: compiled code calls no hooks.

There is none before torch's compiler has been imported, which takes two seconds; so that is not done here.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

import torch


class Eager:
    """Shared by all observers of a process, who come and go in any order.

    Example:
        >>> Eager.enter()
        >>> Eager.leave()
    """

    in_force = False

    _watching = 0
    _stance = ExitStack()

    @classmethod
    def enter(cls) -> None:
        """The first one switches compiled code off."""
        cls._watching += 1
        cls.look()

    @classmethod
    def look(cls) -> None:
        """Once there may be compiled code, switch it off."""
        if not cls.in_force and "torch._dynamo" in sys.modules and not torch.compiler.is_compiling():
            cls._stance.enter_context(torch.compiler.set_stance("force_eager"))
            cls.in_force = True

    @classmethod
    def leave(cls) -> None:
        """The last one gives the user's stance back."""
        cls._watching -= 1
        if cls._watching == 0:
            cls._stance.close()
            cls.in_force = False
