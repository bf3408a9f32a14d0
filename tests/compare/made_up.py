"""Made-up sweeps: outcome frames, and runs on disk whose deaths are known."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.store.folder import RunFolder
from harness.store.schema import CENSUS
from harness.store.writer import TableWriter


def frame(
    levels: Mapping[str, Sequence[Any]], seeds: int, dead: Callable[[dict[str, Any], int], float]
) -> pd.DataFrame:
    """Outcomes of a full grid, all runs finished."""
    rows = []
    for values in itertools.product(*levels.values()):
        setting = dict(zip(levels, values, strict=True))
        for seed in range(seeds):
            rows.append({"status": "finished", "seed": seed, **setting, "dead": dead(setting, seed)})
    table = pd.DataFrame(rows)
    table.insert(0, "run", [f"r{k}" for k in range(len(table))])
    return table


def write_run(
    root: Path,
    name: str,
    config: dict[str, Any],
    stories: Sequence[Sequence[str]],
    steps: Sequence[int],
    *,
    state: str = "finished",
    finish: bool = True,
) -> None:
    """A run whose units have these states at these steps; its final metrics follow from them."""
    folder = RunFolder(root / name)
    folder.write_config(config)
    writer = TableWriter(folder.path, "census")
    for k, step in enumerate(steps):
        told = [(unit, story[k]) for unit, story in enumerate(stories) if k < len(story)]
        count = len(told)
        columns: dict[str, Any] = {field.name: np.zeros(count) for field in CENSUS}
        columns |= {"evidence": ["probe"] * count, "step": [step] * count, "site": ["a"] * count}
        columns |= {"unit": [unit for unit, _ in told], "state": [state for _, state in told]}
        columns = {
            k: v.astype(int) if isinstance(v, np.ndarray) and k in INTEGERS else v for k, v in columns.items()
        }
        writer.append(columns)
    if finish:
        writer.finish()
    else:
        writer.close()
    last = [story[-1] == "dead" for story in stories]
    born = [story[0] == "dead" for story in stories]
    died = ["active" in story and "dead" in story[story.index("active") :] for story in map(list, stories)]
    final = {
        "accuracy": 0.5,
        "units": len(stories),
        "dead_fraction": float(np.mean(last)),
        "born_dead_fraction": float(np.mean(born)),
        "died_fraction": float(np.mean(died)),
        "revived": 0,
    }
    folder.write_status(state, final=final if state in ("finished", "diverged") else None)


INTEGERS = ("step", "unit", "n", "active", "silent_for", "non_finite")


def story(died: int | None, length: int, steps: Sequence[int]) -> list[str]:
    """Alive until the step `died` (None: always), observed at the first `length` censuses."""
    return ["dead" if died is not None and step >= died else "active" for step in steps[:length]]
