"""The claims that there are: every file in `experiments/claims` is one."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path

from experiments.claim import Claim
from harness.config.errors import did_you_mean

FOLDER = Path(__file__).parent / "claims"


@cache
def names() -> tuple[str, ...]:
    """Names of all claims, in alphabetical order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_")))


@cache
def claim(name: str) -> Claim:
    """A claim by its name.

    Raises:
        ValueError: there is none of that name, or its file does not hold it.
    """
    if name not in names():
        raise ValueError(
            f"claim: there is no {name!r}. {did_you_mean(name, names())} "
            "`python -m experiments` lists all.".replace("  ", " ")
        )
    found = getattr(import_module(f"experiments.claims.{name}"), "CLAIM", None)
    if not isinstance(found, Claim) or found.name != name:
        raise ValueError(f"experiments/claims/{name}.py: expected CLAIM = Claim(name={name!r}, …)")
    return found


def claims() -> list[Claim]:
    """All claims: those of the textbooks first, each kind by name."""
    return sorted((claim(name) for name in names()), key=lambda one: (one.kind != "textbook", one.name))
