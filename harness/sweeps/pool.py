"""Worker processes: each runs one task at a time, reports steps and results, and is replaced if it dies.

Forked workers start at once. Each worker computes on one thread. A worker whose parent has died exits at its
next report, which comes at most every fifth of a second.
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

LOOK = 0.2  # least number of seconds between two reports of a worker
PATIENCE = 60.0  # seconds that interrupted workers have to save their state

Work = Callable[[Any, Callable[[int], None]], list[Any]]  # (task, callback for completed steps) → results


@dataclass(frozen=True)
class Progress:
    """A task has completed `step` steps."""

    task: int
    step: int


@dataclass(frozen=True)
class Done:
    """A task has ended."""

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
    """Run a call in a worker of the fork server, which has the imports loaded, or here if there is none.

    Raises:
        Exception: the exception of the call.
        RuntimeError: the worker died.
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
    """Run a call in a worker, and return its exception or None."""
    work, *arguments = call
    try:
        work(*arguments)
    except Exception as error:
        return [error]
    return [None]


def run_tasks(tasks: Sequence[Any], work: Work, workers: int) -> Iterator[Event]:
    """Run tasks in worker processes, in order, and yield events.

    Args:
        tasks: the tasks.
        work: function that a worker calls with each task.
        workers: largest number of processes.

    Yields:
        Events, in the order in which they happen.

    Raises:
        KeyboardInterrupt: after the workers have saved their state.
    """
    waiting = list(range(len(tasks)))[::-1]
    start = context()
    if start.get_start_method() == "fork":
        import harness.sweeps.preload_imports  # noqa: F401 (once here instead of in every worker)
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
            worker.process.terminate()  # workers ignore SIGINT, which a terminal sends to the whole group
        raise
    finally:
        for worker in pool:
            worker.stop()


def _started(start: Any, work: Work, tasks: Sequence[Any]) -> tuple[Any, Connection]:
    """Start a worker process, and return it with this end of its pipe.

    An interrupt is deferred until the process has received its arguments; partial data would make it print a
    traceback.
    """
    near, far = start.Pipe()
    process = start.Process(target=_serve, args=(far, work, tasks), daemon=True)
    with warnings.catch_warnings(), without_main(), DeferredInterrupts() as interrupts:
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads: here all are idle
        process.start()
    far.close()
    if interrupts.requested:
        process.kill()
        raise KeyboardInterrupt
    return process, near


def _serve(pipe: Connection, work: Work, tasks: Sequence[Any]) -> None:
    """Main loop of a worker process."""
    import torch

    parent = mp.parent_process()
    assert parent is not None

    gc.freeze()  # imported modules never become garbage
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # a run writes its messages into its folder
    sys.stdin.close()
    last_report = 0.0
    try:
        while True:
            while not pipe.poll(1.0):
                if not parent.is_alive():  # forked siblings keep the pipe open, so there is no EOF
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
        os._exit(0)  # the state has been saved by now


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"the worker process was killed ({signal.Signals(-code).name})"
    return f"the worker process ended with exit code {code}"
