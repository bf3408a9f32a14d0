"""What each thread's forward is about."""

from __future__ import annotations

import threading
from typing import Any

from torch import nn

from harness.hooks.discovery import Trace
from harness.hooks.function_taps import Interceptor


class ForwardState:
    """What one thread's forward is about.

    Attributes:
        entry: the module whose forward counts: the model, or a part that is called by itself.
        depth: forwards of it that run, one inside the other.
        active: whether the forward counts.
        seen: whether the thread has run a forward before.
        following: whether it counts and follows what is known.
        fast: whether it may do so by the fast path, which takes no lock.
        forward: its number.
        tracing: its trace, None if it has none.
        busy: whether our own computations run.
        graph: whether autograd records it.
        ordinals: caller → calls so far in this forward.
        interceptor: of the functions that it calls, once it has called one.
    """

    __slots__ = (
        "active",
        "busy",
        "depth",
        "entry",
        "fast",
        "following",
        "forward",
        "graph",
        "interceptor",
        "ordinals",
        "seen",
        "tracing",
    )

    def __init__(self) -> None:
        self.depth = self.forward = 0
        self.active = self.following = self.fast = self.busy = self.seen = False
        self.graph = True
        self.entry: nn.Module | None = None
        self.tracing: Trace | None = None
        self.ordinals: dict[Any, int] = {}
        self.interceptor: Interceptor | None = None

    def reset(self) -> None:
        """No forward runs."""
        self.active = self.following = self.fast = self.busy = False
        self.depth, self.entry = 0, None
        if self.tracing is not None:
            self.tracing.stop()
            self.tracing = None
        if self.interceptor is not None:
            self.interceptor.reset()


class ForwardStates(threading.local):
    """One state for each thread.

    Attributes:
        own: that of the thread that asks.
    """

    def __init__(self) -> None:
        self.own = ForwardState()
