"""open_runs: all runs below a folder, as tidy DataFrames that are loaded on demand."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from harness.store.evidence import read_evidence
from harness.store.folder import MADE, load_config, load_status
from harness.store.reading import DamagedFile, one_line
from harness.store.schema import TABLES
from harness.store.tables import read_table
from harness.store.walk import folders_of
from harness.words import printable

ALWAYS = ("dead_fraction", "accuracy")  # final metrics for which every row has a column
SHOWN = 3  # most damaged files that a warning names


class Run:
    """One run on disk.

    Attributes:
        path: its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._damage: list[str] = []

    def __repr__(self) -> str:
        return f"<Run {self.name}: {self.state}>"

    @property
    def name(self) -> str:
        """Name of the folder, with control characters escaped."""
        return printable(self.path.name)

    @cached_property
    def config(self) -> dict[str, Any]:
        """Nested configuration, with control characters escaped; empty if it cannot be read."""
        return _printable(self._read(load_config))

    @cached_property
    def status(self) -> dict[str, Any]:
        """Content of `status.json`, with control characters escaped; empty if it cannot be read."""
        return _printable(self._read(load_status))

    def _read(self, load: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        try:
            str(self.path).encode()
            return load(self.path)
        except UnicodeEncodeError:
            self._damage = [f"{printable(str(self.path))} cannot be read: its name is no text"]
        except FileNotFoundError as error:
            self._damage.append(f"{error.args[0]} is not there")
        except DamagedFile as error:
            self._damage.append(str(error))
        return {}

    @property
    def damage(self) -> str:
        """Why the configuration or status cannot be read; "" if both can."""
        _ = self.config, self.status
        return "; ".join(self._damage)

    @property
    def state(self) -> str:
        """State in `status.json`; "damaged" if that file or the configuration cannot be read."""
        return "damaged" if self.damage else str(self.status["state"])

    @property
    def final(self) -> dict[str, Any]:
        """Final metrics of a finished run; empty for other runs (see `last`)."""
        return self._measured if self.state == "finished" else {}

    @property
    def last(self) -> dict[str, Any]:
        """Metrics of the last census and evaluation of a run that did not finish; otherwise empty."""
        return {} if self.state == "finished" else self._measured

    @property
    def _measured(self) -> dict[str, Any]:
        return self.status.get("final") or {}

    @property
    def is_own_loop(self) -> bool:
        """Whether a Recorder made the run in a user's own training loop."""
        return bool(self.status.get(MADE))

    @cached_property
    def evidence(self) -> dict[str, pd.DataFrame] | None:
        """Evidence of why units died, as tables by name; None if the run stored none.

        Raises:
            DamagedFile: a table is damaged, or belongs to another run.
        """
        return read_evidence(self.path)

    @cached_property
    def census(self) -> pd.DataFrame:
        """All censuses of the run, as from `Recorder.history()`."""
        return read_table(self.path, "census").to_pandas()

    @cached_property
    def steps(self) -> pd.DataFrame:
        """One row per optimizer step."""
        return read_table(self.path, "steps").to_pandas()

    @cached_property
    def events(self) -> pd.DataFrame:
        """One row per event, with its step."""
        return read_table(self.path, "events").to_pandas()

    def read(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a table, or some of its columns, as Arrow; suited to reading many runs one after another.

        Args:
            name: census, steps or events.
            columns: the columns to read, with text as dictionaries; None: all.

        Raises:
            ValueError: there is no such table or column.
            DamagedFile: the file is invalid (a `ValueError`).
        """
        if name not in TABLES:
            raise ValueError(f"read: expected one of {', '.join(TABLES)}, but got {name!r}")
        return read_table(self.path, name, columns)

    def row(self) -> dict[str, Any]:
        """The run as a row of `Runs.table`."""
        row: dict[str, Any] = {
            "run": self.name,
            "path": printable(str(self.path)),
            "status": self.state,
        }
        for group, value in self.config.items():
            if group in row or group.partition(".")[0] in ("final", "last"):  # names used for the run itself
                group = f"config.{group}"
            row |= _cells(group, value)
        final = self.final or dict.fromkeys((*ALWAYS, *self.last), float("nan"))
        row |= {f"final.{key}": value for key, value in final.items()}
        return row | {f"last.{key}": value for key, value in self.last.items()}


class Runs(Sequence[Run]):
    """Runs, sorted by name.

    Example:
        >>> Runs([]).table.empty
        True
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = list(runs)

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, index: Any) -> Any:
        found = self._runs[index]
        return Runs(found) if isinstance(index, slice) else found

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per run: run, path, status, dotted configuration, `final.…` metrics.

        For a run that is not finished, the columns `final.…` are NaN, and `last.…` hold its latest metrics.
        Runs whose configuration cannot be read are left out with a warning, since they belong to no arm.
        """
        _tell_of_lost([run.damage for run in self._runs if not run.config])
        for damage in (run.damage for run in self._runs if run.config and run.damage):
            warnings.warn(damage, stacklevel=3)
        return pd.DataFrame([run.row() for run in self._runs if run.config])

    @cached_property
    def census(self) -> pd.DataFrame:
        """The censuses of all runs, with a column `run` in front.

        In this and the other tables, runs with a damaged file are left out with a warning. A user's own
        column called `run` becomes `census.run`, `steps.run`, and so on.
        """
        return self._gather("census")

    @cached_property
    def steps(self) -> pd.DataFrame:
        """The steps of all runs, with a column `run` in front."""
        return self._gather("steps")

    @cached_property
    def events(self) -> pd.DataFrame:
        """The events of all runs, with a column `run` in front."""
        return self._gather("events")

    def _gather(self, name: str) -> pd.DataFrame:
        tables, lost = [], []
        for run in self._runs:
            try:
                table = read_table(run.path, name)
            except DamagedFile as error:
                lost.append(str(error))
                continue
            column = pa.array([run.name] * len(table), pa.string())
            names = [f"{name}.run" if own == "run" else own for own in table.schema.names]
            tables.append(table.rename_columns(names).add_column(0, "run", column))
        _tell_of_lost(lost)
        return _joined(tables, name).to_pandas() if tables else pd.DataFrame()

    def read(self, name: str, columns: Sequence[str] | None = None) -> Iterator[tuple[Run, pa.Table]]:
        """Iterate over a table of each run, read lazily and not cached (see `Run.read`)."""
        return ((run, run.read(name, columns)) for run in self._runs)

    def __repr__(self) -> str:
        states = Counter(run.state for run in self._runs)
        return f"{len(self)} runs: {', '.join(f'{n} {state}' for state, n in sorted(states.items()))}"


def open_runs(path: str | os.PathLike[str]) -> Runs:
    """Open all runs in the folder `path` or below it.

    Args:
        path: the folder of a run, of a sweep, or any folder above.

    Returns:
        The runs; empty if there are none.

    Raises:
        FileNotFoundError: there is no such folder.
        TypeError: `path` is not a path.

    Example:
        >>> import tempfile
        >>> len(open_runs(tempfile.mkdtemp()).table)
        0
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"open_runs: expected a folder's path, but got {type(path).__name__}")
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"open_runs: expected a folder with runs, but there is no folder {root}")
    return without_copies(sorted(map(Run, folders_of(root)), key=lambda run: run.name))


