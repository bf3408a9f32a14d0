"""Rebuilds the event files of runs and of a sweep's root from the store."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from harness.detector.grid import Columns
from harness.report.tensorboard.board import RunBoard
from harness.report.tensorboard.events import EventFile
from harness.report.tensorboard.hparams import experiment, short_config
from harness.report.tensorboard.layout import layout
from harness.report.tensorboard_hint import tick_hint
from harness.store.files import cores
from harness.store.reading import named_line
from harness.store.runs import Run, Runs

ALONE = 8  # largest number of runs for which starting processes takes longer than it saves


def rebuild(run: Run, *, maps: bool = True, causes: str | None = None, alone: bool = False) -> None:
    """Rebuild a run's event file from its tables.

    Args:
        run: a run on disk.
        maps: whether to draw the heat map.
        causes: why the units died, in words; None uses the status.
        alone: whether no other run is compared with it; then its row is short.

    Raises:
        OSError, ValueError: a table is damaged; the others are shown.
    """
    status = run.status if causes is None else {**run.status, "diagnosis": causes}
    config = short_config(run.config) if alone and not run.is_own_loop else run.config
    with closing(RunBoard(run.path)) as board:
        board.conclude(run.name, config, pd.DataFrame(), status)
        rows, history = run.steps, run.census
        if len(rows):
            board.steps(rows)
        for rows in _censuses(history):
            board.census(rows)
        if maps:
            board.maps(history)


def rebuild_all(runs: Runs, *, maps: bool = True, workers: int | None = None) -> Iterator[tuple[Run, str]]:
    """Rebuild many runs, in several processes if there are many.

    Args:
        runs: runs on disk.
        maps: whether to draw heat maps.
        workers: number of processes; None: one per core.

    Yields:
        A run, and why it could not be rebuilt ("" if it could), in the order of the runs.
    """
    workers = workers or cores()
    if len(runs) <= ALONE or workers == 1:
        for run in runs:
            yield run, _one(run.path, maps, len(runs) == 1)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin) as pool:
        paths = [run.path for run in runs]
        found = pool.map(_one, paths, [maps] * len(paths), chunksize=max(1, len(paths) // 64))
        yield from zip(runs, found, strict=True)


def write_root(root: Path, runs: Runs, swept: Sequence[str]) -> None:
    """Write the event file of a folder of runs: the columns of the HParams tab and the charts of all runs.

    Args:
        root: the folder; not that of a run.
        runs: the runs below it.
        swept: the keys that vary between them.
    """
    file = EventFile(root)
    file.write(0, experiment(runs.table, swept))
    file.write(0, layout(tick_hint(len(runs))))
    file.close()


def _censuses(history: pd.DataFrame) -> Iterator[Columns]:
    """The history step by step, with the board's columns, as arrays, which are sliced faster than frames."""
    order = np.argsort(history["step"].to_numpy(), kind="stable")
    columns = {name: history[name].to_numpy(object)[order] for name in ("evidence", "site", "state")}
    columns |= {name: history[name].to_numpy()[order] for name in ("step", "unit", "rate")}
    cuts = np.flatnonzero(np.diff(columns["step"])) + 1
    for first, last in pairwise([0, *cuts.tolist(), len(order)] if len(order) else []):
        yield {name: column[first:last] for name, column in columns.items()}


def _one(path: Path, maps: bool, alone: bool = False) -> str:
    try:
        rebuild(Run(path), maps=maps, alone=alone)
    except (OSError, ValueError) as error:  # a damaged table must not affect other runs
        return named_line(error)
    return ""


def _begin() -> None:
    """Initialise a worker process: one Arrow thread, and no garbage collection of imported objects."""
    pa.set_cpu_count(1)
    gc.freeze()
