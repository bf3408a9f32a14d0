"""Start worker processes early: they import torch and the training code while the sweep is being composed.

`prepare` starts Python's fork server, which imports the training code in its own process; workers are forked
from it. Without `prepare`, they are forked from the caller.
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
    """Start importing what workers need, in the background; Linux only."""
    if sys.platform == "linux" and not _prepared:
        mp.get_context("forkserver").set_forkserver_preload([LOADED])
        resource_tracker.ensure_running()  # before the block, because it unblocks signals
        with no_interrupts():
            forkserver.ensure_running()
        _prepared.append(True)


@contextlib.contextmanager
def no_interrupts() -> Iterator[None]:
    """Block SIGINT for processes started in the block: a terminal sends it to all, the parent handles it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def context() -> Any:
    """Return the start method of workers: fork server or fork; spawn if CUDA is in use or not on Linux."""
    if sys.platform != "linux":
        return mp.get_context("spawn")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return mp.get_context("spawn")
    return mp.get_context("forkserver" if _prepared else "fork")


@contextlib.contextmanager
def collector_at_rest() -> Iterator[None]:
    """Disable the garbage collector in the block; it takes a fifth of the time of large imports."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Keep processes started in the block from running the caller's script again, which they do not need."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
