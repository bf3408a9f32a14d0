"""What may happen to a stored file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml


def truncated(path: Path, k: int) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: k % len(content)])


def garbled(path: Path, k: int) -> None:
    content = bytearray(path.read_bytes())
    for step in range(1, 9):
        content[k * step % len(content)] ^= 1 + k % 255
    path.write_bytes(bytes(content))


def swapped(path: Path, k: int) -> None:
    """The same file of another run, or another file of the same run."""
    others = [p / path.name for p in path.parent.parent.iterdir() if p != path.parent]
    others += [p for p in path.parent.iterdir() if p != path and p.is_file()]
    others = [p for p in others if p.is_file()]
    shutil.copyfile(others[k % len(others)], path)


def a_folder(path: Path, k: int) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path, k: int) -> None:
    path.unlink()
    os.mkfifo(path)


def a_link(path: Path, k: int) -> None:
    path.unlink()
    path.symlink_to([path, path.parent / "nowhere", Path(os.devnull), path.parent][k % 4])


def huge(path: Path, k: int) -> None:
    with path.open("r+b") as file:
        file.truncate(1 << 33)  # a hole; nothing of it lies on the disk


VALUES: list[Any] = [
    3,
    "abc",
    None,
    [],
    {},
    [1, {"a": [2]}],
    1e308,
    -1,
    True,
    "\x1b[2J",
    "x" * 2_000_000,
    10**40,
    10**400,
]


def another_value(path: Path, k: int) -> None:
    """One value somewhere in a JSON or YAML file is another; a nested or unreadable document at times."""
    if k % 11 == 0:
        bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
        for one, other in zip("abcdefghi", "bcdefghij", strict=True):
            bomb += f"{other}: &{other} [{', '.join([f'*{one}'] * 9)}]\n"
        path.write_text("[" * 100_000 if path.suffix == ".json" or k % 2 else bomb)
        return
    found = yaml.safe_load(path.read_text())
    place, key, inner = found, next(iter(found)), found
    for step in range(4):
        if not isinstance(inner, dict) or not inner:
            break
        place = inner
        key = list(inner)[(k >> step) % len(inner)]
        inner = inner[key]
    if k % 7 == 0:
        place[None if k % 2 else k] = place.pop(key)  # a number as a key, or nothing
    else:
        place[key] = VALUES[k % len(VALUES)]
    if k % 3:
        found.pop("digest", None)  # an earlier version's
    if path.suffix == ".json":
        path.write_text(json.dumps({str(name): value for name, value in found.items()}, skipkeys=True))
    else:
        path.write_text(yaml.safe_dump(found))


def another_schema(path: Path, k: int) -> None:
    """A column is missing, of another type or of odd values; rows are doubled; or it is no table of ours.

    Half of the runs are then of an earlier version, whose status says nothing of its tables.
    """
    table = pq.read_table(path).to_pandas()
    name = table.columns[k % len(table.columns)]
    column: Any = table[name]
    odd: list[Any] = [
        lambda: table.drop(columns=[name]),
        lambda: table.assign(**{name: column.astype(str)}),
        lambda: table.assign(**{name: -1}),
        lambda: table.assign(**{name: np.nan}),
        lambda: table.assign(**{name: "x" * 2_000_000}),
        lambda: table.assign(**{name: "=cmd()\x1b[2J"}),
        lambda: table.assign(**{name: 2**40}),
        lambda: table.assign(**{name: np.inf}),
        lambda: pd.concat([table, table]),
        lambda: table.iloc[:0],
        lambda: table.sample(frac=1, random_state=k),
        lambda: pd.DataFrame({"x": [1, 2]}),
        lambda: table.assign(**{name: [[1, 2]] * len(table)}),
        lambda: table.assign(**{name: pd.Timestamp(0)}),
        lambda: table.assign(**{name: None}),
        lambda: table.astype(dict.fromkeys(table.select_dtypes("number").columns, float)),
        lambda: table.assign(further=1.0, **{"site ": "y"}),
        lambda: table.assign(run="other"),
        lambda: table.iloc[:, :3],
    ]
    made = odd[k // 3 % len(odd)]()
    pq.write_table(pa.Table.from_pandas(made, preserve_index=False), path)
    status = path.parent / "status.json"
    if k % 2:
        told = json.loads(status.read_text())
        status.write_text(json.dumps({n: v for n, v in told.items() if n not in ("digest", "tables")}))


def mutations(name: str) -> list[Callable[[Path, int], None]]:
    own = another_value if name.endswith((".json", ".yaml")) else another_schema
    return [truncated, garbled, swapped, a_folder, a_pipe, a_link, huge, own, own, own, own]


FILES = ("config.yaml", "status.json", "census.parquet", "steps.parquet", "events.parquet")


EVIDENCE = tuple(f"evidence_{part}.parquet" for part in ("steps", "units", "layers"))


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, str, Callable[[Path, int], None], int]:
    run = draw(st.sampled_from(["a", "b", "c", "trained"]))
    name = draw(st.sampled_from(FILES + EVIDENCE if run == "trained" else FILES))
    return run, name, draw(st.sampled_from(mutations(name))), draw(st.integers(0, 10_000))