def without_copies(runs: Iterable[Run]) -> Runs:
    """Leave out finished runs that are copies of earlier ones: of the same name, with the same numbers.

    Warns:
        UserWarning: some are.
    """
    kept: dict[tuple[str, Any], Run] = {}
    copies: list[Run] = []
    runs = list(runs)
    by_name = Counter(run.name for run in runs)
    for run in runs:
        digest = run.status.get("digest") if by_name[run.name] > 1 else None
        if (run.name, digest or run.path) in kept:
            copies.append(run)
        else:
            kept[run.name, digest or run.path] = run
    if copies:
        named = f"{copies[0].path}" + (f" and {len(copies) - 1:,} more" if len(copies) > 1 else "")
        warnings.warn(f"{len(copies):,} run(s) left out: copies of others ({named})", stacklevel=3)
    return Runs(list(kept.values()))


def _joined(tables: Sequence[pa.Table], name: str) -> pa.Table:
    """Concatenate the rows of all runs, with nulls for columns of user statistics that a run lacks."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        message = f"columns beyond those of {name} left out: they differ between the runs ({one_line(error)})"
        warnings.warn(message, stacklevel=4)
        return pa.concat_tables([table.select(["run", *TABLES[name].names]) for table in tables])


def _tell_of_lost(reasons: Sequence[str]) -> None:
    if reasons:
        more = f" ({len(reasons) - SHOWN} more)" if len(reasons) > SHOWN else ""
        named = "; ".join(reasons[:SHOWN])
        warnings.warn(f"{len(reasons)} run(s) left out: {named}{more}", stacklevel=4)


def _printable(value: Any) -> Any:
    """Escape control characters in nested plain values."""
    if isinstance(value, dict):
        return {printable(key): _printable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_printable(inner) for inner in value]
    return printable(value) if isinstance(value, str) else value


def _cells(name: str, value: Any) -> dict[str, Any]:
    """Flatten a configuration value to columns, one for each nested value."""
    if not isinstance(value, dict):
        return {name: str(value) if isinstance(value, list) else value}
    return {
        column: cell
        for key, inner in value.items()
        for column, cell in _cells(f"{name}.{key}", inner).items()
    }
