"""All models in fresh processes, worst first: `python -m tests.zoo.run_all [NAME…] [--seeds 0 1 2]`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.zoo.models import zoo

ROOT = Path(__file__).parents[2]
Line = dict[str, Any]


def groups(names: Iterable[str], size: int) -> list[list[str]]:
    """Models of one library share a process, at most `size` of them: imports take longer than most models."""
    by_library: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_library[name.split("/")[0]].append(name)
    return [found[i : i + size] for found in by_library.values() for i in range(0, len(found), size)]


def fresh(names: Sequence[str], seed: int) -> list[Line]:
    """One line for each model, from one process that starts under this PYTHONHASHSEED."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.zoo.run_one", *names]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    environment = os.environ | threads | {"PYTHONHASHSEED": str(seed), "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    lines = {line["model"]: line for line in map(json.loads, ended.stdout.splitlines())}
    lost = f"the process ended with {ended.returncode}: {ended.stderr.strip()[-300:]}"
    return [
        lines.get(n) or {"model": n, "problems": 1, "train": {"problems": [lost]}, "digest": ""}
        for n in names
    ]


def judged(lines: Iterable[Line]) -> list[Line]:
    """One line for each model from all its processes: the worst; that digests differ is a problem too."""
    by_model: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_model[line["model"]].append(line)
    found = []
    for all_lines in by_model.values():
        worst = max(all_lines, key=lambda line: line["problems"])
        if len({line["digest"] for line in all_lines}) > 1:
            worst["problems"] += 1
            worst.setdefault("train", {}).setdefault("problems", []).append(
                "digests differ between processes"
            )
        found.append(worst)
    return sorted(found, key=lambda line: -line["problems"])


def problems(line: Line) -> list[str]:
    return [
        f"{part}: {text}" for part in ("train", "scan") for text in line.get(part, {}).get("problems", [])
    ]


def table(lines: Sequence[Line], most: int = 3) -> str:
    """Worst first: matched sites in training and scan, units, and the first problems."""
    rows = [f"{'model':42} problems  train     scan      units  seconds"]
    for line in lines:
        parts = [line.get(p, {}) for p in ("train", "scan")]
        shares = [f"{p['matched']}/{p['sites']}" if "sites" in p else "–" for p in parts]
        units = parts[0].get("units", "–")
        numbers = (
            f"{line['problems']:8}  {shares[0]:9} {shares[1]:9} {units!s:>6} {line.get('seconds', 0):8.1f}"
        )
        rows.append(f"{line['model']:42} {numbers}")
        rows += [f"    {text[:220]}" for text in problems(line)[:most]]
    good = sum(not line["problems"] for line in lines)
    return "\n".join([*rows, f"{good} of {len(lines)} models without a problem"])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names; all models by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="values of PYTHONHASHSEED")
    parser.add_argument("--per-process", type=int, default=8, help="models that share a process")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--problems", type=int, default=3, help="problems shown for each model")
    chosen = parser.parse_args(arguments)
    names = [n for n in zoo() if not chosen.names or any(part in n for part in chosen.names)]
    work = [(group, seed) for seed in chosen.seeds for group in groups(names, chosen.per_process)]
    with ThreadPoolExecutor(chosen.jobs) as pool:
        lines = judged(line for found in pool.map(lambda job: fresh(*job), work) for line in found)
    print(table(lines, chosen.problems))
    return 1 if any(line["problems"] for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
