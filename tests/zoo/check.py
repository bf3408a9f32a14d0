"""What the package says is held against what the oracle saw."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Any

import pandas as pd

from tests.zoo.oracle import Key, Sums, Truth


@dataclass(frozen=True)
class Observed:
    """A site of the package's table that saw inputs."""

    name: str
    caller: str
    kind: str | None
    n: int
    active: list[int]
    peak: list[float]
    dead: list[int]

    @property
    def label(self) -> str:
        return f"{self.name}<{self.kind} {len(self.active)}u n={self.n} Σ={sum(self.active)}>"


def caller_of(site: str) -> str:
    """`layer1.0.relu#1` → `layer1.0.relu`; `block:relu[64]` → `block`; `:relu` → ``."""
    return re.split(r"[:#\[]", site)[0]


def spelled(kind: str) -> str:
    """One spelling: `LeakyReLU`, `leaky_relu` and `leakyrelu` are the same."""
    plain = re.sub(r"[^a-z0-9]", "", kind.lower())
    return {"swish": "silu", "clamp": "relu", "clampmin": "relu", "maximum": "relu"}.get(plain, plain)


def observed(units: pd.DataFrame, kinds: Mapping[str, str]) -> tuple[list[Observed], set[str]]:
    """The sites that saw inputs, and the names of all rows that are unobserved."""
    sites = []
    for name, rows in units.groupby("site", sort=False):
        site, n = str(name), {int(v) for v in rows["n"]}
        if n == {0}:
            continue
        assert len(n) == 1, f"units of {site} saw different numbers of inputs: {n}"
        kind = kinds.get(site) or (re.split(r"[#\[]", site.split(":")[1])[0] if ":" in site else None)
        dead = [int(u) for u, s in zip(rows["unit"], rows["state"], strict=True) if s == "dead"]
        finite = not rows["non_finite"].any()
        assert not finite or dead == [
            int(u) for u, a in zip(rows["unit"], rows["active"], strict=True) if a == 0
        ]
        active = [int(a) for a in rows["active"]]
        sites.append(
            Observed(site, caller_of(site), kind and spelled(kind), n.pop(), active, list(rows["max"]), dead)
        )
    return sites, {str(s) for s in units.loc[units["state"] == "unobserved", "site"]}


def fits(key: Key, sums: Sums, site: Observed) -> bool:
    """Same kind, width and n, and unit by unit as often open, but for what float32 may decide either way."""
    if site.kind not in (None, spelled(key.kind)) or (site.n, len(site.active)) != (sums.n, key.width):
        return False
    off = [abs(a - b) for a, b in zip(site.active, sums.active.tolist(), strict=True)]
    return all(o <= d for o, d in zip(off, sums.doubtful.tolist(), strict=True))


def same_peak(sums: Sums, site: Observed) -> bool:
    truth = sums.peak.double().tolist()
    pairs = zip(site.peak, truth, strict=True)
    return all(a != a or b == -math.inf or math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6) for a, b in pairs)


def matched(sites: list[Observed], wanted: list[tuple[Key, Sums]]) -> dict[Key, Observed]:
    """Each of the oracle's sites with one of the package's: the strictest likeness first."""
    left, pairs = list(sites), {}
    for same_place, same_values in ((True, True), (True, False), (False, True), (False, False)):
        for key, sums in wanted:
            for site in left if key not in pairs else ():
                here = site.caller == key.caller or not same_place
                if here and fits(key, sums, site) and (same_peak(sums, site) or not same_values):
                    pairs[key] = site
                    left.remove(site)
                    break
    return pairs


def compared(
    truth: Truth, units: pd.DataFrame, kinds: Mapping[str, str], exempt: Iterable[str] = ()
) -> dict[str, Any]:
    """All that differs, in words, under `problems`; what was compared beside it."""
    exempt = list(exempt)
    sites, unobserved = observed(units, kinds)

    def spared(caller: str, kind: str | None) -> bool:
        return any(fnmatchcase(f"{caller}:{kind or p.split(':')[1]}", p) for p in exempt)

    fused = {s.name for s in sites if any(s.caller == f or s.caller.startswith(f"{f}.") for f in truth.fused)}
    left = [s for s in sites if not spared(s.caller, s.kind)]
    wanted = [(k, s) for k, s in truth.sites.items() if not spared(k.caller, k.kind)]
    problems = [f"counts inside the fused {name}" for name in sorted(fused)]
    silent = [f for f in sorted(truth.fused) if not any(u.startswith(f) for u in unobserved)]
    problems += [f"{f} is fused and not named as unobserved" for f in silent]
    agreed = _tallied(left, wanted)
    pairs = matched(left, wanted)
    for key, sums in wanted:
        site = pairs.get(key)
        if site and site.caller != key.caller:
            problems.append(f"{key.caller}:{key.kind} is called {site.name}")
        elif site and not same_peak(sums, site):
            problems.append(f"the largest pre-activations of {site.name} differ")
    left = [s for s in left if s not in pairs.values()]
    admitted = {caller_of(u) for u in unobserved} & truth.fast
    missing = [(key, sums) for key, sums in wanted if key not in pairs and key.caller not in admitted]
    words = "totals right, sites not" if agreed else "not counted right"
    for key, sums in missing:
        here = [u for u in sorted(unobserved) if caller_of(u) == key.caller]
        near = [s.label for s in left if s.caller == key.caller] or here
        asked = f"{key.caller}<{key.kind} {key.width}u n={sums.n} Σ={int(sums.active.sum())}>"
        problems.append(f"{words}: {asked}, said {near}")
    problems += [
        f"nobody called {s.label}" for s in left if not any(k.caller == s.caller for k, _ in missing)
    ]
    return {
        "sites": len(wanted),
        "calls": truth.calls,
        "matched": len(wanted) - len(missing),
        "units": sum(k.width for k, _ in wanted),
        "dead": sum(int((s.active == 0).sum()) for _, s in wanted),
        "problems": problems,
    }


def _tallied(sites: list[Observed], wanted: list[tuple[Key, Sums]]) -> bool:
    """Whether all counts agree once calls of one width are one sum, however they were split into sites."""
    said: Counter[int] = Counter()
    true: Counter[int] = Counter()
    slack = 0
    for site in sites:
        said[len(site.active)] += site.n * 10**9 + sum(site.active)
    for key, sums in wanted:
        true[key.width] += sums.n * 10**9 + int(sums.active.sum())
        slack += int(sums.doubtful.sum())
    return set(said) == set(true) and all(abs(said[w] - true[w]) <= slack for w in said)


def digest(*tables: pd.DataFrame) -> str:
    """Of who was open how often, in the tables' own order."""
    text = "".join(t[["site", "unit", "n", "active"]].to_csv(index=False) for t in tables)
    return sha256(text.encode()).hexdigest()[:16]
