"""Workers ahead of time: what each of them imports is imported while the sweep is still being composed.

`prepare` starts Python's fork server, which imports this package's training in a process of its own, on
another core; the workers are forked from it. Where nobody prepared, they are forked from the caller.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing as mp
import signal
import sys
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from types import ModuleType
from typing import Any

LOADED = "harness.sweeps.preload_imports"
_prepared: list[bool] = []


def prepare() -> None:
    """Begin to import what workers need, beside whatever the caller does next; Linux only."""
    if sys.platform == "linux" and not _prepared:
        mp.get_context("forkserver").set_forkserver_preload([LOADED])
        resource_tracker.ensure_running()  # it would unblock signals in the block
        with no_interrupts():
            forkserver.ensure_running()
        _prepared.append(True)


@contextlib.contextmanager
def no_interrupts() -> Iterator[None]:
    """Processes started in the block never hear SIGINT, which a terminal sends to all: their parent does."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def context() -> Any:
    """How workers are started: from the fork server, by a fork, or (with CUDA in use, or elsewhere) anew."""
    if sys.platform != "linux":
        return mp.get_context("spawn")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return mp.get_context("spawn")
    return mp.get_context("forkserver" if _prepared else "fork")


@contextlib.contextmanager
def collector_at_rest() -> Iterator[None]:
    """Nothing is collected in the block: for imports, of which a fifth of the time is looking for garbage."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Processes started in the block do not run the caller's script again: workers need nothing of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
