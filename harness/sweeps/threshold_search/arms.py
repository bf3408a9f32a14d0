"""Name the arms of a search by a small set of configuration values that tell them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.config.identity import WITHOUT_EFFECT, WITHOUT_EFFECT_GROUPS

ALONE = ("activation.name", "init.name")  # keys that name a single arm


def arms_of(configs: Sequence[Mapping[str, Any]], axis: str) -> list[dict[str, Any]]:
    """Return the arm of every configuration.

    Choices of groups come first; values that they already determine are left out.

    Args:
        configs: dotted key → value, one per run.
        axis: the key that is searched along; it and the seed do not distinguish arms.

    Returns:
        One arm per configuration: dotted key → value.

    Example:
        >>> base = {"activation.name": "relu", "init.gain": 1.0, "optim.lr": 0.1, "seed": 0}
        >>> leaky = base | {"activation.name": "leaky_relu", "activation.slope": 0.01, "seed": 1}
        >>> arms_of([base, leaky], "optim.lr")
        [{'activation.name': 'relu'}, {'activation.name': 'leaky_relu'}]
    """
    keys = dict.fromkeys(key for config in configs for key in config)
    passed = {"seed", axis, *WITHOUT_EFFECT}
    keys = [key for key in keys if key not in passed and not key.startswith(WITHOUT_EFFECT_GROUPS)]
    keys.sort(key=lambda key: not key.endswith(".name"))
    parts: list[tuple[Any, ...]] = [() for _ in configs]
    chosen = []
    for key in keys:
        finer = [(*part, repr(config.get(key))) for part, config in zip(parts, configs, strict=True)]
        if len(set(finer)) > len(set(parts)):
            parts = finer
            chosen.append(key)
    chosen = chosen or ALONE
    return [{key: config[key] for key in chosen if key in config} for config in configs]


def in_words(arm: Mapping[str, Any]) -> str:
    """Format an arm as command-line overrides.

    >>> in_words({"activation.name": "relu", "bias.offset": -1.0})
    'activation=relu bias.offset=-1.0'
    """
    shown = ((key.removesuffix(".name"), "null" if value is None else value) for key, value in arm.items())
    return " ".join(f"{key}={value}" for key, value in shown)
