"""`python -m experiments.benchmarks.report_scale`: how long a large sweep takes to read, in time and memory.

The sweep is made up, with the store's own writer: learning rate × bias × activation × seed, every unit a
two-state process whose death rate depends on the setting. Each measurement is a process of its own, so that
its peak memory is its own.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from harness.config import compose, to_mapping
from harness.detector.states import rate_upper
from harness.store.folder import RunFolder
from harness.store.schema import CENSUS, EVENTS, STEPS
from harness.store.writer import TableWriter

RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
BIASES = (0.0, -0.25, -0.5, -1.0)
INPUTS = 2000
MEASURED = {
    "runs.table": "len(runs.table)",
    "outcomes, all effects, ranking": """
from harness.compare import effects, factors, outcomes, ranking
found = outcomes(runs)
for factor in factors(runs.table): effects(found, factor)
ranking(found)""",
    "one pass over the censuses": "from harness.compare import lives; kept = lives(runs)",
    "survival, log-rank, two-state": """
from harness.compare import lives, logrank, survival, two_state_rates
kept = lives(runs)
for factor in kept.factors:
    survival(kept, (factor,)); logrank(kept, factor); two_state_rates(kept, (factor,))""",
    "harness-tools compare": """
import io, contextlib
from typer.testing import CliRunner
from harness.tools import app
done = CliRunner().invoke(app, ["compare", path]); assert done.exit_code == 0, done.output""",
}


def make(root: Path, runs: int, censuses: int, sites: int, width: int, seed: int = 0) -> None:
    """Write finished runs (one in 64 diverged), each with `censuses` censuses of sites × width units."""
    rng = np.random.default_rng(seed)
    seeds = max(1, -(-runs // (len(RATES) * len(BIASES) * 2)))
    settings = itertools.product(RATES, BIASES, ("relu", "leaky_relu"), range(seeds))
    base = to_mapping(compose([]))
    leaky = to_mapping(compose(["activation=leaky_relu"]))["activation"]
    for k, (lr, offset, activation, number) in enumerate(itertools.islice(settings, runs)):
        config = {**base, "seed": number, "output": str(root)}
        config["optim"] = {**base["optim"], "lr": lr}
        config["bias"] = {**base["bias"], "offset": offset}
        config["activation"] = leaky if activation == "leaky_relu" else base["activation"]
        folder = RunFolder(root / f"made-up-{activation}-lr{lr:g}-bias{offset:g}-s{number}")
        folder.write_config(config)
        hazard = 0.0 if activation == "leaky_relu" else min(0.2, 0.004 * lr) / 4
        dead = _write(folder, rng, censuses, sites, width, hazard, born=0.2 * -offset * (hazard > 0))
        state = "diverged" if k % 64 == 63 else "finished"
        facts = {key: float(dead[key].mean()) for key in dead}
        total = sites * width
        final = {
            "accuracy": None if state == "diverged" else round(0.95 - 0.5 * facts["dead"], 4),
            "units": total,
            **{key: round(value * total) for key, value in facts.items()},
            **{f"{key}_fraction": facts[key] for key in ("dead", "born_dead", "died")},
        }
        folder.write_status(state, seed=number, final=final, diverged_at=None)


def _write(
    folder: RunFolder,
    rng: np.random.Generator,
    censuses: int,
    sites: int,
    width: int,
    hazard: float,
    born: float,
) -> dict[str, np.ndarray]:
    """The tables of one run; which units are dead at its end, were born dead, died, revived."""
    units = sites * width
    dead = np.empty((censuses, units), bool)
    dead[0] = rng.random(units) < born
    chance = rng.random((censuses, units))
    for k in range(1, censuses):
        dead[k] = np.where(dead[k - 1], chance[k] > 0.002, chance[k] < hazard)
    rows = censuses * units
    active = np.where(dead, 0, rng.integers(1, INPUTS, (censuses, units))).ravel()
    names = np.array([f"layers.{k}.act" for k in range(sites)])
    normal = rng.standard_normal(rows).astype(np.float32)
    columns: dict[str, Any] = {
        "evidence": np.full(rows, "probe"),
        "step": np.repeat(50 * np.arange(censuses), units),
        "site": np.tile(np.repeat(names, width), censuses),
        "unit": np.tile(np.arange(width, dtype=np.int32), censuses * sites),
        "n": np.full(rows, INPUTS),
        "active": active,
        "rate": active / INPUTS,
        "rate_upper": np.concatenate([rate_upper(np.array([0]), np.array([INPUTS])), [1.0]])[
            (active > 0).astype(int)
        ],
        "silent_for": np.where(active > 0, 0, INPUTS),
        "non_finite": np.zeros(rows, np.int64),
        "state": np.where(active > 0, "active", "dead"),
    }
    columns |= dict.fromkeys(("mean", "std", "max", "grad_rms", "grad_norm"), normal)
    writer = TableWriter(folder.path, "census")
    writer.append({name: columns[name] for name in CENSUS.names})
    writer.finish()
    for name, schema in (("steps", STEPS), ("events", EVENTS)):
        empty = TableWriter(folder.path, name)
        empty.append_batch(pa.RecordBatch.from_pylist([], schema=schema))
        empty.finish()
    died, revived = dead[1:] & ~dead[:-1], ~dead[1:] & dead[:-1]
    ever = {"died": np.asarray(died.any(0)), "revived": np.asarray(revived.any(0))}
    return {"dead": dead[-1], "born_dead": dead[0], **ever}


def measure(root: Path, code: str) -> tuple[float, float]:
    """Seconds (imports apart) and peak memory in MiB of `code`, in a process of its own."""
    program = f"""
import resource, time
import harness, harness.compare, scipy.stats
path = {str(root)!r}
began = time.perf_counter()
runs = harness.open_runs(path)
{code}
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    spent, peak = done.stdout.split()[-2:]
    return float(spent), float(peak)


def main(runs: int, censuses: int, sites: int, width: int, folder: Path | None) -> None:
    """Print the table."""
    console = Console(highlight=False, width=110)
    with tempfile.TemporaryDirectory() as temporary:
        root = folder or Path(temporary)
        if not any(root.glob("made-up-*")):
            began = time.perf_counter()
            make(root, runs, censuses, sites, width)
            console.print(f"made in {time.perf_counter() - began:.0f} s")
        title = f"{runs:,} runs × {censuses} censuses × {sites * width:,} units"
        table = Table(title=f"{title} ({runs * censuses * sites * width / 1e6:,.1f} M rows)")
        for name in ("what", "seconds", "peak MiB"):
            table.add_column(name, justify="left" if name == "what" else "right")
        for what, code in MEASURED.items():
            spent, peak = measure(root, code)
            table.add_row(what, f"{spent:.2f}", f"{peak:,.0f}")
        console.print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=256)
    parser.add_argument("--censuses", type=int, default=200)
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--folder", type=Path, help="where the sweep lies; made there if it is not")
    given = parser.parse_args()
    main(given.runs, given.censuses, given.sites, given.width, given.folder)
