"""The axis of a search: a numeric configuration key, checked before anything runs."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from harness.config import ConfigError, RunSpec, compose, flatten, groups, jobs_of, run_id, to_mapping
from harness.config.schema import OPEN

NUMBERS = (int, float)
NOT_SEED = "is the unit of analysis, not an axis"


def jobs_along(axis: str, overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of every arm.

    Raises:
        ConfigError: an override cannot be parsed, or sets a key that the search sets itself.
    """
    jobs = jobs_of(overrides)
    own = {
        axis: "is the axis: it cannot be an override too",
        "seed": "is not swept by overrides here",
        "output": "is not set by an override here",
    }
    hints = {"seed": "Give --seeds.", "output": "Give --output."}
    for text in (text for job in jobs for text in job):
        key = text.partition("=")[0].lstrip("+~")
        if key in own:
            raise ConfigError(key, own[key], hint=hints.get(key, "Leave one of the two away."))
    return jobs


def check_axis(axis: str, low: float, high: float, jobs: Sequence[Sequence[str]]) -> bool:
    """Check the axis, and return whether it takes integers only.

    Raises:
        ConfigError: the key does not exist, is not a number, does not accept an end of the range, or does not
            affect results.

    Example:
        >>> check_axis("optim.lr", 0.1, 1, [[]]), check_axis("model.depth", 1, 8, [[]])
        (False, True)
    """
    if axis == "seed":
        raise ConfigError(axis, NOT_SEED)
    kinds = set()
    for job in jobs:
        spec = compose(job)
        kind = number_kind(spec, axis)
        if kind is None and axis.startswith(tuple(f"{one}." for one in OPEN)):  # user's function
            kind = int if low == int(low) and high == int(high) else float
        if kind is None and axis in {*flatten(to_mapping(spec)), *groups()}:
            raise ConfigError(axis, "is not a number, so it has no edge")
        # composing refuses an unknown axis and suggests similar keys
        ends = [f"{axis}={number(end, whole=kind is int)}" for end in (low, high)]
        specs = [compose([*job, end]) for end in ends]
        if run_id(specs[0]) == run_id(specs[1]):
            raise ConfigError(axis, "does not change the result of a run, so it has no edge")
        if not specs[0].record.enabled:
            raise ConfigError("record", "is off: without a census there is no dead share")
        kinds.add(kind)
    return kinds == {int}


def number(value: float, *, whole: bool) -> float:
    """Convert a value to the axis's type; a fraction stays, so that the configuration refuses it."""
    return int(value) if whole and value == int(value) else value


def number_kind(spec: RunSpec, axis: str) -> type | None:
    """Return the type of a key, `int` or `float`, even if its value is null; None for other types."""
    *parents, leaf = axis.split(".")
    owner: Any = spec
    for name in parents:
        owner = owner.get(name) if isinstance(owner, dict) else getattr(owner, name, None)
    if isinstance(owner, dict):  # arguments of a user's function: use the type of the value
        return next((kind for kind in NUMBERS if type(owner.get(leaf)) is kind), None)
    if owner is None or leaf not in getattr(owner, "__dataclass_fields__", {}):
        return None
    hint = typing.get_type_hints(type(owner))[leaf]
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((kind for kind in NUMBERS if kind in options), None)


def value_of(config: Mapping[str, Any], axis: str) -> float | None:
    """Return the axis's value in a stored configuration (dotted keys); None if it is not a number."""
    value = config.get(axis)
    return value if isinstance(value, NUMBERS) and not isinstance(value, bool) else None
