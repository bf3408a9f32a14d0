"""Worker processes: each takes a task, reports steps and results, and is replaced if it dies.

Workers start at once where they can be forked; every one computes on one thread. A worker whose parent is
gone stops at its next step but for a fifth of a second.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing as mp
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from harness.sweeps.preload import context, without_main
from harness.training.interrupts import DeferredInterrupts

LOOK = 0.2  # seconds between two reports of a worker
PATIENCE = 60.0  # seconds that interrupted workers have to keep their state

Work = Callable[[Any, Callable[[int], None]], list[Any]]  # a task, what is told of completed steps → results


@dataclass(frozen=True)
class Progress:
    """A task has completed `step` steps."""

    task: int
    step: int


@dataclass(frozen=True)
class Done:
    """A task is over."""

    task: int
    outcomes: tuple[Any, ...]


@dataclass(frozen=True)
class Died:
    """The worker of a task died."""

    task: int
    reason: str


Event = Progress | Done | Died


class _Worker:
    def __init__(self, start: Any, work: Work, tasks: Sequence[Any]) -> None:
        self.process, self.pipe = _started(start, work, tasks)
        self.task: int | None = None

    def give(self, task: int) -> None:
        self.task = task
        self.pipe.send(task)

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def run_in_worker(work: Callable[..., None], *arguments: Any) -> None:
    """Carry out a call where what it takes is imported: in a worker of the fork server, if there is one.

    Raises:
        Exception: what the call raises.
        RuntimeError: its process died.
    """
    if context().get_start_method() != "forkserver":
        work(*arguments)
        return
    error: Exception | None = None
    for event in run_tasks([(work, *arguments)], _carry_out, 1):
        if isinstance(event, Died):
            error = RuntimeError(event.reason)
        elif isinstance(event, Done):
            error = event.outcomes[0]
    if error is not None:
        raise error


def _carry_out(call: tuple[Any, ...], tick: Callable[[int], None]) -> list[Exception | None]:
    """A call as the work of a worker: what it raises, if it does."""
    work, *arguments = call
    try:
        work(*arguments)
    except Exception as error:
        return [error]
    return [None]


def run_tasks(tasks: Sequence[Any], work: Work, workers: int) -> Iterator[Event]:
    """Carry out the tasks, the first ones first, and tell what happens.

    Args:
        tasks: what is to be done.
        work: runs in a worker.
        workers: how many processes at most.

    Yields:
        What happens, in the order in which it does.

    Raises:
        KeyboardInterrupt: after the workers have kept their state.
    """
    waiting = list(range(len(tasks)))[::-1]
    start = context()
    if start.get_start_method() == "fork":
        import harness.sweeps.preload_imports  # noqa: F401 (once, and not in every worker)
    pool = [_Worker(start, work, tasks) for _ in range(min(workers, len(tasks)))]
    try:
        for worker in pool:
            worker.give(waiting.pop())
        while any(worker.task is not None for worker in pool):
            busy = [worker for worker in pool if worker.task is not None]
            ready = wait([worker.pipe for worker in busy], timeout=LOOK)
            for place, worker in enumerate(pool):
                if worker.pipe not in ready or worker.task is None:
                    continue
                task = worker.task
                try:
                    event = worker.pipe.recv()
                except (EOFError, OSError):
                    worker.process.join()
                    yield Died(task, _death(worker.process.exitcode))
                    worker = pool[place] = _Worker(start, work, tasks)
                    event = None
                if event is not None:
                    yield event
                if not isinstance(event, Progress):
                    worker.task = None
                    if waiting:
                        worker.give(waiting.pop())
    except KeyboardInterrupt:
        for worker in pool:
            worker.process.terminate()  # they hear no SIGINT, which a terminal sends to the whole group
        raise
    finally:
        for worker in pool:
            worker.stop()


def _started(start: Any, work: Work, tasks: Sequence[Any]) -> tuple[Any, Connection]:
    """A process that has begun its life, and this end of its pipe.

    An interrupt waits until the process has all that it is sent: half of it would end in a traceback.
    """
    near, far = start.Pipe()
    process = start.Process(target=_serve, args=(far, work, tasks), daemon=True)
    with warnings.catch_warnings(), without_main(), DeferredInterrupts() as interrupts:
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: none computes
        process.start()
    far.close()
    if interrupts.requested:
        process.kill()
        raise KeyboardInterrupt
    return process, near


def _serve(pipe: Connection, work: Work, tasks: Sequence[Any]) -> None:
    """A worker's life."""
    import torch

    parent = mp.parent_process()
    assert parent is not None

    gc.freeze()  # what has been imported will never be garbage
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # what a run has to say is in its folder
    sys.stdin.close()
    last_report = 0.0
    try:
        while True:
            while not pipe.poll(1.0):
                if not parent.is_alive():  # forked siblings hold the pipe open: its end tells nothing
                    os._exit(1)
            task = pipe.recv()
            if task is None:
                os._exit(0)

            def tick(step: int, task: int = task) -> None:
                nonlocal last_report
                now = time.monotonic()
                if now - last_report >= LOOK:
                    if not parent.is_alive():
                        os._exit(1)
                    last_report = now
                    pipe.send(Progress(task, step))

            pipe.send(Done(task, tuple(work(tasks[task], tick))))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        os._exit(0)  # the state has been kept by now


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"the worker process was killed ({signal.Signals(-code).name})"
    return f"the worker process ended with exit code {code}"
