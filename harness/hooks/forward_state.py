"""State of the forward that each thread is running."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from harness.hooks.discovery import Trace
from harness.hooks.function_taps import Interceptor


class ForwardState:
    """State of the forward that one thread is running.

    Attributes:
        entry: the module whose forward counts: the model, or a submodule called on its own.
        depth: nesting depth of its running forwards: a module may call itself.
        interrupted: whether a step or a census was asked for meanwhile, so that the forward no longer runs:
            an exception such as KeyboardInterrupt ended it, of which torch tells no hook.
        active: whether the forward counts.
        seen: whether the thread has run a forward before.
        following: whether the forward counts and uses the known calls.
        fast: whether it may take the lock-free fast path.
        forward: its number.
        tracing: its trace, None if it is not traced.
        busy: whether our own computations are running.
        graph: whether autograd records it.
        ordinals: caller → number of calls so far in this forward.
        interceptor: intercepts its function calls; created at the first one.
    """

    __slots__ = (
        "_gated",
        "active",
        "busy",
        "depth",
        "entry",
        "fast",
        "following",
        "forward",
        "graph",
        "interceptor",
        "interrupted",
        "ordinals",
        "seen",
        "tracing",
    )

    def __init__(self) -> None:
        self.depth = self.forward = 0
        self.active = self.following = self.fast = self.busy = self.seen = self.interrupted = False
        self.graph = True
        self.entry: nn.Module | None = None
        self.tracing: Trace | None = None
        self.ordinals: dict[Any, int] = {}
        self._gated: tuple[int, dict[Any, dict[Any, list[weakref.ref[Tensor]]]]] = 0, {}
        self.interceptor: Interceptor | None = None

    def gates(self, making: Any, path: tuple[str, ...], z: Tensor) -> tuple[int, bool]:
        """How the gates behind one application of a layer are told apart: relu(z) and relu(-z), say.

        Args:
            making: how z was made, including which application of the layer made it.
            path: functions between the layer and z.
            z: the pre-activation.

        Returns:
            Which tensor of the same path it is in this forward; whether the layer has been seen behind
            several gates in it.
        """
        if self._gated[0] != self.forward:
            self._gated = self.forward, {}
        ways = self._gated[1].setdefault(making, {})
        same = ways.setdefault(path, [])
        number = next((k for k, one in enumerate(same) if one() is z), len(same))
        if number == len(same):
            same.append(weakref.ref(z))
        return number, len(ways) > 1 or len(same) > 1

    def is_gated(self, making: Any) -> bool:
        """Whether a gate behind the same application of a layer has been called in this forward."""
        return self._gated[0] == self.forward and making in self._gated[1]

    def may_recur(self, *, observed: bool) -> bool:
        """Whether the running forward may have called its own module, instead of having been interrupted.

        Args:
            observed: whether a forward that begins now is in an observed mode.
        """
        same = self.active is observed and self.graph is torch.is_grad_enabled()
        return same and not self.interrupted

    def reset(self) -> None:
        """Clear the state when no forward runs."""
        self.active = self.following = self.fast = self.busy = self.interrupted = False
        self.depth, self.entry = 0, None
        if self.tracing is not None:
            self.tracing.stop()
            self.tracing = None
        if self.interceptor is not None:
            self.interceptor.reset()


class ForwardStates(threading.local):
    """One state per thread.

    Attributes:
        own: the state of the current thread.
    """

    def __init__(self) -> None:
        self.own = ForwardState()
