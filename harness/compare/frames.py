"""From `runs.table` to outcomes: one row per run, with the factors that vary and the results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.config.identity import WITHOUT_EFFECT, WITHOUT_EFFECT_GROUPS

if TYPE_CHECKING:
    from harness.store.runs import Runs

OUTCOMES = ("dead", "born_dead", "died", "revived", "accuracy")
DIVERGED = "diverged"  # also an outcome: 1 if a run diverged, 0 if it finished
UNFINISHED = ("running", "interrupted", "damaged")
ALL_RUNS = "all runs"  # the setting without factors
NO_FACTOR = ("run", "path", "status", "seed", "name", *OUTCOMES)


def outcomes(runs: Runs | pd.DataFrame, also: Sequence[str] = ()) -> pd.DataFrame:
    """One row per run: run, status, seed, every factor, and its outcomes.

    Args:
        runs: runs or their table.
        also: further columns of the configuration to keep, if they exist.

    Returns:
        Outcomes are shares of the observed units, and the accuracy on the test set. They are NaN if a run has
        none: it diverged, failed, is not finished, or nothing was observed. Its status shows which. A run
        whose configuration lacks keys that all others have belongs to no setting and is left out.
        `attrs["aliases"]` holds the result of `aliases`.

    Raises:
        ValueError: the table lacks the column run or status.

    Example:
        >>> final = {"final.units": 10, "final.dead_fraction": 0.3, "final.revived": 1}
        >>> table = pd.DataFrame([{"run": "a", "status": "finished", "seed": 0, "optim.lr": 0.1, **final},
        ...                       {"run": "b", "status": "diverged", "seed": 0, "optim.lr": 1.0, **final}])
        >>> outcomes(table)[["optim.lr", "status", "dead", "revived"]].values.tolist()
        [[0.1, 'finished', 0.3, 0.1], [1.0, 'diverged', nan, nan]]
    """
    table = runs if isinstance(runs, pd.DataFrame) else runs.table
    if table.empty:
        return pd.DataFrame(columns=pd.Index(["run", "status", "seed", *OUTCOMES]))
    unknown = [column for column in ("run", "status") if column not in table]
    if unknown:
        raise ValueError(f"expected a table of runs, but the columns {', '.join(unknown)} are missing")
    table = with_settings(table)
    swept = factors(table)
    kept = [*swept, *(column for column in also if column in table and column not in swept)]
    columns: dict[str, Any] = {
        "run": table["run"].to_numpy(object),
        "status": table["status"].to_numpy(object),
        "seed": table["seed"].to_numpy() if "seed" in table else np.zeros(len(table), int),
    }
    columns |= {name: _plain(table[name]) for name in kept}
    finished = (table["status"] == "finished").to_numpy()
    units = _numbers(table, "final.units")
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = {
            "dead": _numbers(table, "final.dead_fraction"),
            "born_dead": _numbers(table, "final.born_dead_fraction"),
            "died": _numbers(table, "final.died_fraction"),
            "revived": _numbers(table, "final.revived") / units,
            "accuracy": _numbers(table, "final.accuracy"),
        }
    columns |= {name: np.where(finished, values, np.nan) for name, values in shares.items()}
    frame = pd.DataFrame(columns, copy=False)
    frame.attrs["aliases"] = aliases(table)
    return frame


def with_settings(table: pd.DataFrame) -> pd.DataFrame:
    """The runs but damaged ones that lack settings of all others: their configuration was cut off."""
    damaged = (table["status"] == "damaged").to_numpy() if len(table) else np.empty(0, bool)
    if not damaged.any() or damaged.all():
        return table
    names = [name for name in table.columns if _decides(str(name))]
    given = table[names].notna()
    lacking = (given[~damaged].all() & ~given).any(axis=1).to_numpy()
    return table[~(damaged & lacking)]


def factors(table: pd.DataFrame) -> list[str]:
    """The columns of the configuration that vary, without those determined by earlier ones.

    Left out are the seed, paths, thresholds of the verdict, and columns determined by another factor
    (`activation.slope` if each activation has one slope): `aliases` lists these.

    Args:
        table: `runs.table`, or outcomes.

    Example:
        >>> table = pd.DataFrame({"run": ["a", "b", "c"], "seed": [0, 1, 0], "optim.lr": [0.1, 0.1, 1.0],
        ...                       "train.batch_size": [32, 32, 64], "output": ["x", "y", "z"]})
        >>> factors(table)
        ['optim.lr']
    """
    return _factors(table)[0]


def aliases(table: pd.DataFrame) -> dict[str, list[str]]:
    """Factor → columns of other groups that vary together with it, so that effects are inseparable.

    Example:
        >>> table = pd.DataFrame({"optim.name": ["sgd", "adam"] * 2, "optim.lr": [0.1, 0.001] * 2,
        ...                       "bias.offset": [0, 0, -1, -1]})
        >>> aliases(table)
        {'optim.name': ['optim.lr']}
    """
    return _factors(table)[1]


def columns_of(frame: pd.DataFrame) -> list[str]:
    """The factor columns of an outcomes frame, in order."""
    return [str(column) for column in frame.columns if column not in NO_FACTOR]


def values(frame: pd.DataFrame, outcome: str) -> np.ndarray:
    """An outcome of every run, NaN if it has none.

    Raises:
        ValueError: unknown outcome.
    """
    if outcome == DIVERGED and outcome not in frame:
        status = frame["status"].to_numpy(object)
        return np.where(status == "diverged", 1.0, np.where(status == "finished", 0.0, np.nan))
    if outcome not in frame or outcome in ("run", "path", "status", "seed"):
        known = [*(name for name in OUTCOMES if name in frame), DIVERGED]
        raise ValueError(f"outcome: expected one of {', '.join(known)}, but got {outcome!r}")
    return frame[outcome].to_numpy(float, na_value=np.nan)


def need(frame: pd.DataFrame, *names: str, argument: str = "factor") -> None:
    """Check that factors exist and vary.

    Raises:
        ValueError: one does not; the message names the available factors.
    """
    swept = [name for name in columns_of(frame) if len(codes(frame[name])[1]) > 1]
    words = f"what varies: {', '.join(swept)}" if swept else "nothing but the seed varies in these runs"
    for name in names:
        if name == "seed":
            raise ValueError(f"{argument}: the seed is the unit of analysis, not a factor; {words}")
        if name not in frame or name in NO_FACTOR:
            raise ValueError(f"{argument}: there is no column {name!r}; {words}")
        if len(codes(frame[name])[1]) < 2:
            only = word(frame[name].iloc[0]) if len(frame) else "there is no run"
            raise ValueError(f"{argument}: {name} has one value only ({only}); {words}")


def factors_by(frame: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """The factors that an argument `by` names, one or several; ValueError as for `need`."""
    names = [by] if isinstance(by, str) else list(by)
    need(frame, *names, argument="by")
    return names


def codes(column: pd.Series) -> tuple[np.ndarray, list[Any]]:
    """Levels of a factor in order (null, false, true, numbers, words), and each row's index among them.

    Example:
        >>> codes(pd.Series(["tanh", None, True, 0.5, "relu"], dtype=object))[1]
        [None, True, 0.5, 'relu', 'tanh']
    """
    whole = not column.isna().any()
    if whole and pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        levels, index = np.unique(column.to_numpy(), return_inverse=True)
        return index, levels.tolist()
    if whole and isinstance(column.dtype, pd.StringDtype):
        index, words = pd.factorize(column, sort=True)
        return index, [str(level) for level in words]
    keys = [_key(value) for value in column]
    first: dict[tuple[Any, ...], Any] = {}
    for key, value in zip(keys, column, strict=True):
        first.setdefault(key, value)
    ordered = sorted(first, key=lambda key: (key[0], key[1]))
    place = {key: k for k, key in enumerate(ordered)}
    levels = [None if missing(first[key]) else first[key] for key in ordered]
    return np.array([place[key] for key in keys], int), levels


def cells(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """A code per row, from 0: equal for rows with equal values in all these columns."""
    cell = np.zeros(len(frame), np.int64)
    for column in columns:
        index, _ = codes(frame[column])
        cell = np.unique(cell * (index.max(initial=0) + 1) + index, return_inverse=True)[1]
    return cell


def baseline_of(levels: Sequence[Any], baseline: Any = None, factor: str = "factor") -> int:
    """Index of the level with which others are compared.

    It is `baseline` if given; else null, none, false, 0 or relu, if there is such a level; else the first.

    Raises:
        ValueError: unknown level.

    Example:
        >>> baseline_of([-1, 0, 1]), baseline_of(["elu", "relu"]), baseline_of([0.1, 1.0], "1")
        (1, 1, 1)
    """
    if baseline is None:
        return next((k for k, level in enumerate(levels) if neutral(level)), 0)
    asked = _key(baseline)
    for k, level in enumerate(levels):
        if _key(level) == asked or word(level) == str(baseline):
            return k
    for k, level in enumerate(levels):  # "1e-1" is 0.1
        if isinstance(level, int | float) and number(baseline) == level:
            return k
    raise ValueError(
        f"baseline: {factor} has the levels {', '.join(map(word, levels))}, but got {word(baseline)}"
    )


def neutral(level: Any) -> bool:
    """Whether a level means that nothing is applied."""
    return level is None or level is False or level in ("none", "relu") or level == 0


def word(level: Any) -> str:
    """A level as it would be typed.

    >>> [word(level) for level in (None, True, 0.1, 32.0, "relu")]
    ['null', 'true', '0.1', '32', 'relu']
    """
    if missing(level):
        return "null"
    if isinstance(level, bool | np.bool_):
        return str(bool(level)).lower()
    return f"{level:.6g}" if isinstance(level, int | float | np.number) else str(level)


def missing(level: Any) -> bool:
    return level is None or level is pd.NA or (isinstance(level, float) and level != level)


def setting_words(names: Sequence[str], levels: Sequence[Any]) -> str:
    """A setting as it would be typed; "all runs" for the empty one.

    >>> setting_words(["activation.name", "optim.lr"], ["relu", 0.1])
    'activation=relu optim.lr=0.1'
    """
    pairs = (f"{n.removesuffix('.name')}={word(v)}" for n, v in zip(names, levels, strict=True))
    return " ".join(pairs) or ALL_RUNS


def tally(status: np.ndarray) -> dict[str, int]:
    """Number of runs, and of runs without a result, by reason."""
    return {
        "runs": len(status),
        "diverged": int((status == "diverged").sum()),
        "failed": int((status == "failed").sum()),
        "unfinished": int(np.isin(status, UNFINISHED).sum()),
    }


def _factors(table: pd.DataFrame) -> tuple[list[str], dict[str, list[str]]]:
    names = [str(name) for name in table.columns if _decides(str(name))]
    names.sort(key=lambda name: not name.endswith(".name"))
    names = [name for name in names if table[name].nunique(dropna=False) > 1]
    index = {name: found for name in names if len((found := codes(table[name]))[1]) > 1}
    whole = cells(table, list(index))
    configs = np.unique(whole, return_index=True)[1]
    chosen: list[str] = []
    together: dict[str, list[str]] = {}
    for name, (place, levels) in index.items():
        for earlier in chosen:
            if not _follows(place[configs], levels, *(index[earlier][0][configs], index[earlier][1])):
                continue
            known = {key for key in map(_key, levels) if key[0]}
            if len(known) > 1 or name.partition(".")[0] != earlier.partition(".")[0]:
                together.setdefault(earlier, []).append(name)
            break
        else:
            chosen.append(name)
    return chosen, together


def _follows(place: np.ndarray, levels: list[Any], other: np.ndarray, others: list[Any]) -> bool:
    """Whether a column is determined by another.

    The coincidence that every configuration has its own number (a random search) does not count.
    """
    if len(np.unique(np.stack([place, other]), axis=1).T) != len(others):
        return False
    if isinstance(others[-1], str) or len(others) < len(place):
        return True
    if len(levels) != len(others):
        return False
    if len(levels) < 8 or any(isinstance(level, str) for level in levels):
        return True
    return bool(abs(np.corrcoef(place, other)[0, 1]) > 1 - 1e-9)  # codes are ranks


def _decides(name: str) -> bool:
    """Whether a column can influence a run's result."""
    return not (
        name in NO_FACTOR
        or name in WITHOUT_EFFECT
        or name.startswith((*WITHOUT_EFFECT_GROUPS, "final.", "last."))
    )


def _plain(column: pd.Series) -> Any:
    """Numbers stay numbers; other columns become objects, with None for missing values."""
    if pd.api.types.is_numeric_dtype(column) and not column.isna().any():
        return column.to_numpy()
    return column.astype(object).where(column.notna(), None).to_numpy(object)


def _numbers(table: pd.DataFrame, name: str) -> np.ndarray:
    if name not in table:
        return np.full(len(table), np.nan)
    return pd.to_numeric(table[name], errors="coerce").to_numpy(float, na_value=np.nan)


def _key(level: Any) -> tuple[int, Any]:
    """Key for equality and order of levels: 1 and 1.0 are one level, 1 and true are two."""
    if missing(level):
        return 0, 0
    if isinstance(level, bool | np.bool_):
        return 1, bool(level)
    if isinstance(level, int | float | np.number):
        return 2, float(level)
    return 3, str(level)


def number(text: Any) -> float | None:
    """The number that a text stands for; None if it is not one."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
